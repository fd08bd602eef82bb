"""Several folds on one stream: which events each reads next."""

from __future__ import annotations

from collections.abc import Sequence

from policy.stored import Unreadable
from serving.learning.fold import Fold
from serving.store.keys import Entry, StoreUnavailable, order
from serving.store.learning import LearnerStore

BATCH = 2048  # events read at once


def read_on(folds: Sequence[Fold], store: LearnerStore, block_ms: int | None) -> dict[str, int]:
    """Fold the next events; how many, by version, and nothing where there were none.

    Folds at one position share a read. One that is behind, for it came later, gets a batch in each
    turn after those ahead of it have read, and never overtakes them: where it catches up it joins
    them.

    Raises
    ------
    Unreadable
        If an entry can't be learned from; the folds are of no use then.
    """
    positions = sorted({fold.position for fold in folds}, key=order)
    if len(positions) > 1:
        block_ms = None
    folded: dict[str, int] = {}
    for position in reversed(positions):
        level = [fold for fold in folds if fold.position == position]
        entries = store.outcomes(position, BATCH, block_ms)
        nearest = _nearest(folds, position)
        if nearest is not None:
            entries = _upto(entries, nearest)
        for fold in level:
            _fold(fold, entries)
            if entries:
                folded[fold.version] = len(entries)
            elif nearest is not None:
                fold.position = nearest  # what lay between is no longer in the stream
    return folded


def _fold(fold: Fold, entries: Sequence[Entry]) -> None:
    try:
        fold.fold(entries)
    except StoreUnavailable:
        raise
    except Exception as error:
        entry, why = _culprit(fold, entries) or (f"{entries[0][0]} to {entries[-1][0]}", error)
        what = why if isinstance(why, Unreadable | LookupError) else repr(why)
        raise Unreadable(f"entry {entry} of the outcomes can't be learned from: {what}") from error


def _culprit(fold: Fold, entries: Sequence[Entry]) -> tuple[str, Exception] | None:
    """The first entry that fails alone, and how; None where all of them must come together."""
    for entry in entries:
        try:
            fold.fold([entry])
        except StoreUnavailable:
            raise
        except Exception as error:
            return entry[0], error
    return None


def _nearest(folds: Sequence[Fold], position: str) -> str | None:
    """The next position ahead of this one, None where no fold is ahead."""
    ahead = (fold.position for fold in folds if order(fold.position) > order(position))
    return min(ahead, key=order, default=None)


def _upto(entries: Sequence[Entry], last: str) -> list[Entry]:
    limit = order(last)
    return [entry for entry in entries if order(entry[0]) <= limit]

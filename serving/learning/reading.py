"""Several folds on one stream: which events each reads next."""

from __future__ import annotations

from collections.abc import Sequence

from serving.learning.fold import Fold
from serving.store.keys import Entry, order
from serving.store.learning import LearnerStore

BATCH = 2048  # events read at once


def read_on(folds: Sequence[Fold], store: LearnerStore, block_ms: int | None) -> dict[str, int]:
    """Fold the next events; how many, by version, and nothing where there were none.

    Folds at one position share a read. One that is behind, for it came later, gets a batch in each
    turn after those ahead of it have read, and never overtakes them: where it catches up it joins
    them.
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
            fold.fold(entries)
            if entries:
                folded[fold.version] = len(entries)
            elif nearest is not None:
                fold.position = nearest  # what lay between is no longer in the stream
    return folded


def _nearest(folds: Sequence[Fold], position: str) -> str | None:
    """The next position ahead of this one, None where no fold is ahead."""
    ahead = (fold.position for fold in folds if order(fold.position) > order(position))
    return min(ahead, key=order, default=None)


def _upto(entries: Sequence[Entry], last: str) -> list[Entry]:
    limit = order(last)
    return [entry for entry in entries if order(entry[0]) <= limit]

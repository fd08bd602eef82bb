"""The archive: what a running service has decided and was told, as Parquet, each entry once.

It holds both streams as they were, and joins them when it is read:

    decisions/policy=NAME/day=YYYY-MM-DD/FIRST_LAST_TOKEN.parquet   rows of the decisions stream
    outcomes/policy=NAME/day=YYYY-MM-DD/FIRST_LAST_TOKEN.parquet    outcome events
    policy=NAME/_position.json                                how far both streams are archived
    policy=NAME/_catalogs/REVISION.json                       the catalogs that rows name

The day is that of the decision (UTC), for outcomes as well: so a day is joined without looking
at another. A file is named by the stream ids of its first and last entry, and counts only if the
last is not beyond the position, which is written after the files and at once. What a writer that
crashed has left beyond it is nothing, until it is archived again. Small files of a day are merged
into one that spans them; until they are gone, it counts and they don't. Knows no Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pfs

from offline_eval.log import events as raw
from offline_eval.log import files
from offline_eval.log.events import Entry
from offline_eval.log.joining import joined_day
from offline_eval.log.schema import SCHEMA, day, decision_table
from offline_eval.log.segments import (
    ENTRY,
    POSITION,
    START,
    STREAMS,
    Position,
    Segment,
    catalog_name,
    file_names,
    find_segments,
    order,
    own_folder,
    parsed,
    position_at,
    position_file,
    read_segments,
    stream_folder,
    that_count,
)
from policy.arms.catalog import Catalog
from policy.records import Decision, from_stored
from policy.stored import Unreadable

Read = TypeVar("Read")

MERGED = 32  # small files of a day that are made one
SMALL_BYTES = 1_000_000
RETRIES = 3
_ORDER = [("made_at_ms", "ascending"), ("decision_id", "ascending")]


class Archive:
    """Writes the archive of one policy. Only one may at a time, which the caller sees to."""

    def __init__(self, path: str, policy: str) -> None:
        self._on, self._root = files.filesystem(path)
        self._policy = policy
        self._token = 0
        self._catalogs: set[str] = set()
        self._small: dict[tuple[str, str], list[Segment]] = {}

    def resume(self, gone: Mapping[str, str], token: int = 0, origin: str = "") -> Position:
        """Remove what a crashed writer has left, and say where to go on.

        `token` fences: it is greater for whoever writes later, and stands in the names of files, so
        that a writer that was overtaken meanwhile removes nothing of its successor's.

        `gone` says how far each stream has been trimmed. Where the archive holds that entry, it was
        archived up to there, even if a writer that had been overtaken has put the position back.

        Raises
        ------
        ValueError
            If there are files, and nothing says which of them count, or they are of another service
            than `origin`.
        """
        self._token = token
        names = {
            s: file_names(self._on, stream_folder(self._root, s, self._policy)) for s in STREAMS
        }
        at = position_at(self._on, self._root, self._policy)
        if at is None:
            if any(map(parsed, chain(*names.values()))):
                raise ValueError(
                    f"{own_folder(self._root, self._policy)}: {POSITION} is missing, which says "
                    f"what is archived: write one, or move the files of this policy away"
                )
            at = Position(origin=origin)
            self.commit(at)
        if at.origin and at.origin != origin:
            raise ValueError(
                f"{own_folder(self._root, self._policy)}: the log belongs to another service"
            )
        for stream, entry in gone.items():
            if order(entry) > order(getattr(at, stream)) and self.holds(stream, entry):
                at = Position(**(asdict(at) | {stream: entry}))
        self._small.clear()
        for stream in STREAMS:
            limit = order(getattr(at, stream))
            counting = that_count(names[stream], limit)
            for name in {*names[stream]} - {segment.name for segment in counting}:
                segment = parsed(name)
                if segment is None or segment.token < token:
                    self._delete(name)
            for segment in counting:
                self._note(stream, segment)
        return at

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):  # another one was faster
            self._on.delete_file(name)

    def holds(self, stream: str, entry: str) -> bool:
        """Whether any file has this very entry."""
        found = [segment for name in self._names(stream) if (segment := parsed(name))]
        around = [one for one in found if one.first <= order(entry) <= one.last]
        return entry in read_segments(self._on, around, stream, ["entry"])["entry"].to_pylist()

    def _names(self, stream: str) -> list[str]:
        return file_names(self._on, stream_folder(self._root, stream, self._policy))

    def add(self, decisions: Sequence[Entry], outcomes: Sequence[Entry]) -> set[str]:
        """Write entries that follow the position; they count once that has moved behind them.
        The catalog revisions that they name and the archive doesn't have.

        Raises
        ------
        Unreadable
            If one of them is damaged: none is written.
        """
        made = [_decision(*entry) for entry in decisions]
        for entry, fields in outcomes:
            if not fields.get(b"made_at_ms", b"").isdigit():
                raise Unreadable(f"entry {entry} of the outcomes doesn't say when it was decided")
        rows = decision_table(made).append_column(
            ENTRY, pa.array([entry for entry, _ in decisions], pa.string())
        )
        self._write("decisions", rows)
        came = raw.to_table(outcomes)
        self._write("outcomes", came)
        named = {decision.catalog for decision in made} | set(came["catalog"].unique().to_pylist())
        return {revision for revision in named if revision and not self._has_catalog(revision)}

    def _write(self, stream: str, rows: pa.Table) -> None:
        days = np.array([day(ms) for ms in rows["made_at_ms"].to_pylist()], dtype=object)
        for of_day in np.unique(days):
            self._save(stream, of_day, rows.filter(pa.array(days == of_day)))

    def _save(self, stream: str, of_day: str, rows: pa.Table) -> str:
        first, last = rows["entry"][0].as_py(), rows["entry"][-1].as_py()
        folder = f"{stream_folder(self._root, stream, self._policy)}/day={of_day}"
        name = f"{folder}/{first}_{last}_{self._token}.parquet"
        files.put_table(self._on, name, rows)
        self._note(stream, Segment(name, of_day, order(first), order(last), self._token))
        return name

    def merge(self) -> None:
        """Make one file of a day's small ones where they are many. Not while any is beyond the
        position."""
        for (stream, of_day), parts in list(self._small.items()):
            if len(parts) >= MERGED:
                self._small[stream, of_day] = []
                name = self._save(stream, of_day, read_segments(self._on, parts, stream))
                for part in parts:
                    if part.name != name:
                        self._delete(part.name)

    def _note(self, stream: str, segment: Segment) -> None:
        if self._on.get_file_info(segment.name).size < SMALL_BYTES:
            self._small.setdefault((stream, segment.day), []).append(segment)

    def commit(self, position: Position) -> None:
        """Let everything up to this position count."""
        name = f"{own_folder(self._root, self._policy)}/{POSITION}"
        files.put(self._on, name, position_file(position))

    def _has_catalog(self, revision: str) -> bool:
        if revision not in self._catalogs:
            name = catalog_name(self._root, self._policy, revision)
            if self._on.get_file_info(name).type == pfs.FileType.NotFound:
                return False
            self._catalogs.add(revision)
        return True

    def put_catalog(self, revision: str, catalog: bytes) -> None:
        """Keep the catalog of a revision, as JSON."""
        files.put(self._on, catalog_name(self._root, self._policy, revision), catalog)


def _decision(entry: str, fields: Mapping[bytes, bytes]) -> Decision:
    try:
        return from_stored(fields[b"record"], fields[b"x"], fields.get(b"challenger_x"))
    except (Unreadable, KeyError) as error:
        raise Unreadable(f"entry {entry} of the decisions: {error}") from None


def is_archive(path: str) -> bool:
    """Whether a running service writes there, or has."""
    on, root = files.filesystem(path)
    return bool(on.get_file_info(f"{root}/decisions").type == pfs.FileType.Directory)


def position(path: str, policy: str) -> Position:
    """How far a policy is archived; the start where nothing is.

    Raises
    ------
    ValueError
        If the file that says so can't be read.
    """
    return position_at(*files.filesystem(path), policy) or Position()


def catalog(path: str, policy: str, revision: str) -> Catalog:
    """The catalog of a revision that the policy's rows name.

    Raises
    ------
    LookupError
        If the archive doesn't have it.
    """
    on, root = files.filesystem(path)
    try:
        return Catalog.from_stored(files.get(on, catalog_name(root, policy, revision)))
    except FileNotFoundError:
        raise LookupError(f"{path}: policy {policy!r} has no catalog {revision!r}") from None


def policies(path: str) -> list[str]:
    """The policies that have decisions in the archive."""
    on, root = files.filesystem(path)
    folders = on.get_file_info(pfs.FileSelector(f"{root}/decisions", allow_not_found=True))
    names = [info.base_name.partition("policy=")[2] for info in folders]
    return sorted(unquote(name) for name in names if name)


def days(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> list[str]:
    """The days, YYYY-MM-DD in UTC, that hold decisions made in [from_ms, to_ms), and may others."""
    on, root = files.filesystem(path)
    found = {
        segment.day
        for name in ([policy] if policy is not None else policies(path))
        for segment in find_segments(on, root, "decisions", name)
    }
    return sorted(_within(found, from_ms, to_ms))


def tables(
    path: str,
    policy: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """As `reading.read_table`, one day at a time: decisions joined with their outcomes.

    Raises
    ------
    ValueError
        If a file can't be read.
    """
    on, root = files.filesystem(path)
    wanted = list(columns or (*SCHEMA.names, "policy"))
    names = [policy] if policy is not None else policies(path)
    for of_day in days(path, policy, from_ms, to_ms):
        together = [
            _settled(partial(joined_day, on, root, name, of_day, wanted, _made(from_ms, to_ms)))
            for name in names
        ]
        yield pa.concat_tables(together).sort_by(_ORDER).select(wanted)


def events(
    path: str, policy: str, after: str = START, before_ms: int | None = None
) -> Iterator[list[Entry]]:
    """The outcome events behind the id `after`, and by the store's clock before `before_ms`, in
    the order and to the byte of the stream: a learner's fold of them is the learner's state.

    Raises
    ------
    ValueError
        If a file can't be read.
    """
    on, root = files.filesystem(path)
    segments = find_segments(on, root, "outcomes", policy)
    behind, end = order(after), (np.inf if before_ms is None else before_ms, 0)
    waiting: list[Entry] = []
    while segments:
        segment = segments.pop(0)
        if segment.last <= behind or segment.first >= end:
            continue
        try:
            found = raw.from_table(read_segments(on, [segment], "outcomes"))
        except FileNotFoundError:  # merged meanwhile: what is not yet passed on is elsewhere now
            segments, waiting = _settled(partial(find_segments, on, root, "outcomes", policy)), []
            continue
        # What lies before this file's first entry has no other file still to come.
        ready = [entry for entry in waiting if order(entry[0]) < segment.first]
        if ready:
            behind = order(ready[-1][0])
            yield ready
        both = dict(waiting[len(ready) :]) | {
            entry: event for entry, event in found if behind < order(entry) < end
        }
        waiting = sorted(both.items(), key=lambda entry: order(entry[0]))
    if waiting:
        yield waiting


def _settled(read: Callable[[], Read]) -> Read:
    """Read again where a file that was listed has been merged into another meanwhile."""
    for _ in range(RETRIES):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()


def _made(from_ms: int | None, to_ms: int | None) -> Any:
    """A filter on [from_ms, to_ms), None for all."""
    made_at_ms = pc.field("made_at_ms")
    bounds = [] if from_ms is None else [made_at_ms >= from_ms]
    bounds += [] if to_ms is None else [made_at_ms < to_ms]
    return bounds[0] & bounds[-1] if bounds else None


def _within(found: Iterable[str], from_ms: int | None, to_ms: int | None) -> list[str]:
    """The days that may hold decisions made in [from_ms, to_ms)."""
    return [
        one
        for one in found
        if (from_ms is None or one >= day(from_ms)) and (to_ms is None or one <= day(to_ms))
    ]

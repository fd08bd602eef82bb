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

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pyarrow.fs as pfs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from offline_eval.log import events as raw
from offline_eval.log import files
from offline_eval.log.events import Entry
from offline_eval.log.schema import DECISION, FORMAT, SCHEMA, day, decision_table
from policy.arms.catalog import Catalog
from policy.records import from_json

Id = tuple[int, int]
Read = TypeVar("Read")

START = "0-0"
STREAMS = ("decisions", "outcomes")
POSITION = "_position.json"
MERGED = 32  # small files of a day that are made one
SMALL_BYTES = 1_000_000
RETRIES = 3
_COMPONENTS = ("quality", "latency_ms", "cost_usd")
_ENTRY = pa.field("entry", pa.string(), nullable=False)
_ARCHIVED = pa.schema([*DECISION, _ENTRY], DECISION.metadata)
_SCHEMAS = {"decisions": _ARCHIVED, "outcomes": raw.SCHEMA}
_ORDER = [("made_at_ms", "ascending"), ("decision_id", "ascending")]


def order(entry: str) -> Id:
    """Stream ids are two numbers, which don't sort as text."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


@dataclass(frozen=True, slots=True)
class Position:
    """The last entry archived of each stream. No outcome that counts can come any more for
    decisions made before `closed_before_ms`."""

    decisions: str = START
    outcomes: str = START
    closed_before_ms: int = 0
    origin: str = ""  # of the service whose streams these are; '' where nobody said


class Archive:
    """Writes the archive of one policy. Only one may at a time, which the caller sees to."""

    def __init__(self, path: str, policy: str) -> None:
        self._on, self._root = files.filesystem(path)
        self._policy = policy
        self._token = 0
        self._catalogs: set[str] = set()
        self._small: dict[tuple[str, str], list[_Segment]] = {}

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
        names = {s: _names(self._on, _folder(self._root, s, self._policy)) for s in STREAMS}
        at = _position(self._on, self._root, self._policy)
        if at is None:
            if any(map(_segment, chain(*names.values()))):
                raise ValueError(
                    f"{_own(self._root, self._policy)}: {POSITION} is missing, which says what is "
                    f"archived: write one, or move the files of this policy away"
                )
            at = Position(origin=origin)
            self.commit(at)
        if at.origin and at.origin != origin:
            raise ValueError(
                f"{_own(self._root, self._policy)}: the log belongs to another service"
            )
        for stream, entry in gone.items():
            if order(entry) > order(getattr(at, stream)) and self.holds(stream, entry):
                at = Position(**(asdict(at) | {stream: entry}))
        self._small.clear()
        for stream in STREAMS:
            limit = order(getattr(at, stream))
            counting = _counting(names[stream], limit)
            for name in {*names[stream]} - {segment.name for segment in counting}:
                segment = _segment(name)
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
        names = _names(self._on, _folder(self._root, stream, self._policy))
        found = [segment for name in names if (segment := _segment(name))]
        around = [one for one in found if one.first <= order(entry) <= one.last]
        return entry in _read(self._on, around, stream, ["entry"])["entry"].to_pylist()

    def add(self, decisions: Sequence[Entry], outcomes: Sequence[Entry]) -> set[str]:
        """Write entries that follow the position; they count once that has moved behind them.
        The catalog revisions that they name and the archive doesn't have."""
        made = [
            from_json(fields[b"record"], fields[b"x"], fields.get(b"challenger_x"))
            for _, fields in decisions
        ]
        rows = decision_table(made).append_column(
            _ENTRY, pa.array([entry for entry, _ in decisions], pa.string())
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
        folder = f"{_folder(self._root, stream, self._policy)}/day={of_day}"
        name = f"{folder}/{first}_{last}_{self._token}.parquet"
        with files.completed(self._on, name) as hidden:
            pq.write_table(rows, hidden, filesystem=self._on, compression="zstd")
        self._note(stream, _Segment(name, of_day, order(first), order(last), self._token))
        return name

    def merge(self) -> None:
        """Make one file of a day's small ones where they are many. Not while any is beyond the
        position."""
        for (stream, of_day), parts in list(self._small.items()):
            if len(parts) >= MERGED:
                self._small[stream, of_day] = []
                name = self._save(stream, of_day, _read(self._on, parts, stream))
                for part in parts:
                    if part.name != name:
                        self._delete(part.name)

    def _note(self, stream: str, segment: _Segment) -> None:
        if self._on.get_file_info(segment.name).size < SMALL_BYTES:
            self._small.setdefault((stream, segment.day), []).append(segment)

    def commit(self, position: Position) -> None:
        """Let everything up to this position count."""
        content = json.dumps(asdict(position), indent=2).encode() + b"\n"
        files.put(self._on, f"{_own(self._root, self._policy)}/{POSITION}", content)

    def _has_catalog(self, revision: str) -> bool:
        if revision not in self._catalogs:
            name = _catalog_name(self._root, self._policy, revision)
            if self._on.get_file_info(name).type == pfs.FileType.NotFound:
                return False
            self._catalogs.add(revision)
        return True

    def put_catalog(self, revision: str, catalog: bytes) -> None:
        """Keep the catalog of a revision, as JSON."""
        files.put(self._on, _catalog_name(self._root, self._policy, revision), catalog)


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
    return _position(*files.filesystem(path), policy) or Position()


def catalog(path: str, policy: str, revision: str) -> Catalog:
    """The catalog of a revision that the policy's rows name.

    Raises
    ------
    LookupError
        If the archive doesn't have it.
    """
    on, root = files.filesystem(path)
    try:
        return Catalog.from_json(files.get(on, _catalog_name(root, policy, revision)))
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
        for segment in _segments(on, root, "decisions", name)
    }
    return sorted(_within(found, from_ms, to_ms))


def tables(
    path: str,
    policy: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """As `log.table`, one day at a time: decisions joined with their outcomes.

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
            _settled(partial(_joined, on, root, name, of_day, wanted, _made(from_ms, to_ms)))
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
    segments = _segments(on, root, "outcomes", policy)
    behind, end = order(after), (np.inf if before_ms is None else before_ms, 0)
    waiting: list[Entry] = []
    while segments:
        segment = segments.pop(0)
        if segment.last <= behind or segment.first >= end:
            continue
        try:
            found = raw.from_table(_read(on, [segment], "outcomes"))
        except FileNotFoundError:  # merged meanwhile: what is not yet passed on is elsewhere now
            segments, waiting = _settled(partial(_segments, on, root, "outcomes", policy)), []
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


def join(decisions: pa.Table, outcomes: pa.Table, closed_before_ms: int) -> dict[str, Any]:
    """What decisions (n rows) have earned: the outcome columns of the log's schema, (n,) each.

    `outcomes` are their events, in stream order. What came after the reward window (`late`) was
    learned from and isn't evaluated; a correction replaces the value whenever it came, unless that
    value was late.
    """
    row = pc.index_in(outcomes["decision_id"], value_set=decisions["decision_id"].combine_chunks())
    is_correction = pc.fill_null(outcomes["correction"], False)
    known = pc.is_valid(row)
    on_time = pc.and_(known, pc.invert(pc.or_(outcomes["late"], is_correction)))
    told = _Last(outcomes.filter(on_time), row.filter(on_time), len(decisions))
    corrected = pc.and_(known, is_correction)
    new = _Last(outcomes.filter(corrected), row.filter(corrected), len(decisions))

    joined = {name: told(name) for name in (*_COMPONENTS, "error")}
    changed = pa.nulls(len(decisions), pa.bool_()).fill_null(False)
    for name in _COMPONENTS:
        before, value = joined[name], new(name)
        counted = pc.or_(before.is_valid(), new(f"old_{name}").is_null())
        replaced = pc.and_(value.is_valid(), counted)
        joined[name] = pc.if_else(replaced, value, before)
        joined[f"reported_{name}"] = pc.if_else(replaced, before, None)
        changed = pc.or_(changed, replaced)
    other = pc.not_equal(told("arm"), told("decided_arm"))
    return joined | {
        "executed_arm": pc.if_else(pc.fill_null(other, False), told("arm"), None),
        "executed": pc.fill_null(told("executed"), True),
        "closed": pc.less(decisions["made_at_ms"], closed_before_ms).combine_chunks(),
        "outcome_at_ms": told("at_ms"),
        "corrected_by": pc.if_else(changed, new("by"), None),
        "correction_reason": pc.if_else(changed, new("reason"), None),
    }


class _Last:
    """Of each of n decisions the last value of a field that its events have, else null."""

    def __init__(self, outcomes: pa.Table, row: Any, n: int) -> None:
        self._outcomes = outcomes
        self._row: NDArray[np.int64] = row.to_numpy()
        self._n = n

    def __call__(self, field: str) -> Any:
        column = self._outcomes[field].combine_chunks()
        has = column.is_valid().to_numpy(zero_copy_only=False)
        last = np.full(self._n, -1)
        last[self._row[has]] = np.flatnonzero(has)  # in stream order: the last one stays
        return column.take(pa.array(last, mask=last < 0))


_JOINED = ("decision_id", "correction", "late", "arm", "decided_arm", "executed", "at_ms", "error")
_EVENT_COLUMNS = (
    *_JOINED,
    *_COMPONENTS,
    *(f"old_{name}" for name in _COMPONENTS),
    "by",
    "reason",
)


@dataclass(frozen=True, slots=True)
class _Segment:
    """A file, its day, the ids of its first and last entry, and its writer's fencing token."""

    name: str
    day: str
    first: Id
    last: Id
    token: int


def _joined(
    on: Any, root: str, policy: str, of_day: str, columns: Sequence[str], wanted: Any
) -> pa.Table:
    """A policy's rows of a day, as the log's schema has them: these columns, and those that they
    are ordered by."""
    own = [name for name in DECISION.names if name in {*columns, "made_at_ms", "decision_id"}]
    decisions, outcomes = (_segments(on, root, stream, policy, of_day) for stream in STREAMS)
    made = _last_answers(_read(on, decisions, "decisions", own, wanted))
    made = made.append_column("policy", pa.array([policy] * len(made), pa.string()))
    others = [name for name in columns if name not in made.column_names]
    if not others:
        return made
    closed_before_ms = (_position(on, root, policy) or Position()).closed_before_ms
    theirs = None
    if wanted is not None:  # the day has more, which may not fit in memory
        theirs = pc.field("decision_id").isin(made["decision_id"].combine_chunks())
    came = _read(on, outcomes, "outcomes", _EVENT_COLUMNS, theirs)
    joined = join(made, came, closed_before_ms)
    for name in others:
        field = SCHEMA.field(name)
        made = made.append_column(field, joined[name].cast(field.type))
    return made


def _settled(read: Callable[[], Read]) -> Read:
    """Read again where a file that was listed has been merged into another meanwhile."""
    for _ in range(RETRIES):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()


def _last_answers(made: pa.Table) -> pa.Table:
    """Decisions without those that Redis lost after they were archived and that were then asked
    for and made once more, under the same id."""
    ids = made["decision_id"].to_numpy()
    if len(set(ids)) == len(ids):
        return made
    last = {decision_id: row for row, decision_id in enumerate(ids)}
    return made.take(sorted(last.values()))


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


def _segments(
    on: Any, root: str, stream: str, policy: str, of_day: str | None = None
) -> list[_Segment]:
    """The files that count, of all days or of one, by their first entries."""
    limit = order(getattr(_position(on, root, policy) or Position(), stream))
    folder = _folder(root, stream, policy)
    return _counting(_names(on, folder if of_day is None else f"{folder}/day={of_day}"), limit)


def _counting(names: Iterable[str], limit: Id) -> list[_Segment]:
    """The files not beyond the position, without those that another one of their day spans."""
    found = [segment for name in names if (segment := _segment(name)) and segment.last <= limit]
    found.sort(key=lambda segment: (segment.day, segment.first, -segment.last[0], -segment.last[1]))
    counting: list[_Segment] = []
    for segment in found:
        spanned = counting and counting[-1].day == segment.day and counting[-1].last >= segment.last
        if not spanned:
            counting.append(segment)
    return sorted(counting, key=lambda segment: (segment.first, segment.last))


def _names(on: Any, folder: str) -> list[str]:
    """All files under a folder, hidden ones too."""
    selected = pfs.FileSelector(folder, recursive=True, allow_not_found=True)
    return [info.path for info in on.get_file_info(selected) if info.is_file]


def _segment(name: str) -> _Segment | None:
    """What a file's name says; None where it isn't the archive's, or isn't complete."""
    folder, _, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    try:
        first, end, token = stem.split("_")
        of_day = folder.rpartition("day=")[2]
        made = _Segment(name, of_day, order(first), order(end), int(token))
    except ValueError:
        return None
    return made if ending == "parquet" else None


def _read(
    on: Any,
    segments: Sequence[_Segment],
    stream: str,
    columns: Sequence[str] | None = None,
    wanted: Any = None,
) -> pa.Table:
    """The rows of some files, in stream order and each once."""
    schema = _SCHEMAS[stream]
    names = list(columns or schema.names)
    if not segments:
        return schema.empty_table().select(names)
    read = [segment.name for segment in segments]
    mixed = any(before.last >= after.first for before, after in pairwise(segments))
    try:
        dataset = pds.dataset(read, schema=schema, filesystem=on, format="parquet")
        first = next(iter(dataset.get_fragments())).physical_schema.metadata or {}
        if (made_as := first.get(b"pointsman_log", b"").decode()) != str(FORMAT):
            raise ValueError(f"expected a log of format {FORMAT}, got {made_as or 'other files'}")
        all_of = list(dict.fromkeys([*names, "entry"])) if mixed else names
        found = dataset.to_table(columns=all_of, filter=wanted)
    except (pa.ArrowException, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"{read[0].rpartition('/')[0]}: can't be read: {why}") from error
    return _each_once(found).select(names) if mixed else found


def _each_once(rows: pa.Table) -> pa.Table:
    """In stream order. Files overlap where an archiver that had been overtaken wrote one more."""
    row_of = {entry: row for row, entry in enumerate(rows["entry"].to_pylist())}
    return rows.take([row_of[entry] for entry in sorted(row_of, key=order)])


def _position(on: Any, root: str, policy: str) -> Position | None:
    """None where nothing was ever archived."""
    name = f"{_own(root, policy)}/{POSITION}"
    try:
        return Position(**json.loads(files.get(on, name)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: doesn't say what is archived: {error}") from error


def _own(root: str, policy: str) -> str:
    return f"{root}/policy={quote(policy, safe='')}"


def _folder(root: str, stream: str, policy: str) -> str:
    return _own(f"{root}/{stream}", policy)


def _catalog_name(root: str, policy: str, revision: str) -> str:
    return f"{_own(root, policy)}/_catalogs/{quote(revision, safe='')}.json"

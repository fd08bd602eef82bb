"""The files of an archive: how they are named, which of them count, and their rows.

A file is named by the stream ids of its first and last entry. Knows neither who writes them nor
how decisions and outcomes are joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.fs as pfs

from offline_eval.log import events, files
from offline_eval.log.schema import DECISION
from policy.stored import opened, sealed

Id = tuple[int, int]
START = "0-0"
STREAMS = ("decisions", "outcomes")
POSITION = "_position.json"
ENTRY = pa.field("entry", pa.string(), nullable=False)
_ARCHIVED = pa.schema([*DECISION, ENTRY])
_SCHEMAS = {"decisions": _ARCHIVED, "outcomes": events.SCHEMA}


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


@dataclass(frozen=True, slots=True)
class Segment:
    """A file, its day, the ids of its first and last entry, and its writer's fencing token."""

    name: str
    day: str
    first: Id
    last: Id
    token: int


def find_segments(
    on: Any, root: str, stream: str, policy: str, of_day: str | None = None
) -> list[Segment]:
    """The files that count, of all days or of one, by their first entries."""
    limit = order(getattr(position_at(on, root, policy) or Position(), stream))
    folder = stream_folder(root, stream, policy)
    return that_count(file_names(on, folder if of_day is None else f"{folder}/day={of_day}"), limit)


def that_count(names: Iterable[str], limit: Id) -> list[Segment]:
    """The files not beyond the position, without those that another one of their day spans."""
    found = [segment for name in names if (segment := parsed(name)) and segment.last <= limit]
    found.sort(key=lambda segment: (segment.day, segment.first, -segment.last[0], -segment.last[1]))
    counting: list[Segment] = []
    for segment in found:
        spanned = counting and counting[-1].day == segment.day and counting[-1].last >= segment.last
        if not spanned:
            counting.append(segment)
    return sorted(counting, key=lambda segment: (segment.first, segment.last))


def file_names(on: Any, folder: str) -> list[str]:
    """All files under a folder, hidden ones too."""
    selected = pfs.FileSelector(folder, recursive=True, allow_not_found=True)
    return [info.path for info in on.get_file_info(selected) if info.is_file]


def parsed(name: str) -> Segment | None:
    """What a file's name says; None where it isn't the archive's, or isn't complete."""
    folder, _, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    try:
        first, end, token = stem.split("_")
        of_day = folder.rpartition("day=")[2]
        made = Segment(name, of_day, order(first), order(end), int(token))
    except ValueError:
        return None
    return made if ending == "parquet" else None


def read_segments(
    on: Any,
    segments: Sequence[Segment],
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
    with files.readable(read[0].rpartition("/")[0]):
        files.check(on, read)
        dataset = pds.dataset(read, schema=schema, filesystem=on, format=files.CHECKED)
        all_of = list(dict.fromkeys([*names, "entry"])) if mixed else names
        found = dataset.to_table(columns=all_of, filter=wanted)
    return _each_once(found).select(names) if mixed else found


def _each_once(rows: pa.Table) -> pa.Table:
    """In stream order. Files overlap where an archiver that had been overtaken wrote one more."""
    row_of = {entry: row for row, entry in enumerate(rows["entry"].to_pylist())}
    return rows.take([row_of[entry] for entry in sorted(row_of, key=order)])


def position_at(on: Any, root: str, policy: str) -> Position | None:
    """None where nothing was ever archived."""
    name = f"{own_folder(root, policy)}/{POSITION}"
    try:
        return Position(**opened("position", files.get(on, name)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: doesn't say what is archived: {error}") from error


def position_file(at: Position) -> bytes:
    """What `position_at` reads."""
    return sealed("position", asdict(at))


def own_folder(root: str, policy: str) -> str:
    return f"{root}/policy={quote(policy, safe='')}"


def stream_folder(root: str, stream: str, policy: str) -> str:
    return own_folder(f"{root}/{stream}", policy)


def catalog_name(root: str, policy: str, revision: str) -> str:
    return f"{own_folder(root, policy)}/_catalogs/{quote(revision, safe='')}.json"

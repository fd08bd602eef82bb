"""A log at a path, read: as a table, as records, as arrays.

A log is decisions joined with their outcomes, in the order they were made; `schema.SCHEMA` is its
one description. It lies under policy=NAME/day=YYYY-MM-DD as Parquet, where it was imported, or is
joined from the archive of a running service: who reads it here needn't know which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pyarrow.fs as pfs

from offline_eval.log import archive, files, schema
from offline_eval.log.data import Index, LoggedData
from offline_eval.log.schema import SCHEMA, day, digest
from policy.records import LoggedDecision

_PARTITIONS = pds.partitioning(
    pa.schema([("policy", pa.string()), ("day", pa.string())]), flavor="hive"
)
_UNREAD = ("query", "challenger_encoder", "challenger_x")  # what no array of `LoggedData` holds


def read_log(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> LoggedData:
    """The log as arrays. All rows must have contexts of one encoder.

    Raises
    ------
    ValueError
        If there is no log at `path`, or its rows come from several encoders.
    """
    names = [name for name in (*SCHEMA.names, "policy") if name not in _UNREAD]
    return LoggedData.of(read_table(path, policy, from_ms, to_ms, names))


def read_rows(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> Iterator[LoggedDecision]:
    """The log's rows as records, in the order they were made; of an archive, a day at a time."""
    if archive.is_archive(path):
        parts = archive.tables(path, policy, from_ms, to_ms)
    else:
        parts = iter([read_table(path, policy, from_ms, to_ms)])
    for part in parts:
        for batch in part.to_batches(max_chunksize=1_000):
            yield from map(schema.record, batch.to_pylist())


def read_table(
    path: str,
    policy: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The log's rows made in [from_ms, to_ms), in the order they were made, with `policy`.

    Raises
    ------
    ValueError
        If there is no log at `path`, or one of another format.
    """
    names = list(columns or (*SCHEMA.names, "policy"))
    if archive.is_archive(path):
        empty = pa.schema([*SCHEMA, ("policy", pa.string())]).empty_table().select(names)
        return pa.concat_tables([empty, *archive.tables(path, policy, from_ms, to_ms, names)])
    within = _filter(policy, from_ms, to_ms)
    dataset = _dataset(path, within)
    order = [name for name in ("made_at_ms", "decision_id") if name not in names]
    with files.readable(path):
        read = dataset.to_table(columns=[*names, *order], filter=within)
    keys = [("made_at_ms", "ascending"), ("decision_id", "ascending")]
    return read.sort_by(keys).select(names)


def read_times(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> Iterator[Index]:
    """When each row was made, ascending: a day at a time, with as little else read as can be."""
    if archive.is_archive(path):
        for made in archive.tables(path, policy, from_ms, to_ms, ["made_at_ms"]):
            yield made["made_at_ms"].to_numpy()
        return
    within = _filter(policy, from_ms, to_ms)
    dataset = _dataset(path, within)
    for name in sorted({_day_of(fragment) for fragment in dataset.get_fragments(within)}):
        of_day = pc.field("day") == name
        wanted = of_day if within is None else of_day & within
        with files.readable(path):
            made = dataset.to_table(columns=["made_at_ms"], filter=wanted)
        yield np.sort(made["made_at_ms"].to_numpy())


@dataclass(frozen=True, slots=True)
class Range:
    """Which rows of a log were used: those made in [from_ms, to_ms), and a digest of their ids."""

    path: str
    rows: int
    from_ms: int
    to_ms: int
    digest: str


def fingerprint(data: LoggedData, path: str) -> Range:
    """Of rows that were read from `path`: reading its range again must give the same digest."""
    return _range(path, data.decision_ids, data.made_at_ms)


def range_of(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> Range:
    """The same of what `read_log` would give, without reading more than two columns."""
    found = read_table(path, policy, from_ms, to_ms, ["decision_id", "made_at_ms"])
    made_at_ms = found["made_at_ms"].to_numpy()
    return _range(path, found["decision_id"].to_pylist(), made_at_ms)


def _range(path: str, decision_ids: Sequence[str], made_at_ms: Index) -> Range:
    n = len(decision_ids)
    from_ms, to_ms = (int(made_at_ms.min()), int(made_at_ms.max()) + 1) if n else (0, 0)
    return Range(path, n, from_ms, to_ms, digest(decision_ids))


def _dataset(path: str, within: Any) -> Any:
    """The files of a log, those with rows `within` a filter checked."""
    filesystem, root = files.filesystem(path)
    if filesystem.get_file_info(root).type != pfs.FileType.Directory:
        raise ValueError(f"there is no log at {path}")
    columns = pa.schema([*SCHEMA, ("policy", pa.string()), ("day", pa.string())])
    dataset = pds.dataset(
        root, schema=columns, filesystem=filesystem, format=files.CHECKED, partitioning=_PARTITIONS
    )
    if next(iter(dataset.get_fragments()), None) is None:
        raise ValueError(f"there is no log at {path}")
    files.check(filesystem, (fragment.path for fragment in dataset.get_fragments(within)))
    return dataset


def _day_of(fragment: Any) -> str:
    day: str = pds.get_partition_keys(fragment.partition_expression)["day"]
    return day


def _filter(policy: str | None, from_ms: int | None, to_ms: int | None) -> Any:
    wanted = []
    if policy is not None:
        wanted.append(pc.field("policy") == policy)
    if from_ms is not None:  # the day as well: it spares whole folders
        wanted += [pc.field("made_at_ms") >= from_ms, pc.field("day") >= day(from_ms)]
    if to_ms is not None:
        wanted += [pc.field("made_at_ms") < to_ms, pc.field("day") <= day(to_ms)]
    together = None
    for condition in wanted:
        together = condition if together is None else together & condition
    return together

"""Rows of a log into Parquet, under policy=NAME/day=YYYY-MM-DD."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from urllib.parse import quote

from offline_eval.log import archive, files, schema
from offline_eval.log.schema import day, digest
from policy.records import LoggedDecision

ROWS_PER_FILE = 20_000


def write_log(rows: Iterable[LoggedDecision], path: str, name: str | None = None) -> int:
    """Add rows to the log at `path` (a folder, or any URI that pyarrow or fsspec knows).

    A file's name is `name` with a number, by default a digest of its decision ids: writing the
    same rows again replaces them. A file appears under its name when it is complete. Returns how
    many rows were written.
    """
    if archive.is_archive(path):
        raise ValueError(f"{path} is the archive of a running service: rows of others go elsewhere")
    filesystem, root = files.filesystem(path)
    written, rest, part = 0, iter(rows), 0
    while chunk := list(islice(rest, ROWS_PER_FILE)):
        for (policy, of_day), some in _by_partition(chunk).items():
            ids = (row.decision.decision_id for row in some)
            stem = digest(ids) if name is None else f"{name}-{part}"
            folder = f"{root}/policy={quote(policy, safe='')}/day={of_day}"
            files.put_table(filesystem, f"{folder}/{stem}.parquet", schema.table(some))
        written, part = written + len(chunk), part + 1
    return written


def _by_partition(
    rows: Sequence[LoggedDecision],
) -> Mapping[tuple[str, str], list[LoggedDecision]]:
    parts: dict[tuple[str, str], list[LoggedDecision]] = {}
    for row in rows:
        key = row.decision.policy, day(row.decision.made_at_ms)
        parts.setdefault(key, []).append(row)
    return parts

"""A log cut into parts that fit in memory.

A part is a stretch of time, so parts come in the order that decisions were made in, whatever files
they lie in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from offline_eval.log.data import Index, LoggedData
from offline_eval.log.reading import read_log, read_times

ROWS = 100_000  # of a part


@dataclass(frozen=True, slots=True)
class Part:
    """The `rows` rows of a log, of `policy` unless None, that were made in [from_ms, to_ms)."""

    path: str
    policy: str | None
    from_ms: int
    to_ms: int
    rows: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows made from {_written(self.from_ms)} to {_written(self.to_ms)}"


def cut(
    path: str,
    policy: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    rows: int = ROWS,
) -> list[Part]:
    """The log's rows made in [from_ms, to_ms), in parts of at most `rows`, in order.

    Rows of the same millisecond stay together, however many they are. Only times are read for it,
    those of a day at once.

    Raises
    ------
    ValueError
        If there is no log at `path`, or `rows` is less than 1.
    """
    if rows < 1:
        raise ValueError(f"a part must have room for at least 1 row, got {rows}")
    return [
        Part(path, policy, int(times[at]), int(times[to - 1]) + 1, to - at)
        for times in read_times(path, policy, from_ms, to_ms)
        for at, to in _stretches(times, rows)
    ]


def _stretches(times: Index, rows: int) -> Iterator[tuple[int, int]]:
    """Where parts of ascending times (n,) begin and end."""
    at = 0
    while at < len(times):
        to = min(at + rows, len(times))
        if to < len(times):
            first = int(np.searchsorted(times, times[to]))  # of those alike
            to = first if first > at else int(np.searchsorted(times, times[to], side="right"))
        yield at, to
        at = to


def read(part: Part) -> LoggedData:
    """A part's rows.

    Raises
    ------
    ValueError
        If there are other rows than when the log was cut, or they come from several encoders.
    """
    data = read_log(part.path, part.policy, part.from_ms, part.to_ms)
    if len(data) != part.rows:
        raise ValueError(f"the log has changed: {len(data):,} rows are there now")
    return data


def _written(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds")

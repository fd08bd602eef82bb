"""Outcome events as the stream has them <-> typed columns of Parquet, without a loss.

What a column can't give back byte for byte, and fields that no column is for, go as they are into
`rest`. Knows no path and no stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Event = dict[bytes, bytes]
Entry = tuple[str, Event]  # with its id in the stream

Codec = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]

_TEXT: Codec = (bytes.decode, str.encode)
_REAL: Codec = (float, lambda value: repr(value).encode())
_WHOLE: Codec = (int, lambda value: b"%d" % value)
_FLAG: Codec = ({b"0": False, b"1": True}.__getitem__, lambda value: b"1" if value else b"0")
_BYTES: Codec = (bytes, bytes)
_FLOATS: Codec = (
    lambda raw: np.frombuffer(raw, dtype=np.float32),
    lambda value: np.asarray(value, dtype=np.float32).tobytes(),
)
_TYPES = {
    _TEXT: pa.string(),
    _REAL: pa.float64(),
    _WHOLE: pa.int64(),
    _FLAG: pa.bool_(),
    _BYTES: pa.binary(),
    _FLOATS: pa.list_(pa.float32()),
}
_FIELDS: Mapping[str, Codec] = {
    "decision_id": _TEXT,
    "arm": _TEXT,  # that was executed
    "decided_arm": _TEXT,
    "version": _TEXT,
    "encoder": _TEXT,
    "catalog": _TEXT,
    "made_at_ms": _WHOLE,  # the decision
    "at_ms": _WHOLE,  # the event
    "late": _FLAG,
    "executed": _FLAG,
    "propensity": _REAL,
    "list_cost_usd": _REAL,
    "quality": _REAL,
    "quality_assumed": _FLAG,  # false: this is the report that replaced one
    "latency_ms": _REAL,
    "cost_usd": _REAL,
    "error": _TEXT,
    "earlier": _TEXT,
    "eligible": _BYTES,
    "x": _FLOATS,
    "shadow": _TEXT,
    "challenger_x": _FLOATS,
    "correction": _FLAG,
    "by": _TEXT,
    "reason": _TEXT,
    "old_quality": _REAL,
    "old_latency_ms": _REAL,
    "old_cost_usd": _REAL,
    "taught": _TEXT,
    "reported_by": _TEXT,  # id of the caller's key that it came with
}
SCHEMA = pa.schema(
    [
        pa.field("entry", pa.string(), nullable=False),
        *(pa.field(name, _TYPES[codec]) for name, codec in _FIELDS.items()),
        pa.field("rest", pa.map_(pa.string(), pa.binary())),
    ],
)


def to_table(entries: Sequence[Entry]) -> pa.Table:
    """One row per event, in their order; null where an event doesn't have the field."""
    known = {name.encode() for name in _FIELDS}
    rest: list[list[tuple[str, bytes]]] = [
        [(name.decode(), raw) for name, raw in event.items() if name not in known]
        for _, event in entries
    ]
    columns = [pa.array([entry for entry, _ in entries], pa.string())]
    for name, codec in _FIELDS.items():
        raws = [event.get(name.encode()) for _, event in entries]
        values = [_parsed(raw, codec) for raw in raws]
        for row, (raw, value) in enumerate(zip(raws, values, strict=True)):
            if raw is not None and value is None:
                rest[row].append((name, raw))
        columns.append(pa.array(values, _TYPES[codec]))
    columns.append(pa.array([pairs or None for pairs in rest], SCHEMA.field("rest").type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Entry]:
    """The way back from `to_table`."""
    found: list[Entry] = [(entry, {}) for entry in table["entry"].to_pylist()]
    for name, (_, raw_of) in _FIELDS.items():
        key = name.encode()
        for (_, event), value in zip(found, table[name].to_pylist(), strict=True):
            if value is not None:
                event[key] = raw_of(value)
    for (_, event), pairs in zip(found, table["rest"].to_pylist(), strict=True):
        event.update({name.encode(): raw for name, raw in pairs or ()})
    return found


def _parsed(raw: bytes | None, codec: Codec) -> Any:
    """None where there is nothing, or where the value wouldn't come back as it was."""
    if raw is None:
        return None
    parse, raw_of = codec
    try:
        value = parse(raw)
        return value if raw_of(value) == raw else None
    except (ValueError, KeyError):
        return None

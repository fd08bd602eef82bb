"""An archive's decisions, joined with the outcomes that came of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from offline_eval.log.schema import DECISION, SCHEMA
from offline_eval.log.segments import (
    STREAMS,
    Position,
    find_segments,
    position_at,
    read_segments,
)

_COMPONENTS = ("quality", "latency_ms", "cost_usd")
_JOINED = ("decision_id", "correction", "late", "arm", "decided_arm", "executed", "at_ms", "error")
_EVENT_COLUMNS = (
    *_JOINED,
    *_COMPONENTS,
    "quality_assumed",
    "reported_by",
    *(f"old_{name}" for name in _COMPONENTS),
    "by",
    "reason",
)


def joined_day(
    on: Any, root: str, policy: str, of_day: str, columns: Sequence[str], wanted: Any
) -> pa.Table:
    """A policy's rows of a day, as the log's schema has them: these columns, and those that they
    are ordered by."""
    own = [name for name in DECISION.names if name in {*columns, "made_at_ms", "decision_id"}]
    decisions, outcomes = (find_segments(on, root, stream, policy, of_day) for stream in STREAMS)
    made = _last_answers(read_segments(on, decisions, "decisions", own, wanted))
    made = made.append_column("policy", pa.array([policy] * len(made), pa.string()))
    others = [name for name in columns if name not in made.column_names]
    if not others:
        return made
    closed_before_ms = (position_at(on, root, policy) or Position()).closed_before_ms
    theirs = None
    if wanted is not None:  # the day has more, which may not fit in memory
        theirs = pc.field("decision_id").isin(made["decision_id"].combine_chunks())
    came = read_segments(on, outcomes, "outcomes", _EVENT_COLUMNS, theirs)
    joined = join(made, came, closed_before_ms)
    for name in others:
        field = SCHEMA.field(name)
        made = made.append_column(field, joined[name].cast(field.type))
    return made


def join(decisions: pa.Table, outcomes: pa.Table, closed_before_ms: int) -> dict[str, Any]:
    """What decisions (n rows) have earned: the outcome columns of the log's schema, (n,) each.

    `outcomes` are their events, in stream order. What came after the reward window (`late`) was
    learned from and isn't evaluated; a correction replaces the value whenever it came, unless that
    value was late. Where a quality may be assumed, one that comes instead, or an error, counts
    whenever it comes.
    """
    row = pc.index_in(outcomes["decision_id"], value_set=decisions["decision_id"].combine_chunks())
    is_correction = pc.fill_null(outcomes["correction"], False)
    known = pc.is_valid(row)
    of_missing = outcomes["quality_assumed"].is_valid()  # assumed, or the report instead
    on_time = pc.and_(known, pc.invert(pc.or_(outcomes["late"], is_correction)))
    in_time = _Last(outcomes.filter(on_time), row.filter(on_time), len(decisions))
    counts = pc.or_(on_time, pc.and_(known, of_missing))
    told = _Last(outcomes.filter(counts), row.filter(counts), len(decisions))
    corrected = pc.and_(known, pc.and_(is_correction, pc.invert(of_missing)))
    new = _Last(outcomes.filter(corrected), row.filter(corrected), len(decisions))

    joined = {name: told(name) for name in ("quality", "error")}
    joined |= {name: in_time(name) for name in ("latency_ms", "cost_usd")}
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
        "quality_assumed": pc.fill_null(told("quality_assumed"), False),
        "reported_by": told("reported_by"),
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


def _last_answers(made: pa.Table) -> pa.Table:
    """Decisions without those that Redis lost after they were archived and that were then asked
    for and made once more, under the same id."""
    ids = made["decision_id"].to_numpy()
    if len(set(ids)) == len(ids):
        return made
    last = {decision_id: row for row, decision_id in enumerate(ids)}
    return made.take(sorted(last.values()))

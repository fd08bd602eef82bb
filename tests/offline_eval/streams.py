"""Entries of both streams as the archive takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from offline_eval.log.archive import Archive
from offline_eval.log.events import Entry
from offline_eval.log.reading import read_rows
from offline_eval.log.segments import Position
from policy.records import Decision, Outcome, to_stored
from tests.offline_eval.rows import DAY_MS, NOON

MIDNIGHT = NOON + DAY_MS // 2


def decided(entry: str, made: Decision) -> Entry:
    """A decision as the stream has it."""
    fields = {b"record": to_stored(made), b"x": made.x.tobytes()}
    if made.challenger_x is not None:
        fields[b"challenger_x"] = made.challenger_x.tobytes()
    return entry, fields


def told(entry: str, decision_id: str = "d1", **changes: str | bytes) -> Entry:
    """An outcome event as the stream has it, without a component."""
    fields: dict[str, Any] = {
        "decision_id": decision_id,
        "arm": "b",
        "list_cost_usd": "0.002",
        "x": np.array([1.0, 0.1, -0.7], dtype=np.float32).tobytes(),
        "version": "3",
        "encoder": "e1",
        "made_at_ms": str(NOON),
        "propensity": "0.3",
        "at_ms": str(NOON + 9),
        "late": "0",
        "executed": "1",
        "decided_arm": "b",
        "catalog": "c0ffee",
        "eligible": b"\xe0",
        "earlier": "",
        **changes,
    }
    return entry, {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in fields.items()
    }


def write(
    path: str, decisions: Sequence[Entry], outcomes: Sequence[Entry], closed: int = 0
) -> None:
    """Archive a batch as an archiver does."""
    target = Archive(path, "default")
    at = target.resume({})
    assert target.add(decisions, outcomes) == ({"c0ffee"} if decisions or outcomes else set())
    ends = [
        (new or [(old,)])[-1][0]
        for new, old in ((decisions, at.decisions), (outcomes, at.outcomes))
    ]
    target.commit(Position(*ends, closed))


def outcome_of(path: str) -> Outcome:
    (one,) = read_rows(path)
    return one.outcome

"""Logged decisions whose figures can be checked on paper."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from policy.objective import Weights
from policy.records import Decision, LoggedDecision, Outcome

DAY_MS = 86_400_000
NOON = 20_000 * DAY_MS + DAY_MS // 2  # 2024-10-04


def decision(decision_id: str = "d1", **changes: Any) -> Decision:
    """Of three arms, "b" drawn with probability 0.3."""
    made = Decision(
        decision_id=decision_id,
        policy="default",
        version="3",
        snapshot=42,
        catalog="c0ffee",
        encoder="e1",
        made_at_ms=NOON,
        arm="b",
        propensity=0.3,
        confidence=0.25,
        arms=("a", "b", "c"),
        pmf=np.array([0.6, 0.3, 0.1]),
        predicted=np.array([[0.9, 800.0, 0.01], [0.7, np.nan, 0.002], [0.5, 50.0, np.nan]]),
        prompt_tokens=120,
        output_tokens=300,
        weights=Weights(0.7, 0.15, 0.15),
        x=np.array([1.0, 0.1, -0.7], dtype=np.float32),
    )
    return replace(made, **changes)


def row(decision_id: str = "d1", outcome: Outcome | None = None, **changes: Any) -> LoggedDecision:
    """With quality 0.8, 500 ms and 0.004 USD, unless told otherwise."""
    complete = Outcome(quality=0.8, latency_ms=500.0, cost_usd=0.004, closed=True, at_ms=NOON + 9)
    return LoggedDecision(decision(decision_id, **changes), outcome or complete)


def same(a: Any, b: Any) -> bool:
    """Equal field by field, arrays with NaN and type included."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)

"""Decision -> the answer to whoever asked. By hand, not through a model: this is on the path of
/route."""

from __future__ import annotations

from typing import Any

from policy.arms.catalog import Catalog
from policy.records import Decision


def answer(decision: Decision, catalog: Catalog, logged: bool, notes: list[str]) -> dict[str, Any]:
    """The body of `pointsman_client.answers.Decision`; alternatives by falling propensity."""
    rows = []
    propensities, outcomes = decision.pmf.tolist(), decision.predicted.tolist()
    for name, propensity, (quality, latency_ms, cost_usd) in zip(
        decision.arms, propensities, outcomes, strict=True
    ):
        arm = catalog.arm(name)
        # NaN, for what isn't known, is written as null.
        predicted = {"quality": quality, "latency_ms": latency_ms, "cost_usd": cost_usd}
        rows.append(
            {
                "arm": name,
                "provider": arm.provider,
                "model": arm.model,
                "propensity": propensity,
                "predicted": predicted,
            }
        )
    position = decision.arms.index(decision.arm)
    chosen = rows.pop(position)
    rows.sort(key=_falling)
    endpoints = catalog.arm(decision.arm).endpoints
    return {
        "decision_id": decision.decision_id,
        "policy": decision.policy,
        "version": decision.version,
        "snapshot": decision.snapshot,
        "arm": decision.arm,
        "provider": chosen["provider"],
        "model": chosen["model"],
        "endpoint": endpoints[0] if endpoints else None,
        "propensity": decision.propensity,
        "confidence": decision.confidence,
        "predicted": chosen["predicted"],
        "alternatives": rows,
        "logged": logged,
        "notes": notes,
    }


def _falling(row: dict[str, Any]) -> float:
    propensity: float = row["propensity"]
    return -propensity

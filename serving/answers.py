"""Decision -> response body. By hand, not through a model: this is on the path of /route."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from policy.catalog import Catalog
from policy.records import Decision


def route(decision: Decision, catalog: Catalog, logged: bool) -> dict[str, Any]:
    """The body of schemas.RouteResponse; alternatives by falling propensity."""
    rows = [
        {
            "arm": arm,
            "provider": (entry := catalog.arm(arm)).provider,
            "model": entry.model,
            "propensity": propensity,
            "predicted": _predicted(outcome),
        }
        for arm, propensity, outcome in zip(
            decision.arms, decision.pmf.tolist(), decision.predicted.tolist(), strict=True
        )
    ]
    order = np.argsort(-decision.pmf, kind="stable").tolist()
    position = decision.arms.index(decision.arm)
    chosen = rows[position]
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
        "alternatives": [rows[i] for i in order if i != position],
        "logged": logged,
    }


def _predicted(outcome: list[float]) -> dict[str, float | None]:
    quality, latency_ms, cost_usd = (None if math.isnan(v) else v for v in outcome)
    return {"quality": quality, "latency_ms": latency_ms, "cost_usd": cost_usd}

"""Decision -> the answer to whoever asked. By hand, not through a model: this is on the path of
/route."""

from __future__ import annotations

from typing import Any

import numpy as np

from policy.arms.catalog import Catalog
from policy.plans.plan import Plan, arms_of
from policy.records import Decision


def answer(
    decision: Decision,
    catalog: Catalog,
    logged: bool,
    notes: list[str],
    most: int | None = None,
) -> dict[str, Any]:
    """The body of `pointsman_client.answers.Decision`; alternatives by falling propensity, at
    `most` so many of them."""
    position = decision.arms.index(decision.arm)
    falling = np.argsort(-decision.pmf, kind="stable").tolist()
    falling.remove(position)
    propensities, outcomes = decision.pmf.tolist(), decision.predicted.tolist()
    rows = []
    for i in (position, *falling[:most]):
        action = decision.arms[i]
        first, *others = arms_of(action)
        arm = catalog.arm(first)
        quality, latency_ms, cost_usd = outcomes[i]
        rows.append(
            {
                "arm": arm.id,
                "provider": arm.provider,
                "model": arm.model,
                "propensity": propensities[i],
                # NaN, for what isn't known, is written as null.
                "predicted": {"quality": quality, "latency_ms": latency_ms, "cost_usd": cost_usd},
                "plan": action if others else None,
            }
        )
    chosen, *alternatives = rows
    return {
        "decision_id": decision.decision_id,
        "policy": decision.policy,
        "version": decision.version,
        "snapshot": decision.snapshot,
        "arm": decision.first_arm,
        "provider": chosen["provider"],
        "model": chosen["model"],
        "endpoint": decision.endpoint,
        "propensity": decision.propensity,
        "confidence": decision.confidence,
        "predicted": chosen["predicted"],
        "alternatives": alternatives,
        "logged": logged,
        "notes": notes,
        "gave_way": decision.gave_way,
        "excluded": [{"arm": arm, "reason": why} for arm, why in decision.unavailable or ()],
        "degraded": decision.degraded,
        "plan": None if decision.plan is None else _plan(decision.plan, catalog),
        "session": decision.session,
        "turn": decision.turn,
        "draw_id": decision.draw_id,
        "token": None,
    }


def _plan(plan: Plan, catalog: Catalog) -> dict[str, Any]:
    """The body of `pointsman_client.answers.Plan`."""
    steps: list[dict[str, Any]] = []
    for step in plan.steps:
        arm = catalog.arm(step.arm)
        steps.append(
            {
                "arm": arm.id,
                "provider": arm.provider,
                "model": arm.model,
                "endpoint": step.endpoint,
                "begin": step.begin(),
            }
        )
    return {"id": plan.id, "kind": plan.kind, "deadline_ms": plan.deadline_ms, "steps": steps}

"""What follows on an error: the other eligible arms. It needs no draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from policy.arms.catalog import Catalog
from policy.objective import components, reward
from policy.plans.candidates import Setting
from policy.plans.plan import Plan, Step, plan_id
from policy.records import Vector


def with_fallback(
    plan: Plan | None,
    drawn: str,
    setting: Setting,
    outcome: Vector,
    pmf: Vector,
    catalog: Catalog,
) -> Plan | None:
    """A plan that was drawn, or None for the arm that was `drawn` alone, with what follows on an
    error, where that is asked for and allowed. `outcome` (k, 3) is expected of the eligible arms,
    `pmf` (k,) what they are drawn with.

    Up to the configured width, the eligible arms by expected reward follow; those of providers that
    aren't asked before come first. None where nothing can follow an arm.
    """
    if "fallback" not in setting.kinds or "fallback" not in setting.config.kinds:
        return plan
    steps = list(plan.steps) if plan is not None else [Step(drawn, at_ms=0.0)]
    asked = {step.arm for step in steps}
    used = {catalog.arm(arm).provider for arm in asked}
    left = [arm for arm in _falling(setting, outcome, pmf) if arm not in asked]
    left.sort(key=lambda arm: catalog.arm(arm).provider in used)  # stable
    steps += [Step(arm, on_error=True) for arm in left[: max(setting.config.width - len(steps), 0)]]
    if plan is not None:
        return replace(plan, steps=tuple(steps))
    if len(steps) == 1:
        return None
    arms = tuple(step.arm for step in steps)
    return Plan(plan_id("fallback", arms), "fallback", tuple(steps), setting.deadline_ms)


def _falling(setting: Setting, outcome: Vector, pmf: Vector) -> list[str]:
    """The eligible arms by their expected reward; those of which none is known by probability."""
    quality, latency_ms, cost_usd = outcome.T
    no_error = np.zeros(len(outcome), dtype=bool)
    y = components(quality, latency_ms, cost_usd, no_error, setting.scales)
    expected = np.nan_to_num(reward(y, setting.weights), nan=-np.inf)
    return [setting.ids[i] for i in np.lexsort((-pmf, -expected))]

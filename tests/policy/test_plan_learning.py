"""What plans' outcomes tell beyond what their arms let expect."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy.plans.learned import BELIEF, NOTHING, SLOPE, PlanLearning
from policy.plans.plan import Plan, Step

ID = "cascade:a>b@0.7"


def plan(action: str = ID, task: int = 0) -> Plan:
    steps = (Step("a", at_ms=0.0), Step("b", quality_below=0.7))
    return Plan(action, "cascade", steps, None, (0.7, 0.2, 0.1), task)


def taught(n: int, quality: float, action: str = ID) -> PlanLearning:
    learned = PlanLearning()
    for _ in range(n):
        learned.add(plan(action), np.array([quality, 0.2, np.nan]))
    return learned


def test_nothing_is_added_before_the_first_outcome():
    """And all of the uncertainty is left."""
    beyond = NOTHING.beyond(ID, 0)
    assert beyond.mean.tolist() == [0, 0, 0]
    assert beyond.unknown == 1.0


def test_what_a_plan_earns_beyond_is_added():
    """Expected was 0.7: outcomes of 0.5 pull it down by 0.2 in the end, a missing cost by nothing,
    and the variance falls."""
    few, many = taught(5, 0.5).values(), taught(3_000, 0.5).values()
    assert -0.1 < few.beyond(ID, 0).mean[0] < 0
    assert many.beyond(ID, 0).mean == pytest.approx([-0.2, 0.0, 0.0], abs=0.01)
    assert many.beyond(ID, 0).variance[0] < few.beyond(ID, 0).variance[0] / 10
    assert many.beyond(ID, 0).unknown < 0.05 < few.beyond(ID, 0).unknown


def test_plans_of_a_kind_are_partly_alike():
    """One that was never tried is expected to be off as the others were; another kind isn't."""
    values = taught(500, 0.5).values()
    untried = values.beyond("cascade:c>d@0.7", 3)
    assert untried.mean[0] == pytest.approx(-0.2, abs=0.05)
    assert untried.unknown == 1.0
    assert values.beyond("race:a|b", 0).mean[0] == 0.0


def test_by_hand():
    """30 outcomes of -0.2 beside a belief of 30 of 0: -0.1 for the kind, -0.15 for the plan; and 60
    of that for the task type: -0.2 * 30 / 90 - 0.15 * 60 / 90."""
    learned = taught(30, 0.5)
    left = (1 - 0.999**30) / (1 - 0.999) / 30  # of the outcomes, which fade
    weight = 30 * left
    kind = -0.2 * weight / (weight + BELIEF[0])
    of_plan = (-0.2 * weight + BELIEF[1] * kind) / (weight + BELIEF[1])
    cell = (-0.2 * weight + BELIEF[2] * of_plan) / (weight + BELIEF[2])
    assert learned.values().beyond(ID, 0).mean[0] == pytest.approx(cell)
    assert learned.values().beyond(ID, 1).mean[0] == pytest.approx(of_plan)


def test_the_slope_is_learned():
    """From what both answers were worth beyond what was expected, whatever the first was."""
    assert PlanLearning().slope == SLOPE
    learned = PlanLearning()
    rng = np.random.default_rng(0)
    for first in rng.uniform(-0.8, -0.2, 800):
        learned.compare(first, 0.7 * first + rng.normal(0, 0.3))
    learned.compare(math.nan, 0.5)
    assert learned.slope == pytest.approx(0.7, abs=0.05)


def test_a_record_goes_on_where_it_was():
    """To the bit, wherever the outcomes are cut into runs."""
    once, twice = PlanLearning(), PlanLearning()
    rng = np.random.default_rng(0)
    for i in range(60):
        if i == 25:
            twice = PlanLearning.of(twice.to_record())
        outcome, latency_ms = rng.random(3), rng.uniform(100, 5_000, 2)
        for learned in (once, twice):
            learned.add(plan(task=i % 3), outcome)
            learned.add_latencies(["a", "b"], latency_ms)
            learned.compare(float(outcome[0]) - 0.5, float(outcome[1]) - 0.5)
    assert once.to_record() == twice.to_record()
    with pytest.raises(ValueError, match="not the bytes"):
        PlanLearning.of("AAAA")

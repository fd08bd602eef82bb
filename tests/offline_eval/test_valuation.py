"""One target on a log: estimates, outcomes in their own units, what was left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offline_eval.estimating import one_target, target
from policy.objective import PRESETS
from tests.offline_eval.simulated import SCALES, logged

DATA = logged(
    400, quality=(0.9, 0.5, 0.1), latency_ms=(100.0, 200.0, 300.0), cost_usd=(0.01, 0.0, 0.002)
)
REWARD = DATA.rewards(PRESETS["quality"], SCALES)


def test_outcomes_of_one_arm_are_its_own():
    """In ms and USD; where only that arm's rows count they don't differ."""
    found = one_target.value(DATA, target.one_arm(DATA, "c"), REWARD, SCALES)
    drawn = DATA.arm == 2
    assert found.outcomes["latency_ms"].value == pytest.approx(300.0)
    assert found.outcomes["cost_usd"].value == pytest.approx(0.002)
    assert found.outcomes["quality"].value == pytest.approx(DATA.outcomes[drawn, 0].mean())
    assert found.effective == pytest.approx(drawn.sum())
    assert set(found.reward) == {"ips", "clipped_ips", "snips"}


def test_each_outcome_is_of_the_rows_that_have_it():
    """A latency that is missing spoils no quality; a failure's quality is 0."""
    outcomes = DATA.outcomes.copy()
    outcomes[:100, 1] = np.nan
    outcomes[:50, 0] = np.nan
    data = replace(DATA, outcomes=outcomes, error=np.arange(400) < 50)
    found = one_target.value(data, target.logged(data), REWARD, SCALES)
    assert found.outcomes["latency_ms"].value == pytest.approx(DATA.outcomes[100:, 1].mean())
    assert found.outcomes["quality"].value == pytest.approx(DATA.outcomes[50:, 0].sum() / 400)
    means = one_target.logged(data, REWARD, SCALES)
    assert means["latency_ms"] == pytest.approx(DATA.outcomes[100:, 1].mean())


def test_nothing_known_is_none():
    """No mean of nothing, and no outcome of what was never tried."""
    unheard = replace(DATA, outcomes=np.full((400, 3), np.nan))
    assert set(one_target.logged(unheard, np.full(400, np.nan), SCALES).values()) == {None}
    never = replace(DATA, pmf=np.tile([0.5, 0.5, 0.0], (400, 1)), propensity=np.full(400, 0.5))
    some = never.take(np.flatnonzero(never.arm < 2))
    reward = some.rewards(PRESETS["quality"], SCALES)
    found = one_target.value(some, target.one_arm(some, "c"), reward, SCALES)
    assert found.outcomes["quality"].value is None
    assert "never tried" in str(found.outcomes["quality"].why)

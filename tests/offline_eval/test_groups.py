"""A log, group by group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offline_eval.estimating import estimators, groups, target
from tests.offline_eval import simulated


def test_groups_make_up_the_whole():
    """The log's own policy earned in each group its mean, and each row is in one group."""
    data = simulated.logged(200)
    reward = data.rewards(None, simulated.SCALES)
    names = ["even" if i % 2 == 0 else "odd" for i in range(200)]
    found = groups.per_group(data, names, target.logged(data), reward)
    assert found["even"].at.tolist() == list(range(0, 200, 2))
    assert found["odd"].at.tolist() == list(range(1, 200, 2))
    value = estimators.ips(found["odd"].weights, found["odd"].reward).value
    assert value == pytest.approx(reward[1::2].mean())


def test_a_row_without_a_reward_is_in_no_group():
    data = replace(simulated.logged(4), outcomes=np.full((4, 3), np.nan))
    reward = data.rewards(None, simulated.SCALES)
    found = groups.per_group(data, ["a"] * 4, target.logged(data), reward)
    assert len(found["a"]) == 0


def test_every_row_needs_a_group():
    data = simulated.logged(3)
    with pytest.raises(ValueError, match="groups must name all 3 rows, got 2"):
        groups.per_group(data, ["a", "b"], target.logged(data), np.ones(3))

"""Can this log answer at all?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from offline_eval.estimating import diagnostics
from offline_eval.estimating.diagnostics import (
    arrival,
    calibration,
    effective_sample_size,
    overlap,
)

IDS = ("a", "b", "c")


def draws(pmf: list[float], n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pmf (n, k), actions (n, k), chosen (n,)) drawn as the pmf says."""
    rng = np.random.default_rng(seed)
    chosen = np.searchsorted(np.cumsum(pmf)[:-1], rng.random(n))
    return np.tile(pmf, (n, 1)), np.tile(np.arange(len(pmf)), (n, 1)), chosen


def test_effective_sample_size_by_hand():
    """Equal weights count each, one heavy weight counts alone, none is none."""
    assert effective_sample_size(np.ones(7)) == pytest.approx(7)
    assert effective_sample_size(np.array([3.0, 1.0])) == pytest.approx(1.6)
    assert effective_sample_size(np.zeros(4)) == effective_sample_size(np.array([])) == 0.0


def test_overlap_by_hand():
    """Half of the choices fall on an arm that can't be drawn; the weights are 0.5 / 0.8 and 0."""
    policy, drawn = np.tile([0.5, 0.0, 0.5], (2, 1)), np.tile([0.8, 0.2, 0.0], (2, 1))
    found = overlap(policy, drawn, np.array([0, 1]))
    assert found.unsupported == 0.5
    assert found.max_weight == pytest.approx(0.5 / 0.8)
    assert found.effective == pytest.approx(1)
    assert found.evaluable


def test_no_rows_and_no_support_are_not_evaluable():
    """Neither is a number."""
    none = np.empty((0, 3))
    assert not overlap(none, none, np.empty(0, dtype=int)).evaluable
    assert math.isnan(overlap(none, none, np.empty(0, dtype=int)).unsupported)
    other = overlap(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), np.array([0]))
    assert (other.evaluable, other.unsupported) == (False, 1.0)


def test_a_true_log_is_calibrated():
    """Looked at after each of 1,000 rows, at most alpha of 200 logs would be doubted."""
    alarms = sum(
        calibration(*draws([0.7, 0.25, 0.05], 1_000, seed), IDS)[1] >= math.log(20)
        for seed in range(200)
    )
    assert alarms / 200 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 200)


def test_an_arm_that_is_drawn_too_often_is_named():
    """Logged with 0.3, drawn with 0.36."""
    _, actions, chosen = draws([0.64, 0.36], 3_000, seed=1)
    groups, log_e = calibration(np.tile([0.7, 0.3], (3_000, 1)), actions, chosen, IDS)
    found = {group.name: group for group in groups}
    assert log_e > math.log(1_000)
    assert set(found) == {"a", "b", "propensity in (0.1, 0.3]", "propensity in (0.3, 0.7]"}
    assert found["b"].drawn == (chosen == 1).sum()
    assert found["b"].expected == pytest.approx(900)
    assert found["b"].p_value < 1e-6


def test_a_fault_that_evens_out_over_the_arms_shows_by_propensity():
    """Drawn uniformly, while 0.9 and 0.1 were logged with the arms changing places."""
    rng = np.random.default_rng(2)
    pmf = np.where(np.arange(2) == np.arange(400)[:, None] % 2, 0.9, 0.1)
    actions = np.tile([0, 1], (400, 1))
    groups, log_e = calibration(pmf, actions, rng.integers(0, 2, 400), IDS)
    arms = [group for group in groups if group.name in IDS]
    assert all(group.p_value > 0.001 for group in arms)
    assert log_e > math.log(1_000)


def test_padding_counts_as_no_arm():
    """Action sets of different sizes; and no rows are no evidence."""
    pmf, actions = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0, 1], [2, -1]])
    groups, _ = calibration(pmf, actions, np.array([0, 0]), IDS)
    assert [group.name for group in groups][:3] == ["a", "b", "c"]
    assert calibration(pmf[:0], actions[:0], np.empty(0, dtype=int), IDS) == ((), 0.0)


def test_a_bin_that_holds_every_arm_has_nothing_to_test():
    """Where rounding leaves its probabilities at a little more than 1 as well."""
    pmf = np.tile([0.4, 0.6 + 2e-16], (5, 1))
    assert (pmf.sum(axis=1) > 1.0).all()
    groups, _ = calibration(pmf, np.tile([0, 1], (5, 1)), np.zeros(5, dtype=int), IDS)
    assert (groups[-1].drawn, groups[-1].expected, groups[-1].se) == (5, 5.0, 0.0)


def test_arrival_by_hand():
    """Arm a misses 10 of 100 rewards, arm b 30 of 100: chi-square 12.5, and arm c is too rare."""
    arm = np.repeat([0, 1, 2], [100, 100, 5])
    arrived = np.concatenate([np.arange(100) >= 10, np.arange(100) >= 30, np.zeros(5, dtype=bool)])
    found = arrival(arm, arrived, IDS)
    assert found.missing == pytest.approx({"a": 0.1, "b": 0.3, "c": 1.0})
    assert found.rows == {"a": 100, "b": 100, "c": 5}
    assert found.spread == pytest.approx(0.2)
    assert found.p_value == pytest.approx(4.07e-4, rel=0.01)


def test_arrival_without_anything_to_compare():
    """One arm compares with none; nothing missing is alike."""
    assert math.isnan(arrival(np.zeros(50, dtype=int), np.ones(50, dtype=bool), IDS).p_value)
    assert arrival(np.repeat([0, 1], 50), np.ones(100, dtype=bool), IDS).p_value == 1.0


def test_the_worst_that_missing_rewards_might_have_been():
    """0 where the weight is positive, 1 where it is negative."""
    weight, reward = np.array([2.0, -1.0, 1.0]), np.array([np.nan, np.nan, 0.5])
    assert diagnostics.worst(weight, reward).tolist() == [0.0, 1.0, 0.5]
    assert diagnostics.worst(-weight, reward).tolist() == [1.0, 0.0, 0.5]

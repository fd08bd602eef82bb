"""Cross-fitted reward models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.estimators import uniform_log
from offline_eval.estimating import reward_models


def test_a_fold_is_a_hash_of_the_id():
    """The same wherever the row stands, and about equally many rows in each."""
    ids = [f"d{i}" for i in range(5_000)]
    fold = reward_models.folds(ids)
    assert (reward_models.folds(ids[::-1])[::-1] == fold).all()
    share = np.bincount(fold) / 5_000
    assert share == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 5_000))


def test_it_is_the_joint_ridge_regression():
    """As one system of equations for β and all δ_a, in numpy, has it."""
    log = uniform_log(300)
    rng = np.random.default_rng(1)
    reward = rng.random(300)
    q = reward_models.ridge(log, reward, shared=2.0, own=3.0)
    fold = reward_models.folds(log.decision_ids)
    k, d = 3, 4
    x = log.contexts.astype(np.float64)
    learned = fold != 0
    design = np.concatenate([x] + [x * (log.arm == a)[:, None] for a in range(k)], axis=1)[learned]
    penalty = np.diag([2.0] * d + [3.0] * (k * d))
    theta = np.linalg.solve(design.T @ design + penalty, design.T @ reward[learned])
    for a in range(k):
        at = (fold == 0) & (log.counts > a)
        expected = x[at] @ (theta[:d] + theta[d * (1 + a) : d * (2 + a)])
        assert q[at, a] == pytest.approx(np.clip(expected, 0.0, 1.0))


def test_beyond_an_action_set_there_is_no_prediction():
    """NaN there, in [0, 1] elsewhere."""
    log = uniform_log(100)
    q = reward_models.ridge(log, np.random.default_rng(2).random(100))
    assert (np.isnan(q) == (log.actions < 0)).all()
    held = q[log.actions >= 0]
    assert held.min() >= 0.0
    assert held.max() <= 1.0


def test_a_row_never_learns_from_its_own_fold():
    """Its rewards may be anything without moving its own predictions."""
    log = uniform_log(200)
    reward = np.random.default_rng(3).random(200)
    own = reward_models.folds(log.decision_ids) == 2
    before = reward_models.ridge(log, reward)
    after = reward_models.ridge(log, np.where(own, 1.0 - reward, reward))
    assert np.array_equal(before[own], after[own], equal_nan=True)
    assert not np.array_equal(before[~own], after[~own], equal_nan=True)


def test_rows_without_a_reward_of_their_own_teach_nothing():
    """Where it is missing, or another arm's; they are predicted for all the same."""
    log = uniform_log(200)
    reward = np.random.default_rng(4).random(200)
    some = np.arange(200) % 4 == 0
    missing = reward_models.ridge(log, np.where(some, np.nan, reward))
    other = reward_models.ridge(replace(log, executed=~some), np.where(some, 1.0, reward))
    assert np.array_equal(missing, other, equal_nan=True)
    assert not np.isnan(missing[some, 0]).any()


def test_it_does_not_matter_how_many_rows_are_read_at_once(monkeypatch: pytest.MonkeyPatch):
    """Memory is bounded, the result is the same to rounding."""
    log = uniform_log(300)
    reward = np.random.default_rng(5).random(300)
    at_once = reward_models.ridge(log, reward)
    monkeypatch.setattr(reward_models, "ROWS_AT_ONCE", 7)
    assert reward_models.ridge(log, reward) == pytest.approx(at_once, nan_ok=True)


def test_rows_that_all_teach_nothing_are_no_fault():
    """Without any reward the prediction is 0."""
    log = uniform_log(20)
    q = reward_models.ridge(log, np.full(20, np.nan))
    assert (q[log.actions >= 0] == 0.0).all()


def test_it_finds_what_is_linear():
    """With many rows the truth, within the noise's four standard errors."""
    log = uniform_log(20_000)
    rng = np.random.default_rng(6)
    theta = 0.05 * rng.standard_normal((3, 4)) + np.array([0.5, 0.0, 0.0, 0.0])
    truth = log.contexts @ theta.T
    reward = truth[np.arange(20_000), log.arm] + 0.1 * rng.standard_normal(20_000)
    q = reward_models.ridge(log, reward)
    held = log.actions >= 0
    # Four coefficients per arm from about 5,000 rows each.
    assert np.sqrt(np.mean((q - truth)[held] ** 2)) < 4 * 0.1 * np.sqrt(4 / 5_000)


def test_one_fold_is_refused():
    """It would be no cross-fitting."""
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        reward_models.ridge(uniform_log(10), np.ones(10), count=1)


def test_a_context_that_is_no_number_is_refused():
    """With its row."""
    log = uniform_log(10)
    log.contexts[4, 1] = np.nan
    with pytest.raises(ValueError, match="contexts must be finite: row 4"):
        reward_models.ridge(log, np.ones(10))


def test_rows_that_teach_nothing_are_no_error(monkeypatch: pytest.MonkeyPatch):
    """Neither a whole log whose rewards haven't come, nor a stretch of one."""
    log = uniform_log(60)
    assert np.nanmax(reward_models.ridge(log, np.full(60, np.nan))) == 0.0
    monkeypatch.setattr(reward_models, "ROWS_AT_ONCE", 20)
    reward = np.where(np.arange(60) < 20, np.nan, 0.5)
    assert np.nanmax(reward_models.ridge(log, reward)) > 0.0

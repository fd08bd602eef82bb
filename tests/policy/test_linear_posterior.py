"""The linear value model's posterior and variances: against dense algebra, and the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from policy.values.linear import model as linear
from policy.values.linear import pooling
from policy.values.linear.model import LinearModel
from tests.policy.linear_model import (
    GROUPS,
    QUALITY,
    D,
    all_of,
    context,
    events,
    part,
    taught,
    values,
)
from tests.policy.one_query import forecast_one


def test_the_posterior_is_that_of_the_joint_gaussian():
    """θ_a = m + δ_a with Gaussian m and δ: the same means as one dense solve over all of them."""
    batch = events(7, k=2)  # fewer than the variances are learned from
    model = taught(batch)
    guess = pooling.guess(tuple(GROUPS))
    group = np.repeat([0, 1, 2], [1, 4, 3])
    prior = np.concatenate([guess.pooled[0, group], guess.arm[0, group], guess.arm[0, group]])
    rows = np.zeros((7, 3 * D))
    for i, arm in enumerate(batch.arms):
        at = D * (1 + model.arms.index(arm))
        rows[i, :D] = rows[i, at : at + D] = batch.x[i]
    precision = np.diag(1.0 / prior) + rows.T @ rows / guess.noise[0]
    centred = batch.quality - 0.5
    joint = np.linalg.solve(precision, rows.T @ centred / guess.noise[0])
    joint[0] += 0.5
    view = model.view()
    for i in range(2):
        expected = joint[:D] + joint[D * (1 + i) : D * (2 + i)]
        assert view.mean[i, 0] == pytest.approx(expected, abs=1e-5)
    assert view.fresh_mean[0] == pytest.approx(joint[:D], abs=1e-5)


def test_the_spread_is_that_of_one_regression_given_the_shared_mean():
    """V = σ² (X'X + σ² T^-1)^-1, against dense algebra."""
    batch = events(7, k=1)
    guess = pooling.guess(tuple(GROUPS))
    group = np.repeat([0, 1, 2], [1, 4, 3])
    x = batch.x.astype(np.float64)
    precision = x.T @ x / guess.noise[0] + np.diag(1.0 / guess.arm[0, group])
    query = context(1.0, 0.4, -0.3, 0.2)
    forecast = forecast_one(values(taught(batch)), query, all_of(1), np.zeros(1), QUALITY)
    expected = math.sqrt(query @ np.linalg.solve(precision, query.astype(np.float64)))
    assert forecast.utility_sd == pytest.approx([expected], rel=1e-5)


def test_many_outcomes_give_the_mean_of_each_arm():
    """With much data the prior no longer counts."""
    rng = np.random.default_rng(3)
    n = 4_000
    batch = events(n, seed=3)
    quality = np.array([0.3, 0.5, 0.9])[[int(arm[-1]) for arm in batch.arms]]
    noisy = np.clip(quality + 0.1 * rng.standard_normal(n), 0.0, 1.0)
    x = np.zeros((n, D), dtype=np.float32)
    x[:, 0] = 1.0
    model = taught(replace(batch, x=x, quality=noisy))
    forecast = forecast_one(
        values(model, "arm-0", "arm-1", "arm-2"), context(1.0), all_of(3), np.zeros(3), QUALITY
    )
    assert forecast.utility_sd is not None
    observed = [noisy[[arm == f"arm-{a}" for arm in batch.arms]].mean() for a in range(3)]
    assert (np.abs(forecast.utility - observed) < 0.5 * forecast.utility_sd).all()
    assert forecast.utility_sd == pytest.approx(np.full(3, 0.1 / math.sqrt(n / 3)), rel=0.15)


def test_noise_and_spreads_are_learned():
    """On outcomes drawn from the model itself the variances come out: the noise within four
    standard errors, an arm's within a quarter, for the guess is still a fifth of it."""
    rng = np.random.default_rng(5)
    k, n = 40, 20_000
    coefficients = rng.standard_normal((k, D)) * np.sqrt(np.repeat([0.01, 0.04, 0.001], [1, 4, 3]))
    batch = events(n, k, seed=5)
    arms = np.array([int(arm[4:]) for arm in batch.arms])
    mean = 0.5 + (coefficients[arms] * batch.x).sum(axis=1)
    quality = mean + 0.1 * rng.standard_normal(n)
    model = taught(replace(batch, quality=quality))
    spread = model._spread
    drawn = coefficients.var(axis=0)
    true = [drawn[:1].mean(), drawn[1:5].mean(), drawn[5:].mean()]
    assert spread.noise[0] == pytest.approx(0.01, rel=4 * math.sqrt(2 / n))
    assert spread.arm[0] == pytest.approx(true, rel=0.25)


def test_guesses_follow_the_noise():
    """Where outcomes scatter a tenth as much, arms are guessed to differ a tenth as much."""
    wide, narrow = (pooling.guess(tuple(GROUPS), np.full(5, noise)) for noise in (0.1, 0.01))
    np.testing.assert_allclose(wide.arm, 10 * narrow.arm)
    assert wide.pooled[0, 0] == narrow.pooled[0, 0]  # of the bias: an open question either way


def test_forecasts_are_calibrated():
    """Where outcomes come from the model's own kind, z scores of the truth have a spread near 1;
    four standard errors of a standard deviation over 300 correlated predictions."""
    rng = np.random.default_rng(8)
    k, n = 10, 600
    truth = rng.standard_normal((k, D)) * np.sqrt(np.repeat([0.01, 0.02, 0.005], [1, 4, 3]))
    batch = events(n, k, seed=8)
    arms = np.array([int(arm[4:]) for arm in batch.arms])
    quality = 0.5 + (truth[arms] * batch.x).sum(axis=1) + 0.2 * rng.standard_normal(n)
    learned = replace(batch, quality=quality)
    bound = values(taught(learned), *(f"arm-{a}" for a in range(k)))
    z = []
    for x in events(30, seed=80).x:
        forecast = forecast_one(bound, x, all_of(k), np.zeros(k), QUALITY)
        assert forecast.utility_sd is not None
        z += ((0.5 + truth @ x - forecast.utility) / forecast.utility_sd).tolist()
    assert np.std(z) == pytest.approx(1.0, abs=0.35)


@pytest.mark.parametrize("k", [1, 40])
def test_variances_are_learned_ever_more_rarely(k: int, monkeypatch: pytest.MonkeyPatch):
    """Early often, later each TUNE_EVERY events at most; an arm's share of it is paid for by an
    event at least."""
    at: list[int] = []
    monkeypatch.setattr(linear, "TUNE_EVERY", 64)
    monkeypatch.setattr(LinearModel, "_tune", lambda model, k: at.append(model.events))
    taught(events(2_000, k=k))
    gaps = np.diff(at)
    assert at[0] == linear.TUNE_FIRST
    assert gaps[0] < 2 * linear.TUNE_APART
    assert gaps[-1] == 64
    assert (gaps[20:] >= k).all()
    assert (gaps >= linear.TUNE_APART).all()


def test_an_arm_that_nobody_has_used_yet_changes_no_variance():
    """Where a batch names more arms than had an event by then, the first of them are tuned from."""
    batch = events(200, k=30, seed=4)
    first = taught(batch)
    one_by_one = taught(*(part(batch, i, i + 1) for i in range(200)))
    assert first._due == one_by_one._due
    np.testing.assert_allclose(first._spread.arm, one_by_one._spread.arm, rtol=1e-9)

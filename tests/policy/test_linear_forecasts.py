"""What the linear value model expects: of new arms, prices, weights and action sets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy.objective import Weights
from policy.values.linear.model import LinearModel
from tests.policy.linear_model import (
    GROUPS,
    MIXED,
    QUALITY,
    SCALES,
    all_of,
    context,
    events,
    one,
    taught,
    values,
)
from tests.policy.one_query import forecast_one


def test_a_new_arm_starts_from_what_the_others_share():
    """Where every arm is good at something, so is one never seen; but less surely."""
    good = [one(arm, (1.0, 1.0), quality=0.95) for arm in "abcdef"] * 20
    bad = [one(arm, (1.0, -1.0), quality=0.15) for arm in "abcdef"] * 20
    bound = values(taught(*good, *bad), "a", "new")
    at_good, at_bad = (
        forecast_one(bound, context(1.0, x), all_of(2), np.zeros(2), QUALITY) for x in (1.0, -1.0)
    )
    assert at_good.utility[1] > 0.8
    assert at_bad.utility[1] < 0.3
    assert at_good.utility_sd is not None
    assert at_good.utility_sd[1] > 2 * at_good.utility_sd[0]
    assert bound.events.tolist() == [40, 0]
    assert bound.joined.tolist() == [0, 240]


def test_a_price_acts_at_once():
    """An arm that costs twice its list price goes on to, at a new list price."""
    batches = [one("a", cost_usd=0.002, list_cost_usd=0.001, quality=0.5)] * 200
    bound = values(taught(*batches), "a")
    for list_cost_usd in (0.001, 0.003):
        forecast = forecast_one(bound, context(1.0), all_of(1), np.array([list_cost_usd]), MIXED)
        assert forecast.outcome[0, 2] == pytest.approx(2 * list_cost_usd, rel=0.1)


def test_a_free_arm_stays_free():
    """A list price of 0 and a cost of 0 predict a cost of 0."""
    bound = values(taught(*[one("a", cost_usd=0.0)] * 50), "a")
    forecast = forecast_one(bound, context(1.0), all_of(1), np.zeros(1), QUALITY)
    assert forecast.outcome[0, 2] == pytest.approx(0.0, abs=1e-6)


def test_predicted_latency_is_about_the_observed_mean():
    """Log-normal latencies of median 400 and mean 442 ms; within four standard errors of 4%."""
    rng = np.random.default_rng(7)
    slow = rng.lognormal(math.log(400.0), 0.45, 400).tolist()
    bound = values(taught(*[one("a", latency_ms=latency) for latency in slow]), "a")
    forecast = forecast_one(bound, context(1.0), all_of(1), np.zeros(1), QUALITY)
    assert forecast.outcome[0, 1] == pytest.approx(np.mean(slow), rel=0.16)


def test_what_nobody_taught_is_unknown():
    """NaN, never a guess in milliseconds."""
    bound = values(taught(one("a", quality=0.5)), "a")
    outcome = forecast_one(bound, context(1.0), all_of(1), np.zeros(1), QUALITY).outcome
    assert np.isnan(outcome[0]).tolist() == [False, True, True]


def test_before_any_event_there_is_a_forecast():
    """All arms alike, but for their list cost."""
    bound = LinearModel(GROUPS, SCALES).view().bind(["a", "b"])
    weights = Weights.of(quality=0.5, cost=0.5)
    forecast = forecast_one(bound, context(1.0), all_of(2), np.array([0.0, 0.01]), weights)
    assert forecast.utility == pytest.approx([0.75, 0.25], abs=1e-6)
    assert np.isnan(forecast.outcome).all()


@pytest.mark.parametrize("weights", [QUALITY, MIXED, Weights.of(latency=1.0)])
def test_usual_weights_are_only_faster(weights: Weights):
    """The same forecast with and without them."""
    view = taught(events(500)).view()
    x = events(1, seed=9).x[0]
    costs = np.full(3, 0.002)
    plain = forecast_one(view.bind(view.arms), x, all_of(3), costs, weights)
    fast = forecast_one(view.bind(view.arms, usual=weights), x, all_of(3), costs, weights)
    assert fast.utility.tolist() == plain.utility.tolist()
    assert fast.utility_sd == pytest.approx(plain.utility_sd, rel=1e-6)


def test_utility_is_the_reward_of_the_mean_and_spreads_add_by_squared_weight():
    """sd² = Σ w² sd_c² over independent components."""
    bound = values(taught(events(500)))
    x, costs = events(1, seed=9).x[0], np.full(3, 0.002)
    alone = [
        forecast_one(bound, x, all_of(3), costs, Weights.of(**{name: 1.0}))
        for name in ("quality", "latency", "cost")
    ]
    mixed = forecast_one(bound, x, all_of(3), costs, MIXED)
    w = np.array(MIXED.as_tuple())
    assert mixed.utility == pytest.approx(sum(a * f.utility for a, f in zip(w, alone, strict=True)))
    assert mixed.utility_sd is not None
    variances = [np.square(f.utility_sd) for f in alone if f.utility_sd is not None]
    assert np.square(mixed.utility_sd) == pytest.approx(w**2 @ variances, rel=1e-5)


def test_an_action_set_is_a_part_of_the_catalog():
    """Arms that aren't eligible change nothing for those that are."""
    bound = values(taught(events(300)))
    x, costs = events(1, seed=9).x[0], np.array([0.001, 0.002, 0.003])
    everyone = forecast_one(bound, x, all_of(3), costs, MIXED)
    some = forecast_one(bound, x, np.array([2, 0]), costs[[2, 0]], MIXED)
    assert some.utility.tolist() == everyone.utility[[2, 0]].tolist()
    assert some.outcome.tolist() == everyone.outcome[[2, 0]].tolist()

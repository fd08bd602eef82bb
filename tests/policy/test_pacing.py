"""A budget is spent over its period, by a price that follows the spending, and never passed."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from features.query import Query
from policy import policy as policies
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.choosing.pacing import LOWEST, Budget, Pace, Purse, Span, spent
from policy.config.schema import ObjectiveConfig, PolicyConfig
from policy.objective import Scales, Weights, reward
from policy.policy import Request
from policy.values import models

DAY_MS = 86_400_000
QUALITY = Weights.of(quality=1.0)
LINEAR = Scales(10_000.0, 0.01)


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("per", "now", "start", "end"),
    [
        ("hour", (2026, 3, 1, 9, 59, 59), (2026, 3, 1, 9), (2026, 3, 1, 10)),
        ("day", (2026, 2, 28, 23, 59), (2026, 2, 28), (2026, 3, 1)),
        ("month", (2026, 12, 31, 23), (2026, 12, 1), (2027, 1, 1)),
        ("month", (2028, 2, 29), (2028, 2, 1), (2028, 3, 1)),
    ],
)
def test_a_period_is_one_of_the_utc_calendar(per, now, start, end):
    assert Span.of(per, ms(*now)) == Span(ms(*start), ms(*end))


def day(budget: Budget, purse: Purse, at: np.ndarray, costs=(1e-5, 1e-3)) -> tuple[Purse, float]:
    """One day of decisions between a cheap arm and a dear one that is better by 0.1 on average."""
    rng = np.random.default_rng(len(at))
    paid = 0.0
    for now_ms in at.astype(int).tolist():
        pace = Pace.of(budget, purse, now_ms)
        gain = rng.exponential(0.1)
        y = np.array([[0.5, 0.0, costs[0] / 0.01], [0.5 + gain, 0.0, costs[1] / 0.01]])
        arm = int(reward(y, pace.weights(QUALITY, LINEAR)).argmax())
        if costs[arm] > pace.most_usd:
            arm = 0
        assert costs[arm] <= pace.left_usd or not budget.hard
        purse = spent(pace, now_ms, costs[arm], costs[arm], costs[0])
        paid += costs[arm]
    return purse, paid


@pytest.mark.parametrize("usd", [0.4, 0.8, 1.5])
def test_what_binds_is_spent_to_within_two_percent(usd):
    rng = np.random.default_rng(3)
    _, paid = day(Budget(usd=usd), Purse(), np.sort(rng.random(2_000)) * DAY_MS)
    assert 0.98 * usd <= paid <= 1.0 * usd


def test_what_does_not_bind_has_no_price():
    rng = np.random.default_rng(3)
    purse, paid = day(Budget(usd=50.0), Purse(), np.sort(rng.random(2_000)) * DAY_MS)
    assert math.exp(purse.log_price) == pytest.approx(LOWEST)
    assert Pace.of(Budget(usd=50.0), purse, DAY_MS - 1).weights(QUALITY, LINEAR) == QUALITY
    assert paid == pytest.approx(2_000 * 1e-3)


def test_traffic_that_doubles_at_noon_is_expected_from_the_second_day_on():
    rng = np.random.default_rng(3)
    u = np.sort(rng.random(3_000))
    at = np.where(u < 1 / 3, 1.5 * u, 0.5 + 0.75 * (u - 1 / 3)) * DAY_MS
    purse, paid = day(Budget(usd=0.8), Purse(), DAY_MS + at)
    assert paid <= 0.8
    before_noon = 2 * DAY_MS + 10 * 3_600_000
    assert Pace.of(Budget(usd=0.8), purse, 2 * DAY_MS).decisions == pytest.approx(3_000, rel=0.1)
    purse, _ = day(Budget(usd=0.8), purse, DAY_MS + at[at < 10 * 3_600_000] + DAY_MS)
    left = int((at >= 10 * 3_600_000).sum())
    assert Pace.of(Budget(usd=0.8), purse, before_noon).decisions == pytest.approx(left, rel=0.15)


def test_what_the_cheapest_arm_will_cost_is_kept_back():
    """A budget that hardly pays the cheapest arm leaves nothing for others, and lasts."""
    rng = np.random.default_rng(3)
    _, paid = day(Budget(usd=2_100 * 1e-5), Purse(), np.sort(rng.random(2_000)) * DAY_MS)
    assert paid <= 2_100 * 1e-5


def test_a_budget_that_cannot_be_kept_is_known():
    purse = Purse()
    for now_ms in range(0, DAY_MS // 2, DAY_MS // 2_000):
        pace = Pace.of(Budget(usd=0.001), purse, now_ms)
        purse = spent(pace, now_ms, 1e-5, 0.0, 1e-5)
    assert not Pace.of(Budget(usd=0.001), purse, DAY_MS // 2).can_be_kept
    assert Pace.of(Budget(usd=0.1), purse, DAY_MS // 2).can_be_kept


def test_a_new_period_begins_with_all_of_it_and_the_price_of_before():
    pace = Pace.of(Budget(usd=1.0), Purse(), 1_000)
    purse = spent(pace, 1_000, 0.9, 0.9, 1e-5)
    assert Pace.of(Budget(usd=1.0), purse, 2_000).left_usd == pytest.approx(0.1)
    later = Pace.of(Budget(usd=1.0), purse, DAY_MS + 1_000)
    assert later.left_usd == 1.0
    assert later.price == pytest.approx(math.exp(purse.log_price))


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_price_is_what_one_more_unit_takes_from_the_reward(scale):
    scales = Scales(10_000.0, 0.01, scale)
    pace = Pace.of(Budget(usd=1.0), Purse(log_price=math.log(0.3)), 0)
    pace = replace(pace, unit_usd=1e-4)
    own = Weights.of(quality=1.0)
    with_price = pace.weights(own, scales)
    cost = np.array([1e-4, 1e-4 * 1.001])
    y = np.stack([np.full(2, 0.5), np.zeros(2), scales.cost(cost)], axis=1)
    lost = -np.diff(reward(y, with_price))[0] / with_price.quality
    assert lost == pytest.approx(0.3 * 0.001, rel=0.01)


def test_the_pmf_is_that_of_the_weights_that_are_logged():
    """So a propensity can be computed again from what a decision says of itself."""
    arms = [
        Arm(id=name, provider="p", model=name, usd_per_mtok_in=price, usd_per_mtok_out=price)
        for name, price in (("cheap", 0.1), ("dear", 10.0))
    ]
    config = PolicyConfig(objective=ObjectiveConfig(quality=1.0))
    encoder = models.default_encoder(config)
    model = models.new_model(config, encoder)
    assert model is not None
    policy = policies.build(
        "p", "1", 1, config=config, encoder=encoder, catalog=Catalog(tuple(arms)), view=model.view()
    )
    pace = Pace.of(Budget(usd=0.1), Purse(log_price=0.0), 0)
    request = Request(Query(text="Sort a list."))
    paced = replace(policy, pace=replace(pace, unit_usd=1e-4)).decide(request, "d", 0)
    again = policy.decide(replace(request, weights=paced.weights), "d", 0)
    free = policy.decide(request, "d", 0)
    assert paced.weights.cost > 0.5
    np.testing.assert_array_equal(paced.pmf, again.pmf)
    assert paced.pmf[1] < free.pmf[1] - 0.1


def test_the_cheapest_arm_stays_while_it_can_be_paid():
    """However little the budget has for one call; what is out says why."""
    pace = Pace.of(Budget(usd=1.0), Purse(start_ms=0, spent_usd=0.9, cheapest_usd=0.001), 0)
    limit = replace(pace, decisions=1e6).limit
    assert limit is not None
    tight = limit._replace(bound=0.01)
    assert tight.met(np.array([0.05, 0.08])).tolist() == [True, False]
    assert tight.met(np.array([0.5, 0.8])).tolist() == [False, False]
    assert tight.met(np.array([0.005, 0.008, 0.05])).tolist() == [True, True, False]
    assert "0.05 USD > 0.01 USD that the budget has" in tight.missed("predicted", 0.05)

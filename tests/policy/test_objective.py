"""The reward formula, by hand."""

import math
from typing import get_args

import numpy as np
import pytest

from policy.objective import LOG_SLOPE, PRESETS, Preset, Scales, Weights, components, reward

NAN = float("nan")
LINEAR = Scales(latency_ref_ms=1000.0, cost_ref_usd=0.01)
LOG = Scales(latency_ref_ms=1000.0, cost_ref_usd=0.01, scale="log")


def reward_of(
    weights: Weights,
    quality: float = NAN,
    latency_ms: float = NAN,
    cost_usd: float = NAN,
    *,
    error: bool = False,
    scales: Scales = LINEAR,
) -> float:
    return float(reward(components(quality, latency_ms, cost_usd, error, scales), weights)[0])


def test_reward_by_hand():
    """0.5 * 0.8 + 0.3 * (1 - 0.25) + 0.2 * (1 - 0.5) = 0.725."""
    weights = Weights(quality=0.5, latency=0.3, cost=0.2)
    assert reward_of(weights, 0.8, 250.0, 0.005) == pytest.approx(0.725)


def test_log_scale_by_hand():
    """A tenth of the reference costs log(11) / log(101) = 0.5196 on the log scale."""
    assert LOG.latency(100.0) == pytest.approx(math.log(11) / math.log(101))
    assert LOG.cost([0.0, 0.001, 0.01]) == pytest.approx([0.0, 0.519574, 1.0], abs=1e-6)
    assert LOG_SLOPE == 100.0
    only_cost = Weights.of(cost=1.0)
    assert reward_of(only_cost, cost_usd=0.001, scales=LOG) == pytest.approx(1 - 0.519574, abs=1e-6)


@pytest.mark.parametrize("scales", [LINEAR, LOG])
def test_beyond_the_reference_nothing_gets_worse(scales: Scales):
    """At the reference and beyond it a component scores 0, so a reward stays in [0, 1]."""
    assert scales.latency([1000.0, 1001.0, 1e12]) == pytest.approx([1.0, 1.0, 1.0])
    assert reward_of(Weights(0.0, 0.5, 0.5), NAN, 1e9, 1e9, scales=scales) == 0.0
    assert reward_of(Weights(0.4, 0.3, 0.3), 1.0, 0.0, 0.0, scales=scales) == pytest.approx(1.0)


def test_rewards_stay_in_their_interval():
    """Whatever the outcome and the weights, a reward is in [0, 1]."""
    rng = np.random.default_rng(1)
    for scales in (LINEAR, LOG):
        for _ in range(20):
            weights = Weights.of(*rng.exponential(size=3))
            y = components(
                rng.uniform(size=50),
                rng.exponential(2000, 50),
                rng.exponential(0.02, 50),
                rng.uniform(size=50) < 0.2,
                scales,
            )
            assert ((reward(y, weights) >= -1e-12) & (reward(y, weights) <= 1 + 1e-12)).all()


def test_an_error_by_hand():
    """An error has quality 0, no latency score and no cost: 0 + 0.3 * 0 + 0.2 * 1 = 0.2."""
    weights = Weights(quality=0.5, latency=0.3, cost=0.2)
    assert reward_of(weights, error=True) == pytest.approx(0.2)
    assert reward_of(weights, quality=0.9, error=True) == pytest.approx(0.2)


def test_an_error_keeps_what_was_measured():
    """A latency or cost that came with the error counts: 0.3 * 0.75 + 0.2 * 0.5 = 0.325."""
    weights = Weights(quality=0.5, latency=0.3, cost=0.2)
    assert reward_of(weights, NAN, 250.0, 0.005, error=True) == pytest.approx(0.325)


def test_a_missing_component_of_weight_leaves_no_reward():
    """Without an error, the reward is unknown until every weighted component is there."""
    weights = Weights(quality=0.5, latency=0.3, cost=0.2)
    assert math.isnan(reward_of(weights, 0.8, 250.0))
    assert math.isnan(reward_of(weights, latency_ms=250.0, cost_usd=0.005))


def test_a_missing_component_without_weight_is_no_matter():
    """0.9 * 0.8 + 0.1 * (1 - 0.5) = 0.77, and latency may stay away."""
    assert reward_of(Weights.of(quality=9, cost=1), 0.8, NAN, 0.005) == pytest.approx(0.77)


def test_rows_are_scored_one_by_one():
    """A row that failed or misses something does not touch its neighbours."""
    y = components([0.8, NAN, 0.4], [0.0, 0.0, NAN], [0.0, 0.0, 0.0], [False, True, False], LINEAR)
    assert reward(y, Weights(0.5, 0.5, 0.0))[:2] == pytest.approx([0.9, 0.5])
    assert math.isnan(reward(y, Weights(0.5, 0.5, 0.0))[2])


def test_the_reward_of_a_mean_is_the_mean_of_rewards():
    """It is linear in the components, so predictions can be scored like outcomes."""
    y = np.random.default_rng(2).uniform(size=(100, 3))
    weights = PRESETS["balanced"]
    assert reward(y.mean(axis=0), weights) == pytest.approx(reward(y, weights).mean())


def test_weights_are_shares():
    """Weights are scaled to sum 1, and so are those of every preset."""
    assert Weights.of(2, 1, 1) == Weights(0.5, 0.25, 0.25)
    for weights in PRESETS.values():
        assert sum(weights.as_tuple()) == pytest.approx(1.0)
    assert set(PRESETS) == set(get_args(Preset))


@pytest.mark.parametrize("given", [(0, 0, 0), (-1, 1, 1), (NAN, 1, 1), (math.inf, 0, 0)], ids=str)
def test_impossible_weights_are_refused(given: tuple[float, float, float]):
    """Weights are finite, not negative, and not all 0."""
    with pytest.raises(ValueError, match="weights must be finite, >= 0 and not all 0, got"):
        Weights.of(*given)


@pytest.mark.parametrize("reference", [0.0, -1.0, NAN, math.inf])
def test_impossible_references_are_refused(reference: float):
    """A reference is finite and positive; the error names it."""
    with pytest.raises(ValueError, match="latency_ref_ms must be finite and > 0"):
        Scales(latency_ref_ms=reference, cost_ref_usd=1.0)
    with pytest.raises(ValueError, match="cost_ref_usd must be finite and > 0"):
        Scales(latency_ref_ms=1.0, cost_ref_usd=reference)

"""Estimators: by hand, by what all of them must do, and beside Open Bandit Pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from offline_eval.estimating import estimators, tuning
from offline_eval.estimating.estimators import Estimate
from offline_eval.estimating.intervals import student_t
from tests.offline_eval.bandits import EVERY, simulate

INF = math.inf


CONSISTENT = ("ips", "snips", "dr", "sndr")
USES_WEIGHTS = [name for name in EVERY if name != "dm"]
USES_MODEL = ("dm", "dr", "sndr", "switch_dr", "dros")
every = pytest.mark.parametrize("name", EVERY)

# Two arms, drawn with 1/2 each; the target takes the first with 3/4. Weights 3/2 and 1/2.
W = np.array([1.5, 1.5, 0.5, 0.5])
R = np.array([1.0, 0.0, 1.0, 1.0])
Q = np.array([0.5, 0.5, 0.8, 0.8])
V = np.full(4, 0.75 * 0.5 + 0.25 * 0.8)  # 0.575


@pytest.mark.parametrize(
    ("estimate", "terms"),
    [
        (estimators.ips(W, R), [1.5, 0.0, 0.5, 0.5]),
        (estimators.clipped_ips(W, R, 1.0), [1.0, 0.0, 0.5, 0.5]),
        # Σ w = 4, Σ w r = 2.5: 0.625 + w (r - 0.625)
        (estimators.snips(W, R), [1.1875, -0.3125, 0.8125, 0.8125]),
        (estimators.dm(V), [0.575, 0.575, 0.575, 0.575]),
        # w (r - q) = 0.75, -0.75, 0.1, 0.1
        (estimators.dr(W, R, Q, V), [1.325, -0.175, 0.675, 0.675]),
        # Σ w (r - q) / Σ w = 0.05: 0.575 + 0.05 + w (r - q - 0.05)
        (estimators.sndr(W, R, Q, V), [1.3, -0.2, 0.7, 0.7]),
        (estimators.switch_dr(W, R, Q, V, 1.0), [0.575, 0.575, 0.675, 0.675]),
        (estimators.switch_dr(W, R, Q, V, 1.5), [1.325, -0.175, 0.675, 0.675]),
        # λ = 3: 4.5 / 5.25 = 6/7 and 1.5 / 3.25 = 6/13
        (
            estimators.dros(W, R, Q, V, 3.0),
            [0.575 + 3 / 7, 0.575 - 3 / 7, 0.575 + 1.2 / 13, 0.575 + 1.2 / 13],
        ),
        (estimators.dros(W, R, Q, V, INF), [1.325, -0.175, 0.675, 0.675]),
        (estimators.dros(W, R, Q, V, 0.0), [0.575, 0.575, 0.575, 0.575]),
    ],
)
def test_by_hand(estimate: Estimate, terms: list[float]):
    """Four rounds that can be checked on paper."""
    assert estimate.terms == pytest.approx(terms)
    assert estimate.value == pytest.approx(sum(terms) / 4)
    assert estimate.se == pytest.approx(np.std(terms, ddof=1) / 2)


@every
def test_the_terms_mean_the_value(name: str):
    """To rounding, whatever the weights."""
    estimate = EVERY[name](simulate(1, 5_000))
    assert estimate.value is not None
    assert estimate.terms.mean() == pytest.approx(estimate.value, abs=1e-13)


@every
def test_on_policy_without_a_model_it_is_the_mean_reward(name: str):
    """All weights 1 and q = v = the mean reward."""
    o = simulate(2, 1_000)
    flat = np.full(1_000, o.reward.mean())
    one = replace(o, weights=np.ones(1_000), q_logged=flat, v_target=flat)
    expected = o.reward.mean()
    assert EVERY[name](one).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", CONSISTENT)
def test_over_many_logs_it_finds_the_truth_and_knows_its_error(name: str):
    """The mean of 2,000 estimates is the truth within four standard errors (and a ratio's bias of
    order 1 / n), and their spread is what the terms say, within ten per cent."""
    logs, n = 2_000, 400
    found = [(EVERY[name](o), o.truth) for o in (simulate(s, n) for s in range(logs))]
    errors = np.array([(e.value or 0.0) - truth for e, truth in found])
    se = float(errors.std(ddof=1))
    ratio_bias = 0.2 / n if name.startswith("sn") else 0.0
    assert abs(errors.mean()) < 4.0 * se / math.sqrt(logs) + ratio_bias
    # The truth moves with the contexts, so an estimate's spread is compared with a fixed one.
    values = np.array([e.value or 0.0 for e, _ in found])
    told = math.sqrt(float(np.mean([(e.se or 0.0) ** 2 for e, _ in found])))
    assert told == pytest.approx(values.std(ddof=1), rel=0.1)


def test_snips_moves_along_with_the_rewards():
    """Adding 1 to each reward adds 1 to the value and leaves the terms' spread."""
    o = simulate(3, 1_000)
    before, after = estimators.snips(o.weights, o.reward), estimators.snips(o.weights, o.reward + 1)
    assert before.value is not None
    assert after.value == pytest.approx(before.value + 1.0)
    assert after.se == pytest.approx(before.se or 0.0)


@pytest.mark.parametrize("name", USES_MODEL)
def test_with_a_perfect_model_it_is_exact(name: str):
    """Without noise and model error nothing is left for the weights to do."""
    o = simulate(4, 1_000, model_error=0.0)
    exact = EVERY[name](replace(o, reward=o.q_logged))
    assert exact.value == pytest.approx(o.truth, abs=1e-12)


def test_clipping_never_raises_an_estimate_of_rewards():
    """And doesn't act from the largest weight on."""
    o = simulate(5, 1_000)
    values = [estimators.clipped_ips(o.weights, o.reward, c).value or 0.0 for c in (1, 2, 4, 1e9)]
    assert values == sorted(values)
    assert values[-1] == estimators.ips(o.weights, o.reward).value


@every
def test_a_row_that_stands_for_two_counts_as_two(name: str):
    """The value is that of a log in which it is there twice."""
    o = simulate(6, 300)
    twice = np.where(np.arange(300) % 3 == 0, 2, 1)
    again = {
        field: np.repeat(getattr(o, field), twice)
        for field in ("weights", "reward", "q_logged", "v_target")
    }
    stands_for = twice.astype(np.float64)
    calls: dict[str, Estimate] = {
        "ips": estimators.ips(o.weights, o.reward, stands_for),
        "clipped_ips": estimators.clipped_ips(o.weights, o.reward, 3.0, stands_for),
        "snips": estimators.snips(o.weights, o.reward, stands_for),
        "dm": estimators.dm(o.v_target, stands_for),
    }
    model = (o.weights, o.reward, o.q_logged, o.v_target)
    calls |= {
        "dr": estimators.dr(*model, stands_for),
        "sndr": estimators.sndr(*model, stands_for),
        "switch_dr": estimators.switch_dr(*model, 2.0, stands_for),
        "dros": estimators.dros(*model, 20.0, stands_for),
    }
    expected = EVERY[name](replace(o, **again)).value
    assert calls[name].value == pytest.approx(expected)
    assert calls[name].terms.mean() == pytest.approx(expected)


@every
def test_an_interval_is_doubted_where_its_terms_dont_know_the_error(name: str):
    """A bias isn't in them, however many rows there are; the others of an ordinary log are as
    their terms say."""
    found = EVERY[name](simulate(12, 2_000))
    interval = found.interval()
    assert interval is not None
    assert (interval.low, interval.high) == (
        student_t(found.terms).low,
        student_t(found.terms).high,
    )
    assert interval.warning == found.doubt
    assert ("biased by" in str(found.doubt)) == (name not in CONSISTENT)
    assert (found.doubt is None) == (name in CONSISTENT)


@pytest.mark.parametrize("name", CONSISTENT)
def test_an_interval_around_no_click_is_doubted(name: str):
    """Of an arm that earned nothing in 300 draws the model spreads the terms, which says nothing
    of the rewards; and without a spread there are no bounds to doubt."""
    o = simulate(13, 900)
    drawn = np.arange(900) % 3 == 0
    weights, reward = np.where(drawn, 3.0, 0.0), np.where(drawn, 0.0, o.reward)
    found = EVERY[name](replace(o, weights=weights, reward=reward)).interval()
    assert found is not None
    if name in ("ips", "snips"):
        assert found.warning == "the terms don't differ, so their spread is unknown"
    else:
        assert found.high - found.low < 0.1
        assert "(its rewards differ in 0 effective of 900)" in str(found.warning)


def test_rewards_that_differ_by_rounding_do_not_differ():
    """Nor do those that stand for several; the spread of the weights alone is no spread."""
    rng = np.random.default_rng(14)
    weights, stands_for = rng.exponential(1.0, 900), rng.integers(1, 4, 900).astype(float)
    for counts in (None, stands_for):
        found = estimators.ips(weights, np.full(900, 0.7449), counts)
        assert "differ in 0 effective" in str(found.doubt)


@every
def test_without_rows_nothing_is_said(name: str):
    """Not evaluable, and never 0."""
    none = EVERY[name](
        replace(
            simulate(7, 10),
            **dict.fromkeys(("weights", "reward", "q_logged", "v_target"), np.empty(0)),
        )
    )
    assert none.value is None
    assert none.se is None
    assert none.interval() is None
    assert none.why == "there are no rows"


@pytest.mark.parametrize("name", USES_WEIGHTS)
def test_without_support_nothing_is_said(name: str):
    """Where no logged arm is one of the target's, the weights are 0: that is no estimate of 0."""
    none = EVERY[name](replace(simulate(8, 10), weights=np.zeros(10)))
    assert none.value is None
    assert none.why is not None
    assert "no arm that was logged" in none.why


@pytest.mark.parametrize("name", USES_WEIGHTS)
def test_a_missing_reward_is_refused(name: str):
    """With the rows at which it is missing: it isn't 0."""
    o = simulate(9, 10)
    o.reward[[2, 7]] = np.nan
    with pytest.raises(ValueError, match="missing, which is not 0: rows 2, 7"):
        EVERY[name](o)


@pytest.mark.parametrize("name", USES_MODEL)
def test_a_missing_prediction_is_refused(name: str):
    """With its row."""
    o = simulate(9, 10)
    o.v_target[4] = np.nan
    with pytest.raises(ValueError, match="v_target must be finite: row 4"):
        EVERY[name](o)


@every
def test_what_it_is_given_stays_as_it_is(name: str):
    """Estimators work in place only on arrays of their own."""
    o, same = simulate(11, 50), simulate(11, 50)
    EVERY[name](o)
    for field in ("weights", "reward", "q_logged", "v_target"):
        assert (getattr(o, field) == getattr(same, field)).all()


@pytest.mark.parametrize("name", USES_WEIGHTS)
@pytest.mark.parametrize("weight", [-0.1, np.nan, INF])
def test_an_impossible_weight_is_refused(name: str, weight: float):
    """With its row."""
    o = simulate(10, 10)
    o.weights[3] = weight
    with pytest.raises(ValueError, match=">= 0: row 3"):
        EVERY[name](o)


@pytest.mark.parametrize(
    "call",
    [
        lambda: estimators.clipped_ips(W, R, 0.5),
        lambda: estimators.switch_dr(W, R, Q, V, -1.0),
        lambda: estimators.dros(W, R, Q, V, math.nan),
        lambda: tuning.tuned([], W, R, Q, V, np.minimum),
    ],
)
def test_an_impossible_parameter_is_refused(call: Callable[[], object]):
    """Before anything is computed from it."""
    with pytest.raises(ValueError, match=r"must be >=|needs candidates"):
        call()


def test_tuning_by_hand():
    """No bias at 2 and variance 1.0625 / 4; at 1 bias 0.125 and variance 0.5 / 4 win."""
    chosen = tuning.tuned([2.0, 1.0], W, R, 0.0, 0.0, np.minimum, delta=None)
    assert np.var(W * R) / 4 > np.var(np.minimum(W, 1.0) * R) / 4 + 0.125**2
    assert chosen == 1.0


# Open Bandit Pipeline.

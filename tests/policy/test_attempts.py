"""What came of a plan's calls: time, cost, and what each teaches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy.plans.attempts import Attempt, Attempts, lessons, residuals
from policy.plans.plan import Plan, Step

A = Attempt("a", quality=0.2, latency_ms=900.0, cost_usd=0.001)
B = Attempt("b", latency_ms=2_000.0, cost_usd=0.004)
FAILED = Attempt("a", latency_ms=300.0, error="timeout")


def plan(kind: str, **second: object) -> Plan:
    expected = {"log_latency": math.log(1_000.0), "log_latency_sd": 0.5}
    steps = (
        Step("a", at_ms=0.0, quality=0.6, **expected),
        Step("b", quality=0.8, **expected, **second),  # type: ignore[arg-type]
    )
    return Plan(f"{kind}:x", kind, steps, None, (0.7, 0.1, 0.1), 0)  # type: ignore[arg-type]


CASCADE = plan("cascade", quality_below=0.7)
HEDGE = plan("hedge", after_ms=800.0)
RACE = plan("race", at_ms=0.0)


@pytest.mark.parametrize(
    ("plan", "calls", "latency_ms"),
    [
        (CASCADE, Attempts((A, B), "b"), 2_900.0),
        (CASCADE, Attempts((A,), "a"), 900.0),
        (None, Attempts((FAILED, B), "b"), 2_300.0),
        (RACE, Attempts((A, B), "a"), 2_000.0),
        (HEDGE, Attempts((A,), "a"), 900.0),
        (HEDGE, Attempts((Attempt("a", latency_ms=2_800.0, cancelled=True), B), "b"), 2_800.0),
        (HEDGE, Attempts((A, Attempt("b", latency_ms=100.0, cancelled=True)), "a"), 900.0),
        (HEDGE, Attempts((FAILED, B), "b"), 2_300.0),
        (CASCADE, Attempts((A, Attempt("b")), "b"), None),
    ],
)
def test_the_time_until_the_answer(plan: Plan | None, calls: Attempts, latency_ms: float | None):
    """Calls of a cascade and a fallback follow one another, those of a race run side by side, and
    a hedge's second begins at its time, or when the first has failed before."""
    assert calls.latency_ms(plan) == latency_ms


def test_the_cost_is_the_sum():
    """A failed call of which nothing is said was free; another one that isn't told is unknown."""
    assert Attempts((A, B), "b").cost_usd == pytest.approx(0.005)
    assert Attempts((FAILED, B), "b").cost_usd == pytest.approx(0.004)
    assert Attempts((A, Attempt("b")), "b").cost_usd is None


def test_without_an_answer_there_is_an_error():
    """That of the last call that failed."""
    again = Attempt("b", error="rate_limited")
    assert Attempts((FAILED, again), None).error == "rate_limited"
    assert Attempts((FAILED, B), "b").error is None


def test_each_call_teaches_its_arm():
    """The returned answer is worth what the decision is, another one what its caller made of it."""
    taught = list(lessons(RACE, Attempts((A, B), "b"), 0.9, slope=0.5))
    assert [(one.arm, one.quality, one.latency_ms, one.cost_usd) for one in taught] == [
        ("a", 0.2, 900.0, 0.001),
        ("b", 0.9, 2_000.0, 0.004),
    ]
    assert taught[0].query == taught[1].query


def test_an_answer_that_was_asked_for_because_another_was_poor_is_put_back():
    """a fell 0.4 short of 0.6, so b is expected to fall 0.2 short of its own: that is put back, and
    the two are no fair comparison."""
    calls = Attempts((A, B), "b")
    first, second = lessons(CASCADE, calls, 0.5, slope=0.5)
    assert (first.quality, second.quality) == (0.2, pytest.approx(0.7))
    assert first.query != second.query
    assert residuals(CASCADE, calls, 0.5) == pytest.approx((-0.4, -0.3))
    assert residuals(CASCADE, Attempts((A,), "a"), 0.9) is None


def test_putting_back_makes_the_second_arm_unbiased():
    """Two arms of quality 0.6 and 0.8 with correlated answers, the second asked where the first
    fell short: as they come, b's answers look worse than they are; put back, they don't."""
    rng = np.random.default_rng(0)
    noise = rng.multivariate_normal([0, 0], [[0.04, 0.024], [0.024, 0.04]], 20_000)
    a, b = 0.6 + noise[:, 0], 0.8 + noise[:, 1]
    asked = a < 0.5
    calls = [
        Attempts((Attempt("a", quality=float(x)), Attempt("b")), "b") for x in a[asked].tolist()
    ]
    taught = [
        list(lessons(CASCADE, one, float(y), slope=0.6))[1].quality
        for one, y in zip(calls, b[asked].tolist(), strict=True)
    ]
    error = 4 * 0.16 / math.sqrt(len(taught))
    assert b[asked].mean() < 0.8 - 0.1
    assert np.mean(taught) == pytest.approx(0.8, abs=error)


def test_a_cancelled_call_teaches_that_it_would_have_taken_longer():
    """The mean of ln L beyond what it was out for, of a Gaussian (checked by sampling), and nothing
    else; where nothing was expected, nothing at all."""
    out = Attempt("a", latency_ms=1_500.0, cost_usd=0.001, cancelled=True)
    first, second = lessons(HEDGE, Attempts((out, B), "b"), 1.0, slope=0.5)
    drawn = np.random.default_rng(1).normal(math.log(1_000.0), 0.5, 400_000)
    beyond = drawn[drawn > math.log(1_500.0)]
    assert math.log(first.latency_ms) == pytest.approx(beyond.mean(), abs=0.005)
    assert math.isnan(first.quality)
    assert math.isnan(first.cost_usd)
    assert second.latency_ms == 2_000.0
    (alone,) = lessons(None, Attempts((out,), None), math.nan, slope=0.5)
    assert math.isnan(alone.latency_ms)


def test_calls_are_read_back_as_they_were_written():
    """What isn't known is left out."""
    worthless = Attempt("c", quality=0.0, latency_ms=0.0)
    calls = Attempts((A, FAILED, Attempt("b", cancelled=True), worthless), "a")
    assert Attempts.of(calls.to_record()) == calls
    assert calls.to_record()["attempts"][2] == {"arm": "b", "cancelled": True, "list_cost_usd": 0.0}

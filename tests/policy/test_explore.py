"""Exploration rules: by hand, against Monte Carlo, and what every pmf must hold to."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from policy.choosing import explore

DRAWS = 1_000_000


def test_thompson_of_two_arms_is_a_normal_probability():
    """P(N(0.6, 0.3^2) > N(0.5, 0.4^2)) = Phi(0.1 / 0.5)."""
    pmf = explore.thompson(np.array([0.6, 0.5]), np.array([0.3, 0.4]))
    assert pmf[0] == pytest.approx(norm.cdf(0.2), abs=1e-7)


@pytest.mark.parametrize("n", [7, 2_000])
@pytest.mark.parametrize("least", [0.01, 0.0])
def test_many_rows_at_once_are_as_one_by_one(least: float, n: int):
    """To 1e-12, with arms that can't win, and with spreads of zero among them, in few rows and in
    so many that they are worked on in parts."""
    rng = np.random.default_rng(5)
    mean = rng.random((n, 6)) * rng.choice([0.1, 3.0], (n, 1))
    sd = np.maximum(rng.choice([0.0, 0.01, 0.2], (n, 6)), least)
    rows = explore.thompson(mean, sd)
    one_by_one = [explore.thompson(m, s) for m, s in zip(mean, sd, strict=True)]
    assert rows == pytest.approx(np.stack(one_by_one), abs=1e-12)
    assert rows.sum(axis=1) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("mean", "sd"),
    [
        ([0.5, 0.5, 0.5], [0.1, 0.1, 0.1]),
        ([0.5, 0.52, 0.48, 0.3], [0.05, 0.1, 0.2, 0.15]),
        ([0.7, 0.69, 0.2], [0.001, 0.3, 1.0]),  # spreads that differ a thousandfold
        ([0.5, 0.5, 0.501], [1e-4, 1e-1, 1e-4]),
        (np.linspace(0.3, 0.6, 40), np.geomspace(0.01, 0.5, 40)),
    ],
)
def test_thompson_agrees_with_monte_carlo(mean: list[float], sd: list[float]):
    """Within four standard errors of 10^6 draws for each arm, and sums to 1 within 1e-9."""
    mu, sigma = np.asarray(mean), np.asarray(sd)
    pmf = explore.thompson(mu, sigma)
    wins = monte_carlo(mu, sigma, np.random.default_rng(11))
    error = np.sqrt(np.maximum(pmf * (1 - pmf), 1 / DRAWS) / DRAWS)
    assert (np.abs(wins - pmf) <= 4 * error).all()
    assert pmf.sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("k", [2, 10, 89, 100, 500])
@pytest.mark.parametrize("spreads", ["equal", "near", "far", "one wide"])
def test_the_quadrature_reaches_as_far_as_there_are_arms(k: int, spreads: str):
    """Within 1e-6 of a rule of high order between break points, however many arms are alike, in a
    bounded number of nodes: what lies beyond the reach is lost of each arm."""
    rng = np.random.default_rng(k)
    mean, sd = np.full(k, 0.5), np.full(k, 0.1)
    if spreads == "near":
        mean, sd = mean + 0.01 * rng.standard_normal(k), sd * np.exp(0.1 * rng.standard_normal(k))
    elif spreads == "far":
        mean, sd = rng.random(k), 0.05 * np.exp(0.3 * rng.standard_normal(k))
    elif spreads == "one wide":
        mean, sd = np.append(mean[1:], 0.0), np.append(0.2 * sd[1:], 1.0)
    assert np.abs(explore.thompson(mean, sd) - between_break_points(mean, sd)).max() < 1e-6


def between_break_points(mean: NDArray[np.float64], sd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gauss-Legendre of 12 nodes on each piece between points half a spread of some arm apart,
    out to 9 spreads: slow, and right to 1e-9."""
    low, high = (mean - 9.0 * sd).max(), (mean + 9.0 * sd).max()
    points = np.unique(np.add.outer(np.arange(-9.0, 9.1, 0.5), np.zeros(len(sd))) * sd + mean)
    within = points[(points > low) & (points < high)]
    if len(within) > 1_000:  # near-equal arms need not each have points of their own
        within = np.linspace(low, high, 1_000)[1:-1]
    edges = np.concatenate([[low], within, [high]])
    x, w = np.polynomial.legendre.leggauss(12)
    pmf = np.zeros(len(mean))
    for start, stop in pairwise(edges.tolist()):
        u = 0.5 * (start + stop + (stop - start) * x)
        z = (u[:, None] - mean) / sd
        logs = norm.logcdf(z)
        each = np.exp(norm.logpdf(z) + logs.sum(axis=1, keepdims=True) - logs) / sd
        pmf += 0.5 * (stop - start) * (w @ each)
    return pmf


def monte_carlo(
    mean: NDArray[np.float64], sd: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    wins = np.zeros(len(mean))
    for _ in range(10):
        draws = mean + sd * rng.standard_normal((DRAWS // 10, len(mean)))
        wins += np.bincount(draws.argmax(axis=1), minlength=len(mean))
    return wins / DRAWS


def test_the_scale_narrows_the_posterior():
    """At scale v the spreads are v times as large: Phi(0.1 / (0.5 v))."""
    pmf = explore.thompson(np.array([0.6, 0.5]), 0.5 * np.array([0.3, 0.4]))
    assert pmf[0] == pytest.approx(norm.cdf(0.4), abs=1e-7)


def test_a_certain_arm_stands_where_its_mean_is():
    """P(N(0.4, 0.1^2) > 0.5) = Phi(-1); equal certain arms share the rest."""
    pmf = explore.thompson(np.array([0.5, 0.4, 0.5]), np.array([0.0, 0.1, 0.0]))
    assert pmf[1] == pytest.approx(norm.cdf(-1.0), abs=1e-4)
    assert pmf[0] == pytest.approx(pmf[2])


finite = st.floats(-1.0, 2.0, allow_nan=False)
spread = st.floats(0.0, 5.0, allow_nan=False)


@given(st.lists(st.tuples(finite, spread), min_size=1, max_size=30))
def test_any_beliefs_make_a_pmf(beliefs: list[tuple[float, float]]):
    """Whatever the means and spreads, every rule answers with probabilities that sum to 1."""
    mean, sd = (np.array(column) for column in zip(*beliefs, strict=True))
    for pmf in (
        explore.thompson(mean, 0.35 * sd),
        explore.greedy(mean),
        explore.epsilon_greedy(mean, 0.1),
        explore.softmax(mean, 0.05),
        explore.square_cb(mean, 100.0),
    ):
        explore.check(pmf)
        explore.check(explore.with_floor(pmf, 0.01))
        assert explore.with_floor(pmf, 0.01).min() >= 0.01 / len(pmf) - 1e-12


@given(st.lists(st.tuples(finite, st.floats(0.01, 1.0)), min_size=2, max_size=10))
def test_the_order_of_arms_changes_nothing(beliefs: list[tuple[float, float]]):
    """Each arm's probability is its own, wherever it stands in the catalog."""
    mean, sd = (np.array(column) for column in zip(*beliefs, strict=True))
    pmf = explore.thompson(mean, sd)
    np.testing.assert_allclose(explore.thompson(mean[::-1], sd[::-1])[::-1], pmf, atol=1e-6)


def test_square_cb_by_hand():
    """A gap of 0.5 with gamma 10 leaves the worse of two arms 1 / (2 + 5) of the traffic."""
    assert explore.square_cb(np.array([0.9, 0.4]), gamma=10.0) == pytest.approx([6 / 7, 1 / 7])


def test_softmax_by_hand():
    """A gap of one temperature is a factor e."""
    pmf = explore.softmax(np.array([0.5, 0.4]), temperature=0.1)
    assert pmf[0] / pmf[1] == pytest.approx(math.e)


def test_the_floor_by_hand():
    """A floor of 10% over two arms gives each at least 5%."""
    assert explore.with_floor(np.array([1.0, 0.0]), 0.1) == pytest.approx([0.95, 0.05])


def test_new_arms_share_their_cap():
    """Beyond 10% together, the rest goes to the established arms in proportion."""
    pmf = np.array([0.3, 0.1, 0.4, 0.2])
    capped = explore.cap_new_arms(pmf, np.array([False, False, True, True]), 0.1)
    assert capped == pytest.approx([0.675, 0.225, 0.1 * 2 / 3, 0.1 / 3])
    everyone = np.ones(4, dtype=bool)
    assert explore.cap_new_arms(pmf, everyone, 0.1) == pytest.approx(pmf)


def test_a_cap_without_any_favourite_is_even():
    """Established arms of probability 0 share what new arms may not have."""
    capped = explore.cap_new_arms(np.array([0.0, 0.0, 1.0]), np.array([False, False, True]), 0.2)
    assert capped == pytest.approx([0.4, 0.4, 0.2])


@pytest.mark.parametrize(
    "wrong", [[], [0.5, 0.6], [1.1, -0.1], [math.nan, 1.0], [math.inf, 0.0], [0.5, 0.49]]
)
def test_what_is_no_pmf_is_refused(wrong: list[float]):
    """Before the draw, not after."""
    with pytest.raises(ValueError, match="sum to 1"):
        explore.check(np.array(wrong))


def test_the_draw_never_takes_an_impossible_arm():
    """At either end of [0, 1) and at every border between arms."""
    pmf = np.array([0.0, 0.25, 0.0, 0.75, 0.0])
    for u in (0.0, 0.25 - 1e-12, 0.25, 0.5, 1.0 - 2**-53):
        assert pmf[explore.draw(pmf, u)] > 0

"""Intervals admit ignorance, and bets may be looked at after every row."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy import stats

from offline_eval.estimating import intervals
from offline_eval.estimating.intervals import (
    AT_STAKE,
    LOOK,
    Bets,
    ConfidenceSequence,
    EProcess,
    LowerSequence,
    bootstrap,
    bounded_sequence,
    effective_rows,
    student_t,
    value_sequence,
)
from offline_eval.gate import verdict

ONE_BET = Bets(np.array([0.5]), np.array([1.0]))


def test_student_t_by_hand():
    """Terms 0, 2, 4: mean 2, sd 2, and t with 2 degrees of freedom at 95% is 4.303."""
    found = student_t(np.array([0.0, 2.0, 4.0]))
    assert found.estimate == 2.0
    assert [found.low, found.high] == pytest.approx(
        [2 - 4.303 * 2 / 3**0.5, 2 + 4.303 * 2 / 3**0.5], abs=1e-3
    )


def test_student_t_is_scipys():
    """The oracle."""
    terms = np.random.default_rng(1).normal(size=200)
    found = student_t(terms, alpha=0.1)
    scale = stats.sem(terms)
    oracle = stats.t.interval(0.9, 199, loc=terms.mean(), scale=scale)
    assert (found.low, found.high) == pytest.approx(oracle)


def test_bootstrap_agrees_with_student_t_on_many_normal_terms():
    """To a tenth of the width; and the same seed gives the same interval."""
    terms = np.random.default_rng(2).normal(size=2_000)
    t, found = student_t(terms), bootstrap(terms, seed=1)
    assert [found.low, found.high] == pytest.approx([t.low, t.high], abs=(t.high - t.low) / 10)
    assert found == bootstrap(terms, seed=1)


@pytest.mark.parametrize("interval", [student_t, lambda terms: bootstrap(terms, seed=1)])
def test_no_data_is_an_infinite_interval(interval):
    """Never 0; neither are terms without spread certain of anything."""
    nothing, one, alike = (interval(np.array(t)) for t in ([], [0.3], [0.0] * 100))
    rounded = interval(np.full(1_000, 0.7449))  # whose standard deviation is 1e-16
    for found in (nothing, one, alike, rounded):
        assert (found.low, found.high) == (-math.inf, math.inf)
        assert found.warning
    assert math.isnan(nothing.estimate)
    assert alike.estimate == 0.0


@pytest.mark.parametrize("interval", [student_t, lambda terms: bootstrap(terms, seed=1)])
def test_few_rows_that_weigh_much_are_warned_of(interval):
    """A thousand rows of which one carries all the spread."""
    rng = np.random.default_rng(3)
    assert interval(rng.normal(size=1_000)).warning is None
    lone = np.zeros(1_000)
    lone[7] = 500.0
    assert "1 effective of 1,000" in interval(lone).warning


def test_terms_that_are_no_numbers_are_refused():
    """They would spread silently."""
    with pytest.raises(ValueError, match="finite"):
        student_t(np.array([1.0, np.nan]))


def test_effective_rows_by_hand():
    """All rows where half are -1 and half 1; one where one differs; none where none does."""
    assert effective_rows(np.array([-1.0, 1.0] * 50)) == pytest.approx(100)
    assert effective_rows(np.append(np.zeros(10_000), 1.0)) == pytest.approx(1, abs=0.01)
    assert effective_rows(np.ones(5)) == effective_rows(np.array([])) == 0.0
    assert effective_rows(np.full(1_000, 0.7449)) == 0.0


def test_a_spread_is_small_beside_the_mean_alone():
    """Tiny terms that differ have an interval, and so have those that differ around 0."""
    terms = np.random.default_rng(9).normal(size=1_000)
    for some in (1e-30 * terms, 1e-30 * (terms - terms.mean()), 1.0 + 1e-9 * terms):
        found = student_t(some)
        assert found.low < found.estimate < found.high
        assert found.warning is None


def test_wealth_by_hand():
    """A bet of 0.5 on terms 1, -1, 1 makes 1.5 * 0.5 * 1.5, and was best at 1.5."""
    test = EProcess(0.0, ONE_BET)
    test.fold(np.array([1.0, -1.0, 1.0]))
    assert math.exp(test.log_e) == pytest.approx(1.125)
    assert math.exp(test.peak) == pytest.approx(1.5)
    assert test.refutes(alpha=0.7)
    assert not test.refutes(alpha=0.6)


def test_a_mixture_is_the_mean_of_its_bets():
    """Half on a bet of 0.5, half on one of 0.1: one term of 1 makes 1.3."""
    test = EProcess(0.0, Bets(np.array([0.5, 0.1]), np.array([0.5, 0.5])))
    test.fold(np.array([1.0]))
    assert math.exp(test.log_e) == pytest.approx(1.3)


def test_each_bet_may_have_its_own_terms():
    """Terms (n, j): the first bet sees 1, the second 0."""
    test = EProcess(0.0, Bets(np.array([0.5, 0.1]), np.array([0.5, 0.5])))
    test.fold(np.array([[1.0, 0.0]]))
    assert math.exp(test.log_e) == pytest.approx(1.25)


def test_no_rows_are_no_evidence():
    """Wealth 1, and a bound of -inf."""
    test = EProcess(0.0, ONE_BET)
    test.fold(np.array([]))
    assert (test.log_e, test.peak, test.rows, test.growth()) == (0.0, 0.0, 0, 0.0)
    sequence = ConfidenceSequence(0.05, 0.0, 1.0, ONE_BET)
    assert sequence.interval == (-math.inf, math.inf)
    assert value_sequence(np.array([]), np.array([])) == (-math.inf, math.inf)


@pytest.mark.parametrize("cuts", [[1], [99, 100, 101], [250, 2_500], list(range(0, 3_000, 7))])
def test_it_does_not_matter_where_a_stream_is_cut(cuts: list[int]):
    """Test and sequence come out the same."""
    terms = np.random.default_rng(4).uniform(-1, 1.1, 3_000)
    bets = Bets.within(bound=1.0, high=1.0)
    whole, pieces = EProcess(0.0, bets), EProcess(0.0, bets)
    all_rows, by_piece = (LowerSequence(0.05, -1.0, 1.0, bets) for _ in range(2))
    whole.fold(terms)
    all_rows.fold(terms)
    for piece in np.split(terms, cuts):
        pieces.fold(piece)
        by_piece.fold(piece)
    assert (pieces.log_e, pieces.peak) == pytest.approx((whole.log_e, whole.peak), abs=1e-9)
    assert by_piece.bound == pytest.approx(all_rows.bound, abs=1e-9)


def test_a_term_that_could_ruin_a_bet_is_refused():
    """The bound that bets rely on must hold, and NaN is no term."""
    bets = Bets.within(bound=1.0, high=0.0)
    for term in (-1.5, math.nan):
        with pytest.raises(ValueError, match="may lose all"):
            EProcess(0.0, bets).fold(np.array([term]))
    EProcess(0.0, bets).fold(np.array([-1.0, 1e9]))  # above there is no bound


def test_bets_stake_no_more_than_they_may():
    """At the bound, against the largest mean."""
    bets = Bets.within(bound=3.0, high=1.0)
    assert bets.sizes.max() * (3.0 + 1.0) == pytest.approx(AT_STAKE)
    assert bets.prior.sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="prior"):
        Bets(np.array([0.5]), np.array([0.5]))


def test_a_bound_is_where_the_wealth_reaches_its_threshold():
    """One bet of 0.5 on 100 terms of 0.8 refutes a mean m while (1 + 0.5 (0.8 - m))^100 >= 20; the
    interpolation between the means it follows costs little and never flatters."""
    sequence = LowerSequence(0.05, 0.0, 1.0, ONE_BET)
    sequence.fold(np.full(100, 0.8))
    exact = 0.8 - 2 * (20 ** (1 / 100) - 1)
    assert exact - 1e-3 < sequence.bound <= exact + 1e-9


def test_a_sequence_remembers_its_best_look():
    """A run of luck at a look isn't forgotten; between looks it is."""
    lucky, late = (LowerSequence(0.05, 0.0, 1.0, ONE_BET) for _ in range(2))
    lucky.fold(np.ones(LOOK))
    before = lucky.bound
    lucky.fold(np.zeros(LOOK))
    assert lucky.bound == before
    late.fold(np.ones(LOOK - 50))
    during = late.bound
    late.fold(np.zeros(LOOK + 50))
    assert late.bound < during


def test_a_value_needs_no_bound_of_its_weights():
    """A weight of 10,000 among small ones leaves the interval in [0, 1]."""
    rng = np.random.default_rng(5)
    weights, rewards = rng.exponential(1, 2_000), (rng.random(2_000) < 0.6).astype(float)
    low, high = value_sequence(weights, rewards)
    assert 0.4 < low < 0.6 < high < 0.8
    low, high = value_sequence(np.append(weights, 1e4), np.append(rewards, 1.0))
    assert 0.0 <= low <= high <= 1.0


def test_bounded_terms_have_an_interval_on_either_side():
    """It turns over with the terms, and shrinks as they come."""
    terms = np.random.default_rng(8).uniform(-2, 1, 4_000)
    low, high = bounded_sequence(terms, -2.0, 1.0)
    assert -0.6 < low < -0.5 < high < -0.4
    assert bounded_sequence(-terms, -1.0, 2.0) == pytest.approx((-high, -low))
    few = bounded_sequence(terms[:400], -2.0, 1.0)
    assert few[0] < low < high < few[1]


def test_looking_after_every_row_refutes_a_true_null_in_at_most_alpha():
    """400 fair streams with rare large terms, 500 looks each; 4 standard errors above 5%."""
    rng = np.random.default_rng(6)
    bets, refuted = Bets.within(bound=1.0, high=0.0), 0
    for _ in range(400):
        test = EProcess(0.0, bets)
        test.fold(np.where(rng.random(500) < 0.1, 9.0, -1.0))
        refuted += test.refutes(0.05)
    assert refuted / 400 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)
    # The tenfold weight is no rarer than it should be: a shift shows.
    test = EProcess(0.0, bets)
    test.fold(np.where(rng.random(2_000) < 0.13, 9.0, -1.0))
    assert test.refutes(0.05)


def test_a_confidence_sequence_covers_at_every_look():
    """Of 100 streams of heavy weights, each asked after every 100 of 1,000 rows."""
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(100):
        weights = rng.lognormal(-0.5, 1.0, 1_000)
        low, high = value_sequence(weights, (rng.random(1_000) < 0.4).astype(float))
        missed += not low <= 0.4 <= high
    assert missed / 100 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 100)


def test_the_examples_in_the_docstrings_hold():
    """Of the bets and of the gate."""
    for module in (intervals, verdict):
        assert doctest.testmod(module).failed == 0

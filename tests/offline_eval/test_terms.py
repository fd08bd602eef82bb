"""What the gate bets on: the difference of two policies, round by round."""

from __future__ import annotations

import numpy as np
import pytest

from offline_eval.gate.terms import BETS, Pair, plain_terms, terms_for


def test_terms_by_hand():
    """Two arms, drawn evenly, the better policy always takes the second, which earned 1 where 0.6
    was predicted and 0.5 of the first: 0.6 - 0.5 + 2 (1 - 0.6)."""
    pair = Pair(
        np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]), np.array([1])
    )
    predicted = np.array([[0.5, 0.6]])
    assert plain_terms(pair, np.array([1.0]), predicted) == pytest.approx([0.9])
    assert plain_terms(pair.turned(), np.array([1.0]), predicted) == pytest.approx([-0.9])


def test_terms_keep_their_expectation_and_their_bound():
    """Whatever the bet: over arms and outcomes they average to the difference of the true means,
    and none can cost a bet more than it may stake."""
    rng = np.random.default_rng(1)
    for mean in (0.0, 0.3, 1.0):
        better, worse, drawn = (rng.dirichlet(np.full(4, 0.3), 1) for _ in range(3))
        quality, predicted = rng.random(4), rng.random((1, 4))
        expected, lowest = np.zeros(len(BETS)), np.inf
        for arm in range(4):
            for outcome in (0.0, 1.0):
                pair = Pair(better, worse, drawn, np.array([arm]))
                terms = terms_for(pair, np.array([outcome]), predicted, mean=mean)[0]
                chance = quality[arm] if outcome else 1 - quality[arm]
                expected += drawn[0, arm] * chance * terms
                lowest = min(lowest, float((BETS.sizes * (terms - mean)).min()))
        assert expected == pytest.approx(float((better - worse)[0] @ quality))
        assert lowest >= -0.8 - 1e-9


def test_an_arm_that_could_not_be_drawn_speaks_against_the_policy_that_wants_it():
    """Half of the better policy's choices can't be drawn: they count as 0, not as predicted."""
    pair = Pair(
        np.array([[0.0, 0.5, 0.5]]),
        np.array([[1.0, 0.0, 0.0]]),
        np.array([[0.5, 0.5, 0.0]]),
        np.array([1]),
    )
    predicted = np.array([[0.4, 0.4, 1.0]])
    # -0.4 + 0.5 * 0.4 + 1 * (1 - 0.4) where the bet is small enough for the whole prediction
    assert terms_for(pair, np.array([1.0]), predicted)[0, -1] == pytest.approx(0.4)


def test_bets_that_are_too_large_for_a_mean_are_refused():
    """They could lose all."""
    nothing = np.empty((0, 2))
    pair = Pair(nothing, nothing, nothing, np.empty(0, dtype=np.int64))
    with pytest.raises(ValueError, match="bets must be at most"):
        terms_for(pair, np.empty(0), nothing, mean=5.0)

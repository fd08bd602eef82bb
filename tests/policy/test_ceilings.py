"""Ceilings keep a budget, and let the arms be chosen that earn most together."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from policy.choosing.ceilings import Infeasible, ceilings

Rows = list[NDArray[np.float64]]


def world(n: int, seed: int) -> tuple[Rows, Rows]:
    """n queries of one to four arms, of which dearer ones are better, mostly."""
    rng = np.random.default_rng(seed)
    cost = [np.exp(rng.normal(size=rng.integers(1, 5))) for _ in range(n)]
    return cost, [0.3 * np.log1p(c) + 0.2 * rng.random(len(c)) for c in cost]


def earned(cost: Rows, utility: Rows, ceiling: NDArray[np.float64]) -> float:
    """By the best arm under each ceiling."""
    rows = zip(cost, utility, ceiling, strict=True)
    return sum(float(u[c <= top * (1 + 1e-12)].max()) for c, u, top in rows)


@pytest.mark.parametrize("seed", range(20))
def test_ceilings_are_within_the_budget_and_each_leaves_an_arm(seed: int):
    """For any budget from the cheapest arms' to more than anybody can use."""
    cost, utility = world(50, seed)
    least = sum(c.min() for c in cost)
    for budget in least * np.array([1.0 + 1e-9, 1.1, 2.0, 50.0]):
        ceiling = ceilings(cost, utility, budget)
        assert ceiling.sum() <= budget * (1 + 1e-12)
        assert all(c.min() <= top for c, top in zip(cost, ceiling, strict=True))
    assert all(top >= c.max() for c, top in zip(cost, ceiling, strict=True))


@pytest.mark.parametrize("seed", range(10))
def test_they_earn_nearly_what_the_best_choice_does(seed: int):
    """All choices of six queries' arms within the budget: no more than one query's gain better."""
    cost, utility = world(6, seed)
    budget = 1.7 * sum(c.min() for c in cost)
    best = max(
        sum(u[i] for u, i in zip(utility, chosen, strict=True))
        for chosen in product(*(range(len(c)) for c in cost))
        if sum(c[i] for c, i in zip(cost, chosen, strict=True)) <= budget
    )
    gain = max(u.max() - u[c.argmin()] for c, u in zip(cost, utility, strict=True))
    assert best - gain <= earned(cost, utility, ceilings(cost, utility, budget)) <= best + 1e-9


def test_equal_queries_share_what_only_some_can_have():
    """A budget for two of three dear arms buys two of them."""
    ceiling = ceilings([np.array([1.0, 4.0])] * 3, [np.array([0.5, 0.9])] * 3, 9.0)
    assert sorted(ceiling.tolist()) == [1.0, 4.0, 4.0]


def test_what_cannot_be_kept_says_what_it_takes():
    """The cheapest arm of each."""
    with pytest.raises(Infeasible) as refused:
        ceilings([np.array([1.0, 4.0]), np.array([2.0])], [np.ones(2), np.ones(1)], 2.9)
    assert refused.value.least_usd == pytest.approx(3.0)


def test_no_queries_cost_nothing():
    assert ceilings([], [], 1.0).tolist() == []

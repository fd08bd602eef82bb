"""A budget over many queries at once, as a ceiling on the cost of each. Pure figures, no draw.

Ceilings are set before anything is drawn, and together are within the budget: so it is kept
whatever is drawn, each query is still decided by itself, and its propensities are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.records import Vector

HALVINGS = 60


class Infeasible(ValueError):
    """Not even the cheapest arm of each query is within the budget; they cost `least_usd`."""

    def __init__(self, least_usd: float) -> None:
        super().__init__(f"the cheapest arms cost {least_usd!r} USD")
        self.least_usd = least_usd


def ceilings(cost_usd: Sequence[Vector], utility: Sequence[Vector], budget_usd: float) -> Vector:
    """What each of n queries may cost, (n,), together `budget_usd` at most.

    `cost_usd` and `utility` (n times (k,)) are of a query's arms, k its own. The ceilings let the
    arms be chosen that earn most together: those of the highest utility less a price times cost,
    the price as low as the budget allows (Lagrange), queries in turn at the next lower price for
    what that leaves. What is left then lets queries in turn try dearer arms.

    >>> ceilings([np.array([1.0, 4.0])] * 3, [np.array([0.5, 0.9])] * 3, 9.0).tolist()
    [4.0, 4.0, 1.0]

    Raises
    ------
    Infeasible
    """
    n, k = len(cost_usd), max(map(len, cost_usd), default=1)
    cost, worth = np.full((n, k), np.inf), np.full((n, k), -np.inf)
    for i, (some, of) in enumerate(zip(cost_usd, utility, strict=True)):
        cost[i, : len(some)], worth[i, : len(some)] = some, of
    known = np.isfinite(cost)
    least = cost.min(axis=1, initial=np.inf)
    if least.sum() > budget_usd:
        raise Infeasible(float(least.sum()))

    def at(price: float) -> Vector:
        net = np.where(known, worth - price * np.where(known, cost, 0.0), -np.inf)
        best = net >= net.max(axis=1, keepdims=True)
        chosen: Vector = np.where(best, cost, np.inf).min(axis=1)  # of equals the cheapest
        return chosen

    ceiling = at(0.0)
    if ceiling.sum() > budget_usd:
        low, high = 0.0, _all_cheapest(cost, worth, least)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if at(middle).sum() > budget_usd else (low, middle)
        ceiling = _raised(at(high), at(low)[:, None], budget_usd)
    return _raised(ceiling, np.sort(cost, axis=1), budget_usd)


def _raised(ceiling: Vector, steps: Vector, budget_usd: float) -> Vector:
    """Ceilings (n,) raised to one after the other of `steps` (n, m), rising: queries in turn, as
    long as the budget allows."""
    raised = ceiling.copy()
    left = budget_usd - float(ceiling.sum())
    for column in steps.T:
        more = np.where(np.isfinite(column), column - raised, 0.0)
        for i in np.flatnonzero(more > 0.0).tolist():
            if more[i] <= left:
                left -= more[i]
                raised[i] = column[i]
    return raised


def _all_cheapest(cost: Vector, worth: Vector, least: Vector) -> float:
    """A price at which every query prefers its cheapest arm."""
    beyond = cost - least[:, None]
    base = np.where(beyond == 0.0, worth, -np.inf).max(axis=1, keepdims=True)
    dearer = np.isfinite(cost) & (beyond > 0.0)
    gain = (worth - base)[dearer] / beyond[dearer]
    return 2.0 * max(float(gain.max(initial=0.0)), 0.0) + 1.0

"""What a snapshot expects per task type: of each arm, and of the policy under other weights.

Of a query of which the task type and the lengths are known and nothing else, which is what such
queries have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.query import Hints
from policy.arms.catalog import Index
from policy.arms.constraints import NoEligibleArm, action_set
from policy.choosing import explore
from policy.choosing.bandit import Bandit
from policy.choosing.constant import Caller
from policy.deciding import Encoded
from policy.objective import PRESETS, Weights
from policy.policy import Policy, Request
from policy.records import Vector

TRADES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)  # weights of latency, or of cost, beside quality's
BETTER = np.array([1.0, -1.0, -1.0])  # more quality, less latency, less cost


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Expected quality, latency_ms and cost_usd, (3,) each: the means and the ends of the central
    posterior interval, NaN where nothing is known or the model has no posterior.

    `best` says that no other arm (or, of policies, no other weights) is at least as good in all
    three and better in one.
    """

    name: str
    mean: Vector
    low: Vector
    high: Vector
    best: bool


@dataclass(frozen=True, slots=True, eq=False)
class PolicyPoint(Point):
    """The policy under other weights: a preset's, its own (`own`), or a trade of quality against
    one of the others (such as `cost 0.2`); and how it would draw, arm by arm."""

    weights: Weights
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """One task type's; without policies where the caller's own router acts."""

    task_type: str
    arms: Sequence[Point]
    policies: Sequence[PolicyPoint]


def settings(own: Weights) -> dict[str, Weights]:
    """The weights of a frontier's policies, by name."""
    trades = {
        f"{concern} {weight:g}": Weights.of(**{"quality": 1.0 - weight, concern: weight})
        for concern in ("latency", "cost")
        for weight in TRADES
    }
    return {"own": own, **PRESETS, **trades}


def frontiers(
    policy: Policy, task_types: Sequence[str], sizes: Hints, probability: float
) -> list[Frontier]:
    """The frontier of each task type that some arm can serve, for queries with the hints `sizes`
    beside it. Intervals hold this probability."""
    found: dict[str, Frontier] = {}
    for index, queries in _alike(policy, task_types, sizes):
        for frontier in _of_group(policy, index, queries, probability):
            found[frontier.task_type] = frontier
    return [found[task] for task in dict.fromkeys(task_types) if task in found]


def _alike(
    policy: Policy, task_types: Sequence[str], sizes: Hints
) -> Iterator[tuple[Index, Sequence[Encoded]]]:
    """The task types that share an action set, each as a query; its id is the task type."""
    groups: dict[bytes, tuple[Index, list[Encoded]]] = {}
    for task in task_types:
        hints = sizes.model_copy(update={"task_type": task})
        query = policy.encoded(Request(hints=hints), task)
        try:
            index = action_set(policy.catalog, policy.config.arms, query.known).index
        except NoEligibleArm:
            continue
        groups.setdefault(index.tobytes(), (index, []))[1].append(query)
    yield from groups.values()


def _of_group(
    policy: Policy, index: Index, queries: Sequence[Encoded], probability: float
) -> Iterator[Frontier]:
    catalog, known = policy.catalog, [query.known for query in queries]
    x = np.array([query.x for query in queries])
    tokens = np.array([(one.prompt_tokens, one.output_tokens) for one in known], dtype=np.float64)
    list_cost_usd = catalog.list_cost_usd(tokens[:, :1], tokens[:, 1:], index)
    by_weights = settings(policy.weights)
    rulings = [policy.rule.rule(x, index, list_cost_usd, w, known) for w in by_weights.values()]
    low = high = np.full((*list_cost_usd.shape, 3), np.nan)
    if isinstance(policy.rule, Bandit):
        bounds = policy.rule.values.bounds(x, index, list_cost_usd, probability)
        low, high = (low, high) if bounds is None else bounds
    names = [catalog.ids[i] for i in index]
    for i, query in enumerate(queries):
        outcome = rulings[0].outcome[i]
        mean = np.where(np.isnan(outcome), catalog.expected(query.known, index), outcome)
        best = undominated(mean)
        arms = [Point(*one) for one in zip(names, mean, low[i], high[i], best, strict=True)]
        drawn = [explore.with_floor(ruling.pmf[i], policy.config.floor) for ruling in rulings]
        policies = (
            []
            if isinstance(policy.rule, Caller)
            else _mixtures(by_weights, names, np.array(drawn), (mean, low[i], high[i]))
        )
        yield Frontier(query.decision_id, arms, policies)


def _mixtures(
    by_weights: Mapping[str, Weights],
    names: Sequence[str],
    pmf: Vector,
    arms: tuple[Vector, Vector, Vector],
) -> list[PolicyPoint]:
    """What policies (m, k) earn of arms with these means and ends (k, 3). Given the shared prior
    arms are independent, so the squares of their half intervals add up, by squared share."""
    mean, low, high = arms
    expected = pmf @ mean
    below, above = (np.sqrt(pmf**2 @ (mean - end) ** 2) for end in (low, high))
    best = undominated(expected)
    return [
        PolicyPoint(
            name,
            expected[i],
            expected[i] - below[i],
            expected[i] + above[i],
            bool(best[i]),
            weights,
            dict(zip(names, pmf[i].tolist(), strict=True)),
        )
        for i, (name, weights) in enumerate(by_weights.items())
    ]


def undominated(mean: Vector) -> NDArray[np.bool_]:
    """Which of n points (n, 3) no other one is at least as good as in all and better than in one;
    what is unknown of either is no difference.

    >>> undominated(np.array([[0.9, 100.0, 1.0], [0.8, 100.0, 1.0], [0.7, 50.0, 1.0]]))
    array([ True, False,  True])
    """
    gain = np.nan_to_num((mean[:, None] - mean[None]) * BETTER)  # of i over j
    beaten: NDArray[np.bool_] = ((gain >= 0.0).all(axis=-1) & (gain > 0.0).any(axis=-1)).any(axis=0)
    return ~beaten

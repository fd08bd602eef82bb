"""What plans are expected to come to, from what their arms are expected to: the answer that is
returned, the time until then, and the sum of what was paid. Knows nothing of learning.

Two assumptions stand in for what only plans' own outcomes can tell (`learned` does): a judge is
right in JUDGE of its verdicts, and of two answers to one query the second is the worse by `slope`
times what the first fell short of its expectation, for a hard query is hard for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.arms.catalog import Index
from policy.objective import Scales
from policy.plans.latencies import EVEN, POINTS, USUAL, Spread
from policy.plans.plan import Kind
from policy.records import Vector
from policy.values.protocol import Forecast

JUDGE = 0.8
MIDDLING = 0.5  # quality, and share of the reference latency, of an arm of which nothing is known


@dataclass(frozen=True, slots=True, eq=False)
class Arms:
    """What k arms are expected to do with a query: quality, ln of latency in ms, and cost in USD
    (k,), and how each one's latency varies; by when an answer is wanted."""

    ids: Sequence[str]
    quality: Vector
    log_latency: Vector
    cost_usd: Vector
    spreads: Sequence[Spread]
    scales: Scales
    deadline_ms: float = np.inf

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        forecast: Forecast,
        list_cost_usd: Vector,
        scales: Scales,
        spreads: Mapping[str, Spread],
        deadline_ms: float | None,
    ) -> Arms:
        """From a forecast for one query; where it doesn't know, a middling arm at its list
        cost (k,)."""
        quality, latency_ms, cost_usd = forecast.outcome[0].T
        known = forecast.log_latency
        log_latency = np.log(np.maximum(latency_ms, 1.0)) if known is None else known[0]
        middling_ms = MIDDLING * scales.latency_ref_ms
        return cls(
            ids,
            np.where(np.isnan(quality), MIDDLING, quality),
            np.where(np.isnan(latency_ms), np.log(middling_ms), log_latency),
            np.where(np.isnan(cost_usd), list_cost_usd, cost_usd),
            [spreads.get(arm, USUAL) for arm in ids],
            scales,
            np.inf if deadline_ms is None else deadline_ms,
        )

    def even_ms(self, arms: Index) -> Vector:
        """(m, POINTS) equally probable latencies of arms (m,)."""
        spreads = np.array([self.spreads[arm].even for arm in arms])
        found: Vector = np.exp(self.log_latency[arms][:, None] + spreads)
        return found

    def at_ms(self, arm: int, levels: Vector) -> Vector:
        """(l,) the quantiles of an arm's latency at these levels."""
        found: Vector = np.exp(self.log_latency[arm] + self.spreads[arm].at(levels))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Of m plans of one kind: quality, s(latency) and s(cost) (m, 3), latency and cost in their
    own units (m,), how far each arm's expected reward moves the plan's (m, 2), and how often it
    answers before its deadline (m,). `after_ms` (m,) is a hedge's."""

    components: Vector
    latency_ms: Vector
    cost_usd: Vector
    shares: Vector
    in_time: Vector
    after_ms: Vector | None = None

    def take(self, some: Index) -> Expected:
        """Some of the plans, in this order."""
        return Expected(
            self.components[some],
            self.latency_ms[some],
            self.cost_usd[some],
            self.shares[some],
            self.in_time[some],
            None if self.after_ms is None else self.after_ms[some],
        )


def expect(
    kind: Kind, first: Index, second: Index, level: Vector, arms: Arms, slope: float
) -> Expected:
    """What pairs of arms (m,) come to; `level` (m,) is a hedge's quantile or a cascade's
    threshold."""
    if kind == "hedge":
        return _hedges(first, second, level, arms)
    if kind == "race":
        return _races(first, second, arms, slope)
    return _cascades(first, second, arms, slope)


def _hedges(a: Index, b: Index, level: Vector, arms: Arms) -> Expected:
    """The second begins when the first has taken longer than in `level` of its calls; whichever
    answers first is returned."""
    firsts, of_pair = np.unique(np.stack([a, level], axis=1), axis=0, return_inverse=True)
    split = [
        arms.at_ms(int(arm), np.concatenate([[at], at * EVEN, at + (1.0 - at) * EVEN]))
        for arm, at in firsts
    ]
    after_ms, in_time, late = np.split(np.array(split)[of_pair], [1, 1 + POINTS], axis=1)
    left = 1.0 - level
    other = (after_ms + arms.even_ms(b))[:, None]
    wall = np.minimum(late[:, :, None], other)
    overtaken = left * (other < late[:, :, None]).mean(axis=(1, 2))
    cost, both = arms.cost_usd[a], arms.cost_usd[a] + arms.cost_usd[b]
    return _mixed(
        (1.0 - overtaken) * arms.quality[a] + overtaken * arms.quality[b],
        (level, in_time, cost),
        (left, wall, both),
        np.stack([1.0 - overtaken, overtaken], axis=1),
        arms,
        after_ms[:, 0],
    )


def _races(a: Index, b: Index, arms: Arms, slope: float) -> Expected:
    """Both begin at once, and the better answer is returned when both are there."""
    ahead = arms.quality[a] >= arms.quality[b]
    better, other = np.where(ahead, a, b), np.where(ahead, b, a)
    instead = _after(arms, better, other, 0.0, slope)  # where the better one's is of no use
    lacking = 1.0 - arms.quality[better]
    wall = np.maximum(arms.even_ms(a)[:, :, None], arms.even_ms(b)[:, None])
    both = arms.cost_usd[a] + arms.cost_usd[b]
    shares = np.stack([1.0 - instead, lacking], axis=1)
    return _mixed(
        arms.quality[better] + lacking * instead,
        (0.0, wall, both),
        (1.0, wall, both),
        np.where(ahead[:, None], shares, shares[:, ::-1]),
        arms,
    )


def _cascades(a: Index, b: Index, arms: Arms, slope: float) -> Expected:
    """The second is asked where the first's answer is judged to be worth too little."""
    good = arms.quality[a]
    refused = (1.0 - JUDGE) * good + JUDGE * (1.0 - good)
    alone = arms.even_ms(a)
    wall = alone[:, :, None] + arms.even_ms(b)[:, None]
    cost, both = arms.cost_usd[a], arms.cost_usd[a] + arms.cost_usd[b]
    return _mixed(
        JUDGE * good + refused * _after(arms, a, b, 1.0 - JUDGE, slope),
        (1.0 - refused, alone, cost),
        (refused, wall, both),
        np.stack([1.0 - refused, refused], axis=1),
        arms,
    )


Part = tuple[float | Vector, Vector, Vector]
"""How often it comes (m,), latencies (m, ...) in ms that are equally probable, and cost (m,)."""


def _mixed(
    quality: Vector,
    one: Part,
    two: Part,
    shares: Vector,
    arms: Arms,
    after_ms: Vector | None = None,
) -> Expected:
    """The means over two ways that a plan may go."""
    s_latency = s_cost = latency_ms = cost_usd = in_time = np.zeros(len(quality))
    for often, wall, cost in (one, two):
        s_latency = s_latency + often * _mean(arms.scales.latency(wall))
        latency_ms = latency_ms + often * _mean(wall)
        s_cost = s_cost + often * arms.scales.cost(cost)
        cost_usd = cost_usd + often * cost
        in_time = in_time + often * _mean(wall <= arms.deadline_ms)
    components = np.stack([quality, s_latency, s_cost], axis=1)
    return Expected(components, latency_ms, cost_usd, shares, in_time, after_ms)


def _mean(of_each: NDArray[Any]) -> Vector:
    """(m,) over all but the first axis."""
    mean: Vector = of_each.reshape(len(of_each), -1).mean(axis=1)
    return mean


def _after(arms: Arms, first: Index, second: Index, fell_to: float, slope: float) -> Vector:
    """The second's quality (m,) where the first's answer was worth `fell_to`."""
    quality = arms.quality[second] + slope * (fell_to - arms.quality[first])
    return np.clip(quality, 0.0, 1.0)

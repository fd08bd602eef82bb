"""How an arm's latency varies: the quantiles of its logarithm, as counted. Knows no plan.

One variance for all arms would do for a mean, and not for a tail: some arms vary by 5%, others take
fifty times their median in one call of a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from policy.records import Vector

LOWEST, WIDTH, BINS = 0.0, 0.1, 138  # of ln(latency in ms): from 1 ms to 16 minutes
KEPT = 0.998  # of a count, after another outcome of its arm
POINTS = 16  # equally probable latencies that stand for an arm's
USUAL_SD = 0.4  # of ln latency, where nothing was counted; it counts for ...
USUAL_COUNT = 10.0  # ... so many outcomes

EVEN = (np.arange(POINTS) + 0.5) / POINTS
_CENTERS = LOWEST + WIDTH * (np.arange(BINS) + 0.5)
_USUAL = ndtri((np.arange(200) + 0.5) / 200) * USUAL_SD


@dataclass(slots=True)
class Latencies:
    """Counts (BINS,) of ln latency, by arm; those of old outcomes fade."""

    counts: dict[str, Vector] = field(default_factory=dict)

    def add(self, arms: Sequence[str], latency_ms: Vector) -> None:
        """Outcomes in their order; NaN is passed over."""
        known = np.flatnonzero(~np.isnan(latency_ms)).tolist()
        at = (np.log(np.maximum(latency_ms, 1.0)) - LOWEST) / WIDTH
        for i in known:
            of_arm = self.counts.setdefault(arms[i], np.zeros(BINS))
            np.multiply(of_arm, KEPT, out=of_arm)
            of_arm[min(int(at[i]), BINS - 1)] += 1.0

    def spreads(self) -> Mapping[str, Spread]:
        return {arm: Spread.of(counts) for arm, counts in self.counts.items()}


@dataclass(frozen=True, eq=False)
class Spread:
    """How far ln latency lies from its mean: values, rising, and how probable it is to lie at most
    there."""

    values: Vector
    below: Vector
    sd: float
    even: Vector = field(init=False)
    """(POINTS,) equally probable ones."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "even", self.at(EVEN))

    @classmethod
    def of(cls, counts: Vector) -> Spread:
        """Of counts (BINS,), beside the usual spread about their mean."""
        total = counts.sum()
        mean = float(counts @ _CENTERS / total) if total else 0.0
        seen = np.flatnonzero(counts)
        values = np.concatenate([_CENTERS[seen] - mean, _USUAL])
        weights = np.concatenate([counts[seen], np.full(len(_USUAL), USUAL_COUNT / len(_USUAL))])
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order]
        share = weights / weights.sum()
        return cls(values, np.cumsum(share) - 0.5 * share, float(np.sqrt(share @ values**2)))

    def at(self, level: float | Vector) -> Vector:
        """Quantiles, relative to the mean."""
        return np.asarray(np.interp(level, self.below, self.values))


USUAL = Spread.of(np.zeros(BINS))

"""Outcome -> reward in [0, 1]. The only formula; it knows no arm and no policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]

COMPONENTS = ("quality", "latency", "cost")
LOG_SLOPE = 100.0  # m in log1p(m v) / log1p(m): a hundredth of the reference already scores 0.15


@dataclass(frozen=True, slots=True)
class Weights:
    """What a request cares about: weights >= 0 over quality, latency and cost, summing to 1."""

    quality: float
    latency: float
    cost: float

    @classmethod
    def of(cls, quality: float = 0.0, latency: float = 0.0, cost: float = 0.0) -> Weights:
        """Normalise weights >= 0 to sum 1.

        >>> Weights.of(quality=3, cost=1)
        Weights(quality=0.75, latency=0.0, cost=0.25)
        """
        given = (quality, latency, cost)
        total = sum(given)
        if not (all(w >= 0 for w in given) and 0 < total < float("inf")):
            raise ValueError(f"weights must be finite, >= 0 and not all 0, got {given!r}")
        return cls(*(w / total for w in given))

    def as_tuple(self) -> tuple[float, float, float]:
        return self.quality, self.latency, self.cost


Preset = Literal["ultra_fast", "fast", "balanced", "quality", "cheap"]
PRESETS: Mapping[str, Weights] = {
    "ultra_fast": Weights.of(quality=0.3, latency=0.6, cost=0.1),
    "fast": Weights.of(quality=0.5, latency=0.4, cost=0.1),
    "balanced": Weights.of(quality=0.7, latency=0.15, cost=0.15),
    "quality": Weights.of(quality=1.0),
    "cheap": Weights.of(quality=0.5, latency=0.1, cost=0.4),
}


@dataclass(frozen=True, slots=True)
class Scales:
    """How latency and cost become numbers in [0, 1]; part of a version, never of a request."""

    latency_ref_ms: float
    cost_ref_usd: float
    scale: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        for name in ("latency_ref_ms", "cost_ref_usd"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be finite and > 0, got {value!r}")

    def latency(self, latency_ms: ArrayLike) -> Vector:
        """s(latency_ms / latency_ref_ms), in [0, 1]; NaN stays NaN."""
        return self._scaled(latency_ms, self.latency_ref_ms)

    def cost(self, cost_usd: ArrayLike) -> Vector:
        """s(cost_usd / cost_ref_usd), in [0, 1]; NaN stays NaN."""
        return self._scaled(cost_usd, self.cost_ref_usd)

    def _scaled(self, value: ArrayLike, reference: float) -> Vector:
        share: Vector = np.minimum(np.asarray(value, dtype=np.float64) / reference, 1.0)
        if self.scale == "log":
            share = np.log1p(LOG_SLOPE * share) / np.log1p(LOG_SLOPE)
        return share


def components(
    quality: ArrayLike,
    latency_ms: ArrayLike,
    cost_usd: ArrayLike,
    error: ArrayLike,
    scales: Scales,
) -> Vector:
    """Outcomes as (n, 3): quality, s(latency), s(cost); NaN marks what has not arrived.

    An error sets quality 0; with it an absent latency scores 0 (s = 1) and an absent cost is
    0 USD (s = 0).
    """
    failed = np.atleast_1d(np.asarray(error, dtype=bool))
    y = np.stack(
        [
            np.atleast_1d(np.asarray(quality, dtype=np.float64)),
            np.atleast_1d(scales.latency(latency_ms)),
            np.atleast_1d(scales.cost(cost_usd)),
        ],
        axis=1,
    )
    y[failed, 0] = 0.0
    y[failed & np.isnan(y[:, 1]), 1] = 1.0
    y[failed & np.isnan(y[:, 2]), 2] = 0.0
    return y


def reward(y: Vector, weights: Weights) -> Vector:
    """wq*quality + wl*(1 - s(latency)) + wc*(1 - s(cost)) for y of shape (..., 3), in [0, 1].

    NaN while a component of positive weight is missing. Linear in y, so the reward of a mean
    prediction is the mean of the reward.
    """
    wq, wl, wc = weights.as_tuple()
    total = np.full(y.shape[:-1], wl + wc)
    for column, slope in enumerate((wq, -wl, -wc)):
        if slope:  # a missing component without weight must not spoil the sum
            total = total + slope * y[..., column]
    return total

"""How far `confidence` is right: how often the arm that had it is the best of its category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import tables
from pointsman.trying.routers import Routed, Router

BINS = 10  # of equal width in [0, 1]; the last has 1 in it

Vector = NDArray[np.float64]


class Noting:
    """A router that notes the confidence of each of its decisions, NaN where it tells none."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.confidence: list[float] = []

    def route(self, rows: Sequence[int]) -> list[Routed]:
        routed = self._router.route(rows)
        self.confidence += [one.confidence for one in routed]
        return routed

    def reward(self, routed: Sequence[Routed]) -> None:
        self._router.reward(routed)


@dataclass(frozen=True, slots=True)
class Bin:
    """n decisions with a confidence in [low, high): the mean of what was said, and the share of
    those whose arm was the best, with a standard error as if they were independent."""

    low: float
    high: float
    n: int
    said: float | None
    true: float | None
    true_se: float | None


def calibration(confidence: Vector, right: NDArray[np.bool_]) -> list[Bin]:
    """Ten bins of decisions, whose arrays have one shape; those of NaN are in none."""
    told = ~np.isnan(confidence)
    said, true = confidence[told], right[told]
    place = np.minimum((said * BINS).astype(np.intp), BINS - 1)
    return [_bin(i, said[place == i], true[place == i]) for i in range(BINS)]


def _bin(i: int, said: Vector, true: NDArray[np.bool_]) -> Bin:
    low, high, n = i / BINS, (i + 1) / BINS, len(said)
    if not n:
        return Bin(low, high, 0, None, None, None)
    share = float(true.mean())
    return Bin(low, high, n, float(said.mean()), share, float(np.sqrt(share * (1.0 - share) / n)))


COLUMNS = {
    "low": ("from", "6.1f"),
    "high": ("below", "6.1f"),
    "n": ("n", "8.0f"),
    "said": ("said", "7.3f"),
    "true": ("true", "7.3f"),
    "true_se": ("se", "7.3f"),
}


def table(bins: Sequence[Bin]) -> str:
    """For a person to read."""
    rows = [tables.cells(asdict(one), COLUMNS) for one in bins]
    return "\n".join(["confidence", tables.head(COLUMNS), *rows])

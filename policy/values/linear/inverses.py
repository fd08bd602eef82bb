"""The covariances of arms' coefficients, made again only where sums or variances have changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.values.arrays import triangles
from policy.values.linear.dense import chosen, inverted
from policy.values.linear.pooling import Array, C, Spread, Sums
from policy.values.parts import Kept, Part


class Inverses:
    """(S + R)^-1 per arm and component, for the sums and the spread that were last asked for.

    Each is what it would be if all were made anew, bit for bit: nothing here is state.
    """

    def __init__(self, group: NDArray[np.intp]) -> None:
        self._group = group
        self._spread: Spread | None = None
        self._inverse = np.zeros((0, C, len(group), len(group)))
        self._changes = np.zeros(0, dtype=np.int64)  # of the sums that an inverse is of
        self._kept = Kept()

    def of(self, sums: Sums, changes: NDArray[np.int64], spread: Spread) -> Array:
        """(k, c, d, d), to be read before the next call; `changes` (k,) count those of the sums."""
        k, d = len(changes), len(self._group)
        if k > len(self._inverse):
            more = k - len(self._inverse)
            self._inverse = np.concatenate([self._inverse, np.empty((more, C, d, d))])
            self._changes = np.concatenate([self._changes, np.full(more, -1)])
        if spread is not self._spread:
            self._spread, self._kept = spread, Kept()
            self._changes[:] = -1
        stale = np.flatnonzero(self._changes[:k] != changes)
        ratio = spread.noise[:C, None] / spread.arm[:, self._group]  # (c, d), R
        self._inverse[stale] = 0.0
        at = np.arange(d)
        self._inverse[stale[:, None], :, at, at] = 1.0 / ratio.T
        for c, rows in chosen(sums.weight[stale] > 0.0):
            arms = stale[rows]
            precision = sums.xx[arms, c]
            precision[:, at, at] += ratio[c]
            self._inverse[arms, c] = inverted(precision)
        self._changes[stale] = changes[stale]
        return self._inverse[:k]

    def parts(self) -> list[Part]:
        """The covariances of the coefficients as float32, a part per arm: (c, triangle)."""
        assert self._spread is not None
        noise = self._spread.noise[:C, None]

        def covariances(i: int) -> bytes:
            return (triangles(self._inverse[i]) * noise).astype(np.float32).tobytes()

        return self._kept.of(self._changes.tolist(), covariances)

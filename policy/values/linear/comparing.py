"""What the answers to one query have in common: a hard query is hard for all. Knows no sums.

Of m answers the residuals about what was expected are

    r_i = c + s_i + e_i,   Var(c) = ρσ²,   Var(e_i) = (1 - ρ)σ²,   v_i = Var(s_i) + Var(e_i)

where s_i is the doubt about the arm. Then c is, as far as they tell, ĉ = V Σ r_i / v_i, with the
variance V = ρσ² / (1 + ρσ² Σ 1 / v_i) that is left of it; without ĉ an answer has the noise
(1 - ρ)σ² + V in the place of σ². That takes the doubts of the arms for independent and leaves out
what two arms no longer know of each other (a mean-field step; Bishop 2006, "Pattern recognition and
machine learning", 10.1), so HALF of both is done: all of it was measured to be worse than none, for
what arms are off by together was learned too slowly.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from policy.values.linear.pooling import Array, C

Index = NDArray[np.intp]

SHARE, SHARE_WEIGHT = 0.3, 20.0  # ρ before any pair was seen, and the pairs that it counts for
MOST = 0.9  # of the noise, that is taken for common
CLIP = 3.0  # standard deviations: one pair alone tells little
HALF = 0.5


class Compared:
    """ρ per component, learned from the products of residuals of the same query."""

    def __init__(self) -> None:
        self.pairs = np.zeros((C, 2))  # products in units of the residuals' spreads, and how many

    @property
    def share(self) -> Array:
        """(c,) ρ."""
        products, count = self.pairs.T
        share = (products + SHARE * SHARE_WEIGHT) / (count + SHARE_WEIGHT)
        return np.clip(share, 0.0, MOST)

    def take_out(
        self, query: Index, residual: Array, sd: Array, noise: Array
    ) -> tuple[Array, Array]:
        """What to take out of answers (n, c) to a `query` (n,), and how many single ones each is
        then worth; 0 and 1 where there is no other answer. `sd` (n, c) are the residuals' spreads,
        NaN like these where nothing was expected, and `noise` (c,) is σ²."""
        common, worth = np.zeros(residual.shape), np.ones(residual.shape)
        bounds = [0, *(np.flatnonzero(np.diff(query)) + 1).tolist(), len(query)]
        for at, to in pairwise(bounds):
            if to - at > 1:
                rows = slice(at, to)
                common[rows], worth[rows] = self._of_one(residual[rows], sd[rows], noise)
        return common, worth

    def _of_one(self, residual: Array, sd: Array, noise: Array) -> tuple[Array, Array]:
        known = ~np.isnan(residual)
        several = known & (known.sum(axis=0) > 1)
        shared = self.share * noise
        alone = noise - shared
        precision = np.where(known, 1.0 / np.maximum(sd**2 - shared, alone), 0.0)
        left = shared / (1.0 + shared * precision.sum(axis=0))
        r = np.where(known, residual, 0.0)
        common = HALF * left * (precision * r).sum(axis=0)
        worth = 1.0 + HALF * (noise / (alone + left) - 1.0)
        z = np.where(several, np.clip(r / np.where(known, sd, 1.0), -CLIP, CLIP), 0.0)
        n = several.sum(axis=0)
        self.pairs[:, 0] += (z.sum(axis=0) ** 2 - (z**2).sum(axis=0)) / 2.0
        self.pairs[:, 1] += n * (n - 1) / 2.0
        return np.where(several, common, 0.0), np.where(several, worth, 1.0)

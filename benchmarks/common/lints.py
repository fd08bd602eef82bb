"""The yardstick: linear Thompson sampling (Agrawal and Goyal 2013) with a bias and one indicator
per category, each arm for itself. A `Peer` (see peers.py) whose contexts (1,) are the number of the
query's category.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.common.peers import Index, Matrix, Vector

WIDTHS: Mapping[str, float] = {"lints-0.1": 0.1, "lints-0.2": 0.2, "lints-0.35": 0.35}
"""The spread of a draw, in posterior standard deviations; which is best, hindsight tells."""

BIAS, CATEGORY = 1.0, 0.25  # prior variances, in units of the noise's
MIDDLE = 0.5  # the prior mean of a reward


class LinTS:
    """k arms and c categories."""

    batched = False

    def __init__(self, width: float, c: int, k: int, seed: int) -> None:
        self._width = width
        self._rng = np.random.default_rng(seed)
        prior = np.diag(np.append(BIAS, np.full(c, CATEGORY)))
        self._cov = np.repeat(prior[None], k, axis=0)
        self._sums = np.zeros((k, 1 + c))
        self._mean = np.zeros((k, 1 + c))

    def choose(self, x: Matrix) -> tuple[int, None]:
        j = 1 + int(x[0])
        var = self._cov[:, 0, 0] + 2.0 * self._cov[:, 0, j] + self._cov[:, j, j]
        spread = self._width * np.sqrt(np.maximum(var, 0.0))
        drawn = self._mean[:, 0] + self._mean[:, j] + spread * self._rng.standard_normal(len(var))
        return int(drawn.argmax()), None

    def learn(self, x: Matrix, arms: Index, rewards: Vector, kept: Sequence[None]) -> None:
        for category, arm, reward in zip(x[:, 0].tolist(), arms, rewards, strict=True):
            self._fold(1 + int(category), int(arm), float(reward))

    def warm(self, x: Matrix, rewards: Vector) -> None:
        for category, row in zip(x[:, 0].tolist(), rewards, strict=True):
            for arm, reward in enumerate(row):
                self._fold(1 + int(category), arm, float(reward))

    def _fold(self, j: int, arm: int, reward: float) -> None:
        cov = self._cov[arm]
        u = cov[0] + cov[j]
        cov -= np.outer(u, u) / (1.0 + u[0] + u[j])
        self._sums[arm, [0, j]] += reward - MIDDLE
        self._mean[arm] = cov @ self._sums[arm]

"""How clip, threshold and shrinkage of the estimators are chosen: by the least estimated error.

What is tried on two parts of a log adds up. The arrays are those of `estimators`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from offline_eval.estimating.estimators import Vector, dot, incomplete

THRESHOLDS = tuple(float(t) for t in np.geomspace(1.0, 1e4, 17))  # of weights, to tune among
SHRINKAGES = tuple(t * t for t in THRESHOLDS)  # `dros` halves a weight of √λ


def tuned(
    candidates: Sequence[float],
    weights: Vector,
    reward: Vector,
    q_logged: Vector | float,
    v_target: Vector | float,
    modified: Callable[[Vector, float], Vector],
    delta: float | None = 0.1,
) -> float:
    """The candidate with the least estimated error, variance / n + bias², of mean(v + ŵ (r - q)).

    `modified(weights, candidate)` are the ŵ: `np.minimum`, `switched` or `shrunk`. Bias is
    |mean((w - ŵ)(r - q))|, raised by Bernstein's inequality so that it holds with probability
    1 - `delta` (None: as it is). The rule is that of Su et al. 2020,
    https://arxiv.org/abs/1907.09623 (on model selection, with its appendix), for rewards in [0, 1],
    as Open Bandit Pipeline's `tuning_method="mse"` reads it; each row counts once, and the first of
    equals wins. An estimate tuned on its own rows has terms that know nothing of the tuning.
    """
    trials = Trials.of(candidates, weights, reward, q_logged, v_target, modified)
    bound = 0.0
    if delta is not None:
        bound = margin(len(reward), dot(weights, weights), float(weights.max()), delta)
    return candidates[trials.best(bound)]


def margin(n: int, squares: float, most: float, delta: float = 0.1) -> float:
    """What `tuned` raises a bias by: of n weights Σ w² and the largest."""
    log = math.log(2.0 / delta)
    return math.sqrt(2.0 * squares / n * log / n) + 2.0 * most * log / (3.0 * n)


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """What each candidate (c,) of a tuned parameter makes of n rows; those of two parts of a log
    add up (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", The
    American Statistician 37, equation 2.1)."""

    candidates: tuple[float, ...]
    n: int
    mean: Vector  # (c,) of v + ŵ (r - q)
    squares: Vector  # (c,) Σ (that - mean)²
    bias: Vector  # (c,) Σ (w - ŵ) (r - q)
    total: Vector  # (c,) Σ s (v + ŵ (r - q)), each row as often as it stands for

    @classmethod
    def of(
        cls,
        candidates: Sequence[float],
        weights: Vector,
        reward: Vector,
        q_logged: Vector | float,
        v_target: Vector | float,
        modified: Callable[[Vector, float], Vector],
        stands_for: Vector | None = None,
    ) -> Trials:
        """Of n rows, as `tuned` takes them."""
        if not candidates:
            raise ValueError("tuning needs candidates, got none")
        n = len(reward)
        residual = reward - q_logged
        if not math.isfinite(float(residual.sum())):
            raise incomplete(reward, None, None)
        found = np.zeros((4, len(candidates)))
        for c, candidate in enumerate(candidates if n else ()):
            kept = modified(weights, candidate)
            terms = v_target + kept * residual
            found[0, c], found[1, c] = terms.mean(), n * np.var(terms)
            found[2, c] = dot(weights - kept, residual)
            found[3, c] = terms.sum() if stands_for is None else dot(stands_for, terms)
        return cls(tuple(candidates), n, *found)

    def __add__(self, other: Trials) -> Trials:
        if not (self.n and other.n):
            return self if self.n else other
        n = self.n + other.n
        apart = other.mean - self.mean
        return Trials(
            self.candidates,
            n,
            self.mean + apart * (other.n / n),
            self.squares + other.squares + apart**2 * (self.n * other.n / n),
            self.bias + other.bias,
            self.total + other.total,
        )

    def best(self, margin: float) -> int:
        """Which candidate has the least error, with its bias raised by `margin`."""
        bias = np.abs(self.bias / self.n) + margin
        errors = self.squares / self.n / self.n + bias * bias
        # Where all weights are below them, candidates differ by rounding alone.
        return int((errors <= errors.min() * (1.0 + 1e-12)).argmax())

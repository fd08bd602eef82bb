"""Arms share a prior: from sums per arm to posteriors, by empirical Bayes. Knows no event.

For each component, and with ε ~ N(0, σ²):

    y = x·θ_a + ε,   θ_a ~ N(m, T),   m ~ N(m00, T0),   T and T0 diagonal, one variance per group

(Lindley and Smith 1972, "Bayes estimates for the linear model", section 3). Everything below is
in units of σ², R = σ² T^-1: a regression of another target on the same rows can then use the same
matrices. Shapes: k arms, c components (quality, latency, cost), t targets, d features, g groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TARGETS = ("quality", "latency", "cost", "log_latency", "log_cost")
MATRIX = (0, 1, 2, 1, 2)  # the component whose rows a target shares


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What the outcomes of k arms add up to, weighted by their age."""

    xx: Array  # (k, c, d, d)
    xy: Array  # (k, t, d)
    yy: Array  # (k, t)
    weight: Array  # (k, c)


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """The variances of the model; learned, from a prior guess at them."""

    pooled: Array  # (c, g) of m about m00
    arm: Array  # (c, g) of an arm about m
    noise: Array  # (t,) σ² of each target


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Means and covariances of the arms' coefficients, given m at its posterior mean."""

    pooled: Array  # (t, d) m
    mean: Array  # (k, t, d)
    cov: Array  # (k, c, d, d)


# The guesses are in squares of what a component, within [0, 1], can do, and of the norms that the
# encoder gives each group; each counts as much as GUESS_WEIGHT coefficients (or outcomes).
POOLED_GUESS = {"bias": 0.25, "task": 0.04, "signals": 0.02, "hints": 0.04, "text": 0.04}
ARM_GUESS = {"bias": 0.04, "task": 0.02, "signals": 0.01, "hints": 0.02, "text": 0.01}
NOISE_GUESS = np.array([0.15, 0.02, 0.01, 0.25, 0.25])
VARIANCE_WEIGHT = 10.0
NOISE_WEIGHT = 50.0
SMALLEST = 1e-8


def first_guess(groups: tuple[str, ...]) -> Spread:
    """The spread before any outcome; `groups` are names of the encoder's groups."""
    return Spread(
        pooled=np.tile([POOLED_GUESS.get(name, 0.02) for name in groups], (3, 1)),
        arm=np.tile([ARM_GUESS.get(name, 0.01) for name in groups], (3, 1)),
        noise=NOISE_GUESS.copy(),
    )


def solve(sums: Sums, spread: Spread, start: Array, group: NDArray[np.intp]) -> Posterior:
    """The posterior; `start` (t, d) is m00 and `group` (d,) the group of each feature."""
    return _solve(sums, spread, start, group)[0]


def _solve(
    sums: Sums, spread: Spread, start: Array, group: NDArray[np.intp]
) -> tuple[Posterior, Array]:
    """Also (c, d, d), the covariance of m."""
    d = sums.xx.shape[-1]
    matrix = list(MATRIX)
    noise = spread.noise[:3]
    ratio = noise[:, None] / spread.arm[:, group]  # (c, d), R
    ratio0 = noise[:, None] / spread.pooled[:, group]
    inverse = np.linalg.inv(sums.xx + ratio[:, :, None] * np.eye(d))  # (k, c, d, d)
    # W = (T + σ² S^-1)^-1 = R - R (S + R)^-1 R, in units of σ², without inverting S
    shrunk = ratio[:, :, None] * inverse  # R (S + R)^-1
    information = ratio[:, :, None] * np.eye(d) * len(sums.xx) - (shrunk * ratio[:, None, :]).sum(
        axis=0
    )
    information += ratio0[:, :, None] * np.eye(d)
    information = 0.5 * (information + information.swapaxes(-1, -2))
    pooled_cov = np.linalg.inv(information)  # (c, d, d)
    evidence = (shrunk[:, matrix] @ sums.xy[..., None])[..., 0].sum(axis=0)  # (t, d)
    pooled = (pooled_cov[matrix] @ (evidence + ratio0[matrix] * start)[..., None])[..., 0]
    pulled = sums.xy + ratio[matrix] * pooled
    mean = (inverse[:, matrix] @ pulled[..., None])[..., 0]
    cov = inverse * noise[:, None, None]
    return Posterior(pooled, mean, cov), pooled_cov * noise[:, None, None]


def improve(
    sums: Sums, spread: Spread, guess: Spread, start: Array, group: NDArray[np.intp]
) -> Spread:
    """One EM step on the variances (Dempster, Laird and Rubin 1977; MacKay 1992, section 4)."""
    posterior, pooled_cov = _solve(sums, spread, start, group)
    first = slice(0, 3)
    k, _, d = posterior.mean.shape
    noise = spread.noise[:3]
    # Var(θ_a - m | y) = V + (I - V/T) C (I - V/T)', V/T = R-shrinkage towards m
    keep = posterior.cov / spread.arm[:, None, group]
    move = np.eye(d) - keep
    spill = np.einsum("kcij,cjl,kcil->kci", move, pooled_cov, move, optimize=True)
    variance = np.einsum("kcii->kci", posterior.cov) + spill
    deviation = ((posterior.mean - posterior.pooled)[:, first] ** 2 + variance).sum(axis=0)
    shift = (posterior.pooled - start)[first] ** 2 + np.einsum("cii->ci", pooled_cov)
    members = np.bincount(group, minlength=guess.arm.shape[1])
    arm = np.stack([np.bincount(group, row, len(members)) for row in deviation])
    pooled = np.stack([np.bincount(group, row, len(members)) for row in shift])
    w = VARIANCE_WEIGHT
    arm = (arm + w * guess.arm) / (k * members + w)
    pooled = (pooled + w * guess.pooled) / (members + w)
    matrix = list(MATRIX)
    fitted = np.einsum("kti,ktij,ktj->kt", posterior.mean, sums.xx[:, matrix], posterior.mean)
    rss = sums.yy - 2.0 * (posterior.mean * sums.xy).sum(axis=-1) + fitted
    free = np.einsum("kcij,kcji->kc", posterior.cov, sums.xx) / noise  # parameters in use
    left = np.maximum(rss, 0.0).sum(axis=0) + (free.sum(axis=0) * noise)[matrix] * (
        spread.noise / noise[matrix]
    )
    counted = sums.weight.sum(axis=0)[matrix]
    sigma2 = (left + NOISE_WEIGHT * guess.noise) / (counted + NOISE_WEIGHT)
    return Spread(
        np.maximum(pooled, SMALLEST), np.maximum(arm, SMALLEST), np.maximum(sigma2, SMALLEST)
    )

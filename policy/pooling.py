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


# Guessed variances of coefficients, in units of the noise variance, as in a g-prior (Zellner 1986):
# where outcomes scatter little, arms and tasks are guessed to differ little. Each guess counts as
# much as VARIANCE_WEIGHT coefficients that the outcomes determine, or NOISE_WEIGHT outcomes.
POOLED_RATIO = {"bias": 1.0, "task": 0.2, "signals": 0.2, "hints": 0.4, "text": 0.1}
ARM_RATIO = {"bias": 0.25, "task": 0.05, "signals": 0.08, "hints": 0.2, "text": 0.05}
PREDICTABLE = np.array([1.0, 5.0, 5.0])  # latency and cost follow x more closely than quality does
POOLED_BIAS = 0.25  # not a ratio: where in [0, 1] all arms lie is unknown, however little noise
NOISE_GUESS = np.array([0.15, 0.02, 0.01, 0.25, 0.25])
VARIANCE_WEIGHT = 10.0
NOISE_WEIGHT = 10.0
SMALLEST = 1e-8


def guess(groups: tuple[str, ...], noise: Array = NOISE_GUESS) -> Spread:
    """The spread before any outcome, or what it is drawn towards given the noise (t,) learned.

    `groups` are names of the encoder's groups; one that is new gets what text gets.
    """
    scale = (PREDICTABLE * noise[:3])[:, None]
    pooled = scale * [POOLED_RATIO.get(name, POOLED_RATIO["text"]) for name in groups]
    arm = scale * [ARM_RATIO.get(name, ARM_RATIO["text"]) for name in groups]
    pooled[:, [name == "bias" for name in groups]] = POOLED_BIAS
    return Spread(pooled=pooled, arm=arm, noise=noise.copy())


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
    sums: Sums, spread: Spread, groups: tuple[str, ...], start: Array, group: NDArray[np.intp]
) -> Spread:
    """One fixed-point step on the variances (MacKay 1992, "Bayesian interpolation").

    A variance is the squares of its coefficients, summed, over the number of coefficients that
    the outcomes determine: γ = Σ (1 - posterior variance / prior variance). What no outcome speaks
    of keeps its guess, and the rest settles in a few steps, where EM's would take hundreds.
    """
    posterior, pooled_cov = _solve(sums, spread, start, group)
    towards = guess(groups, spread.noise)
    prior, prior0 = spread.arm[:, group], spread.pooled[:, group]  # (c, d)
    # Var(θ_a - m | y) = V + (I - V/T) C (I - V/T)', with C the covariance of m
    move = np.eye(len(group)) - posterior.cov / prior[:, None]
    spill = np.einsum("kcij,cjl,kcil->kci", move, pooled_cov, move, optimize=True)
    variance = np.einsum("kcii->kci", posterior.cov) + spill
    deviation = (posterior.mean - posterior.pooled)[:, :3]
    variance0 = np.einsum("cii->ci", pooled_cov)
    return Spread(
        pooled=_refit(
            (posterior.pooled - start)[None, :3], variance0 / prior0, towards.pooled, group
        ),
        arm=_refit(deviation, variance / prior, towards.arm, group),
        noise=_noise(sums, posterior, spread.noise),
    )


def _refit(coefficients: Array, left: Array, towards: Array, group: NDArray[np.intp]) -> Array:
    """(c, g) variances of coefficients (n, c, d), of whose prior variance a share (n, c, d) or
    (c, d) is left."""
    determined = np.broadcast_to(np.clip(1.0 - left, 0.0, 1.0), coefficients.shape)
    members = np.eye(towards.shape[1])[group]  # (d, g)
    squares = (coefficients**2).sum(axis=0) @ members
    count = determined.sum(axis=0) @ members
    fitted: Array = (squares + VARIANCE_WEIGHT * towards) / (count + VARIANCE_WEIGHT)
    return np.maximum(fitted, SMALLEST)


def _noise(sums: Sums, posterior: Posterior, noise: Array) -> Array:
    """(t,) residual squares over the outcomes that are left to them, arms pooled."""
    matrix = list(MATRIX)
    mean = posterior.mean
    fitted = np.einsum("kti,ktij,ktj->kt", mean, sums.xx[:, matrix], mean, optimize=True)
    squares = np.maximum(sums.yy - 2.0 * (mean * sums.xy).sum(axis=-1) + fitted, 0.0).sum(axis=0)
    used = np.einsum("kcij,kcji->kc", posterior.cov, sums.xx) / noise[:3]
    spare = np.maximum(sums.weight - used, 0.0).sum(axis=0)[matrix]
    learned: Array = (squares + NOISE_WEIGHT * NOISE_GUESS) / (spare + NOISE_WEIGHT)
    return np.maximum(learned, SMALLEST)

"""Arms share a prior: from sums per arm to posteriors, by empirical Bayes. Knows no event.

For each component, and with ε ~ N(0, σ²):

    y = x·θ_a + ε,   θ_a ~ N(m + e z_a·b, T),   m ~ N(m00, T0),   b ~ N(0, S),
    T and T0 diagonal, one variance per group, S a share of the bias' in T, e the bias' unit vector

(Lindley and Smith 1972, "Bayes estimates for the linear model", section 3), where z_a are the arm's
traits and b is what they say of it. Everything below is in units of σ², R = σ² T^-1: a regression
of another target on the same rows can then use the same matrices. Shapes: k arms, c components
(quality, latency, cost), t targets, d features, the bias first, g groups, r traits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.values.linear.dense import chosen, inverted

Array = NDArray[np.float64]

TARGETS = ("quality", "latency", "cost", "log_latency", "log_cost")
MATRIX = (0, 1, 2, 1, 2)  # the component whose rows a target shares
C, T = 3, len(TARGETS)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What the outcomes of k arms add up to, weighted by their age."""

    xx: Array  # (k, c, d, d)
    xy: Array  # (k, t, d)
    yy: Array  # (k, t)
    weight: Array  # (k, c)

    @property
    def parts(self) -> tuple[Array, Array, Array, Array]:
        return self.xx, self.xy, self.yy, self.weight

    def first(self, k: int) -> Sums:
        """Those of the first k arms, not copied."""
        return Sums(*(part[:k] for part in self.parts))


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """The variances of the model; learned, from a prior guess at them."""

    pooled: Array  # (c, g) of m about m00
    arm: Array  # (c, g) of an arm about m
    noise: Array  # (t,) σ² of each target


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Means of the arms' coefficients, given m at its posterior mean."""

    pooled: Array  # (t, d) m
    slopes: Array  # (t, r) b
    mean: Array  # (k, t, d)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What a step on the variances makes: new ones, and what the old ones made of the outcomes.

    `sd` (k, c) is how far an arm's outcomes lie from their prediction, its own noise and what is
    unknown of its coefficients taken together; `doubt` (k, c) is the part of it that is unknown,
    in units of the whole.
    """

    spread: Spread
    posterior: Posterior
    sd: Array
    doubt: Array


# Guessed variances of coefficients, in units of the noise variance, as in a g-prior (Zellner 1986):
# where outcomes scatter little, arms and tasks are guessed to differ little. Each guess counts as
# much as VARIANCE_WEIGHT coefficients that the outcomes determine, or NOISE_WEIGHT outcomes. Most
# labels that callers send say nothing of arms: their slots' guess is small, and soon given up.
POOLED_RATIO = {"bias": 1.0, "task": 0.2, "signals": 0.2, "hints": 0.4, "label": 0.04, "text": 0.1}
ARM_RATIO = {"bias": 0.25, "task": 0.05, "signals": 0.08, "hints": 0.2, "label": 0.02, "text": 0.05}
PREDICTABLE = np.array([1.0, 5.0, 5.0])  # latency and cost follow x more closely than quality does
TRAIT_SHARE = 0.4  # of an arm's variance: what a trait that is 1 is guessed to make of its bias
POOLED_BIAS = 0.25  # not a ratio: where in [0, 1] all arms lie is unknown, however little noise
NOISE_GUESS = np.array([0.15, 0.02, 0.01, 0.25, 0.25])
VARIANCE_WEIGHT = 10.0
LABEL_WEIGHT = 1.0  # in its place for the slots of labels
NOISE_WEIGHT = 10.0
SMALLEST = 1e-8


def guess(groups: tuple[str, ...], noise: Array = NOISE_GUESS) -> Spread:
    """The spread before any outcome, or what it is drawn towards given the noise (t,) learned.

    `groups` are names of the encoder's groups, some numbered; one that is new gets what text gets.
    """
    groups = tuple(map(_kind, groups))
    scale = (PREDICTABLE * noise[:3])[:, None]
    pooled = scale * [POOLED_RATIO.get(name, POOLED_RATIO["text"]) for name in groups]
    arm = scale * [ARM_RATIO.get(name, ARM_RATIO["text"]) for name in groups]
    pooled[:, [name == "bias" for name in groups]] = POOLED_BIAS
    return Spread(pooled=pooled, arm=arm, noise=noise.copy())


def _kind(group: str) -> str:
    """The kind of a numbered group: no slot of labels differs from another beforehand."""
    return group.rstrip("0123456789")


def _weights(groups: tuple[str, ...]) -> Array:
    """(g,) how many coefficients each group's guess counts as."""
    return np.array([LABEL_WEIGHT if _kind(g) == "label" else VARIANCE_WEIGHT for g in groups])


def solve(
    sums: Sums,
    traits: Array,
    inverse: Array,
    spread: Spread,
    start: Array,
    group: NDArray[np.intp],
) -> Posterior:
    """The posterior, from `inverse` (k, c, d, d), (S + R)^-1, which times σ² is the covariance of
    an arm's coefficients; `traits` (k, r) are z, `start` (t, d) is m00 and `group` (d,) the group
    of each feature."""
    return _solve(sums, traits, inverse, spread, start, group)[0]


def _solve(
    sums: Sums,
    traits: Array,
    inverse: Array,
    spread: Spread,
    start: Array,
    group: NDArray[np.intp],
) -> tuple[Posterior, Array]:
    """Also (c, d, d), the covariance of m."""
    d, matrix = len(group), list(MATRIX)
    noise = spread.noise[:3]
    ratio = noise[:, None] / spread.arm[:, group]  # (c, d), R
    ratio0 = noise[:, None] / spread.pooled[:, group]
    both_cov = inverted(_information(traits, inverse, ratio, ratio0))
    fitted = _times(inverse, sums.xy)
    evidence = ratio[matrix] * fitted.sum(axis=0) + ratio0[matrix] * start  # (t, d)
    of_bias = ratio[matrix, :1]  # (t, 1)
    on_slopes = of_bias * (fitted[:, :, 0].T @ traits)  # (t, r)
    both = _times(both_cov, np.concatenate([evidence, on_slopes], axis=1))
    pooled, slopes = both[:, :d], both[:, d:]
    expected = of_bias * (slopes @ traits.T)  # (t, k)
    mean = fitted + _times(inverse, ratio[matrix] * pooled)
    mean += inverse[..., 0][:, matrix] * expected.T[:, :, None]
    return Posterior(pooled, slopes, mean), both_cov[:, :d, :d] * noise[:, None, None]


def _information(traits: Array, inverse: Array, ratio: Array, ratio0: Array) -> Array:
    """(c, d + r, d + r), the precision of m and b: the prior's, and Σ W = Σ (T + σ² S^-1)^-1
    = Σ R - R (S + R)^-1 R, without inverting S, for m; for b, traits times what W says of biases.
    """
    (k, r), (c, d) = traits.shape, ratio.shape
    of_bias = ratio[:, :1]  # (c, 1)
    information = np.empty((c, d + r, d + r))
    of_m, of_b = information[:, :d, :d], information[:, d:, d:]
    on_diagonal = np.arange(d)
    np.multiply(-ratio[:, :, None], inverse.sum(axis=0) * ratio[:, None], out=of_m)
    of_m[:, on_diagonal, on_diagonal] += k * ratio + ratio0
    biases = of_bias - of_bias**2 * inverse[:, :, 0, 0].T  # (c, k)
    of_b[:] = (traits.T * biases[:, None]) @ traits
    of_b[:, np.arange(r), np.arange(r)] += of_bias / TRAIT_SHARE
    across = -(ratio * of_bias)[:, :, None] * np.tensordot(inverse[..., 0], traits, (0, 0))
    across[:, 0] += of_bias * traits.sum(axis=0)
    information[:, :d, d:] = across
    information[:, d:, :d] = across.swapaxes(1, 2)
    of_m[:] = 0.5 * (of_m + of_m.swapaxes(-1, -2))
    return information


def _times(matrices: Array, vectors: Array) -> Array:
    """(..., c, d, d) of the components @ (..., t, d) of the targets that share them."""
    quality: Array = (matrices[..., 0, :, :] @ vectors[..., 0, :, None])[..., None, :, 0]
    both = np.stack([vectors[..., 1:3, :], vectors[..., 3:, :]], axis=-1)
    rest = matrices[..., 1:, :, :] @ both  # latency and cost, and their logs
    return np.concatenate([quality, rest[..., 0], rest[..., 1]], axis=-2)


def improve(
    sums: Sums,
    traits: Array,
    inverse: Array,
    spread: Spread,
    groups: tuple[str, ...],
    start: Array,
    group: NDArray[np.intp],
) -> Fitted:
    """One fixed-point step on the variances (MacKay 1992, "Bayesian interpolation").

    A variance is the squares of its coefficients, summed, over the number of coefficients that
    the outcomes determine: γ = Σ (1 - posterior variance / prior variance). What no outcome speaks
    of keeps its guess, and the rest settles in a few steps, where EM's would take hundreds.
    """
    posterior, pooled_cov = _solve(sums, traits, inverse, spread, start, group)
    towards = guess(groups, spread.noise)
    prior, prior0 = spread.arm[:, group], spread.pooled[:, group]  # (c, d)
    ratio = spread.noise[:3, None] / prior
    own = np.einsum("kcii->kci", inverse) * ratio  # V/T on the diagonal
    # Var(θ_a - m | y) = V + (I - V/T) C (I - V/T)', with C the covariance of m
    left = own + _spill(inverse, ratio, pooled_cov, sums.weight > 0.0) / prior
    deviation = (posterior.mean - posterior.pooled)[:, :3]
    deviation[..., 0] -= traits @ posterior.slopes[:3].T
    variance0 = np.einsum("cii->ci", pooled_cov)
    parameters = (1.0 - own).sum(axis=-1)  # (k, c), tr(V S) / σ²
    weight = _weights(groups)
    squares, spare = _residuals(sums, posterior, parameters)
    improved = Spread(
        pooled=_refit(
            (posterior.pooled - start)[None, :3], variance0 / prior0, towards.pooled, weight, group
        ),
        arm=_refit(deviation, left, towards.arm, weight, group),
        noise=_noise(squares.sum(axis=0), spare.sum(axis=0), NOISE_GUESS),
    )
    noise = _noise(squares, spare, improved.noise)[:, :3]
    typical = np.einsum("kcii->ci", sums.xx) / np.maximum(sums.weight.sum(axis=0), 1.0)[:, None]
    unknown = (spread.noise[:3] * parameters + (typical * prior).sum(axis=-1)) / (sums.weight + 1.0)
    sd = np.sqrt(noise + unknown)
    return Fitted(improved, posterior, sd, np.sqrt(unknown) / sd)


def _spill(inverse: Array, ratio: Array, pooled_cov: Array, taught: NDArray[np.bool_]) -> Array:
    """(k, c, d), how far the doubt about m goes into what an arm's coefficients are about it: not
    at all where no outcome was taught (k, c)."""
    spill = np.zeros(inverse.shape[:-1])
    for c, arms in chosen(taught):
        move = np.eye(inverse.shape[-1]) - inverse[arms, c] * ratio[c]
        spill[arms, c] = np.einsum("nij,nij->ni", move @ pooled_cov[c], move)
    return spill


def _refit(
    coefficients: Array, left: Array, towards: Array, weight: Array, group: NDArray[np.intp]
) -> Array:
    """(c, g) variances of coefficients (n, c, d), of whose prior variance a share (n, c, d) or
    (c, d) is left, drawn towards guesses (c, g) that count as `weight` (g,)."""
    determined = np.broadcast_to(np.clip(1.0 - left, 0.0, 1.0), coefficients.shape)
    members = np.eye(towards.shape[1])[group]  # (d, g)
    squares = (coefficients**2).sum(axis=0) @ members
    count = determined.sum(axis=0) @ members
    fitted: Array = (squares + weight * towards) / (count + weight)
    return np.maximum(fitted, SMALLEST)


def _residuals(sums: Sums, posterior: Posterior, parameters: Array) -> tuple[Array, Array]:
    """(k, t) residual squares, and the outcomes left to them beside `parameters` (k, c)."""
    mean = posterior.mean
    fitted = (mean * (_times(sums.xx, mean) - 2.0 * sums.xy)).sum(axis=-1)
    spare = np.maximum(sums.weight - parameters, 0.0)[..., list(MATRIX)]
    return np.maximum(sums.yy + fitted, 0.0), spare


def scatter(
    sums: Sums, inverse: Array, posterior: Posterior, spread: Spread, group: NDArray[np.intp]
) -> Array:
    """(k,) residual variances of each arm's own log latency, drawn towards that of all arms."""
    mean = posterior.mean[:, C]
    fitted = (mean * ((sums.xx[:, 1] @ mean[..., None])[..., 0] - 2.0 * sums.xy[:, C])).sum(axis=-1)
    own = np.einsum("kii->ki", inverse[:, 1]) * spread.noise[1] / spread.arm[1, group]
    spare = np.maximum(sums.weight[:, 1] - (1.0 - own).sum(axis=-1), 0.0)
    return _noise(np.maximum(sums.yy[:, C] + fitted, 0.0), spare, spread.noise[C])


def _noise(squares: Array, spare: Array, towards: Array) -> Array:
    """(..., t) variances of residuals, drawn towards a guess (t,)."""
    learned: Array = (squares + NOISE_WEIGHT * towards) / (spare + NOISE_WEIGHT)
    return np.maximum(learned, SMALLEST)

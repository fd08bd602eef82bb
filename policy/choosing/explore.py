"""From predictions to a probability per arm. Nothing here draws by itself: `draw` is given its
number, so what is logged is what was used.

`mean` (k,) and `sd` (k,) are of the expected reward, in units of reward. A pmf (k,) is over the
action set, in catalog order.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

BEYOND = 1e-7  # the probability that any arm's draw lies above where the quadrature ends
TOLERANCE = 1e-6  # of the quadrature: how far the probabilities may sum from 1
REFINEMENTS = 4
ATOM = 1e-4  # of the smallest spread: what stands for a spread of zero
CERTAIN = 1e-9  # units of reward: a smaller spread is none
ROOT_2_PI = math.sqrt(2.0 * math.pi)


def thompson(mean: Vector, sd: Vector, scale: float = 1.0) -> Vector:
    """The probability of each arm that its draw from N(mean, (scale * sd)^2) is the largest.

    p_a = ∫ φ((u-μ_a)/σ_a)/σ_a ∏_{b≠a} Φ((u-μ_b)/σ_b) du (Thompson 1933), by quadrature to 1e-6 or
    better. Arms whose sd is 0 stand where their mean is; equal ones share.

    >>> thompson(np.array([0.5, 0.5]), np.array([0.1, 0.3])).round(6).tolist()
    [0.5, 0.5]
    """
    pmf: Vector = thompson_of(mean, scale * sd[None])[0]
    return pmf


def thompson_rows(mean: Vector, sd: Vector, scale: float = 1.0) -> Vector:
    """`thompson` for n rows of k arms at once, (n, k); keep n small: it takes n k times 2 kB."""
    spread = scale * sd
    if spread.min() > CERTAIN:
        return _best(mean, spread)
    return np.stack([thompson(*row, scale) for row in zip(mean, sd, strict=True)])


def thompson_of(mean: Vector, spread: Vector) -> Vector:
    """`thompson` for the same means (k,) and several spreads (s, k): cheaper than one by one."""
    if spread.min() > CERTAIN:
        return _best(np.asarray(mean, dtype=np.float64), spread)
    return np.stack([_best_with_atoms(mean, row) for row in spread])


def _best(mean: Vector, sd: Vector) -> Vector:
    """(s, k) probabilities of being the best, for means (k,) or (s, k) and spreads (s, k).

    Below `low`, the highest of the arms' lower ends, no maximum lies. How many spreads an arm
    reaches grows with their number, as what lies beyond is lost of each. An arm of spread σ that
    can still win begins below `low` and so ends within two reaches above it: at a distance v from
    `low` no feature is finer than v over two reaches. On u = low + c (e^t - 1) equal steps of t
    keep pace with that, so the trapezoid rule, exponentially accurate here, needs only
    log(largest / smallest spread) times as many nodes. All arms' probabilities come from the same
    nodes, and their sum tells whether these were enough.
    """
    sds = _reach(sd.shape[1])
    reach = sds * sd
    low = (mean - reach).max(axis=1, keepdims=True)
    high = mean + reach
    alive = (high > low).any(axis=0)
    if not alive.all():
        pmf = np.zeros(sd.shape)
        pmf[:, alive] = _best(mean[..., alive], sd[:, alive])
        return pmf
    curve = 2.0 * sds * sd.min(axis=1, keepdims=True)
    span = np.log1p((high.max(axis=1, keepdims=True) - low) / curve)
    nodes = max(int(2.5 * sds * span.max()) + 2, 12 + int(4.0 * math.log2(sd.shape[1])))
    for _ in range(REFINEMENTS):
        p = _trapezoid(mean - low, sd, curve, span / (nodes - 1), nodes)
        total = p.sum(axis=1, keepdims=True)
        if all(abs(t - 1.0) < TOLERANCE for t in total.ravel().tolist()):
            break
        nodes *= 2
    p /= total
    return p


@cache
def _reach(k: int) -> float:
    """Standard deviations that k arms together exceed with probability BEYOND."""
    return -float(ndtri(BEYOND / k))


def _trapezoid(below: Vector, sd: Vector, curve: Vector, step: Vector, nodes: int) -> Vector:
    """(s, m) sums over nodes u = low + curve (e^t - 1), for means at `below` (s, m) above low.

    `curve` and `step`, the distance of nodes in t, are (s, 1).
    """
    stretch = curve * np.exp(step * np.arange(nodes))  # (s, nodes)
    z = stretch[:, None] - (below + curve)[:, :, None]
    z /= sd[:, :, None]
    cdf = ndtr(z)  # at least Φ(-reach), so that it divides safely
    np.multiply(z, z, out=z)
    z *= -0.5
    density = np.exp(z, out=z)
    density /= cdf
    stretch *= step
    stretch *= cdf.prod(axis=1)
    p: Vector = (density @ stretch[:, :, None])[:, :, 0]
    p /= ROOT_2_PI * sd
    return p


def _best_with_atoms(mean: Vector, sd: Vector) -> Vector:
    """`_best` (k,) where some spreads (k,) are 0: of those arms only the highest can win."""
    certain = sd <= CERTAIN
    highest = mean[certain].max()
    tied = np.flatnonzero(certain & (mean == highest))
    others = np.flatnonzero(~certain & (mean + _reach(len(mean)) * sd > highest))
    pmf = np.zeros(len(mean))
    if len(others) == 0:
        pmf[tied] = 1.0 / len(tied)
        return pmf
    spreads = np.append(sd[others], ATOM * sd[others].min())
    p = _best(np.append(mean[others], highest), spreads[None])[0]
    pmf[others] = p[:-1]
    pmf[tied] = p[-1] / len(tied)
    return pmf


def greedy(mean: Vector) -> Vector:
    """All on the arm of the highest mean; on the first of equals."""
    pmf = np.zeros(len(mean))
    pmf[np.argmax(mean)] = 1.0
    return pmf


def epsilon_greedy(mean: Vector, epsilon: float) -> Vector:
    """Greedy, but for a share epsilon that is uniform over all arms."""
    return with_floor(greedy(mean), epsilon)


def softmax(mean: Vector, temperature: float) -> Vector:
    """Probabilities that fall by e for each `temperature`, in units of reward, below the best."""
    weight = np.exp((mean - mean.max()) / temperature)
    pmf: Vector = weight / weight.sum()
    return pmf


def square_cb(mean: Vector, gamma: float) -> Vector:
    """1 / (k + gamma * gap) to each arm but the best, the rest to the best.

    Inverse gap weighting (Foster and Rakhlin 2020, https://arxiv.org/abs/2002.04926, section 3).

    >>> square_cb(np.array([0.9, 0.4]), gamma=10.0).round(3).tolist()
    [0.857, 0.143]
    """
    pmf: Vector = 1.0 / (len(mean) + gamma * (mean.max() - mean))
    best = int(np.argmax(mean))
    pmf[best] = 0.0
    pmf[best] = 1.0 - pmf.sum()
    return pmf


def with_floor(pmf: Vector, floor: float) -> Vector:
    """Mix in a little uniform, so that no importance weight exceeds k / floor."""
    return (1.0 - floor) * pmf + floor / len(pmf)


def cap_new_arms(pmf: Vector, is_new: Flags, share: float) -> Vector:
    """Leave new arms at most `share` together; what is beyond goes to the established ones.

    It goes to them in proportion to their own probability, evenly where that is 0. Together and
    not each, so that the harm that unknown arms can do is bounded however many are added at once.
    Nothing happens where all arms are new, or none.
    """
    held = float(pmf[is_new].sum())
    if held <= share or is_new.all():
        return pmf
    rest = pmf[~is_new]
    total = float(rest.sum())
    capped = np.empty(len(pmf))
    capped[is_new] = pmf[is_new] * (share / held)
    capped[~is_new] = (1.0 - share) * (rest / total if total > 0.0 else 1.0 / len(rest))
    return capped


def check(pmf: Vector) -> None:
    """Raise ValueError unless the pmf is finite, >= 0 and sums to 1 within 1e-9."""
    # A NaN or infinity anywhere makes the sum one too, and a comparison with it is false.
    if not (len(pmf) > 0 and pmf.min() >= 0.0 and abs(float(pmf.sum()) - 1.0) <= 1e-9):
        raise ValueError(f"expected probabilities >= 0 that sum to 1, got {pmf!r}")


def draw(pmf: Vector, u: float) -> int:
    """The arm at u in [0, 1) of the cumulated pmf, in catalog order; never one of probability 0.

    >>> [draw(np.array([0.25, 0.0, 0.75]), u) for u in (0.0, 0.2499, 0.25, 0.9999)]
    [0, 0, 2, 2]
    """
    cumulated = np.cumsum(pmf)
    index = int(np.searchsorted(cumulated, u * cumulated[-1], side="right"))
    if index < len(pmf):
        return index
    return int(np.flatnonzero(pmf)[-1])  # u * total was rounded up to the total

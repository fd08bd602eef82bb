"""From predictions to a probability per arm. Nothing here draws by itself: `draw` is given its
number, so what is logged is what was used.

`mean` (k,) and `sd` (k,) are of the expected reward, in units of reward. A pmf (k,) is over the
action set, in catalog order.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

REACH = 6.0  # sds: what lies beyond has probability 1e-9
TOLERANCE = 1e-7  # of the quadrature: how far the probabilities may sum from 1
REFINEMENTS = 8
ATOM = 1e-4  # of the smallest spread: what stands for a spread of zero
CERTAIN = 1e-9  # units of reward: a smaller spread is none
ROOT_2_PI = math.sqrt(2.0 * math.pi)


def thompson(mean: Vector, sd: Vector, scale: float = 1.0) -> Vector:
    """The probability of each arm that its draw from N(mean, (scale * sd)^2) is the largest.

    p_a = ∫ φ((u-μ_a)/σ_a)/σ_a ∏_{b≠a} Φ((u-μ_b)/σ_b) du (Thompson 1933), by
    quadrature to 1e-6 or better. Arms whose sd is 0 stand where their mean is; equal ones share.

    >>> thompson(np.array([0.5, 0.5]), np.array([0.1, 0.3])).round(6).tolist()
    [0.5, 0.5]
    """
    mean, sd = np.asarray(mean, dtype=np.float64), scale * np.asarray(sd, dtype=np.float64)
    pmf = np.zeros(len(mean))
    if sd.min() > CERTAIN:
        alive, p = _best(mean, sd)
    else:
        alive, p = _best_with_atoms(mean, sd)
    pmf[alive] = p
    pmf /= pmf.sum()
    return pmf


def best_probability(mean: Vector, sd: Vector, arm: int) -> float:
    """The probability that one arm is the best of all, at posterior scale 1."""
    return float(thompson(mean, sd)[arm])


def _best(mean: Vector, sd: Vector) -> tuple[NDArray[np.intp], Vector]:
    """Positions (m,) of the arms that can win, and the probability (m,) that each does.

    Below `low`, the highest of the arms' lower ends, no maximum lies. An arm of spread σ that can
    still win begins below `low` and so ends within 12 σ above it: at a distance v from `low` no
    feature is finer than v / 12. On u = low + c (e^t - 1) equal steps of t keep pace with that, so
    the trapezoid rule, exponentially accurate here, needs only log(largest / smallest spread)
    times as many nodes. All arms' probabilities come from the same nodes, and their sum tells
    whether these were enough.
    """
    low = (mean - REACH * sd).max()
    high = mean + REACH * sd
    alive = np.flatnonzero(high > low)
    if len(alive) == 1:
        return alive, np.ones(1)
    below, sd = mean[alive] - low, sd[alive]
    curve = 2.0 * REACH * sd.min()
    span = math.log1p((high.max() - low) / curve)
    nodes = max(int(4.0 * REACH * span) + 2, 16 + int(8.0 * math.log2(len(alive))))
    for _ in range(REFINEMENTS):
        p = _trapezoid(below, sd, curve, span / (nodes - 1), nodes)
        if abs(p.sum() - 1.0) < TOLERANCE:
            break
        nodes *= 2
    return alive, p


def _trapezoid(below: Vector, sd: Vector, curve: float, step: float, nodes: int) -> Vector:
    """(m,) sums over nodes u = low + curve (e^t - 1), for means at `below` (m,) above low."""
    stretch = curve * np.exp(step * np.arange(nodes))
    z = (stretch - (below + curve)[:, None]) / sd[:, None]
    cdf = ndtr(z)  # at least Φ(-6), so that it divides safely
    density = np.exp(-0.5 * z * z)
    density /= cdf
    p: Vector = density @ (cdf.prod(axis=0) * (stretch * step))
    p /= ROOT_2_PI * sd
    return p


def _best_with_atoms(mean: Vector, sd: Vector) -> tuple[NDArray[np.intp], Vector]:
    """`_best` where some spreads are 0: of those arms only the highest can win."""
    certain = sd <= CERTAIN
    highest = mean[certain].max()
    tied = np.flatnonzero(certain & (mean == highest))
    others = np.flatnonzero(~certain & (mean + REACH * sd > highest))
    if len(others) == 0:
        return tied, np.full(len(tied), 1.0 / len(tied))
    spreads = np.append(sd[others], ATOM * sd[others].min())
    alive, p = _best(np.append(mean[others], highest), spreads)
    share = np.zeros(len(spreads))
    share[alive] = p
    return (
        np.concatenate([others, tied]),
        np.concatenate([share[:-1], np.full(len(tied), share[-1] / len(tied))]),
    )


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

"""From predictions to a probability per arm. Nothing here draws by itself: `draw` is given its
number, so what is logged is what was used.

`mean` and `sd` (..., k) are of the expected reward, in units of reward. A pmf (..., k) is over the
action set, in catalog order. Rows never change one another: a query's pmf is the same, whichever
others are decided with it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

BEYOND = 1e-7  # the probability that any arm's draw lies above where the quadrature ends
SUMS_WITHIN = 1e-9
TOLERANCE = 1e-6  # of the quadrature: how far the probabilities may sum from 1
REFINEMENTS = 4
ATOM = 1e-4  # of the smallest spread: what stands for a spread of zero
CERTAIN = 1e-9  # units of reward: a smaller spread is none
CELLS = 65_536  # rows times arms times nodes at once: half a MB per array, and there are four
FEW = 32  # arms of which it is quicker to compute all than to pick those that can win
ROOT_2_PI = math.sqrt(2.0 * math.pi)


def thompson(mean: Vector, sd: Vector) -> Vector:
    """The probability of each arm that its draw from N(mean, sd^2) is the largest.

    p_a = ∫ φ((u-μ_a)/σ_a)/σ_a ∏_{b≠a} Φ((u-μ_b)/σ_b) du (Thompson 1933), by quadrature to 1e-6 or
    better. Arms whose sd is 0 stand where their mean is; equal ones share.

    >>> thompson(np.array([0.5, 0.5]), np.array([0.1, 0.3])).round(6).tolist()
    [0.5, 0.5]
    """
    means, rows = mean.reshape(-1, mean.shape[-1]), sd.reshape(-1, mean.shape[-1])
    if sd.min() > CERTAIN:
        return _best(means, rows).reshape(mean.shape)
    certain = rows.min(axis=1) <= CERTAIN
    pmf = np.empty(rows.shape)
    if not certain.all():
        pmf[~certain] = _best(means[~certain], rows[~certain])
    for i in np.flatnonzero(certain):
        pmf[i] = _best_with_atoms(means[i], rows[i])
    return pmf.reshape(mean.shape)


def _best(mean: Vector, sd: Vector) -> Vector:
    """(n, k) probabilities of being the best, for means and spreads (n, k).

    Below `low`, the highest of the arms' lower ends, no maximum lies. How many spreads an arm
    reaches grows with their number, as what lies beyond is lost of each. An arm of spread σ that
    can still win begins below `low` and so ends within two reaches above it: at a distance v from
    `low` no feature is finer than v over two reaches. On u = low + c (e^t - 1) equal steps of t
    keep pace with that, so the trapezoid rule, exponentially accurate here, needs only
    log(largest / smallest spread) times as many nodes. All arms' probabilities come from the same
    nodes, and their sum tells whether these were enough.
    """
    k = sd.shape[1]
    reach = _reach(k)
    ends = reach * sd
    below = mean - (mean - ends).max(axis=1, keepdims=True)
    top = below + ends
    alive = top > 0.0
    if alive.all():
        return _swept(_grids(below, sd, sd.min(axis=1), top.max(axis=1), k))
    # An arm that can't win is put where it is exactly as if it weren't there.
    below = np.where(alive, below, -np.inf)
    smallest = np.where(alive, sd, np.inf).min(axis=1)
    some = alive.any(axis=0)
    if k <= FEW or some.all():
        return _swept(_grids(below, sd, smallest, top.max(axis=1), k))
    pmf = np.zeros(sd.shape)
    pmf[:, some] = _swept(_grids(below[:, some], sd[:, some], smallest, top.max(axis=1), k))
    return pmf


class _Grids(NamedTuple):
    """Nodes u = low + curve (e^t - 1) of n rows, of which row i has `nodes[i]` in equal steps of t
    up to `span`. Means are at `below` (n, k) above low; all but it and sd is (n, 1)."""

    below: Vector
    sd: Vector
    curve: Vector
    span: Vector
    nodes: Index

    def take(self, rows: Index) -> _Grids:
        below, sd, curve, span, nodes = self
        return _Grids(below[rows], sd[rows], curve[rows], span[rows], nodes[rows])


def _grids(below: Vector, sd: Vector, smallest: Vector, top: Vector, k: int) -> _Grids:
    """Those that should do for the smallest spreads (n,) of k arms, up to `top` (n,) above low."""
    curve = 2.0 * _reach(k) * smallest[:, None]
    span = np.log1p(top[:, None] / curve)
    nodes = np.maximum(2.5 * _reach(k) * span + 2.0, 12.0 + 4.0 * math.log2(k)).astype(np.intp)
    return _Grids(below, sd, curve, span, nodes)


def _swept(grids: _Grids) -> Vector:
    """Integrals (n, k) on grids that are refined where they don't do."""
    p = _integrals(grids)
    total = p.sum(axis=1, keepdims=True)
    for _ in range(REFINEMENTS - 1):
        off = np.abs(total - 1.0)
        if off.max() < TOLERANCE:
            break
        rows = np.flatnonzero(off >= TOLERANCE)
        grids.nodes[rows] *= 2
        p[rows] = _integrals(grids.take(rows))
        total = p.sum(axis=1, keepdims=True)
    p /= total
    return p


@cache
def _reach(k: int) -> float:
    """Standard deviations that k arms together exceed with probability BEYOND."""
    return -float(ndtri(BEYOND / k))


def _integrals(grids: _Grids) -> Vector:
    """`_trapezoid` in parts of rows with about as many nodes, as large as CELLS allows."""
    (n, k), nodes = grids.sd.shape, grids.nodes[:, 0]
    if n * k * int(nodes.max()) <= CELLS:
        return _trapezoid(grids)
    p = np.empty((n, k))
    order = np.argsort(-nodes, kind="stable")
    at = 0
    while at < n:
        some = order[at : at + max(CELLS // (k * int(nodes[order[at]])), 1)]
        p[some] = _trapezoid(grids.take(some))
        at += len(some)
    return p


def _trapezoid(grids: _Grids) -> Vector:
    """(n, k) sums over the nodes of each row."""
    below, sd, curve, span, nodes = grids
    step = span / (nodes - 1)
    j = np.arange(nodes.max())
    stretch = curve * np.exp(step * j)  # (n, nodes)
    z = stretch[:, None] - (below + curve)[:, :, None]
    z /= sd[:, :, None]
    cdf = ndtr(z)  # at least Φ(-reach), so that it divides safely
    np.multiply(z, z, out=z)
    z *= -0.5
    density = np.exp(z, out=z)
    density /= cdf
    stretch *= step
    stretch *= cdf.prod(axis=1)
    stretch *= j < nodes
    p: Vector = np.vecdot(density, stretch[:, None])
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
    p = _best(np.append(mean[others], highest)[None], spreads[None])[0]
    pmf[others] = p[:-1]
    pmf[tied] = p[-1] / len(tied)
    return pmf


def greedy(mean: Vector) -> Vector:
    """All on the arm of the highest mean; on the first of equals."""
    pmf = np.zeros(mean.shape)
    np.put_along_axis(pmf, _first_best(mean), 1.0, axis=-1)
    return pmf


def _first_best(mean: Vector) -> Index:
    best: Index = np.expand_dims(mean.argmax(axis=-1), -1)
    return best


def epsilon_greedy(mean: Vector, epsilon: float) -> Vector:
    """Greedy, but for a share epsilon that is uniform over all arms."""
    return with_floor(greedy(mean), epsilon)


def softmax(mean: Vector, temperature: float) -> Vector:
    """Probabilities that fall by e for each `temperature`, in units of reward, below the best."""
    weight = np.exp((mean - mean.max(axis=-1, keepdims=True)) / temperature)
    pmf: Vector = weight / weight.sum(axis=-1, keepdims=True)
    return pmf


def square_cb(mean: Vector, gamma: float) -> Vector:
    """1 / (k + gamma * gap) to each arm but the best, the rest to the best.

    Inverse gap weighting (Foster and Rakhlin 2020, https://arxiv.org/abs/2002.04926, section 3).

    >>> square_cb(np.array([0.9, 0.4]), gamma=10.0).round(3).tolist()
    [0.857, 0.143]
    """
    gap = mean.max(axis=-1, keepdims=True) - mean
    pmf: Vector = 1.0 / (mean.shape[-1] + gamma * gap)
    best = _first_best(mean)
    np.put_along_axis(pmf, best, 0.0, axis=-1)
    np.put_along_axis(pmf, best, 1.0 - pmf.sum(axis=-1, keepdims=True), axis=-1)
    return pmf


def with_floor(pmf: Vector, floor: float) -> Vector:
    """Mix in a little uniform, so that no importance weight exceeds k / floor."""
    mixed: Vector = (1.0 - floor) * pmf + floor / pmf.shape[-1]
    return mixed


def cap_new_arms(pmf: Vector, is_new: Flags, share: float) -> Vector:
    """Leave new arms (k,) at most `share` together; what is beyond goes to the established ones.

    It goes to them in proportion to their own probability, evenly where that is 0. Together and
    not each, so that the harm that unknown arms can do is bounded however many are added at once.
    Nothing happens where all arms are new, or none.
    """
    known = ~is_new
    if is_new.all() or known.all():
        return pmf
    held = pmf[..., is_new].sum(axis=-1, keepdims=True)
    rest = pmf[..., known].sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        others = np.where(rest > 0.0, pmf / rest, 1.0 / known.sum())
        capped = np.where(is_new, pmf * (share / held), (1.0 - share) * others)
    held_down: Vector = np.where(held > share, capped, pmf)
    return held_down


def check(pmf: Vector) -> None:
    """Raise ValueError unless each pmf is finite, >= 0 and sums to 1 within 1e-9."""
    # A NaN or infinity anywhere makes the sum one too, and a comparison with it is false.
    if not (
        pmf.size > 0 and pmf.min() >= 0.0 and np.abs(pmf.sum(axis=-1) - 1.0).max() <= SUMS_WITHIN
    ):
        raise ValueError(f"expected probabilities >= 0 that sum to 1, got {pmf!r}")


def draw(pmf: Vector, u: float | Vector) -> Index:
    """The arm at each u in [0, 1) of the cumulated pmf, in catalog order; never one of
    probability 0. One for each row (...,).

    >>> [int(draw(np.array([0.25, 0.0, 0.75]), u)) for u in (0.0, 0.2499, 0.25, 0.9999)]
    [0, 0, 2, 2]
    """
    cumulated = pmf.cumsum(axis=-1)
    total = cumulated[..., -1:]
    at = np.minimum(np.expand_dims(u, -1) * total, np.nextafter(total, 0.0))  # never the total
    index: Index = (cumulated > at).argmax(axis=-1)
    return index

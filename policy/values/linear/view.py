"""What serving decides with: float32 posteriors of all arms. Learns nothing, knows no event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from policy.arms import traits
from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights
from policy.records import Context, Vector
from policy.values.arrays import aligned, expect, floats, pack, symmetric, triangle, unpack
from policy.values.linear.pooling import Array, C, T
from policy.values.linear.targets import TINY_SHARE
from policy.values.parts import VALUES, Part, Parts, numbered, of_rows
from policy.values.protocol import Expected, Forecast

Single = NDArray[np.float32]
Index = NDArray[np.intp]

LOG_BOUND = 30.0
ARRAYS = (
    *("events", "joined", "seen", "noise", "scatter", "recurring"),
    *("mean", "fresh_mean", "slopes", "fresh_cov"),
)


@dataclass(frozen=True, slots=True, eq=False)
class LinearView:
    """What a snapshot holds: the posterior of k arms, and what an arm never seen starts from.

    `mean` (k, t, d) and `cov` (k, each the float32 bytes of (c, d (d + 1) / 2), upper triangles by
    rows) are of coefficients; `fresh_mean` (t, d) and `fresh_cov` (c, ...) of a new arm's, whose
    bias its traits move by `slopes` (t, r). `seen`
    (c,) tells which components were ever taught, `noise` (t,) is residual variance, `recurring`
    (d,) tells of which features the uncertainty is explored, and `scatter` (k,) is the residual
    variance of each arm's own log latency. `joined` (k + 1,) counts all events before an arm's
    first, and ends with all events there are.
    """

    scales: Scales
    arms: tuple[str, ...]
    events: NDArray[np.int64]
    joined: NDArray[np.int64]
    seen: NDArray[np.bool_]
    noise: Array
    scatter: Array
    recurring: NDArray[np.bool_]
    mean: Single
    fresh_mean: Single
    slopes: Single
    fresh_cov: Single
    cov: tuple[Part, ...]

    def bind(
        self,
        arms: Sequence[str],
        expected: Sequence[Expected] = (),
        usual: Weights | None = None,
        catalog: Catalog | None = None,
    ) -> LinearValues:
        """Stack for these arm ids; one never seen gets the prior that arms of its traits share,
        which `catalog` tells.

        `expected`, parallel to `arms`, is what somebody expects of an arm's quality where a
        feature is 1 (beside the bias, feature 0). It moves the mean of that arm's prior, and so
        counts for less the more the arm has taught. Under the `usual` weights forecasts are faster.
        """
        at = aligned(self.arms, arms)
        mean = np.concatenate([self.mean, self.fresh_mean[None]])[at]
        fresh = self.fresh_cov.tobytes()
        each = (self.cov[i].data if i >= 0 else fresh for i in at.tolist())
        cov = floats(each, "<f4", self.fresh_cov.size).reshape(-1, *self.fresh_cov.shape)
        by_traits = np.zeros((len(arms), T), dtype=np.float32)
        if catalog is not None:
            by_traits += catalog.traits.astype(np.float32) @ self.slopes.T
        mean[at < 0, :, 0] += by_traits[at < 0]
        for i, of_features in enumerate(expected):
            if of_features:
                mean[i, 0] += self._moved(cov[i, 0], by_traits[i, 0], of_features)
        return LinearValues(self, at, mean, cov, usual)

    def _moved(self, cov: Single, by_traits: np.float32, of_features: Expected) -> Single:
        """V T^-1 (m' - m): how an arm's posterior mean moves when its prior's does, (d,)."""
        pooled = self.fresh_mean[0].copy()
        pooled[0] += by_traits
        move = np.zeros(len(pooled), dtype=np.float32)
        for feature, quality in of_features.items():
            move[feature] = quality - pooled[0] - pooled[feature]
        variance: Single = np.diagonal(symmetric(self.fresh_cov[0], len(pooled)))
        moved: Single = symmetric(cov, len(pooled)) @ (move / variance)
        return moved

    def to_parts(self) -> dict[str, Part]:
        """Means and what is small, and a part per arm; equal views give equal parts."""
        header = {"scales": asdict(self.scales), "arms": self.arms}
        values = pack(header, {name: getattr(self, name) for name in ARRAYS})
        return {VALUES: Part.of(values), **numbered("arm", self.cov)}

    @classmethod
    def from_parts(cls, parts: Parts) -> LinearView:
        """Read `to_parts` back; ValueError for anything else."""
        try:
            header, arrays = unpack(parts[VALUES].data)
            k, d = len(header["arms"]), arrays["fresh_mean"].shape[-1]
            shapes = {
                "events": (k,),
                "joined": (k + 1,),
                "seen": (C,),
                "noise": (T,),
                "scatter": (k,),
                "recurring": (d,),
                "mean": (k, T, d),
                "fresh_mean": (T, d),
                "slopes": (T, len(traits.NAMES)),
                "fresh_cov": (C, triangle(d)),
            }
            expect(arrays, shapes)
            cov = tuple(of_rows("arm", parts, k))
            if any(len(part.data) != 4 * C * triangle(d) for part in cov):
                raise ValueError(f"expected covariances of {d} features")
            arms = tuple(header["arms"])
            return cls(scales=Scales(**header["scales"]), arms=arms, cov=cov, **arrays)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not a linear view: {error!r}") from error


class LinearValues:
    """A view stacked in the order of one catalog's arms; k of them."""

    def __init__(
        self,
        view: LinearView,
        at: Index,
        mean: Single,
        cov: Single,
        usual: Weights | None,
    ) -> None:
        """`at` (k,) are the arms' positions in the view, -1 for one never seen; `mean` (k, t, d)
        and `cov` (k, c, triangle) are theirs."""
        self.events, self.joined = np.append(view.events, 0)[at], view.joined[at]
        self._scatter = np.append(view.scatter, view.noise[C])[at]
        self._of_logs = (
            view.noise[C:] / view.noise[1:C]
        )  # what variances of theirs are multiples of
        k, _, d = mean.shape
        self._k, self._scales = k, view.scales
        self._rows, self._columns = np.triu_indices(d)
        self._recurring = view.recurring
        fresh = np.stack([np.diagonal(symmetric(cov, d)) for cov in view.fresh_cov])
        self._fresh = np.where(view.recurring, fresh, np.float32(0.0))  # (c, d)
        both = view.recurring[self._rows] & view.recurring[self._columns]
        self._explored = both.astype(np.float32)  # (triangle,)
        twice = np.where(self._rows == self._columns, 1.0, 2.0).astype(np.float32)
        self._mean = np.ascontiguousarray(mean.swapaxes(0, 1))  # (t, k, d)
        self._cov = np.ascontiguousarray((cov * twice).swapaxes(0, 1))  # (c, k, triangle)
        self._usual = usual
        self._usual_cov = None
        self._usual_cov = None if usual is None else self._cov_under(usual)
        # A log-normal's mean lies above its median; not by more than its own size, though.
        self._lift = np.minimum(0.5 * view.noise[C:], math.log(2.0))[:, None, None]
        self._unknown = ~view.seen
        self._all_known = bool(view.seen.all())

    def forecast(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """Forecast for contexts (n, d), the arms at positions `index` (m,), list costs (n, m).

        The cost regressions are of what differs from the list cost, so a price acts at once. Each
        number is a dot product of its own, never part of a matrix product, which sums in another
        order when there are more rows.
        """
        y = np.vecdot(self._mean[:, None], x[:, None]).astype(np.float64)  # (t, n, k)
        products = np.empty((2, len(x), len(self._rows)), dtype=np.float32)
        np.multiply(x.take(self._rows, axis=1), x.take(self._columns, axis=1), out=products[0])
        np.multiply(products[0], self._explored, out=products[1])
        cov, fresh = self._cov_under(weights)
        variance = np.vecdot(cov, products[:, :, None]).astype(np.float64)  # (2, n, k)
        if len(index) < self._k:
            y, variance = y[:, :, index], variance[:, :, index]
        y[2] += self._scales.cost(list_cost_usd)
        np.maximum(variance, 0.0, out=variance)
        known, recurring = np.sqrt(variance)
        at_first = np.vecdot(x * x, fresh).astype(np.float64)
        return Forecast(
            utility=_utility(y, weights),
            utility_sd=known,
            outcome=self._outcome(y, list_cost_usd),
            explored_sd=recurring,
            unknown=np.minimum(variance[1] / at_first[:, None], 1.0),
            log_latency=y[C],
        )

    def latency_quantile(self, x: Context, index: Index, probability: Vector) -> Vector:
        """As the protocol has it: by the posterior predictive of the log, taken for normal."""
        mean, variance = self._log(1, x, index)
        sd = np.sqrt(variance + self._scatter[index])
        bound = np.minimum(mean + ndtri(probability)[:, None] * sd, LOG_BOUND)
        latency_ms: Vector = np.maximum(np.expm1(bound), 0.0)
        return np.full_like(latency_ms, np.nan) if self._unknown[1] else latency_ms

    def bounds(
        self, x: Context, index: Index, list_cost_usd: Vector, probability: float
    ) -> tuple[Vector, Vector]:
        """As the protocol has it; `x` and the rest as `forecast` takes them."""
        reach = float(ndtri(0.5 + probability / 2))
        y = np.vecdot(self._mean[:, None, index], x[:, None]).astype(np.float64)
        sd = np.zeros_like(y)
        sd[0] = np.sqrt(self._variance(0, x, index))
        for component in (1, 2):
            sd[C + component - 1] = np.sqrt(self._log(component, x, index)[1])
        low, high = (self._outcome(y + side * reach * sd, list_cost_usd) for side in (-1.0, 1.0))
        return low, high

    def _log(self, component: int, x: Context, index: Index) -> tuple[Array, Array]:
        """Mean and variance (n, m) of the log of what an arm's latency (1) or cost (2) is."""
        mean = np.vecdot(self._mean[C - 1 + component, index], x[:, None]).astype(np.float64)
        return mean, self._of_logs[component - 1] * self._variance(component, x, index)

    def _variance(self, component: int, x: Context, index: Index) -> Array:
        """(n, m) posterior variances of a component's mean."""
        products = x.take(self._rows, axis=1) * x.take(self._columns, axis=1)
        variance = np.vecdot(self._cov[component, index], products[:, None]).astype(np.float64)
        known: Array = np.maximum(variance, 0.0)
        return known

    def _cov_under(self, weights: Weights) -> tuple[Single, Single]:
        """Of an arm's utility (k, triangle), as components are independent and their variances add
        by squared weight; and of a new arm's, the diagonal (d,) as far as it is explored."""
        if weights == self._usual and self._usual_cov is not None:
            return self._usual_cov
        squares = np.square(weights.as_tuple(), dtype=np.float32)
        mixed: Single = np.tensordot(squares, self._cov, axes=1)
        return mixed, squares @ self._fresh

    def _outcome(self, y: Array, list_cost_usd: Vector) -> Array:
        """(n, m, 3) in their own units; NaN where no arm has taught a component."""
        tiny = TINY_SHARE * self._scales.cost_ref_usd
        by_component = np.empty((C, *y.shape[1:]))
        np.minimum(y[0], 1.0, out=by_component[0])
        logs = y[C:] + self._lift
        np.exp(np.minimum(logs, LOG_BOUND, out=logs), out=by_component[1:])
        by_component[1] -= 1.0
        by_component[2] *= list_cost_usd + tiny
        by_component[2] -= tiny
        np.maximum(by_component, 0.0, out=by_component)
        if not self._all_known:
            by_component[self._unknown] = np.nan
        return np.ascontiguousarray(by_component.transpose(1, 2, 0))


def _utility(y: Array, weights: Weights) -> Array:
    """The expected reward, for components (c or more, ...) as they are predicted."""
    wq, wl, wc = weights.as_tuple()
    utility: Array = wq * y[0] - wl * y[1] - wc * y[2] + (wl + wc)
    return utility

"""What serving decides with: float32 posteriors of all arms. Learns nothing, knows no event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

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
ARRAYS = ("events", "joined", "seen", "noise", "recurring", "mean", "fresh_mean", "fresh_cov")


@dataclass(frozen=True, slots=True, eq=False)
class LinearView:
    """What a snapshot holds: the posterior of k arms, and what an arm never seen starts from.

    `mean` (k, t, d) and `cov` (k, each the float32 bytes of (c, d (d + 1) / 2), upper triangles by
    rows) are of coefficients; `fresh_mean` (t, d) and `fresh_cov` (c, ...) of a new arm's. `seen`
    (c,) tells which components were ever taught, `noise` (t,) is residual variance, `recurring`
    (d,) tells of which features the uncertainty is explored. `joined` (k + 1,) counts all events
    before an arm's first, and ends with all events there are.
    """

    scales: Scales
    arms: tuple[str, ...]
    events: NDArray[np.int64]
    joined: NDArray[np.int64]
    seen: NDArray[np.bool_]
    noise: Array
    recurring: NDArray[np.bool_]
    mean: Single
    fresh_mean: Single
    fresh_cov: Single
    cov: tuple[Part, ...]

    def bind(
        self,
        arms: Sequence[str],
        expected: Sequence[Expected] = (),
        usual: Weights | None = None,
        catalog: Catalog | None = None,
    ) -> LinearValues:
        """Stack for these arm ids; one never seen gets the shared prior.

        `expected`, parallel to `arms`, is what somebody expects of an arm's quality where a
        feature is 1 (beside the bias, feature 0). It moves the mean of that arm's prior, and so
        counts for less the more the arm has taught. Under the `usual` weights forecasts are faster.
        """
        at = aligned(self.arms, arms)
        mean = np.concatenate([self.mean, self.fresh_mean[None]])[at]
        fresh = self.fresh_cov.tobytes()
        each = (self.cov[i].data if i >= 0 else fresh for i in at.tolist())
        cov = floats(each, "<f4", self.fresh_cov.size).reshape(-1, *self.fresh_cov.shape)
        for i, of_features in enumerate(expected):
            if of_features:
                mean[i, 0] += self._moved(cov[i, 0], of_features)
        return LinearValues(self, np.append(self.events, 0)[at], self.joined[at], mean, cov, usual)

    def _moved(self, cov: Single, of_features: Expected) -> Single:
        """V T^-1 (m' - m): how an arm's posterior mean moves when its prior's does, (d,)."""
        pooled = self.fresh_mean[0]
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
                "recurring": (d,),
                "mean": (k, T, d),
                "fresh_mean": (T, d),
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
        events: NDArray[np.int64],
        joined: NDArray[np.int64],
        mean: Single,
        cov: Single,
        usual: Weights | None,
    ) -> None:
        self.events, self.joined = events, joined
        k, _, d = mean.shape
        self._k, self._scales = k, view.scales
        self._rows, self._columns = np.triu_indices(d)
        self._recurring = view.recurring
        fresh = np.stack([np.diagonal(symmetric(cov, d)) for cov in view.fresh_cov])
        self._fresh = np.where(view.recurring, fresh, np.float32(0.0))  # (c, d)
        both = view.recurring[self._rows] & view.recurring[self._columns]
        self._explored = np.stack([np.ones_like(both), both], axis=1).astype(np.float32)
        twice = np.where(self._rows == self._columns, 1.0, 2.0).astype(np.float32)
        self._mean = np.ascontiguousarray(mean.swapaxes(0, 1)).reshape(T * k, d)
        self._cov = np.ascontiguousarray((cov * twice).swapaxes(0, 1))  # (c, k, triangle)
        self._usual = usual
        self._usual_cov = None if usual is None else self._utility_cov(usual)
        # A log-normal's mean lies above its median; not by more than its own size, though.
        self._lift = np.minimum(0.5 * view.noise[C:], math.log(2.0))[:, None]
        self._unknown = ~view.seen

    def forecast(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """Forecast for the arms at positions `index` (m,) with list costs (m,).

        The cost regressions are of what differs from the list cost, so a price acts at once.
        """
        y = (self._mean @ x).astype(np.float64).reshape(T, self._k)
        cov = self._cov_under(weights)
        variance = cov @ (self._explored * (x[self._rows] * x[self._columns])[:, None])
        if len(index) < self._k:
            y, variance = y[:, index], variance[index]
        y[2] += self._scales.cost(list_cost_usd)
        variance = np.maximum(variance, 0.0).astype(np.float64)
        known, recurring = variance.T
        return Forecast(
            utility=_utility(y, weights),
            utility_sd=np.sqrt(known),
            outcome=self._outcome(y, list_cost_usd),
            explored_sd=np.sqrt(recurring),
            unknown=np.minimum(recurring / self._at_first(x, weights), 1.0),
        )

    def _at_first(self, x: Single, weights: Weights) -> Array:
        """Variances (...,) of a new arm's utility for contexts (..., d), as far as explored."""
        squares = np.square(weights.as_tuple(), dtype=np.float32)
        at_first: Array = (x * x @ (squares @ self._fresh)).astype(np.float64)
        return at_first

    def forecasts(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """`forecast` without outcomes, each (n, m), for contexts (n, d) and list costs (n, m)."""
        arms = self._mean.reshape(T, self._k, -1)[:C, index]
        y = (arms @ x.T).astype(np.float64)  # (c, m, n)
        y[2] += self._scales.cost(list_cost_usd).T
        cov = self._cov_under(weights)
        square = np.zeros((len(index), x.shape[1], x.shape[1]), dtype=np.float32)
        square[:, self._rows, self._columns] = cov[index]
        recurring, known = (
            np.maximum(np.einsum("mnd,nd->nm", z @ square, z), 0.0).astype(np.float64)
            for z in (np.where(self._recurring, x, np.float32(0.0)), x)
        )
        return Forecast(
            utility=np.ascontiguousarray(_utility(y, weights).T),
            utility_sd=np.sqrt(known),
            outcome=np.empty((0, C)),
            explored_sd=np.sqrt(recurring),
            unknown=np.minimum(recurring / self._at_first(x, weights)[:, None], 1.0),
        )

    def _cov_under(self, weights: Weights) -> Single:
        if weights == self._usual and self._usual_cov is not None:
            return self._usual_cov
        return self._utility_cov(weights)

    def _utility_cov(self, weights: Weights) -> Single:
        """(k, triangle): components are independent, so their variances add by squared weight."""
        squares = np.square(weights.as_tuple(), dtype=np.float32)
        mixed: Single = np.tensordot(squares, self._cov, axes=1)
        return mixed

    def _outcome(self, y: Array, list_cost_usd: Vector) -> Array:
        """(m, 3) in their own units; NaN where no arm has taught a component."""
        tiny = TINY_SHARE * self._scales.cost_ref_usd
        by_component = np.empty((C, y.shape[1]))
        by_component[0] = np.minimum(y[0], 1.0)
        np.exp(np.minimum(y[C:] + self._lift, LOG_BOUND), out=by_component[1:])
        by_component[1] -= 1.0
        by_component[2] *= list_cost_usd + tiny
        by_component[2] -= tiny
        np.maximum(by_component, 0.0, out=by_component)
        if self._unknown.any():
            by_component[self._unknown] = np.nan
        return np.ascontiguousarray(by_component.T)


def _utility(y: Array, weights: Weights) -> Array:
    """The expected reward, for components (c or more, ...) as they are predicted."""
    wq, wl, wc = weights.as_tuple()
    utility: Array = wq * y[0] - wl * y[1] - wc * y[2] + (wl + wc)
    return utility

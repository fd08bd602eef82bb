"""What serving decides with: stored regressors, loaded read-only for a catalog's arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vowpal_wabbit_next import Workspace

from policy.arms.catalog import Catalog, Index
from policy.objective import LOG_SLOPE, Scales, Weights
from policy.records import Context, Vector
from policy.values.arrays import aligned
from policy.values.parts import Part, Parts
from policy.values.protocol import Expected, Forecast
from policy.values.vw.examples import action, encoding
from policy.values.vw.regressors import SIGNS, C, pack, unpack, zero

NOTHING = Part.of(b"")
EXPECTED_EVENTS = 10.0  # outcomes that an operator's expected quality is worth


@dataclass(frozen=True, slots=True, eq=False)
class VwView:
    """What a snapshot holds: the stored regressors, NOTHING of one that was never taught."""

    sizes: tuple[tuple[str, int], ...]
    scales: Scales
    arms: tuple[str, ...]
    events: NDArray[np.int64]
    joined: NDArray[np.int64]
    models: tuple[Part, ...]

    def bind(
        self,
        arms: Sequence[str],
        expected: Sequence[Expected] = (),
        usual: Weights | None = None,
        catalog: Catalog | None = None,
    ) -> VwValues:
        """Load the regressors, for the arms of a catalog with their traits."""
        if catalog is None or catalog.ids != tuple(arms):
            raise ValueError("a VW view is bound to a catalog, for its arms' traits")
        return VwValues(self, catalog, expected)

    def to_parts(self) -> dict[str, Part]:
        """Equal views give equal parts."""
        header = {
            "sizes": dict(self.sizes),
            "scales": asdict(self.scales),
            "arms": self.arms,
            "events": self.events.tolist(),
            "joined": self.joined.tolist(),
        }
        return pack(header, self.models)

    @classmethod
    def from_parts(cls, parts: Parts) -> VwView:
        """Read `to_parts` back; ValueError for anything else."""
        header, models = unpack(parts)
        try:
            return cls(
                sizes=tuple(header["sizes"].items()),
                scales=Scales(**header["scales"]),
                arms=tuple(header["arms"]),
                events=np.array(header["events"], dtype=np.int64),
                joined=np.array(header["joined"], dtype=np.int64),
                models=models,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a VW view: {error!r}") from error


class VwValues:
    """A view's regressors, loaded read-only, and one example per arm of a catalog.

    One decision at a time: predicting writes into the workspace and into the examples.
    """

    def __init__(self, view: VwView, catalog: Catalog, expected: Sequence[Expected]) -> None:
        at = aligned(view.arms, catalog.ids)
        self.events = np.append(view.events, 0)[at]
        self.joined = view.joined[at]
        self._scales = view.scales
        self._start = zero(view.scales)
        self._encoding = encoding(view.sizes)
        self._actions = list(map(action, catalog.arms))
        self._expected = {i: of_features for i, of_features in enumerate(expected) if of_features}
        self._regressors = [
            Workspace(["--quiet", "-t"], model_data=model.data) if model.data else None
            for model in view.models
        ]
        self._lock = Lock()

    def latency_quantile(self, x: Context, index: Index, probability: Vector) -> None:
        return None  # it knows no spread

    def bounds(self, x: Context, index: Index, list_cost_usd: Vector, probability: float) -> None:
        return None  # nor a posterior

    def forecast(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """Forecast for contexts (n, d), the arms at positions `index` (k,), list costs (n, k); no
        sd.

        VW's cost regressor is of what differs from the list cost, so a price acts at once.
        """
        y = self._start + np.stack([self._predict(one, index) for one in x]) * SIGNS
        self._expect(y[..., 0], x, index)
        y[..., 2] += self._scales.cost(list_cost_usd)
        wq, wl, wc = weights.as_tuple()
        utility = wq * y[..., 0] - wl * y[..., 1] - wc * y[..., 2] + (wl + wc)
        return Forecast(utility, None, self._outcome(y, list_cost_usd))

    def _predict(self, x: Context, index: Index) -> Vector:
        """(k, 3) VW's costs for one context (d,), 0 of a component that was never taught."""
        costs = np.zeros((len(index), C))
        with self._lock:
            examples = [self._encoding.shared(x), *(self._actions[i] for i in index.tolist())]
            for c, regressor in enumerate(self._regressors):
                if regressor is not None:
                    # VW sorts its (action, cost) pairs by cost; everyone else indexes by arm.
                    found: Any = regressor.predict_one(examples)
                    for place, cost in found:
                        costs[place, c] = cost
        return costs

    def _expect(self, quality: Vector, x: Context, index: Index) -> None:
        """Move qualities (n, k) towards what somebody expects, the less the more an arm has
        taught."""
        for i, position in enumerate(index.tolist()):
            trust = EXPECTED_EVENTS / (EXPECTED_EVENTS + self.events[position])
            for feature, expected in self._expected.get(position, {}).items():
                moved = trust * x[:, feature].astype(np.float64)
                quality[:, i] += moved * (expected - quality[:, i])

    def _outcome(self, y: Vector, list_cost_usd: Vector) -> Vector:
        """(n, k, 3) in their own units; NaN of a component that was never taught.

        Latency and cost are what a mean score stands for: with the log scale nearer to a geometric
        than to an arithmetic mean. A score of 1 says only "the reference or more", so there the
        answer is the reference, or the list cost where that is more.
        """
        share = np.clip(y, 0.0, 1.0)
        if self._scales.scale == "log":
            share[..., 1:] = np.expm1(share[..., 1:] * math.log1p(LOG_SLOPE)) / LOG_SLOPE
        outcome = share * (1.0, self._scales.latency_ref_ms, self._scales.cost_ref_usd)
        saturated = y[..., 2] >= 1.0
        outcome[saturated, 2] = np.maximum(outcome[saturated, 2], list_cost_usd[saturated])
        outcome[..., [regressor is None for regressor in self._regressors]] = np.nan
        return outcome

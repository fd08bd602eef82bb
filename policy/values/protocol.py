"""The ValueModel protocol: what a policy may ask of a model that learns from outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policy.arms.catalog import Catalog, Index
from policy.objective import Weights
from policy.records import Context, CorrectionBatch, OutcomeBatch, Vector
from policy.values.parts import Parts

Expected = Mapping[int, float]  # feature -> quality


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What a model expects of k arms for n contexts, under one objective.

    `utility` and `utility_sd` (n, k) are the mean and the posterior standard deviation (at scale 1)
    of the expected reward; `utility_sd` is None where the model has no posterior. `explored_sd` is
    that part of it which is worth exploring, all of it where None, and `unknown` (n, k) what is
    left of its variance as it was before the arm's first outcome, in [0, 1]. `outcome` is
    (n, k, 3): quality, latency_ms, cost_usd in their own units, NaN where nothing is known;
    `log_latency` (n, k) the expected logarithm of latency_ms, None where there is none.
    """

    utility: Vector
    utility_sd: Vector | None
    outcome: Vector
    explored_sd: Vector | None = None
    unknown: Vector | None = None
    log_latency: Vector | None = None

    def answered(self, share: Vector, weights: Weights) -> Forecast:
        """The same where only so large a share (k,) of an arm's calls doesn't fail: a failed one
        earns what its cost of 0 does."""
        fails = (1.0 - share) * weights.cost
        explored_sd = None if self.explored_sd is None else share * self.explored_sd
        return replace(
            self,
            utility=share * self.utility + fails,
            utility_sd=None if self.utility_sd is None else share * self.utility_sd,
            explored_sd=explored_sd,
        )


class BoundValues(Protocol):
    """A read-only view of learned values, stacked in the order of one catalog's arms."""

    events: NDArray[np.int64]  # (number of arms in the catalog,) outcomes that each arm has taught
    joined: NDArray[np.int64]  # likewise: all outcomes before the arm's first

    def forecast(
        self, x: Context, index: NDArray[np.intp], list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """Forecast for contexts (n, d), the arms at catalog positions `index` (k,) and list costs
        (n, k). A context's numbers are the same, whichever others come with it."""
        ...

    def latency_quantile(
        self, x: Context, index: NDArray[np.intp], probability: Vector
    ) -> Vector | None:
        """Milliseconds (n, k) that one call takes at most with a probability (n,), NaN where
        nothing is known; None from a model that knows no spread."""
        ...

    def bounds(
        self, x: Context, index: NDArray[np.intp], list_cost_usd: Vector, probability: float
    ) -> tuple[Vector, Vector] | None:
        """The ends (n, k, 3) of the central intervals of what `Forecast.outcome` holds, by the
        posterior; None from a model that has none."""
        ...


class ValuesView(Protocol):
    """What a snapshot holds: small, read-only, float32."""

    def bind(
        self,
        arms: Sequence[str],
        expected: Sequence[Expected] = (),
        usual: Weights | None = None,
        catalog: Catalog | None = None,
    ) -> BoundValues:
        """Stack for these arm ids; one never seen gets the shared prior.

        `expected`, parallel to `arms`, tells where in x (a feature) which quality is expected;
        forecasts under the `usual` weights may be faster than under others. `catalog`, whose arms
        these are, is for a model that knows arms by their traits too.
        """
        ...

    def to_parts(self) -> Parts: ...


class ValueModel(Protocol):
    """What a checkpoint holds: the learned sums, a pure function of the events' order."""

    events: int
    start_events: int  # the first of them, that no correction takes back

    def start(self, batch: OutcomeBatch, at_most: float, query: Index | None = None) -> None:
        """Learn from what was known before the first event, an arm's outcomes counting together
        as `at_most` at most. `query` (n,) numbers what each outcome answers: arms that answered
        the same one can be compared more closely."""
        ...

    def learn(self, batch: OutcomeBatch) -> None: ...

    def correct(self, batch: CorrectionBatch) -> None:
        """Take overruled values back and learn those that hold instead, with what is left of the
        weight of the events that taught them; a model that can't says what it does. Nothing
        changes where such an event was never learned here: it came before this model's first, or
        isn't remembered any more."""
        ...

    def view(self) -> ValuesView: ...

    def to_parts(self) -> Parts: ...

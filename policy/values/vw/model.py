"""Learning: a regressor per component, and how much each arm has taught them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from vowpal_wabbit_next import CBLabel, Example

from policy.arms.catalog import Catalog, Index
from policy.objective import Scales, components
from policy.records import CorrectionBatch, OutcomeBatch, Vector, positions
from policy.values.arrays import slices
from policy.values.parts import Part, Parts
from policy.values.vw.examples import action, encoding
from policy.values.vw.regressors import CB_TYPES, SIGNS, C, Regressors, pack, unpack, zero
from policy.values.vw.view import NOTHING, VwView

CACHED_CATALOGS = 64


class VwModel:
    """What a checkpoint holds: a regressor per component, and how much each arm has taught.

    Parameters
    ----------
    groups
        Contiguous slices that cover the features 0..d; `bias` is left to VW's own constant.
    scales
        How latency and cost become numbers in [0, 1].
    cb_type
        How a regressor learns from the one arm that was drawn: importance-weighted regression on
        it ("mtr"), or on every arm with doubly robust ("dr") or inversely weighted ("ips") costs.
    """

    def __init__(self, groups: Mapping[str, slice], scales: Scales, cb_type: str = "mtr") -> None:
        if cb_type not in CB_TYPES:
            raise ValueError(f"cb_type must be one of {', '.join(CB_TYPES)}, got {cb_type!r}")
        self.sizes = {name: part.stop - part.start for name, part in groups.items()}
        self.d = sum(self.sizes.values())
        self.scales = scales
        self.cb_type = cb_type
        self.events = 0
        self.start_events = 0  # the first of them, that no correction takes back
        self.arms: dict[str, int] = {}
        self._taught: list[list[int]] = []  # per arm and component
        self._joined: list[int] = []  # events before an arm's first
        self._start = zero(scales)
        self._regressors = Regressors(cb_type)
        self._catalogs: dict[str, list[Example]] = {}

    def start(self, batch: OutcomeBatch, at_most: float, query: Index | None = None) -> None:
        """Learn at most `at_most` outcomes of each arm, evenly spread over the batch."""
        if self.events:
            raise ValueError(f"a start comes before the first event, {self.events} were learned")
        self.learn(batch.thinned(int(at_most)))
        self.start_events = self.events

    def learn(self, batch: OutcomeBatch) -> None:
        """Fold events in, one by one: where the stream is cut into batches changes nothing."""
        costs = self._costs(batch)
        for i, arm in enumerate(batch.arms):
            taught = self._taught[self._position(arm)]
            self.events += 1
            for c in self._teach(batch, i, costs[i]):
                taught[c] += 1

    def correct(self, batch: CorrectionBatch) -> None:
        """Teach the new values as one outcome more: VW can't take back what it has learned, it only
        forgets it in time. (Teaching 2 new - old, so that the two would average to the new value,
        made predictions worse: VW's steps are too large for labels that far off.)"""
        costs = self._costs(batch.new)
        costs[self.events - 1 - batch.since < self.start_events] = np.nan
        for i in range(len(costs)):
            self._teach(batch.new, i, costs[i])

    def _costs(self, batch: OutcomeBatch) -> Vector:
        """(n, 3) what VW is to predict, NaN of what an event doesn't teach."""
        if batch.x.shape != (len(batch), self.d) or not np.isfinite(batch.x).all():
            expected = (len(batch), self.d)
            raise ValueError(f"x must be finite and of shape {expected}, got {batch.x.shape}")
        y = components(batch.quality, batch.latency_ms, batch.cost_usd, batch.error, self.scales)
        y[batch.settled] = np.nan
        y[:, 2] -= self.scales.cost(batch.list_cost_usd)
        costs: Vector = (y - self._start) * SIGNS
        return costs

    def _teach(self, batch: OutcomeBatch, i: int, costs: Vector) -> list[int]:
        """Teach the i-th event's costs (3,), NaN but where they are known; which ones are."""
        known: list[int] = np.flatnonzero(~np.isnan(costs)).tolist()
        if not known:
            return known
        catalog, index = batch.catalogs[i], positions(batch.eligible[i])
        chosen = catalog.index(batch.arms[i])
        if chosen not in index:  # the caller chose for itself
            index = np.append(index, chosen)
        propensity = batch.propensity[i]
        if math.isnan(propensity):  # it wasn't drawn, so nothing was selected by a draw
            propensity = 1.0
        actions = self._actions(catalog)
        executed = action(catalog.arms[chosen])
        examples = [
            encoding(tuple(self.sizes.items())).shared(batch.x[i]),
            *(executed if j == chosen else actions[j] for j in index.tolist()),
        ]
        for c in known:
            executed.set_label(CBLabel(label=(float(costs[c]), float(propensity))))
            self._regressors.teach(c, examples)
        return known

    def _position(self, arm: str) -> int:
        if arm not in self.arms:
            self.arms[arm] = len(self.arms)
            self._taught.append([0] * C)
            self._joined.append(self.events)
        return self.arms[arm]

    def _actions(self, catalog: Catalog) -> list[Example]:
        if catalog.revision not in self._catalogs:
            if len(self._catalogs) == CACHED_CATALOGS:
                self._catalogs.clear()
            self._catalogs[catalog.revision] = list(map(action, catalog.arms))
        return self._catalogs[catalog.revision]

    def view(self) -> VwView:
        """The regressors, as of now."""
        taught = np.array(self._taught, dtype=np.int64).reshape(-1, C)
        return VwView(
            sizes=tuple(self.sizes.items()),
            scales=self.scales,
            arms=tuple(self.arms),
            events=taught.max(axis=1, initial=0),
            joined=np.array([*self._joined, self.events], dtype=np.int64),
            models=tuple(
                model if taught[:, c].any() else NOTHING
                for c, model in enumerate(self._regressors.stored())
            ),
        )

    def to_parts(self) -> dict[str, Part]:
        """Regressors, counts and configuration; equal models give equal parts."""
        header = {
            "sizes": self.sizes,
            "scales": asdict(self.scales),
            "cb_type": self.cb_type,
            "events": self.events,
            "start_events": self.start_events,
            "arms": list(self.arms),
            "taught": self._taught,
            "joined": self._joined,
        }
        return pack(header, self._regressors.stored())

    @classmethod
    def from_parts(cls, parts: Parts) -> VwModel:
        """Read `to_parts` back; ValueError for anything else."""
        header, models = unpack(parts)
        try:
            model = cls(slices(header["sizes"]), Scales(**header["scales"]), header["cb_type"])
            model.events, model.start_events = header["events"], header["start_events"]
            model.arms = {arm: i for i, arm in enumerate(header["arms"])}
            model._taught, model._joined = header["taught"], header["joined"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a VW model: {error!r}") from error
        model._regressors.restore(models)
        return model

"""A value model, explored: forecasts -> a probability per arm, by the configuration's rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.profile import Profile
from policy.choosing import explore
from policy.choosing.drawing import explored
from policy.choosing.protocol import Index, Ruling
from policy.config.schema import PolicyConfig
from policy.objective import Weights
from policy.records import Context, Vector
from policy.values.protocol import BoundValues, Forecast

ROWS = 64  # queries at once: what they take then stays in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Bandit:
    """A value model, explored; an arm that joined late is held below a share until it is known."""

    values: BoundValues
    config: PolicyConfig
    is_new: NDArray[np.bool_]  # (number of arms in the catalog,)
    answered: Vector | None = None  # likewise: the share of each arm's calls that doesn't fail

    def forecast(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """What the model expects, failures included."""
        forecast = self.values.forecast(x, index, list_cost_usd, weights)
        if self.answered is None:
            return forecast
        return forecast.answered(self.answered[index], weights)

    def rule(
        self,
        x: Context,
        index: Index,
        list_cost_usd: Vector,
        weights: Weights,
        known: Sequence[Profile],
    ) -> Ruling:
        if len(x) <= ROWS:
            return self._rule(x, index, list_cost_usd, weights)
        parts = [slice(at, at + ROWS) for at in range(0, len(x), ROWS)]
        ruled = [self._rule(x[part], index, list_cost_usd[part], weights) for part in parts]
        bests = [ruling.best for ruling in ruled if ruling.best is not None]
        return Ruling(
            np.concatenate([ruling.pmf for ruling in ruled]),
            np.concatenate(bests) if bests else None,
            np.concatenate([ruling.outcome for ruling in ruled]),
        )

    def _rule(self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights) -> Ruling:
        forecast = self.forecast(x, index, list_cost_usd, weights)
        pmf, best = explored(self.config, forecast)
        is_new = self.is_new[index]
        if is_new.any():
            pmf = explore.cap_new_arms(pmf, is_new, self.config.new_arm_share)
        return Ruling(pmf, best, forecast.outcome)

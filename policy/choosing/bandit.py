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
from policy.plans import candidates
from policy.plans.candidates import Actions, Pair, Setting
from policy.plans.learned import NOTHING, PlanValues
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
    plans: PlanValues = NOTHING

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
        return self._explored(forecast, self.is_new[index])

    def _explored(self, forecast: Forecast, is_new: NDArray[np.bool_]) -> Ruling:
        pmf, best = explored(self.config, forecast)
        if is_new.any():
            pmf = explore.cap_new_arms(pmf, is_new, self.config.new_arm_share)
        return Ruling(pmf, best, forecast.outcome)

    def with_plans(
        self,
        x: Context,
        index: Index,
        list_cost_usd: Vector,
        setting: Setting,
        pairs: Sequence[Pair] | None = None,
    ) -> tuple[Ruling, Actions]:
        """`rule` for one query, over arms and plans: the most promising ones, or those given."""
        forecast = self.forecast(x, index, list_cost_usd, setting.weights)
        if pairs is None:
            found = candidates.actions(forecast, list_cost_usd[0], setting, self.plans)
        else:
            found = candidates.same_actions(pairs, forecast, list_cost_usd[0], setting, self.plans)
        is_new = self.is_new[index]
        of_plans = [bool(is_new[[pair.first, pair.second]].any()) for pair in found.pairs]
        return self._explored(found.forecast, np.append(is_new, of_plans).astype(bool)), found

"""Rules that look at nothing of a query but its action set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.profile import Profile
from policy.choosing.protocol import Index, Ruling, nothing_known
from policy.objective import Weights
from policy.records import Context, Vector


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always one arm, given by its catalog position; uniform where it isn't eligible."""

    position: int

    def rule(
        self,
        x: Context,
        index: Index,
        list_cost_usd: Vector,
        weights: Weights,
        known: Sequence[Profile],
    ) -> Ruling:
        chosen = index == self.position
        pmf = chosen.astype(np.float64) if chosen.any() else np.full(len(index), 1.0 / len(index))
        return Ruling(np.tile(pmf, (len(x), 1)), None, nothing_known(list_cost_usd))


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every eligible arm alike: the logging policy that any other can be judged from."""

    def rule(
        self,
        x: Context,
        index: Index,
        list_cost_usd: Vector,
        weights: Weights,
        known: Sequence[Profile],
    ) -> Ruling:
        pmf = np.full((len(x), len(index)), 1.0 / len(index))
        return Ruling(pmf, None, nothing_known(list_cost_usd))


@dataclass(frozen=True, slots=True)
class Caller(Uniform):
    """The caller's own router: the request tells its choice, which takes this ruling's place."""

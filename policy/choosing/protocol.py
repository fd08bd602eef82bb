"""What any rule answers: from queries to a probability per arm. Knows no particular rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.profile import Profile
from policy.objective import Weights
from policy.records import Context, Vector

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Ruling:
    """A rule's answer for n queries and k arms: pmf (n, k), the probability of each being best or
    None, and the expected outcomes (n, k, 3)."""

    pmf: Vector
    best: Vector | None
    outcome: Vector

    def take(self, rows: Sequence[int]) -> Ruling:
        """Some of the queries, in this order."""
        best = None if self.best is None else self.best[rows]
        return Ruling(self.pmf[rows], best, self.outcome[rows])


class Rule(Protocol):
    """From queries that share an action set and an objective to a probability per arm."""

    def rule(
        self,
        x: Context,
        index: Index,
        list_cost_usd: Vector,
        weights: Weights,
        known: Sequence[Profile],
    ) -> Ruling:
        """For contexts (n, d), the arms at catalog positions `index` (k,), list costs (n, k) and
        profiles (n,). A query's answer is the same, whichever others are asked with it."""
        ...


def nothing_known(list_cost_usd: Vector) -> Vector:
    """The expected outcomes (n, k, 3) of a rule that expects nothing."""
    return np.full((*list_cost_usd.shape, 3), np.nan)

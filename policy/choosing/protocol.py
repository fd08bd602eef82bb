"""What any rule answers: from a query to a probability per arm. Knows no particular rule."""

from __future__ import annotations

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
    """A rule's answer for k arms: pmf (k,), the probability of each being best or None, and the
    expected outcomes (k, 3)."""

    pmf: Vector
    best: Vector | None
    outcome: Vector


class Rule(Protocol):
    """From a query to a probability per arm of the action set."""

    def rule(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights, known: Profile
    ) -> Ruling: ...

"""What every importer makes of others' logs: a row, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from policy.objective import Weights
from policy.records import Context, Decision, Vector

QUALITY = Weights(1.0, 0.0, 0.0)  # a reward of others is our quality
SUMS_TO_1 = 1e-3  # how far probabilities may miss it that were written as float32, or rounded


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line that gave no row, counted from 1, and why."""

    line: int
    reason: str


class Refused(Exception):
    """Why a line gives no row."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What was drawn, out of which action set of k arms: `pmf` (k,), NaN where it isn't known."""

    arms: tuple[str, ...]
    pmf: Vector
    arm: str

    @property
    def propensity(self) -> float:
        return float(self.pmf[self.arms.index(self.arm)])


def decision(
    decision_id: str,
    policy: str,
    version: str,
    made_at_ms: int,
    draw: Draw,
    encoder: str,
    x: Context,
    *,
    snapshot: int = 0,
) -> Decision:
    """A decision of others, without what they don't log: nothing was predicted, no size is known.
    It is decided under quality alone."""
    return Decision(
        decision_id=decision_id,
        policy=policy,
        version=version,
        snapshot=snapshot,
        catalog="",
        encoder=encoder,
        made_at_ms=made_at_ms,
        arm=draw.arm,
        propensity=draw.propensity,
        confidence=None,
        arms=draw.arms,
        pmf=draw.pmf,
        predicted=np.full((len(draw.arms), 3), np.nan),
        prompt_tokens=0,
        output_tokens=0,
        weights=QUALITY,
        x=x,
    )


def summing_to_1(p: Vector, name: str) -> Vector:
    """Probabilities (k,) as they were written, made to sum to 1 exactly where rounding is all that
    is wrong."""
    total = p.sum()
    if not (p >= 0).all() or not abs(total - 1.0) <= SUMS_TO_1:
        raise Refused(f"{name} must be >= 0 and sum to 1, got a sum of {total:.6g}")
    return p / total if abs(total - 1.0) > 1e-9 else p


def number(value: Any, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number in [least, most]."""
    if type(value) not in (int, float) or not (math.isfinite(value) and least <= value <= most):
        bounds = "finite" if math.isinf(least) else f"in [{least:g}, {most:g}]"
        raise Refused(f"{name} must be a number, {bounds}, got {value!r}")
    return float(value)


@dataclass(frozen=True, slots=True)
class Range:
    """Rewards of others, from `least` to `most`, which are put to 0 to 1."""

    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        least, most = self.least, self.most
        if not (math.isfinite(least) and math.isfinite(most) and least < most):
            raise ValueError(f"a reward range needs MIN < MAX, both finite, got {least} and {most}")

    def quality(self, reward: float) -> float:
        if not self.least <= reward <= self.most:
            raise Refused(
                f"reward {reward:g} is outside {self.least:g} to {self.most:g}: give its range"
            )
        return (reward - self.least) / (self.most - self.least)


AS_THEY_ARE = Range()

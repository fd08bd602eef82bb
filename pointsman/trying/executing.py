"""Plans carried out on recorded outcomes: who would have been called, how long, at which cost.

Stands in for the executor that calls models. A judge that is right as often as it is told to be
says of each answer how probable it is to be good. What is cancelled costs as if it had ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointsman.trying.outcomes import OutcomeSet
from policy.arms.catalog import Vector
from policy.plans.attempts import Attempt, Attempts
from policy.plans.plan import Kind, Plan
from policy.records import Decision

GOOD = 0.5  # the least quality of an answer that a judge ought to let pass


@dataclass(frozen=True, slots=True)
class Executed:
    """The calls, and what the answer that was returned is worth."""

    calls: Attempts
    quality: float
    latency_ms: float
    cost_usd: float


@dataclass(frozen=True, eq=False)
class Executor:
    """What a set's arms would have done; `verdict` (n, k) is what the judge says of each answer."""

    outcomes: OutcomeSet
    verdict: Vector

    @classmethod
    def of(cls, outcomes: OutcomeSet, right: float, seed: int) -> Executor:
        """With a judge that is right in a share `right` of its verdicts, and says so: `right` of an
        answer that it finds good, `1 - right` of another one."""
        good = outcomes.quality >= GOOD
        errs = np.random.default_rng((seed, 1)).random(good.shape) >= right
        return cls(outcomes, np.where(good != errs, right, 1.0 - right))

    def run(self, row: int, decision: Decision) -> Executed:
        """Carry out a decision for a query of the set."""
        plan = decision.plan
        if plan is None or plan.kind == "fallback":  # recorded calls don't fail
            calls = Attempts((self._call(row, decision.first_arm),), decision.first_arm)
        else:
            calls = {"hedge": self._hedge, "race": self._race, "cascade": self._cascade}[plan.kind](
                row, plan
            )
        answer = calls.answer
        assert answer is not None
        latency_ms, cost_usd = calls.latency_ms(plan), calls.cost_usd
        quality = float(self.outcomes.quality[row, self._at(answer.arm)])
        return Executed(
            calls,
            quality,
            np.nan if latency_ms is None else latency_ms,
            np.nan if cost_usd is None else cost_usd,
        )

    def always(self, kind: Kind, a: int, b: int, at: float = 0.0) -> Vector:
        """Quality, latency in ms and cost in USD (n, 3) of one plan for all queries: of arms at
        columns a and b, with a cascade's threshold or the time in ms after which a hedge begins."""
        quality, latency_ms, cost_usd = (
            values[:, [a, b]]
            for values in (self.outcomes.quality, self.outcomes.latency_ms, self.outcomes.cost_usd)
        )
        asked = np.ones(len(quality), dtype=bool)
        wall = latency_ms.max(axis=1)
        if kind == "race":
            second = self.verdict[:, b] > self.verdict[:, a]
        elif kind == "cascade":
            second = asked = self.verdict[:, a] < at
            wall = latency_ms[:, 0] + asked * latency_ms[:, 1]
        else:
            asked = latency_ms[:, 0] > at
            second = asked & (at + latency_ms[:, 1] < latency_ms[:, 0])
            wall = np.where(second, at + latency_ms[:, 1], latency_ms[:, 0])
        returned = np.where(second, quality[:, 1], quality[:, 0])
        return np.stack([returned, wall, cost_usd[:, 0] + asked * cost_usd[:, 1]], axis=1)

    def _at(self, arm: str) -> int:
        return self.outcomes.catalog.index(arm)

    def _call(self, row: int, arm: str) -> Attempt:
        at = self._at(arm)
        latency_ms, cost_usd = (
            float(values[row, at]) for values in (self.outcomes.latency_ms, self.outcomes.cost_usd)
        )
        return Attempt(
            arm,
            quality=float(self.verdict[row, at]),
            latency_ms=None if np.isnan(latency_ms) else latency_ms,
            cost_usd=None if np.isnan(cost_usd) else cost_usd,
        )

    def _both(self, row: int, plan: Plan) -> tuple[Attempt, Attempt]:
        first, second = plan.steps[:2]
        return self._call(row, first.arm), self._call(row, second.arm)

    def _hedge(self, row: int, plan: Plan) -> Attempts:
        first, second = self._both(row, plan)
        after_ms = _known(plan.steps[1].after_ms)
        alone_ms, other_ms = _known(first.latency_ms), _known(second.latency_ms)
        if alone_ms <= after_ms:
            return Attempts((first,), first.arm)
        if alone_ms <= after_ms + other_ms:
            return Attempts((first, _cancelled(second, alone_ms - after_ms)), first.arm)
        return Attempts((_cancelled(first, after_ms + other_ms), second), second.arm)

    def _race(self, row: int, plan: Plan) -> Attempts:
        both = self._both(row, plan)
        better = max(both, key=lambda one: one.quality or 0.0)
        return Attempts(both, better.arm)

    def _cascade(self, row: int, plan: Plan) -> Attempts:
        first, second = self._both(row, plan)
        if (first.quality or 0.0) >= _known(plan.steps[1].quality_below):
            return Attempts((first,), first.arm)
        return Attempts((first, second), second.arm)


def _known(value: float | None) -> float:
    if value is None:
        raise ValueError("a plan that waits needs latencies, which this set doesn't have")
    return value


def _cancelled(call: Attempt, out_ms: float) -> Attempt:
    return Attempt(call.arm, latency_ms=out_ms, cost_usd=call.cost_usd, cancelled=True)

"""What came of a plan's calls: the decision's own outcome, and what each call teaches its arm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from scipy.special import log_ndtr

from policy.plans.plan import Plan, Step

NAN = math.nan


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one arm; None is unknown. The quality of an answer that wasn't returned is what
    its caller made of it: best the probability that it is good."""

    arm: str
    quality: float | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None
    error: str | None = None
    cancelled: bool = False
    list_cost_usd: float = 0.0

    @property
    def answered(self) -> bool:
        return self.error is None and not self.cancelled


@dataclass(frozen=True, slots=True)
class Attempts:
    """All calls of a decision in the order in which they began, and the arm whose answer was
    returned; None where there is no answer."""

    attempts: tuple[Attempt, ...]
    returned: str | None = None

    def to_record(self) -> dict[str, Any]:
        """As JSON has it; what isn't known is left out."""
        return {
            "returned": self.returned,
            "attempts": [
                {
                    name: value
                    for name, value in asdict(one).items()
                    if value is not None and value is not False
                }
                for one in self.attempts
            ],
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Attempts:
        """What `to_record` gave."""
        return cls(tuple(Attempt(**one) for one in record["attempts"]), record["returned"])

    @property
    def answer(self) -> Attempt | None:
        """The call whose answer was returned."""
        of_arm = [one for one in self.attempts if one.arm == self.returned and one.answered]
        return of_arm[-1] if of_arm else None

    @property
    def error(self) -> str | None:
        """Why there is no answer: the last call's error."""
        if self.answer is not None:
            return None
        errors = [one.error for one in self.attempts if one.error is not None]
        return errors[-1] if errors else "cancelled"

    @property
    def cost_usd(self) -> float | None:
        """The sum; None while one is unknown. A failed call of which nothing is said was free."""
        costs = [
            0.0 if one.cost_usd is None and one.error is not None else one.cost_usd
            for one in self.attempts
        ]
        return None if any(cost is None for cost in costs) else sum(filter(None, costs))

    def latency_ms(self, plan: Plan | None) -> float | None:
        """From the first call's beginning to the answer, or to the last failure where there is
        none; None while a part of it is unknown."""
        if plan is None or plan.kind in ("fallback", "cascade"):
            return _sum(self.attempts)
        if plan.kind == "race" and len(self.attempts) <= len(plan.steps):
            begun = [one.latency_ms for one in self.attempts]
            known = [latency_ms for latency_ms in begun if latency_ms is not None]
            return max(known) if len(known) == len(begun) else None
        return self._hedged_ms(plan.steps)

    def _hedged_ms(self, steps: Sequence[Step]) -> float | None:
        """Each call begins its `after_ms` after the one before, or when that one fails earlier."""
        begin, ends = 0.0, []
        for one, step in zip(self.attempts, [*steps[1:], None], strict=False):
            if one.latency_ms is None and one.arm == self.returned:
                return None
            took = math.inf if one.latency_ms is None else one.latency_ms
            ends.append((one, begin + took))
            after = math.inf if step is None or step.after_ms is None else step.after_ms
            begin += min(after, took) if one.error is not None else after
        answer = self.answer
        found = [end for one, end in ends if one is answer or answer is None]
        latency_ms = max(found, default=math.inf)
        return latency_ms if math.isfinite(latency_ms) else None


def _sum(attempts: Sequence[Attempt]) -> float | None:
    latencies = [one.latency_ms for one in attempts]
    return None if any(v is None for v in latencies) else sum(filter(None, latencies))


class Lesson(NamedTuple):
    """What one call teaches its arm; NaN is nothing. Answers of the same `query`, a number that
    means something within one decision only, may be compared: neither was asked for because of
    what the other was worth."""

    arm: str
    quality: float = NAN
    latency_ms: float = NAN
    cost_usd: float = NAN
    list_cost_usd: float = 0.0
    error: str | None = None
    query: int = 0


class Residuals(NamedTuple):
    """What a first answer and one that was asked for because of it were worth, less what was
    expected of each."""

    first: float
    second: float


def residuals(plan: Plan | None, calls: Attempts, quality: float) -> Residuals | None:
    """Of a cascade that went on; `quality` is what the returned answer was worth."""
    if plan is None or plan.kind != "cascade" or len(calls.attempts) < 2:
        return None
    worth = _worth(calls, quality)
    first, second = worth[:2]
    expected = [step.quality for step in plan.steps[:2]]
    same = [one.arm for one in calls.attempts[:2]] == [step.arm for step in plan.steps[:2]]
    if not same or None in expected or math.isnan(first):
        return None
    return Residuals(first - (expected[0] or 0.0), second - (expected[1] or 0.0))


def lessons(plan: Plan | None, calls: Attempts, quality: float, slope: float) -> Iterator[Lesson]:
    """One per call, in their order; `quality` is what the returned answer was worth, NaN while
    nobody has said.

    A cascade's second answer is asked for where the first was worth little, and then it is worth
    less, too: by `slope` times what the first fell short of its expectation, which is put back
    (given the first, what is left no longer depends on having been asked). A call that was
    cancelled teaches its arm the latency that such a call would have had, by what was expected.
    """
    asked_for = residuals(plan, calls, quality)
    steps = {step.arm: step for step in plan.steps} if plan is not None else {}
    put_back = 0.0 if asked_for is None else -slope * asked_for.first
    worth = _worth(calls, quality)
    for number, one in enumerate(calls.attempts):
        latency_ms = NAN if one.latency_ms is None else one.latency_ms
        if one.cancelled:
            latency_ms = _would_have_taken(latency_ms, steps.get(one.arm))
        cost_usd = NAN if one.cost_usd is None or one.cancelled else one.cost_usd
        query = 0 if plan is not None and plan.kind == "race" else number
        yield Lesson(
            one.arm,
            worth[number] + (put_back if number else 0.0),
            latency_ms,
            cost_usd,
            one.list_cost_usd,
            one.error,
            query,
        )


def _worth(calls: Attempts, quality: float) -> list[float]:
    """Of each call's answer: that of the returned one is the decision's."""
    answer = calls.answer
    return [
        quality if one is answer else NAN if one.quality is None else one.quality
        for one in calls.attempts
    ]


def _would_have_taken(latency_ms: float, step: Step | None) -> float:
    """E[ln L | ln L > ln t] of a Gaussian, as a latency in ms, for a call that was out for t ms
    (Buckley and James 1979 impute what is censored likewise); NaN where nothing was expected."""
    if step is None or step.log_latency is None or not step.log_latency_sd or not latency_ms > 0.0:
        return NAN
    mean, sd = step.log_latency, step.log_latency_sd
    z = (math.log(latency_ms) - mean) / sd
    hazard = math.exp(-0.5 * z * z - 0.5 * math.log(2.0 * math.pi) - log_ndtr(-z))
    return math.exp(mean + sd * hazard)

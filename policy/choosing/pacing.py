"""A budget: a price on cost that paces the spending, and where it ends. Reads no clock, draws not.

An online primal-dual method (Balseiro, Lu and Mirrokni 2023, "The Best of Many Worlds: Dual Mirror
Descent for Online Allocation Problems", Operations Research 71(1), section 3, with the entropy as
mirror map): each decision raises the price by a share for what it costs above its due, and lowers
it for what it costs less. The due is what is left of the budget over the decisions still to come.
All of this is counted beside what the cheapest arm would cost, which is kept back for them. The
price acts inside the weights that are logged with a decision, so propensities stay exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from policy.arms.constraints import Spendable
from policy.objective import LOG_SLOPE, Scales, Weights

Period = Literal["hour", "day", "month"]

STEP = 0.05  # share by which a decision that costs twice its due raises the price, ...
LARGEST = 5.0  # ... and what one decision does at most, in such steps
LOWEST = 1e-3  # of the price, in units of reward per due: there it costs nothing
FIRST = 0.02  # the price before any decision
TAIL = 5.0  # a call may cost so many times what is predicted
CHEAP = 4.0  # likewise, for the cheapest arm
KEPT_SHORT = 0.05  # share of a due that is its least unit, where the budget is hardly enough
FOLLOWS = 0.01  # of what a decision's cheapest arm costs, into the mean of that
HOUR_MS = 3_600_000
RECENT = 8  # windows that tell the traffic's rate
SHRUNK = 10.0  # decisions, as which it counts that traffic is as it was a period before
WINDOW_MS: Mapping[Period, int] = {
    "hour": HOUR_MS // 96,
    "day": HOUR_MS // 4,
    "month": 8 * HOUR_MS,
}
"""In which decisions are counted, ..."""
BEFORE: Mapping[Period, int] = {"hour": 96, "day": 96, "month": 84}
"""... and as many windows back traffic is taken to have been alike: an hour, a day, four weeks."""


class Budget(BaseModel):
    """USD that may be spent per period of the UTC calendar."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    per: Period = "day"
    hard: Annotated[bool, Field(strict=True)] = True
    """What would pass it leaves the action set; else the price alone keeps it."""


@dataclass(frozen=True, slots=True)
class Span:
    """One period of a budget, [start_ms, end_ms), by the UTC calendar."""

    start_ms: int
    end_ms: int

    @classmethod
    def of(cls, period: Period, now_ms: int) -> Span:
        if period != "month":
            length = HOUR_MS if period == "hour" else 24 * HOUR_MS
            start = now_ms - now_ms % length
            return cls(start, start + length)
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        first = datetime(now.year, now.month, 1, tzinfo=UTC)
        after = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
        return cls(int(first.timestamp() * 1000), int(after.timestamp() * 1000))


@dataclass(frozen=True, slots=True)
class Purse:
    """What is known of the spending, by all processes together.

    `spent_usd` is of the period that begins at `start_ms`: real costs, and predicted ones where the
    real are still to come. `recent` counts decisions by window, of a period and a little more;
    `began_ms` is when the first one ever was made. `cheapest_usd` is what a decision's cheapest arm
    costs on average.
    """

    start_ms: int = 0
    spent_usd: float = 0.0
    log_price: float = math.log(FIRST)
    cheapest_usd: float = 0.0
    began_ms: int = 0
    recent: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pace:
    """A budget's state at one moment, as `purse` has it: what the next decision is made with.

    `spare_usd` is what is left beside the cheapest arm's cost of the `decisions` that are still to
    come in `span`, `due_usd` its share of one of them; negative where the budget can't be kept.
    """

    budget: Budget
    purse: Purse
    span: Span
    spent_usd: float
    spare_usd: float
    due_usd: float
    unit_usd: float
    made: int
    decisions: float
    price: float
    cheapest_usd: float

    @classmethod
    def of(cls, budget: Budget, purse: Purse, now_ms: int) -> Pace:
        span = Span.of(budget.per, now_ms)
        spent = purse.spent_usd if purse.start_ms == span.start_ms else 0.0
        decisions = max(_to_come(purse, budget.per, now_ms, span.end_ms), 1.0)
        spare = budget.usd - spent - decisions * purse.cheapest_usd
        began = span.start_ms // WINDOW_MS[budget.per]
        made = sum(n for at, n in purse.recent.items() if at >= began)
        usual = budget.usd / (made + decisions)
        price = math.exp(purse.log_price)
        return cls(
            budget=budget,
            purse=purse,
            span=span,
            spent_usd=spent,
            spare_usd=spare,
            due_usd=spare / decisions,
            unit_usd=max(usual - purse.cheapest_usd, KEPT_SHORT * usual),
            made=made,
            decisions=decisions,
            price=0.0 if price <= 1.001 * LOWEST else price,
            cheapest_usd=purse.cheapest_usd,
        )

    @property
    def left_usd(self) -> float:
        return max(self.budget.usd - self.spent_usd, 0.0)

    @property
    def pace(self) -> float | None:
        """What was spent, over what the decisions made had due of the budget: 1 is even."""
        due = self.budget.usd * self.made / (self.made + self.decisions)
        return self.spent_usd / due if due else None

    @property
    def can_be_kept(self) -> bool:
        """Whether what is left pays the cheapest arm for all decisions that are expected."""
        return self.spare_usd >= 0.0

    @property
    def most_usd(self) -> float:
        """What a call may cost by prediction: infinite where the budget isn't hard."""
        if not self.budget.hard:
            return math.inf
        return min(self.left_usd, max(self.spare_usd, 0.0) / TAIL + CHEAP * self.cheapest_usd)

    @property
    def limit(self) -> Spendable | None:
        """What it asks of predicted costs; None where the budget isn't hard."""
        if not self.budget.hard:
            return None
        until = datetime.fromtimestamp(self.span.end_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Spendable(self.most_usd, self.left_usd, until)

    def weights(self, own: Weights, scales: Scales) -> Weights:
        """An objective's weights with the price in them: a cost of one unit above the due takes the
        price from its reward, by the slope that the scale of costs has there."""
        if not self.price:
            return own
        return Weights.of(
            own.quality, own.latency, own.cost + self.price / (self.unit_usd * self._slope(scales))
        )

    def _slope(self, scales: Scales) -> float:
        """Of s(cost), per USD, where a cost is one unit."""
        if scales.scale == "linear":
            return 1.0 / scales.cost_ref_usd
        share = min(self.unit_usd / scales.cost_ref_usd, 1.0)
        return LOG_SLOPE / (scales.cost_ref_usd * math.log1p(LOG_SLOPE) * (1.0 + LOG_SLOPE * share))

    def step(self, expected_usd: float) -> float:
        """What a decision of this expected cost adds to the logarithm of the price."""
        above = (expected_usd - self.cheapest_usd - max(self.due_usd, 0.0)) / self.unit_usd
        return STEP * min(above, LARGEST)


def _to_come(purse: Purse, per: Period, now_ms: int, end_ms: int) -> float:
    """Decisions that are expected until `end_ms`: as many as a period before, times what the last
    windows had in relation to then; at the last windows' rate where nothing is known of then."""
    length, before, counts = WINDOW_MS[per], BEFORE[per], purse.recent
    window, last = now_ms // length, (end_ms - 1) // length
    gone = now_ms % length / length
    began = purse.began_ms // length
    if purse.began_ms and began <= window - before:
        known = range(max(window - RECENT, began + before), window)
        alike = counts.get(window - before, 0)
        then = sum(counts.get(at - before, 0) for at in known) + gone * alike
        now = sum(counts.get(at, 0) for at in (*known, window))
        later = sum(counts.get(at - before, 0) for at in range(window + 1, last + 1))
        rest = later + (1.0 - gone) * alike
        return (now + SHRUNK) / (then + SHRUNK) * rest
    first = window - RECENT
    recent = sum(n for at, n in counts.items() if at >= first)
    since = max(first * length, purse.began_ms)
    return recent / max(now_ms - since, length) * (end_ms - now_ms)


def spent(
    pace: Pace, now_ms: int, expected_usd: float, predicted_usd: float, least: float
) -> Purse:
    """The purse after one more decision: of an expected cost before the draw, a predicted one of
    the arm that was drawn, and the `least` of its action set."""
    purse, window = pace.purse, now_ms // WINDOW_MS[pace.budget.per]
    oldest = window - BEFORE[pace.budget.per] - RECENT
    recent = {at: n for at, n in purse.recent.items() if at >= oldest}
    recent[window] = recent.get(window, 0) + 1
    known = purse.cheapest_usd
    return replace(
        purse,
        start_ms=pace.span.start_ms,
        spent_usd=pace.spent_usd + predicted_usd,
        log_price=max(purse.log_price + pace.step(expected_usd), math.log(LOWEST)),
        cheapest_usd=known + FOLLOWS * (least - known) if purse.began_ms else least,
        began_ms=purse.began_ms or now_ms,
        recent=recent,
    )

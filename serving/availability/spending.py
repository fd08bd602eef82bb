"""The budgets of policies: what each decision moves of them, and how they stand at a moment.

The truth are counters in the store, which all processes move; what is known of them here is as old
as the last reading, and this process' own decisions since then and under way. Opens
no connection.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from policy.arms.catalog import Catalog, Vector
from policy.choosing.pacing import (
    BEFORE,
    FIRST,
    FOLLOWS,
    LOWEST,
    RECENT,
    WINDOW_MS,
    Budget,
    Pace,
    Purse,
    Span,
    spent,
)
from policy.config.schema import Config
from policy.policy import Policy
from policy.records import Decision

log = logging.getLogger(__name__)


class Costs(NamedTuple):
    """USD of a decision: expected before the draw, predicted of what was drawn, and the least."""

    expected_usd: float
    predicted_usd: float
    least: float

    @classmethod
    def of(cls, decision: Decision, catalog: Catalog) -> Costs:
        usd = expected_usd(decision, catalog)
        drawn = usd[decision.arms.index(decision.arm)]
        return cls(float(decision.pmf @ usd), float(drawn), float(usd.min()))


def after(policy: Policy, made: Iterable[Decision]) -> Policy:
    """A policy with the price after decisions that it made, as if they were recorded."""
    pace = policy.pace
    if pace is None:
        return policy
    for decision in made:
        at = decision.made_at_ms
        pace = Pace.of(pace.budget, spent(pace, at, *Costs.of(decision, policy.catalog)), at)
    return replace(policy, pace=pace)


class Spending:
    """What is known of each policy's spending, where it has a budget."""

    def __init__(self) -> None:
        self._budgets: Mapping[str, Budget] = {}
        self._purses: dict[str, Purse] = {}
        self._under_way: dict[str, dict[str, Costs]] = {}  # by policy and decision
        self._short: set[str] = set()

    def configure(self, config: Config) -> None:
        """Put budgets in force."""
        of = {name: policy.budget for name, policy in config.policies.items()}
        self._budgets = {name: budget for name, budget in of.items() if budget is not None}

    def __bool__(self) -> bool:
        return bool(self._budgets)

    def read(self, name: str, used: Mapping[str, float], now_ms: int) -> None:
        """Take what a policy's counters say for the truth."""
        budget = self._budgets.get(name)
        if budget is None:
            return
        window, span = now_ms // WINDOW_MS[budget.per], Span.of(budget.per, now_ms)
        counts = {
            at: int(used.get(_window(budget, at), 0))
            for at in range(window - BEFORE[budget.per] - RECENT, window + 1)
        }
        purse = Purse(
            start_ms=span.start_ms,
            spent_usd=used.get(spent_of(budget, span), 0.0),
            log_price=used.get(PRICE, math.log(FIRST)),
            cheapest_usd=used.get(CHEAPEST, 0.0),
            began_ms=int(used.get(BEGAN, 0)),
            recent={at: n for at, n in counts.items() if n},
        )
        for costs in self._under_way.get(name, {}).values():
            purse = spent(Pace.of(budget, purse, now_ms), now_ms, *costs)
        self._purses[name] = purse
        self._tell(name, budget, now_ms)

    def _tell(self, name: str, budget: Budget, now_ms: int) -> None:
        """Say when a budget turns out too small for the traffic, and when it no longer is."""
        pace = Pace.of(budget, self._purses[name], now_ms)
        kept = pace.can_be_kept
        if not kept and name not in self._short:
            self._short.add(name)
            log.warning("policy %s: the budget can't be kept: %s", name, too_small(pace))
        elif kept and name in self._short:
            self._short.discard(name)
            log.info("policy %s: the budget can be kept again", name)

    def pace(self, name: str, now_ms: int) -> Pace | None:
        """How a policy's budget stands; None where it has none."""
        budget = self._budgets.get(name)
        if budget is None:
            return None
        return Pace.of(budget, self._purses.get(name, Purse()), now_ms)

    def shown(self, name: str, now_ms: int) -> dict[str, Any] | None:
        """A policy's budget, as `BudgetBody` tells of it."""
        pace = self.pace(name, now_ms)
        if pace is None:
            return None
        return {
            **pace.budget.model_dump(),
            "spent_usd": pace.spent_usd,
            "left_usd": pace.left_usd,
            "until_ms": pace.span.end_ms,
            "decisions_to_come": pace.decisions,
            "pace": pace.pace,
            "price": pace.price,
            "unit_usd": pace.unit_usd,
            "can_be_kept": pace.can_be_kept,
            "why": None if pace.can_be_kept else too_small(pace),
        }

    def at_hand(self, policy: Policy, now_ms: int) -> Policy:
        """The policy with the price of the moment."""
        pace = self.pace(policy.name, now_ms)
        return policy if pace is None else replace(policy, pace=pace)

    def takes(self, taken: dict[str, Any], decision: Decision, catalog: Catalog) -> dict[str, Any]:
        """What a decision moves, beside what it takes of other limits, for the script that records
        it. From now on it counts as spent: under way until `done`, then until the next reading."""
        pace = self.pace(decision.policy, decision.made_at_ms)
        if pace is None:
            return taken
        budget, costs = pace.budget, Costs.of(decision, catalog)
        self._under_way.setdefault(decision.policy, {})[decision.decision_id] = costs
        self._purses[decision.policy] = spent(pace, decision.made_at_ms, *costs)
        window = decision.made_at_ms // WINDOW_MS[budget.per]
        counter = spent_of(budget, pace.span)
        taken = taken or {**_NOTHING, "until_ms": 0, "n_tokens": 0}
        bound = [[budget.usd - costs.predicted_usd, [counter]]] if budget.hard else []
        return {
            **taken,
            "n_usd": costs.predicted_usd,
            "usd": [*taken["usd"], counter],
            "requests": [*taken["requests"], _window(budget, window)],
            "bounds": [*taken["bounds"], *bound],
            "paced": {
                "price": PRICE,
                "first": math.log(FIRST),
                "step": pace.step(costs.expected_usd),
                "lowest": math.log(LOWEST),
                "cheapest": CHEAPEST,
                "least": costs.least,
                "follows": FOLLOWS,
                "began": BEGAN,
            },
        }

    def done(self, decision: Decision) -> None:
        """A decision was recorded, or wasn't: the counters tell."""
        self._under_way.get(decision.policy, {}).pop(decision.decision_id, None)

    def settled(self, name: str, used: Mapping[str, float], now_ms: int) -> None:
        """Counters have moved, for a real cost took the place of a predicted one."""
        budget = self._budgets.get(name)
        if budget is None or name not in self._purses:
            return
        span = Span.of(budget.per, now_ms)
        if (now := used.get(spent_of(budget, span))) is not None:
            now += sum(costs.predicted_usd for costs in self._under_way.get(name, {}).values())
            self._purses[name] = replace(self._purses[name], start_ms=span.start_ms, spent_usd=now)


PRICE, CHEAPEST, BEGAN = "0 log_price budget", "0 cheapest budget", "0 began budget"
_NOTHING: Mapping[str, Any] = {
    name: [] for name in ("requests", "tokens", "usd", "under_way", "bounds", "told")
}


def too_small(pace: Pace) -> str:
    """Why a budget can't be kept."""
    least = pace.decisions * pace.cheapest_usd
    return (
        f"{pace.left_usd:.4g} USD are left, and the {pace.decisions:.0f} decisions that are "
        f"expected until the {pace.budget.per} ends cost {least:.4g} USD even with the cheapest arm"
    )


def spent_of(budget: Budget, span: Span) -> str:
    """The counter of what a period spends; as all of them, named by when it can be dropped."""
    return f"{span.end_ms // 1_000} usd budget {budget.per}"


def _window(budget: Budget, at: int) -> str:
    kept = at + 1 + BEFORE[budget.per] + RECENT
    return f"{(kept + 1) * WINDOW_MS[budget.per] // 1_000} requests budget {budget.per} {at}"


def expected_usd(decision: Decision, catalog: Catalog) -> Vector:
    """(k,) what each action costs: as predicted, an arm by its list price where nothing is, and a
    plan then as the dearest arm."""
    listed = [
        catalog.arm(arm).cost_usd(decision.prompt_tokens, decision.output_tokens)
        if arm in catalog
        else np.nan
        for arm in decision.arms
    ]
    predicted = decision.predicted[:, 2]
    costs: Vector = np.where(np.isnan(predicted), listed, predicted)
    return np.where(np.isnan(costs), np.nanmax(costs), costs)

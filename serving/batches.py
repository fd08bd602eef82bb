"""Many requests as one: a budget over all of them, and what they come to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from policy.choosing.ceilings import Infeasible, ceilings
from policy.objective import components, reward
from policy.policy import Policy, Request
from policy.records import Decision, Vector
from serving.deciding import AT_ONCE
from serving.parsing.checking import Invalid
from serving.routes.requests import RouteRequest
from serving.service import Planned, Routed, Service, asked_of, new_id

MERGED = ("hints", "constraints")
ROUNDING = 1e-9  # by which share an arm may be above a ceiling that is its own cost


def with_defaults(item: Any, defaults: Mapping[str, Any]) -> Any:
    """A request's fields, and those of `defaults` that it doesn't give; of hints and constraints
    key by key.

    >>> with_defaults({"hints": {"language": "de"}}, {"hints": {"task_type": "qa"}, "plans": []})
    {'hints': {'task_type': 'qa', 'language': 'de'}, 'plans': []}
    """
    if not defaults or not isinstance(item, dict):
        return item
    given = {name: value for name, value in item.items() if value is not None}
    for name in MERGED:
        own, shared = given.get(name), defaults.get(name)
        if isinstance(own, dict) and isinstance(shared, dict):
            known = {key: value for key, value in own.items() if value is not None}
            given[name] = {**shared, **known}
    return {**defaults, **given}


def check_baseline(service: Service, policies: Iterable[str], arm: str | None) -> None:
    """Raise Invalid for a baseline that is no arm of these policies' catalogs."""
    catalogs = [service.policies[name].catalog for name in policies if name in service.policies]
    if arm is not None and not all(arm in catalog for catalog in catalogs):
        raise Invalid([("baseline", f"no arm {arm!r}")])


async def route_all(
    service: Service, bodies: Sequence[RouteRequest | Exception], budget_usd: float | None
) -> list[Routed | Exception]:
    """A decision for each body, or a problem in its place; what was wrong with one before stays.

    Raises
    ------
    Invalid
        If the budget doesn't do for the cheapest arm of each.
    """
    good = {i: body for i, body in enumerate(bodies) if isinstance(body, RouteRequest)}
    planned: Mapping[int, Planned] = {}
    if budget_usd is not None:
        good = {i: body for i, body in good.items() if body.policy in service.policies}
        planned = dict(zip(good, await _within(service, [*good.values()], budget_usd), strict=True))

    async def one(i: int, body: RouteRequest | Exception) -> Routed:
        if isinstance(body, Exception):
            raise body
        return await service.route(body, planned.get(i))

    every = (one(i, body) for i, body in enumerate(bodies))
    made = await asyncio.gather(*every, return_exceptions=True)
    return [result for result in made if isinstance(result, Routed | Exception)]


async def _within(
    service: Service, bodies: Sequence[RouteRequest], budget_usd: float
) -> list[Planned]:
    """Decisions that keep a budget together, each under a ceiling of its own, which follows from
    what is predicted and from no draw."""
    here = {name: service.deciding.at_hand(name) for name in {body.policy for body in bodies}}
    asked = [(here[body.policy], asked_of(body), body.decision_id or new_id()) for body in bodies]
    planned = await _planned(service, asked)
    free = [plan for plan in planned if isinstance(plan.made, Decision)]
    cost = [_costs(plan) for plan in free]
    utility = [_utilities(plan, usd) for plan, usd in zip(free, cost, strict=True)]
    try:
        most = iter(ceilings(cost, utility, budget_usd).tolist())
    except Infeasible as error:
        why = (
            f"{budget_usd:.6g} USD don't do for the cheapest arms of {len(free)} requests, which "
            f"are predicted to cost {error.least_usd:.6g} USD"
        )
        raise Invalid([("budget_usd", why)]) from None
    held = [
        (plan.policy, _capped(plan.asked, next(most)), plan.decision_id)
        for plan in planned
        if isinstance(plan.made, Decision)
    ]
    again = iter(await _planned(service, held, in_order=True))
    return [next(again) if isinstance(plan.made, Decision) else plan for plan in planned]


async def _planned(
    service: Service, asked: Sequence[tuple[Policy, Request, str]], *, in_order: bool = False
) -> list[Planned]:
    """Decisions, some at a time, so that others are served in between; with the prices of budgets
    as they are, or as they follow from those before `in_order`."""
    planned = []
    ahead: dict[str, Policy] = {}
    for _, same in groupby(asked, key=lambda one: one[0].name):
        rest = list(same)
        for at in range(0, len(rest), AT_ONCE):
            some = rest[at : at + AT_ONCE]
            policy, these = some[0][0], [(request, i) for _, request, i in some]
            made: Sequence[Decision | Exception]
            if in_order:
                now = ahead.get(policy.name, policy)
                made, ahead[policy.name] = service.deciding.in_order(now, these)
            else:
                made = service.deciding.made(policy, these)
            both = zip(these, made, strict=True)
            planned += [Planned(request, i, policy, one) for (request, i), one in both]
            await asyncio.sleep(0)
    return planned


def _capped(asked: Request, most_usd: float) -> Request:
    own = asked.constraints.max_cost_usd
    most_usd *= 1.0 + ROUNDING
    most_usd = most_usd if own is None else min(own, most_usd)
    limits = asked.constraints.model_copy(update={"max_cost_usd": most_usd})
    return replace(asked, constraints=limits)


def _costs(plan: Planned) -> Vector:
    """(k,) USD of each action: predicted, or listed where that is more or nothing is predicted."""
    assert isinstance(plan.made, Decision)
    made, catalog = plan.made, plan.policy.catalog
    listed = catalog.list_cost_usd(made.prompt_tokens, made.output_tokens, np.arange(len(catalog)))
    of_arms = [listed[catalog.index(arm)] if arm in catalog else np.nan for arm in made.arms]
    return np.fmax(made.predicted[:, 2], of_arms)


def _utilities(plan: Planned, cost_usd: Vector) -> Vector:
    """(k,) the reward that is predicted of each action; what is unknown counts as middling."""
    assert isinstance(plan.made, Decision)
    made, scales = plan.made, plan.policy.config.scales
    quality, latency_ms, _ = made.predicted.T
    quality = np.where(np.isnan(quality), 0.5, quality)
    latency_ms = np.where(np.isnan(latency_ms), 0.5 * scales.latency_ref_ms, latency_ms)
    y = components(quality, latency_ms, cost_usd, np.zeros(len(quality), dtype=bool), scales)
    return reward(y, made.weights)


def totals(made: Sequence[Routed | Exception], baseline: str | None) -> dict[str, float | None]:
    """What the decisions of a batch come to: USD, as predicted, by list price where nothing is;
    the same if all were on the arm `baseline`, and the share that is saved; and how long they take
    when all are called at once."""
    routed = [one for one in made if isinstance(one, Routed)]
    cost = sum(_predicted_usd(one, one.decision.arm) for one in routed)
    usual = None if baseline is None else sum(_predicted_usd(one, baseline) for one in routed)
    return {
        "predicted_cost_usd": cost,
        "baseline_cost_usd": usual,
        "saving": 1.0 - cost / usual if usual else None,
        "predicted_wall_ms": _wall_ms(routed),
    }


def _predicted_usd(routed: Routed, action: str) -> float:
    decision, catalog = routed.decision, routed.catalog
    if action in decision.arms:
        predicted = float(decision.predicted[decision.arms.index(action), 2])
        if not math.isnan(predicted):
            return predicted
    arm = action if action in catalog else decision.first_arm
    return catalog.arm(arm).cost_usd(decision.prompt_tokens, decision.output_tokens)


def _wall_ms(routed: Sequence[Routed]) -> float | None:
    """None where there is no decision, or of one no latency is predicted."""
    decisions = [one.decision for one in routed]
    taken = [one.predicted[one.arms.index(one.arm), 1] for one in decisions]
    return None if not taken or math.isnan(sum(taken)) else float(max(taken))

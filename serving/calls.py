"""The calls that a caller reports of a decision -> what came of the decision. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import orjson

from policy.arms.arm import Arm, UnknownPrice
from policy.arms.catalog import Catalog
from policy.plans.attempts import Attempt, Attempts
from policy.plans.plan import Plan, kind_of
from policy.records import Decision
from serving.parsing.checking import Invalid
from serving.routes.requests import AttemptBody, RewardRequest
from serving.store.traffic import Over


@dataclass(frozen=True, slots=True)
class Called:
    """A decision's own outcome; `executed_arm` where what ran isn't what was drawn. `record` is
    what is stored of the calls, `places` where each arm with endpoints was called, as far as the
    answer said it."""

    quality: float | None
    latency_ms: float | None
    cost_usd: float | None
    error: str | None
    executed_arm: str | None
    executed_list_cost_usd: float | None
    record: str
    notes: list[str]
    places: Mapping[str, str]


def called(body: RewardRequest, decision: Decision, catalog: Catalog) -> Called:
    """What the calls in a reward's body come to, for a decision made with a catalog.

    What the body says of the whole counts: its quality, latency and cost.

    Raises
    ------
    Invalid
        If an arm isn't in the catalog, or nobody can tell whose answer was returned.
    """
    notes: list[str] = []
    made = [
        _attempt(one, f"attempts[{i}]", decision, catalog, notes)
        for i, one in enumerate(body.attempts or ())
    ]
    calls = Attempts(tuple(made), _returned(body.returned, made))
    answer, plan = calls.answer, decision.plan
    executed = None if answer is None else _executed(answer.arm, plan, decision, made)
    quality = body.quality if answer is None or body.quality is not None else answer.quality
    if answer is None and quality:
        raise Invalid([("quality", "there is no answer: all attempts failed or were cancelled")])
    return Called(
        quality=quality,
        latency_ms=calls.latency_ms(plan) if body.latency_ms is None else body.latency_ms,
        cost_usd=calls.cost_usd if body.cost_usd is None else body.cost_usd,
        error=calls.error,
        executed_arm=executed,
        executed_list_cost_usd=None if executed is None else _listed(catalog, executed, decision),
        record=orjson.dumps(calls.to_record()).decode(),
        notes=notes,
        places=_places(decision),
    )


def _places(decision: Decision) -> dict[str, str]:
    """Where the answer said to call each arm, of those with endpoints."""
    said = [(decision.first_arm, decision.endpoint)]
    if decision.plan is not None:
        said += [(step.arm, step.endpoint) for step in decision.plan.steps]
    return {arm: f"{arm} {endpoint}" for arm, endpoint in said if endpoint is not None}


def calls_over(
    over: Over, body: RewardRequest, made: Called | None
) -> list[tuple[Over, str | None, float | None]]:
    """The calls that are over, each with its error and how long its place wants to be left alone.
    One that was cancelled says nothing of its place, and a plan nothing of its arms."""
    if body.attempts is None or made is None:
        if kind_of(over.arm) is None:
            return [(over, body.error, body.retry_after_s)]
        return [(replace(over, first=False), None, None)]
    told: list[tuple[Over, str | None, float | None]] = []
    for one in body.attempts:
        place = made.places.get(one.arm, "")
        if not one.cancelled:
            told.append((replace(over, arm=one.arm, place=place), one.error, one.retry_after_s))
    return told or [(replace(over, first=False), None, None)]


def _executed(
    returned: str, plan: Plan | None, decision: Decision, made: list[Attempt]
) -> str | None:
    """The arm that counts as executed, where that isn't the action that was drawn."""
    asked = (decision.arm,) if plan is None else plan.arms
    return None if all(one.arm in asked for one in made) else returned


def _returned(said: str | None, made: list[Attempt]) -> str | None:
    answered = [one.arm for one in made if one.answered]
    if said is not None:
        if said not in answered:
            raise Invalid([("returned", f"{said!r} is not among the attempts that answered")])
        return said
    if len(answered) > 1:
        raise Invalid([("returned", f"say whose answer was returned: {', '.join(answered)}")])
    return answered[0] if answered else None


def _attempt(
    one: AttemptBody, where: str, decision: Decision, catalog: Catalog, notes: list[str]
) -> Attempt:
    if one.arm not in catalog:
        raise Invalid([(f"{where}.arm", f"{one.arm!r} is not in the decision's catalog")])
    arm = catalog.arm(one.arm)
    try:
        cost_usd = _cost_usd(one, arm)
    except UnknownPrice as error:
        cost_usd = None
        notes.append(f"{where}.cost_usd stays missing: {error}")
    if cost_usd is None and one.cancelled:
        cost_usd = arm.cost_usd(decision.prompt_tokens, 0)
        notes.append(f"{where}.cost_usd isn't told: a cancelled call counts as its prompt")
    return Attempt(
        one.arm,
        quality=one.quality,
        latency_ms=one.latency_ms,
        cost_usd=cost_usd,
        error=one.error,
        cancelled=one.cancelled,
        list_cost_usd=_listed(catalog, one.arm, decision),
    )


def _cost_usd(one: AttemptBody, arm: Arm) -> float | None:
    tokens = one.tokens()
    return one.cost_usd if tokens is None else arm.cost_usd(*tokens)


def _listed(catalog: Catalog, arm: str, decision: Decision) -> float:
    return catalog.arm(arm).cost_usd(decision.prompt_tokens, decision.output_tokens)

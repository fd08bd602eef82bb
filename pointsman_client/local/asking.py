"""What a caller says -> what a policy is asked, and a policy's decision -> the caller's answer.

As /route does it: the same body gives the same request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

import orjson
from pydantic import ConfigDict, Field, ValidationError

from features.query import Frozen, Hints, Query, Tokens
from pointsman_client import answers
from pointsman_client.errors import PointsmanError
from policy.answering import answer
from policy.arms.catalog import Catalog
from policy.arms.constraints import ANYTHING, Constraints, NoEligibleArm, unknown_names
from policy.arms.endpoints import least_outstanding, spread
from policy.choosing.caller import Choice
from policy.objective import COMPONENTS, PRESETS, Weights
from policy.plans.plan import Kind
from policy.policy import NO_HINTS, Request
from policy.records import Decision as Record

FIELDS = {
    "policy",
    "decision_id",
    "query",
    "hints",
    "constraints",
    "objective",
    "chosen",
    "alternatives",
    "plans",
    "session",
}


class _Others(Frozen):
    """What is asked beside the policy's request. Plans and sessions do nothing here."""

    decision_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
    alternatives: Tokens | None = None
    plans: tuple[Kind, ...] = ()
    session: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")] | None = None


class Decision(answers.Decision):
    """What /route would answer. `logged` becomes true once the service has acknowledged it; where
    it never will, `notes` say why."""

    model_config = ConfigDict(frozen=False)


def request_of(body: Mapping[str, Any]) -> Request:
    """What a policy is asked; PointsmanError, with status 422 as over HTTP, where it can't be."""
    if unknown := body.keys() - FIELDS:
        _refuse(f"{sorted(unknown)[0]}: is no field here")
    chosen = body.get("chosen")
    try:
        _Others.model_validate({name: body[name] for name in _Others.model_fields if name in body})
        query, hints, limits = (body.get(name) for name in ("query", "hints", "constraints"))
        return Request(
            None if query is None else Query.model_validate(query),
            NO_HINTS if hints is None else Hints.model_validate(hints),
            ANYTHING if limits is None else Constraints.model_validate(limits),
            _weights(body.get("objective")),
            None if chosen is None else Choice(chosen["arm"], chosen.get("pmf")),
        )
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        _refuse("; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in faults))
    except (KeyError, TypeError, ValueError) as error:
        _refuse(str(error))


def _weights(objective: Any) -> Weights | None:
    if objective is None:
        return None
    if isinstance(objective, str):
        if objective not in PRESETS:
            raise ValueError(f"objective: should be weights or one of {', '.join(PRESETS)}")
        return PRESETS[objective]
    if not isinstance(objective, dict):
        raise ValueError(f"objective: should be weights or one of {', '.join(PRESETS)}")
    given = {name: weight for name, weight in objective.items() if weight is not None}
    for name, weight in given.items():
        if name not in COMPONENTS:
            known = ", ".join(COMPONENTS)
            raise ValueError(f"objective.{name}: is no field here, weights are {known}")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"objective.{name}: should be a number")
    return Weights.of(**given)


def endpoint_of(record: Record, catalog: Catalog) -> str | None:
    """Where to call the arm: here nobody knows what is under way, so by weight alone."""
    endpoints = catalog.arm(record.arm).endpoints
    if not endpoints:
        return None
    weights = [endpoint.weight for endpoint in endpoints]
    return endpoints[least_outstanding(weights, [0] * len(weights), spread(record.decision_id))].url


def answer_of(
    record: Record, catalog: Catalog, constraints: Constraints, asked: Mapping[str, Any]
) -> Decision:
    """The answer to the body `asked`, not logged yet; its notes say what of that does nothing."""
    notes = unknown_names(catalog, constraints)
    notes += [f"{name}: does nothing here" for name in ("plans", "session") if asked.get(name)]
    most = asked.get("alternatives")
    body = answer(record, catalog, False, notes, None if most is None else int(most))
    return Decision.model_validate_json(orjson.dumps(body))


def no_arm(error: NoEligibleArm) -> PointsmanError:
    """The problem that /route answers."""
    excluded = [{"arm": arm, "reason": why} for arm, why in error.excluded]
    return PointsmanError(422, "No eligible arm", str(error), {"excluded": excluded})


def _refuse(why: str) -> NoReturn:
    raise PointsmanError(422, "Invalid request", why)

"""What a caller says -> what a policy is asked, and a policy's decision -> the caller's answer.

As /route does it: the same body gives the same request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson
from pydantic import ConfigDict, ValidationError

from features.query import Hints, Query
from pointsman_client import answers
from pointsman_client.errors import PointsmanError
from policy.answering import answer
from policy.arms.catalog import Catalog
from policy.arms.constraints import ANYTHING, Constraints, NoEligibleArm, unknown_names
from policy.arms.endpoints import least_outstanding, spread
from policy.choosing.caller import Choice
from policy.objective import PRESETS, Weights
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
}
DECISION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Decision(answers.Decision):
    """What /route would answer. `logged` becomes true once the service has acknowledged it; where
    it never will, `notes` say why."""

    model_config = ConfigDict(frozen=False)


def request_of(body: Mapping[str, Any]) -> Request:
    """What a policy is asked; PointsmanError, with status 422 as over HTTP, where it can't be."""
    if unknown := body.keys() - FIELDS:
        _refuse(f"{sorted(unknown)[0]}: is no field here")
    if not DECISION_ID.fullmatch(str(body["decision_id"])):
        _refuse("decision_id: should be 1 to 128 letters, digits, '.', '_' or '-'")
    chosen = body.get("chosen")
    try:
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
    return Weights.of(**{name: weight for name, weight in objective.items() if weight is not None})


def endpoint_of(record: Record, catalog: Catalog) -> str | None:
    """Where to call the arm: here nobody knows what is under way, so by weight alone."""
    endpoints = catalog.arm(record.arm).endpoints
    if not endpoints:
        return None
    weights = [endpoint.weight for endpoint in endpoints]
    return endpoints[least_outstanding(weights, [0] * len(weights), spread(record.decision_id))].url


def answer_of(
    record: Record, catalog: Catalog, constraints: Constraints, most: int | None
) -> Decision:
    """The answer, with at `most` so many alternatives, not logged yet."""
    body = answer(record, catalog, False, unknown_names(catalog, constraints), most)
    return Decision.model_validate_json(orjson.dumps(body))


def no_arm(error: NoEligibleArm) -> PointsmanError:
    """The problem that /route answers."""
    excluded = [{"arm": arm, "reason": why} for arm, why in error.excluded]
    return PointsmanError(422, "No eligible arm", str(error), {"excluded": excluded})


def _refuse(why: str) -> NoReturn:
    raise PointsmanError(422, "Invalid request", why)

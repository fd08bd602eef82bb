"""Exception -> status and problem+json (RFC 9457), in one table. Routes just raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from policy.arms.constraints import NoEligibleArm
from policy.choosing.caller import WrongChoice
from serving.service import Conflict, UnknownArm, UnknownDecision, UnknownPolicy
from serving.store.keys import StoreUnavailable

MEDIA_TYPE = "application/problem+json"


class TooLarge(ValueError):
    """A body or batch beyond the limit."""


TABLE: Mapping[type[Exception], tuple[int, str, str]] = {
    UnknownPolicy: (404, "unknown-policy", "Unknown policy"),
    UnknownDecision: (404, "unknown-decision", "Unknown decision"),
    UnknownArm: (422, "unknown-arm", "Unknown arm"),
    Conflict: (409, "conflict", "Conflict"),
    NoEligibleArm: (422, "no-eligible-arm", "No eligible arm"),
    WrongChoice: (422, "wrong-choice", "Wrong choice of the caller's router"),
    TooLarge: (413, "too-large", "Too large"),
    StoreUnavailable: (503, "store-unavailable", "Store unavailable"),
}


def problem(error: Exception) -> dict[str, Any]:
    """The problem details of an exception; one that the table doesn't know is a 500."""
    if isinstance(error, ValidationError):
        return _invalid(error.errors(include_url=False, include_context=False, include_input=False))
    if isinstance(error, RequestValidationError):  # FastAPI's own, of path and query parameters
        return _invalid(error.errors())
    if isinstance(error, HTTPException):
        return _problem(error.status_code, "about:blank", str(error.detail), str(error.detail))
    for kind, (status, name, title) in TABLE.items():
        if isinstance(error, kind):
            body = _problem(status, f"/problems/{name}", title, str(error))
            if isinstance(error, NoEligibleArm):
                body["excluded"] = [{"arm": arm, "reason": why} for arm, why in error.excluded]
            return body
    return _problem(
        500, "about:blank", "Internal error", "the service failed to answer; see its log"
    )


def _invalid(faults: Sequence[Any]) -> dict[str, Any]:
    if faults[0]["type"] == "json_invalid":
        return _problem(400, "/problems/malformed-json", "Malformed JSON", faults[0]["msg"])
    body = _problem(
        422, "/problems/invalid-request", "Invalid request", "; ".join(map(_sentence, faults))
    )
    body["errors"] = [
        {"field": ".".join(map(str, fault["loc"])), "reason": fault["msg"]} for fault in faults
    ]
    return body


def _sentence(fault: Mapping[str, Any]) -> str:
    where = ".".join(map(str, fault["loc"]))
    return f"{where}: {fault['msg']}" if where else str(fault["msg"])


def _problem(status: int, kind: str, title: str, detail: str) -> dict[str, Any]:
    return {"type": kind, "title": title, "status": status, "detail": detail}


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of the application."""
    body = problem(error)
    headers = {"Retry-After": "1"} if body["status"] == 503 else {}
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    return Response(orjson.dumps(body), body["status"], headers, MEDIA_TYPE)

"""Exception -> status and problem+json (RFC 9457), in one table. Routes just raise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from policy.arms.constraints import NoEligibleArm
from policy.choosing.caller import WrongChoice
from policy.stored import Unreadable
from serving.access.keys import MissingScope, NoKey
from serving.access.opening import ForeignPage
from serving.access.rates import TooManyRequests
from serving.access.scopes import NoSuchPath
from serving.deciding import AllOut
from serving.observing import metrics
from serving.observing.readiness import NotReady
from serving.parsing.checking import Invalid, sentence
from serving.parsing.decoding import Malformed
from serving.parsing.unpacking import TooLarge
from serving.service import Conflict, UnknownArm, UnknownDecision, UnknownPolicy
from serving.store.keys import StoreUnavailable

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="pointsman", Basic realm="pointsman"'


TABLE: Mapping[type[Exception], tuple[int, str, str]] = {
    Malformed: (400, "malformed-json", "Malformed JSON"),
    Invalid: (422, "invalid-request", "Invalid request"),
    NoKey: (401, "no-key", "No valid key"),
    ForeignPage: (403, "foreign-page", "Not for other sites' pages"),
    MissingScope: (403, "missing-scope", "Missing scope"),
    TooManyRequests: (429, "rate-limited", "Too many requests"),
    NoSuchPath: (404, "no-such-path", "No such path"),
    UnknownPolicy: (404, "unknown-policy", "Unknown policy"),
    UnknownDecision: (404, "unknown-decision", "Unknown decision"),
    UnknownArm: (422, "unknown-arm", "Unknown arm"),
    Conflict: (409, "conflict", "Conflict"),
    AllOut: (503, "all-out", "All arms are out"),
    NoEligibleArm: (422, "no-eligible-arm", "No eligible arm"),
    WrongChoice: (422, "wrong-choice", "Wrong choice of the caller's router"),
    TooLarge: (413, "too-large", "Too large"),
    ClientDisconnect: (400, "incomplete", "Incomplete request"),  # that nobody reads
    StoreUnavailable: (503, "store-unavailable", "Store unavailable"),
    NotReady: (503, "not-ready", "Not ready"),
    Unreadable: (500, "unreadable-record", "Unreadable record"),
}


BEFORE_READING = (  # of a request: answered by what is in front of the application
    (429, "overloaded"),
    (400, "malformed-http"),
    (408, "incomplete"),
    (431, "too-large"),
)


def count_from_zero() -> None:
    """Show every problem of the table before it has happened: nobody can tell the first of a
    counter that wasn't there."""
    for status, name, _ in TABLE.values():
        metrics.problems(status, name)
    metrics.problems(500, "about:blank")
    for status, name in BEFORE_READING:
        metrics.problems(status, name)


def problem(error: Exception) -> dict[str, Any]:
    """The problem details of an exception; one that the table doesn't know is a 500."""
    if isinstance(error, RequestValidationError):  # FastAPI's own, of path and query parameters
        faults = ((".".join(map(str, one["loc"][1:])), sentence(one)) for one in error.errors())
        error = Invalid(list(faults))
    if isinstance(error, HTTPException):
        return _problem(error.status_code, "about:blank", str(error.detail), str(error.detail))
    for kind, (status, name, title) in TABLE.items():
        if isinstance(error, kind):
            body = _problem(status, f"/problems/{name}", title, str(error))
            if isinstance(error, NoEligibleArm):
                body["excluded"] = [{"arm": arm, "reason": why} for arm, why in error.excluded]
            if isinstance(error, MissingScope):
                body |= {"scope": error.scope, "policy": error.policy}
            if isinstance(error, TooManyRequests):
                body["retry_after_s"] = error.retry_after_s
            if isinstance(error, Invalid):
                body["errors"] = [{"field": field, "reason": why} for field, why in error.faults]
            return body
    return _problem(
        500, "about:blank", "Internal error", "the service failed to answer; see its log"
    )


def _problem(status: int, kind: str, title: str, detail: str) -> dict[str, Any]:
    return {"type": kind, "title": title, "status": status, "detail": detail}


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of the application."""
    body = problem(error)
    headers = {"Retry-After": "1"} if body["status"] == 503 else {}
    if isinstance(error, NoKey):
        headers["WWW-Authenticate"] = CHALLENGE
    if isinstance(error, AllOut | TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    metrics.problems(body["status"], body["type"].rpartition("/")[2]).inc()
    return Response(orjson.dumps(body), body["status"], headers, MEDIA_TYPE)

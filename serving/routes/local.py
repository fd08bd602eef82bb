"""GET /policies/{name}/state and POST /decisions: what callers that decide for themselves need."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Path, Query, Request, Response

from pointsman_client.answers import PolicyState
from policy.records import Decision
from serving.access.keys import Caller, MissingScope
from serving.errors import problem
from serving.observing import metrics
from serving.parsing.checking import checked
from serving.parsing.unpacking import TooLarge
from serving.recording import Made, Recorder, tag_of
from serving.routes import bodies
from serving.routes.made import MadeBatch, MadeDecision
from serving.routes.schemas import LoggedResults

router = APIRouter(tags=["local"])


@router.get(
    "/policies/{name}/state",
    response_model=PolicyState,
    responses={304: {"description": "The caller has it: see If-None-Match"}},
    summary="All that a policy decides with, to decide elsewhere; asking again is cheap",
)
async def state(
    request: Request,
    name: str = Path(pattern=r"^[A-Za-z0-9_-]{1,64}$"),
    have: list[str] = Query(  # noqa: B008 - FastAPI's way
        [], max_length=8, description="Fingerprints of encoders that needn't be sent again"
    ),
) -> Response:
    bodies.caller(request).check(name)
    recorder: Recorder = request.app.state.recorder
    tag = _tag(tag_of(recorder.at_hand(name)))
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag})
    body = await recorder.state(name, have)
    answer = bodies.write(body)
    answer.headers["etag"] = _tag(body["tag"])
    return answer


@router.post(
    "/decisions",
    response_model=LoggedResults,
    openapi_extra=bodies.takes(MadeBatch),
    summary="Log decisions that were made elsewhere; each result says so, or is a problem",
)
async def decisions(request: Request) -> Response:
    batch = await bodies.read(request, MadeBatch)
    limit: int = request.app.state.settings.max_batch
    if len(batch.decisions) > limit:
        raise TooLarge(f"a batch may have {limit} items at most, got {len(batch.decisions)}")
    recorder: Recorder = request.app.state.recorder
    caller = bodies.caller(request)
    made = await asyncio.to_thread(lambda: [_made(item, caller) for item in batch.decisions])
    logged = iter(await recorder.record([one for one in made if isinstance(one, Made)]))
    results = [next(logged) if isinstance(one, Made) else one for one in made]
    for one in results:
        if isinstance(one, Decision):
            caller.got_decision(one.policy)
    return bodies.write({"results": [_result(one) for one in results]})


def _made(item: Any, caller: Caller) -> Made | Exception:
    try:
        body = checked(MadeDecision, item)
        caller.check(body.policy)
        return Made(body.decision(), body.state)
    except (ValueError, MissingScope) as error:
        return error


def _result(one: Decision | Exception) -> dict[str, Any]:
    if isinstance(one, Exception):
        return problem(one)
    metrics.decisions(one.policy, one.arm, True).inc()
    return {"decision_id": one.decision_id, "logged": True}


def _tag(name: str) -> str:
    return f'"{name}"'

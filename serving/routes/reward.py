"""POST /reward and /reward/batch."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from fastapi import APIRouter, Request, Response

from pointsman_client.answers import Receipt
from policy.records import NO_LESSON
from serving.observing import metrics
from serving.observing.logs import concerns
from serving.parsing.checking import checked
from serving.recording import Recorder
from serving.routes import bodies
from serving.routes.requests import RewardBatch, RewardRequest
from serving.routes.schemas import RewardResults
from serving.service import Service

router = APIRouter(tags=["reward"])


@router.post(
    "/reward",
    response_model=Receipt,
    openapi_extra=bodies.takes(RewardRequest),
    summary="What came of a decision: quality, latency, cost or an error, in any parts",
)
async def reward(request: Request) -> Response:
    with metrics.request_seconds("/reward").time():
        body = await bodies.read(request, RewardRequest)
        concerns(policy=body.policy, decision_id=body.decision_id, **_told(body))
        return bodies.write(await _accept(request, body))


@router.post(
    "/reward/batch",
    response_model=RewardResults,
    openapi_extra=bodies.takes(RewardBatch),
    summary="Report many outcomes; each result is a receipt or a problem",
)
async def reward_batch(request: Request) -> Response:
    batch = await bodies.read(request, RewardBatch)
    turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def one(item: Any) -> dict[str, Any]:
        body = checked(RewardRequest, item)
        async with turns[body.decision_id]:  # reports of one decision keep their order
            return await _accept(request, body)

    return await bodies.answer_each(request, batch.rewards, one)


def _told(body: RewardRequest) -> dict[str, object]:
    """What a span says of an outcome; an error's own words stay with the decision."""
    found: dict[str, object] = {}
    if body.error is not None:
        found["error"] = body.error if body.error in NO_LESSON else "_OTHER"
    if (tokens := body.tokens()) is not None:
        found["input_tokens"] = tokens.input + tokens.cached_in + tokens.cache_write
        found["output_tokens"] = tokens.output
    return found


async def _accept(request: Request, body: RewardRequest) -> dict[str, Any]:
    caller = bodies.caller(request)
    caller.check(body.policy)
    service: Service = request.app.state.service
    if body.token is not None:
        recorder: Recorder = request.app.state.recorder
        await recorder.redeem(body.token, body.policy, body.decision_id)
    receipt, notes = await service.reward(body, caller.key.id)
    for component in receipt.accepted:
        metrics.rewards(body.policy, component).inc()
    return {
        "decision_id": body.decision_id,
        "accepted": receipt.accepted,
        "unchanged": receipt.unchanged,
        "missing": receipt.missing,
        "late": receipt.late,
        "notes": notes,
    }

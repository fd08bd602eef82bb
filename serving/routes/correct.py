"""POST /correction and /correction/batch."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pointsman_client.answers import Correction
from serving.observing import metrics
from serving.observing.logs import concerns
from serving.parsing.checking import checked
from serving.routes import bodies
from serving.routes.requests import CorrectionBatch, CorrectionRequest
from serving.routes.schemas import CorrectionResults
from serving.service import Service

router = APIRouter(tags=["reward"])


@router.post(
    "/correction",
    response_model=Correction,
    openapi_extra=bodies.takes(CorrectionRequest),
    summary="Overrule what was reported of a decision; the log keeps both values, who and why",
)
async def correction(request: Request) -> Response:
    with metrics.request_seconds("/correction").time():
        body = await bodies.read(request, CorrectionRequest)
        concerns(policy=body.policy, decision_id=body.decision_id)
        return bodies.write(await _overrule(request, body))


@router.post(
    "/correction/batch",
    response_model=CorrectionResults,
    openapi_extra=bodies.takes(CorrectionBatch),
    summary="Overrule many outcomes; each result says what became of it, or is a problem",
)
async def correction_batch(request: Request) -> Response:
    batch = await bodies.read(request, CorrectionBatch)

    async def one(item: Any) -> dict[str, Any]:
        return await _overrule(request, checked(CorrectionRequest, item))

    return await bodies.answer_each(request, batch.corrections, one)


async def _overrule(request: Request, body: CorrectionRequest) -> dict[str, Any]:
    caller = bodies.caller(request)
    caller.check(body.policy)
    service: Service = request.app.state.service
    overruled = await service.correct(body, caller.key.id)
    for component in overruled.corrected:
        metrics.corrections(body.policy, component).inc()
    return {
        "decision_id": body.decision_id,
        "corrected": overruled.corrected,
        "unchanged": overruled.unchanged,
    }

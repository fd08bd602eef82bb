"""POST /route and /route/batch, GET /decisions/{id}."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Path, Query, Request, Response

from pointsman_client.answers import Decision
from policy.answering import answer
from policy.arms.constraints import unknown_names
from serving import metrics
from serving.parsing.checking import checked
from serving.routes import bodies
from serving.routes.requests import RouteBatch, RouteRequest
from serving.routes.schemas import DecisionBody, RouteResults
from serving.service import Service

router = APIRouter(tags=["route"])


@router.post(
    "/route",
    response_model=Decision,
    openapi_extra=bodies.takes(RouteRequest),
    summary="Which arm should answer this query?",
)
async def route(request: Request) -> Response:
    with metrics.seconds("/route").time():
        body = await bodies.read_query(request, RouteRequest)
        return bodies.write(await _answer(request.app.state.service, body))


@router.post(
    "/route/batch",
    response_model=RouteResults,
    openapi_extra=bodies.takes(RouteBatch),
    summary="Decide for many queries; each result is a decision or a problem",
)
async def route_batch(request: Request) -> Response:
    batch = await bodies.read_query(request, RouteBatch)
    service: Service = request.app.state.service

    async def one(item: Any) -> dict[str, Any]:
        return await _answer(service, checked(RouteRequest, item))

    return await bodies.answer_each(request, batch.requests, one)


async def _answer(service: Service, body: RouteRequest) -> dict[str, Any]:
    decision, catalog, logged = await service.route(body)
    metrics.decisions(decision.policy, decision.first_arm, logged).inc()
    notes = unknown_names(catalog, body.constraints)
    notes += service.policy(body.policy).config.plans.refused(body.plans)
    return answer(decision, catalog, logged, notes, body.alternatives)


@router.get(
    "/decisions/{decision_id}",
    response_model=DecisionBody,
    summary="A stored decision and what has been accepted for it",
)
async def decision(
    request: Request,
    decision_id: str = Path(pattern=r"^[A-Za-z0-9._-]{1,128}$"),
    policy: str = Query("default", pattern=r"^[A-Za-z0-9_-]{1,64}$"),
) -> Response:
    service: Service = request.app.state.service
    return bodies.write(await service.decision(policy, decision_id))

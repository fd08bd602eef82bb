"""POST /route and /route/batch, GET /decisions/{id}."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Path, Query, Request, Response

from pointsman_client.answers import Decision
from policy.answering import answer
from policy.arms.constraints import unknown_names
from serving import batches
from serving.access.keys import Caller, MissingScope
from serving.errors import problem
from serving.observing import metrics
from serving.observing.logs import concerns
from serving.parsing.checking import Invalid, checked
from serving.routes import bodies
from serving.routes.requests import RouteBatch, RouteRequest
from serving.routes.schemas import DecisionBody, RouteResults
from serving.service import Routed, Service

router = APIRouter(tags=["route"])


@router.post(
    "/route",
    response_model=Decision,
    openapi_extra=bodies.takes(RouteRequest),
    summary="Which arm should answer this query?",
)
async def route(request: Request) -> Response:
    with metrics.request_seconds("/route").time():
        body = await bodies.read_query(request, RouteRequest)
        concerns(policy=body.policy, decision_id=body.decision_id)
        bodies.caller(request).check(body.policy)
        service: Service = request.app.state.service
        routed = await service.route(body)
        made, arm = routed.decision, routed.catalog.arm(routed.decision.first_arm)
        concerns(decision_id=made.decision_id, arm=arm.id, provider=arm.provider, model=arm.model)
        return bodies.write(_answer(service, body, routed, bodies.caller(request)))


@router.post(
    "/route/batch",
    response_model=RouteResults,
    openapi_extra=bodies.takes(RouteBatch),
    summary="Decide for many queries; each result is a decision or a problem",
)
async def route_batch(request: Request) -> Response:
    batch = await bodies.read_query(request, RouteBatch)
    bodies.limit(request, batch.requests)
    service: Service = request.app.state.service
    caller = bodies.caller(request)
    asked = await asyncio.to_thread(_each, batch, caller)
    policies = {body.policy for body in asked if isinstance(body, RouteRequest)}
    batches.check_baseline(service, policies, batch.baseline)
    made = await batches.route_all(service, asked, batch.budget_usd)
    results = [_result(service, *each, caller) for each in zip(asked, made, strict=True)]
    return bodies.write({"results": results, "totals": batches.totals(made, batch.baseline)})


def _each(batch: RouteBatch, caller: Caller) -> list[RouteRequest | Exception]:
    """The requests of a batch with its defaults, each checked by itself, and for its policy."""
    if "decision_id" in batch.defaults:
        raise Invalid([("defaults.decision_id", "is one request's own")])
    try:
        checked(RouteRequest, batch.defaults)
    except Invalid as error:
        faults = [
            (f"defaults.{field}" if field else "defaults", why) for field, why in error.faults
        ]
        raise Invalid(faults) from None
    found: list[RouteRequest | Exception] = []
    for item in batch.requests:
        try:
            body = checked(RouteRequest, batches.with_defaults(item, batch.defaults))
            caller.check(body.policy)
            found.append(body)
        except (Invalid, MissingScope) as error:
            found.append(error)
    return found


def _result(
    service: Service,
    body: RouteRequest | Exception,
    made: Routed | Exception,
    caller: Caller,
) -> dict[str, Any]:
    if isinstance(body, Exception):
        return problem(body)
    return problem(made) if isinstance(made, Exception) else _answer(service, body, made, caller)


def _answer(service: Service, body: RouteRequest, routed: Routed, caller: Caller) -> dict[str, Any]:
    decision, catalog, logged, token = routed
    caller.got_decision(decision.policy)
    metrics.decisions(decision.policy, decision.first_arm, logged).inc()
    if decision.degraded or not logged:
        metrics.degraded(decision.policy, decision.degraded or "unlogged").inc()
    notes = unknown_names(catalog, body.constraints)
    notes += service.policy(body.policy).config.plans.refused(body.plans)
    return {**answer(decision, catalog, logged, notes, body.alternatives), "token": token}


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
    bodies.caller(request).check(policy)
    service: Service = request.app.state.service
    return bodies.write(await service.decision(policy, decision_id))

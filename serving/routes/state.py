"""What runs here: arms, policies, health, figures."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import Field

from features.lexicon import TASK_TYPES
from features.query import MAX_TOKENS, Hints
from policy.choosing.incumbent import Caution
from policy.config.schema import PolicyConfig
from policy.frontier import Frontier, Point, frontiers
from policy.policy import Policy
from serving.observing import metrics
from serving.observing.readiness import Readiness
from serving.observing.standing import Standing
from serving.routes import bodies
from serving.routes.schemas import ArmList, FrontierBody, PolicyBody, PolicyList, ReadyBody
from serving.service import Service

router = APIRouter(tags=["state"])

Label = Annotated[str, Field(min_length=1, max_length=128)]


@router.get("/arms", response_model=ArmList, summary="The arms of the catalog in force")
async def arms(request: Request) -> Response:
    service: Service = request.app.state.service
    shown = _shown(request)
    catalogs = {policy.catalog.revision: policy.catalog for policy in shown}
    # A policy without a list of arms chooses from all.
    lists = [policy.config.arms for policy in shown]
    of_policies = None if None in lists else {arm for arms in lists for arm in arms or ()}
    return bodies.write(
        {
            "arms": [
                {
                    "arm": arm["id"],
                    **{name: arm[name] for name in arm if name != "id"},
                    "places": service.fleet.shown(catalog, arm["id"]),
                }
                for catalog in catalogs.values()
                for arm in (entry.model_dump(mode="json") for entry in catalog.arms)
                if of_policies is None or arm["id"] in of_policies
            ]
        }
    )


@router.get("/policies", response_model=PolicyList, summary="The running policies")
async def policies(request: Request) -> Response:
    service: Service = request.app.state.service
    return bodies.write({"policies": [_body(service, p) for p in _shown(request)]})


@router.get("/policies/{name}", response_model=PolicyBody, summary="One running policy")
async def policy(request: Request, name: str = Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")) -> Response:
    bodies.caller(request).check(name)
    service: Service = request.app.state.service
    return bodies.write(_body(service, service.policy(name)))


@router.get(
    "/policies/{name}/frontier",
    response_model=FrontierBody,
    summary="Quality, latency and cost per task type: of arms, and of the policy as it may weigh",
)
async def frontier(
    request: Request,
    name: str = Path(pattern=r"^[A-Za-z0-9_-]{1,64}$"),
    task_type: list[Label] = Query(  # noqa: B008 - FastAPI's way
        list(TASK_TYPES), max_length=32, description="All known ones by default"
    ),
    context_tokens: int = Query(500, ge=0, le=MAX_TOKENS),
    output_tokens: int = Query(300, ge=0, le=MAX_TOKENS),
    probability: float = Query(0.9, gt=0, lt=1, description="Of the intervals"),
) -> Response:
    bodies.caller(request).check(name)
    service: Service = request.app.state.service
    policy = service.policy(name)
    sizes = Hints(context_tokens=context_tokens, output_tokens=output_tokens)
    found = await asyncio.to_thread(frontiers, policy, task_type, sizes, probability)
    return bodies.write(
        {
            "policy": policy.name,
            "version": policy.version,
            "snapshot": policy.snapshot,
            "events": policy.events,
            "probability": probability,
            "context_tokens": context_tokens,
            "output_tokens": output_tokens,
            "task_types": [_of_task(one) for one in found],
        }
    )


def _shown(request: Request) -> list[Policy]:
    """The running policies that the key may see."""
    service: Service = request.app.state.service
    caller = bodies.caller(request)
    return [policy for policy in service.policies.values() if caller.may(policy.name)]


def _of_task(found: Frontier) -> dict[str, Any]:
    return {
        "task_type": found.task_type,
        "arms": [{"arm": point.name, **_point(point)} for point in found.arms],
        "policies": [
            {
                "name": point.name,
                "weights": asdict(point.weights),
                **_point(point),
                "shares": point.shares,
            }
            for point in found.policies
        ],
    }


def _point(point: Point) -> dict[str, Any]:
    """NaN, for what isn't known, is written as null."""
    both = zip(
        ("quality", "latency_ms", "cost_usd"),
        np.array((point.mean, point.low, point.high)).T.tolist(),
        strict=True,
    )
    figures = {name: dict(zip(("mean", "low", "high"), ends, strict=True)) for name, ends in both}
    return {**figures, "best": bool(point.best)}


def _body(service: Service, policy: Policy) -> dict[str, Any]:
    challenger = policy.challenger
    alarm = service.alarms.get(policy.name)
    shares = {} if challenger is None else {challenger.version: policy.share}
    return {
        "policy": policy.name,
        "champion": policy.version,
        "model": policy.config.model,
        "challenger": None if challenger is None else _challenger(policy, challenger),
        "snapshot": policy.snapshot,
        "catalog": policy.catalog.revision,
        "shares": {policy.version: 1.0 - policy.share, **shares},
        "events": policy.events,
        "alarm": None if alarm is None else asdict(alarm),
        "caution": None if policy.caution is None else _caution(policy.config, policy.caution),
        "budget": service.fleet.budget(policy.name),
    }


def _caution(config: PolicyConfig, caution: Caution) -> dict[str, Any]:
    return {
        "incumbent": config.incumbent,
        "max_loss": config.max_loss,
        "earned": caution.standing.earned,
        "error": math.sqrt(caution.standing.variance),
    }


def _challenger(policy: Policy, challenger: Policy) -> dict[str, Any]:
    scores = challenger.scores.against(policy.version)
    return {
        "version": challenger.version,
        "model": challenger.config.model,
        "share": policy.share,
        "snapshot": challenger.snapshot,
        "events": challenger.events,
        "decisions": scores.decisions,
        "other_arm": scores.other_arm,
        "covered": scores.covered,
        "agreement": {"probability": scores.probability, "most_probable": scores.top},
        "estimates": {
            name: asdict(one) for name, one in scores.compare(challenger.weights).items()
        },
    }


@router.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz", response_model=ReadyBody, summary="The process can decide and log; asks nobody"
)
async def readyz(request: Request) -> Response:
    readiness: Readiness = request.app.state.readiness
    amiss = readiness.check()
    return bodies.write({"status": "ready" if amiss is None else "degraded", "why": amiss})


@router.get(
    "/metrics", response_class=PlainTextResponse, summary="Figures in Prometheus' text format"
)
async def exposition(request: Request) -> Response:
    bodies.caller(request).check_all()  # figures are told by policy
    standing: Standing = request.app.state.standing
    figures = await standing.read()
    shown = await asyncio.to_thread(metrics.exposition, figures)  # milliseconds, of many series
    return Response(shown, media_type="text/plain; version=0.0.4")

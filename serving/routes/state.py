"""What runs here: arms, policies, health, figures."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import PlainTextResponse

from policy.choosing.incumbent import Caution
from policy.config.schema import PolicyConfig
from policy.policy import Policy
from serving import metrics
from serving.routes import bodies
from serving.routes.schemas import ArmList, PolicyBody, PolicyList
from serving.service import Service

router = APIRouter(tags=["state"])


@router.get("/arms", response_model=ArmList, summary="The arms of the catalog in force")
async def arms(request: Request) -> Response:
    service: Service = request.app.state.service
    catalogs = {p.catalog.revision: p.catalog for p in service.policies.values()}
    return bodies.write(
        {
            "arms": [
                {"arm": arm["id"], **{name: arm[name] for name in arm if name != "id"}}
                for catalog in catalogs.values()
                for arm in (entry.model_dump(mode="json") for entry in catalog.arms)
            ]
        }
    )


@router.get("/policies", response_model=PolicyList, summary="The running policies")
async def policies(request: Request) -> Response:
    service: Service = request.app.state.service
    return bodies.write({"policies": [_body(service, p) for p in service.policies.values()]})


@router.get("/policies/{name}", response_model=PolicyBody, summary="One running policy")
async def policy(request: Request, name: str = Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")) -> Response:
    service: Service = request.app.state.service
    return bodies.write(_body(service, service.policy(name)))


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


@router.get("/readyz", summary="The process can decide and log")
async def readyz(request: Request) -> dict[str, str]:
    await request.app.state.store.ping()
    return {"status": "ready"}


@router.get(
    "/metrics", response_class=PlainTextResponse, summary="Figures in Prometheus' text format"
)
async def exposition(request: Request) -> Response:
    service: Service = request.app.state.service
    for running in service.policies.values():
        metrics.SNAPSHOT.labels(running.name).set(running.snapshot)
    return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

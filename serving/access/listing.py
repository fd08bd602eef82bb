"""GET /keys: what was done with each key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from serving.access.influence import by_key, figures
from serving.access.keys import Caller, Key
from serving.access.store import DAYS, KeyStore
from serving.routes import bodies
from serving.service import Service

router = APIRouter(tags=["state"])


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KeyArmBody(Body):
    """The qualities that a key has reported of an arm beside those of all others: `moved` is by how
    much it has moved the mean, the difference of the means is also in standard deviations and in
    standard errors. Null where there is nothing to compare."""

    arm: str
    n: int
    quality: float | None
    others_n: int
    others_quality: float | None
    moved: float | None
    difference: float | None
    difference_sd: float | None
    difference_se: float | None


class KeyFiguresBody(Body):
    """What a key did with one policy; `moved` and `unlike_se` are the largest of its arms."""

    decisions: int
    rewards: int
    moved: float | None
    unlike_se: float | None
    arms: list[KeyArmBody]


class KeyBody(Body):
    """A key: `scopes` are for the policies named, null is all; `invalid` says why it no longer
    lets in; `policies` is what it did."""

    id: str
    name: str
    scopes: dict[str, list[str] | None]
    created_at_ms: int
    created_by: str
    expires_at_ms: int | None
    revoked_at_ms: int | None
    requests_per_minute: int | None
    last_used_ms: int | None
    invalid: str | None
    policies: dict[str, KeyFiguresBody]


class KeyList(Body):
    days: int
    keys: list[KeyBody]


@router.get(
    "/keys",
    response_model=KeyList,
    summary="All keys, and what their rewards did in these days, beside those of others",
)
async def keys(request: Request) -> Response:
    service: Service = request.app.state.service
    store: KeyStore = request.app.state.guard.store
    caller, now_ms = bodies.caller(request), service.now_ms()
    found = {
        name: by_key(await store.reported(name, now_ms))
        for name in service.policies
        if caller.may(name)
    }
    used = await store.last_used()
    shown = []
    for key in await store.all():
        if scopes := _visible(key, caller):
            told = key.model_dump(mode="json", exclude={"digests", "format", "scopes"})
            told |= {"scopes": scopes, "last_used_ms": used.get(key.id)}
            told["invalid"] = key.invalid(now_ms)
            told["policies"] = {name: figures(of, key.id) for name, of in found.items()}
            shown.append(told)
    return bodies.write({"days": DAYS, "keys": shown})


def _visible(key: Key, caller: Caller) -> dict[str, Any]:
    """A key's scopes, as far as they are for policies that the caller may know."""
    scopes = {
        scope: None if policies is None else [name for name in policies if caller.may(name)]
        for scope, policies in key.scopes.items()
    }
    return {scope: policies for scope, policies in scopes.items() if policies != []}

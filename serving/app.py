"""create_app(settings): the only assembly of the HTTP service."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import errors
from serving.access import listing
from serving.access.guard import Guard
from serving.access.opening import is_loopback
from serving.access.scopes import OF_PATHS
from serving.access.store import KeyStore
from serving.access.tokens import Tokens, secret_of
from serving.learning.follower import Follower
from serving.observing import metrics
from serving.observing.logs import concerns
from serving.observing.readiness import Readiness
from serving.observing.standing import Standing
from serving.recording import Recorder
from serving.routes import (
    correct,
    decide,
    documents,
    local,
    made,
    page,
    requests,
    reward,
    schemas,
    state,
)
from serving.service import Service
from serving.settings import Settings
from serving.store.traffic import Store
from serving.store.waiting import Circuit, wait_no_longer_than

log = logging.getLogger(__name__)

DESCRIPTION = "Ask `/route` which model arm should answer a query; tell `/reward` what happened."
BODIES = (
    requests.RouteRequest,
    requests.RouteBatch,
    requests.RewardRequest,
    requests.RewardBatch,
    requests.CorrectionRequest,
    requests.CorrectionBatch,
    made.MadeDecision,
    made.MadeBatch,
)

SWITCH_S = 0.0005  # that a thread which reads a large body or snapshot holds the event loop up


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


class HeadAsGet:
    """HEAD wherever GET is answered: the same status and headers, without the body.

    Pure ASGI, for FastAPI's routes know no HEAD, and its own middleware is dear.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if "body" in message else message)

        await self._app({**scope, "method": "GET"}, receive, without_body)


class App(FastAPI):
    """FastAPI's, but for the two busy paths, which stay in its document: its layers would cost as
    much as all else that HTTP takes here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        wait_no_longer_than(self.state.circuit)
        metrics.IN_FLIGHT.inc()
        try:
            await self._answer(scope, receive, send)
        finally:
            metrics.IN_FLIGHT.dec()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        request = Request(scope, receive)
        method, path = scope["method"], scope["path"]
        busy = BUSY.get(path) if method == "POST" else None
        try:
            caller = await self.state.guard.admit(method, path, scope["headers"])
            scope["caller"] = caller
            if caller is not None and caller.key.id:
                concerns(key=caller.key.id)
            if busy is not None:
                scope["route"] = busy
                response = await busy(request)
        except Exception as error:
            response = await errors.answer(request, error)
            if response.status_code == 500:
                log.exception("can't answer %s %s", method, path)
        else:
            if busy is None:
                await self._by_framework(scope, receive, send)
                return
        await response(scope, receive, send)

    async def _by_framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Exception:  # answered there, and raised again for whoever logs it
            log.exception("can't answer %s %s", scope["method"], scope["path"])


BUSY = {"/route": decide.route, "/reward": reward.reward}


def create_app(settings: Settings, *, kept: Path | None = None) -> FastAPI:
    """The application. `settings.redis_url` must be set: nothing is started from here."""
    if settings.redis_url is None:
        raise ValueError("settings.redis_url must be set")
    redis_url = settings.redis_url

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        timeout_s, serve_unlogged = settings.store_timeout_ms / 1_000, settings.degraded == "serve"
        store = Store(redis_url, timeout_s, settings.wait_replicas)
        circuit = Circuit(timeout_s, store.ping, clock_ms, several=store.has_several)
        secret = secret_of(settings.token_secret, settings.data, make=serve_unlogged)
        tokens = Tokens(secret)
        service = Service(store, clock_ms, unlogged=tokens if serve_unlogged else None)
        follower = Follower(service, store.versions, settings.config, clock_ms, kept)
        guard = Guard(
            KeyStore(store.redis),
            clock_ms,
            may_be_open=settings.open or is_loopback(settings.host),
            any_name=settings.open,
        )
        app.state.service, app.state.circuit, app.state.guard = service, circuit, guard
        app.state.readiness = Readiness(service, circuit, serves_unlogged=serve_unlogged)
        app.state.recorder = Recorder(service, store, clock_ms, tokens)
        app.state.standing = Standing(redis_url, service, circuit, clock_ms)
        async with AsyncExitStack() as started:  # ended in turn, also where the next doesn't start
            started.callback(app.state.standing.close)
            started.push_async_callback(store.close)
            for part in (guard, follower, service.fleet):
                started.push_async_callback(part.stop)
                await part.start()
            started.callback(asyncio.create_task(circuit.watch()).cancel)
            # What start-up made lives on: sparing it each full collection cuts the tail of /route.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 100)
            sys.setswitchinterval(SWITCH_S)
            yield

    app = App(
        title="Pointsman",
        version=version("pointsman"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # ours loads nothing from other hosts
        redoc_url=None,
    )
    app.state.settings = settings
    errors.count_from_zero()
    app.add_middleware(HeadAsGet)
    for kind in (*errors.TABLE, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, errors.answer)
    for group in (decide, reward, correct, local, state, listing, documents, page):
        app.include_router(group.router, responses=PROBLEMS)
    generated = app.openapi
    app.openapi = lambda: _with_bodies(generated())  # type: ignore[method-assign]
    return app


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {
            errors.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
        },
    }
    for status, description in {
        400: "Malformed JSON, or a key twice in an object",
        401: "No valid key",
        403: "The key lacks a scope, as such or for a policy",
        404: "Unknown policy or decision",
        409: "Conflict with what was stored before",
        413: "Body or batch too large",
        415: "A content encoding other than gzip",
        422: "Invalid request, or no eligible arm",
        429: "Too many requests, under way or of the key in this minute: see Retry-After",
        503: "The store can't be reached: nothing was acknowledged",
    }.items()
}


def _with_bodies(document: dict[str, Any]) -> dict[str, Any]:
    """Bodies are parsed by our own code, and keys are checked there, so OpenAPI has to be told."""
    models: list[Any] = [(model, "validation") for model in (*BODIES, schemas.Problem)]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].setdefault("default", PROBLEM_DEFAULT)
            if (scope := OF_PATHS[path]) is not None:
                operation["security"] = [{"key": []}, {}]
                operation["description"] = f"Wants the scope `{scope}`, where there are keys."
    return document


PROBLEM_DEFAULT = {"description": "A problem", "content": PROBLEMS[400]["content"]}

"""A line per request, for those who want it: it takes some 20 µs of each."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.observing.logs import about
from serving.observing.tracing import traced
from serving.settings import Settings

log = logging.getLogger(__name__)


class AccessLog:
    """Says of each request its method, path, status and how long it took, and which policy and
    decision it concerned; never its query string or body. Pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 0, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            took_ms = round((time.perf_counter() - began) * 1_000, 3)
            method, path = scope["method"], scope["path"]
            with about(method=method, path=path, status=status, took_ms=took_ms):
                log.info("%s %s: %s", method, path, status)


def as_asked(settings: Settings, app: ASGIApp) -> ASGIApp:
    """The application, with a line and a span per request where these are wanted."""
    return traced(AccessLog(app) if settings.access_log else app)

"""A span per request, where OpenTelemetry is installed (pointsman[tracing]) and told where to send
them (OTEL_EXPORTER_OTLP_ENDPOINT); else nothing of it is imported, and a request costs nothing.

Attributes are those of OpenTelemetry's conventions for HTTP and GenAI, and ours as `pointsman.*`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from importlib.metadata import version
from importlib.util import find_spec

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.observing import logs

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTER = "opentelemetry.exporter.otlp.proto.http"
FLUSH_S = 2.0  # that the end of a process waits for a collector
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})  # asked all the time, by machines

# What a request has said it concerns, and the conventions' names for it.
ATTRIBUTES = {
    "policy": "pointsman.policy",
    "decision_id": "pointsman.decision_id",
    "arm": "pointsman.arm",
    "provider": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "error": "error.type",
}


def traced(app: ASGIApp) -> ASGIApp:
    """The application with its spans, or itself where nobody wants them."""
    if not any(map(os.environ.get, ENDPOINTS)) or os.environ.get("OTEL_SDK_DISABLED") == "true":
        return app
    if not _is_installed():
        log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, but not pointsman[tracing]: no traces")
        return app
    return Traced(app)


def _is_installed() -> bool:
    try:
        return find_spec(EXPORTER) is not None
    except ModuleNotFoundError:
        return False


class Traced:
    """Sends a span for each request, in the trace that its `traceparent` names. Pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        from opentelemetry import propagate, trace  # noqa: PLC0415 - only where it is wanted
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        name = os.environ.get("OTEL_SERVICE_NAME", "pointsman")
        service = {"service.name": name, "service.version": version("pointsman")}
        self._app = app
        self._extract = propagate.extract
        self._kind = trace.SpanKind.SERVER
        self._failed = trace.Status(trace.StatusCode.ERROR)
        self._provider = TracerProvider(resource=Resource.create(service), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("pointsman", version("pointsman"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
        else:
            await self._spanned(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def flushing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):  # nobody waits for us after that
                await self._flush()
            await send(message)

        await self._app(scope, receive, flushing)

    async def _spanned(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        carrier = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        known = {"http.request.method": method, "url.path": path}
        span = self._tracer.start_span(method, self._extract(carrier), self._kind, known)
        at = span.get_span_context()
        logs.concerns(trace_id=f"{at.trace_id:032x}", span_id=f"{at.span_id:016x}")

        async def noting(message: Message) -> None:
            if (status := message.get("status")) is not None:
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(self._failed)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if (route := scope.get("route")) is not None:
                template = getattr(route, "path", path)  # busy paths are routed by us, as they are
                span.update_name(f"{method} {template}")
                span.set_attribute("http.route", template)
            told = logs.concerned()
            span.set_attributes(
                {of: told[name] for name, of in ATTRIBUTES.items() if told.get(name) is not None}
            )
            span.end()

    async def _flush(self) -> None:
        """Send what is left, as far as the collector takes it in time."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, FLUSH_S)

"""What an OTLP collector does with spans that come over HTTP: it keeps them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import until

EXPORTER = "opentelemetry.exporter.otlp.proto.http"


class Receiver(ThreadingHTTPServer):
    """`bodies` are what was sent, as it was."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def resources(self) -> list[Any]:
        """Spans by the service that sent them."""
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

        read = trace_service_pb2.ExportTraceServiceRequest.FromString
        return [one for body in list(self.bodies) for one in read(body).resource_spans]

    def spans(self) -> list[Any]:
        return [span for of in self.resources() for scope in of.scope_spans for span in scope.spans]

    def named(self, name: str) -> Any:
        until(lambda: any(span.name == name for span in self.spans()), f"a span {name!r} comes")
        return next(span for span in self.spans() if span.name == name)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()

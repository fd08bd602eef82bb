"""A real HTTP server that answers as a service does, or with what a test scripts."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

DROP = "close the connection without an answer"
DECISION: dict[str, Any] = {
    "policy": "default",
    "version": "3",
    "snapshot": 42,
    "arm": "small",
    "provider": "local",
    "model": "m-7b",
    "endpoint": None,
    "propensity": 0.9,
    "confidence": None,
    "predicted": {"quality": 0.7, "latency_ms": None, "cost_usd": 0.0001},
    "alternatives": [
        {
            "arm": "large",
            "provider": "p",
            "model": "m-70b",
            "propensity": 0.1,
            "predicted": {},
            "plan": None,
        }
    ],
    "plan": None,
    "logged": True,
    "notes": [],
    "a_field_of_the_future": [1],
}
TOTALS = {
    "predicted_cost_usd": 0.00154,
    "baseline_cost_usd": 0.0028,
    "saving": 0.45,
    "predicted_wall_ms": None,
}
RECEIPT = {
    "accepted": ["quality"],
    "unchanged": [],
    "missing": ["cost_usd"],
    "late": False,
    "notes": [],
}
OVERRULED = {"corrected": ["quality"], "unchanged": ["cost_usd"]}
NOT_FOUND = {
    "type": "/problems/unknown-decision",
    "title": "Unknown decision",
    "status": 404,
    "detail": "no decision 'x'",
}


class Service:
    """Answers each request with what it asks for, or with the next scripted reply."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.replies: list[Any] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            answers: ClassVar[dict[str, Any]] = {
                "/route": lambda body: {**DECISION, "decision_id": body["decision_id"]},
                "/reward": lambda body: {**RECEIPT, "decision_id": body["decision_id"]},
                "/correction": lambda body: {**OVERRULED, "decision_id": body["decision_id"]},
                "/arms": lambda _: {"arms": [{"arm": "small", "enabled": True}]},
                "/policies": lambda _: {"policies": [{"policy": "default"}]},
            }

            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                self._reply(json.loads(self.rfile.read(size)))

            def do_GET(self) -> None:
                self._reply(None)

            def _reply(self, body: Any) -> None:
                service.requests.append((self.command, self.path, body))
                reply = service.replies.pop(0) if service.replies else None
                if reply is DROP:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, content, *headers = reply or (200, self.answers[self.path](body))
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def bodies(self, path: str) -> list[Any]:
        return [body for _, asked, body in self.requests if asked == path]

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

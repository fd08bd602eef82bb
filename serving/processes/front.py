"""What stands between the network and the application: requests are let in, refused or cut off.

In the protocol, and not in the application, for what is refused must cost next to nothing: half of
what it costs there.
"""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.access.admission import Admission, Place, refusal
from serving.observing import metrics
from serving.processes.joined import OneWrite
from serving.settings import Settings

PROBES = ("/healthz", "/readyz")
MOST_HEAD = 65_536  # bytes of a request that are no body: a server keeps them all
SPARE_FILES = 128  # descriptors that are no client's connection
_CLOSE = b"connection: close\r\n"


class Front(OneWrite):
    """A connection. A request is handed on when it is complete; one whose body is large, when as
    much of it has come as is kept here."""

    def __init__(
        self, *given: Any, admission: Admission, most: int, timeout_s: float, **named: Any
    ) -> None:
        super().__init__(*given, **named)
        self._admission, self._most, self._timeout_s = admission, most, timeout_s
        self._awaited = ""  # what of a request is still coming: "head", "body" or nothing
        self._head = 0  # bytes of it that were no body
        self._held: tuple[RequestResponseCycle, Any] | None = None  # until its body is complete
        self._upload: Place | None = None
        self._timer: asyncio.TimerHandle | None = None  # for what is to come in
        self._unread: asyncio.TimerHandle | None = None  # for what goes out

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._refuse_connection()
        else:
            self._wait_for_more()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # What comes in

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head += len(data)
        if self._awaited and self._head > MOST_HEAD:
            self._turn_away(431, "Request Header Fields Too Large", "too-large")
            return
        answered = self.cycle is None or self.cycle.response_complete
        idle = answered and self.timeout_keep_alive_task is None
        if self._timer is None and (self._awaited or idle):
            self._wait_for_more()

    def on_message_begin(self) -> None:
        self._awaited = "head"
        self._head = min(self._head, 0)  # below 0 by a body that has come in the same piece
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._awaited = "body"
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head -= len(body)
        super().on_body(body)
        if self._held is not None and len(self.cycle.body) > HIGH_WATER_LIMIT:
            self._hand_on()

    def on_message_complete(self) -> None:
        self._awaited = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().on_message_complete()
        if self._held is not None:
            self._hand_on()
        elif self._upload is not None:
            self._upload.received(int(self._declared() or HIGH_WATER_LIMIT))
            self._upload = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._held = cycle, app
        if not cycle.more_body or cycle.waiting_for_100_continue:
            self._hand_on()

    def _hand_on(self) -> None:
        assert self._held is not None
        (cycle, app), self._held = self._held, None
        if cycle.scope["path"] in PROBES:
            super()._start_asgi_task(cycle, app)
            return
        if cycle.more_body:
            place = self._upload = self._admission.upload()
        else:
            place = self._admission.request(len(cycle.body))
        if place is None:
            self._refuse(cycle)
            return

        async def counted(*asgi: Any) -> None:
            try:
                await app(*asgi)
            finally:
                if place is self._upload:
                    self._upload = None
                place.leave()

        super()._start_asgi_task(cycle, counted)

    def _declared(self) -> str:
        return next((v.decode() for n, v in self.headers if n == b"content-length"), "")

    # What is turned away

    def _refuse(self, cycle: RequestResponseCycle) -> None:
        """Answer without the application; what is still to come of the body is dropped."""
        metrics.problems(429, "overloaded").inc()
        cycle.response_started = cycle.response_complete = True
        head, body = self._admission.refusal
        # Nobody knows whether a body comes that wasn't asked for yet.
        keep = cycle.keep_alive and not cycle.waiting_for_100_continue
        body = b"" if cycle.scope["method"] == "HEAD" else body
        self.transport.write(head + (b"" if keep else _CLOSE) + b"\r\n" + body)
        if not keep:
            self.transport.close()
        self.on_response_complete()

    def _refuse_connection(self) -> None:
        metrics.problems(429, "overloaded").inc()
        head, body = self._admission.refusal
        self.transport.write(head + _CLOSE + b"\r\n" + body)
        self.transport.close()

    def _wait_for_more(self) -> None:
        self._timer = self.loop.call_later(self._timeout_s, self._cut)

    def _cut(self) -> None:
        """A client that takes too long to say what it wants."""
        self._timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is we who don't read
            self._wait_for_more()
            return
        self._turn_away(408, "Request Timeout", "incomplete")

    def _turn_away(self, status: int, reason: str, name: str) -> None:
        """Close, and say why to whoever has begun a request that has no answer yet."""
        if self._awaited == "head" or (self._awaited and not self.cycle.response_started):
            detail = f"a request has {MOST_HEAD} bytes beside its body at most, and comes in within"
            head, body = refusal(status, reason, name, f"{detail} {self._timeout_s:g} s")
            self.transport.write(head + _CLOSE + b"\r\n" + body)
        self.transport.close()

    # What goes out

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def config_of(settings: Settings, app: Any, **more: Any) -> uvicorn.Config:
    """A server's configuration: an application behind such connections."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    front = partial(
        Front,
        admission=Admission(settings.max_inflight),
        most=min(settings.max_connections, max(files - SPARE_FILES, 1)),
        timeout_s=settings.request_timeout_s,
    )
    return uvicorn.Config(
        app,
        http=front,  # type: ignore[arg-type]
        ws="none",
        log_level="warning",
        access_log=False,
        **more,
    )


def may_open_many() -> None:
    """Let this process open as many files as it may: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

"""What stands between the network and the application: requests are let in, refused or cut off.

In the protocol, and not in the application, for what is refused must cost next to nothing: half of
what it costs there.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.access.admission import RETRY_AFTER_S, Admission, Place
from serving.observing import metrics
from serving.processes.incoming import CLOSE, Incoming
from serving.settings import Settings

PROBES = ("/healthz", "/readyz")
SPARE_FILES = 128  # descriptors that are no client's connection


class Front(Incoming):
    """A connection. A request is handed on when it is complete; one whose body is large, when as
    much of it has come as is kept here; one that says that its body is too large, at once."""

    def __init__(
        self, *given: Any, admission: Admission, held: Held, most_body: int, **named: Any
    ) -> None:
        super().__init__(*given, **named)
        self._admission, self._connections, self._most_body = admission, held, most_body
        self._held: tuple[RequestResponseCycle, Any] | None = None  # until its body is complete
        self._upload: Place | None = None
        self._unread: asyncio.TimerHandle | None = None  # for what goes out

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        silent = self._connections.silent
        silent[self] = None
        self.wait_for_more()
        if len(self.connections) > self._connections.most:
            oldest = next(iter(silent))
            del silent[oldest]
            oldest.give_way()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.silent.pop(self, None)
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def give_way(self) -> None:
        """To another one."""
        detail = f"{self._connections.most} connections are held, as many as may be"
        more = CLOSE + f"retry-after: {RETRY_AFTER_S}\r\n".encode()
        self.turn_away(429, "Too Many Requests", "overloaded", detail, more)

    # What comes in

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self._held is not None and len(self.cycle.body) > HIGH_WATER_LIMIT:
            self._hand_on()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._awaited:
            return
        self._connections.silent.pop(self, None)
        if self._held is not None:
            self._hand_on()
        elif self._upload is not None:
            self._upload.received(_declared(self.cycle) or HIGH_WATER_LIMIT)
            self._upload = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._held = cycle, app
        complete = not cycle.more_body
        if complete or cycle.waiting_for_100_continue or _declared(cycle) > self._most_body:
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

    def _refuse(self, cycle: RequestResponseCycle) -> None:
        """Answer without the application; what is still to come of the body is dropped."""
        metrics.problems(429, "overloaded").inc()
        cycle.response_started = cycle.response_complete = True
        head, body = self._admission.refusal
        # Nobody knows whether a body comes that wasn't asked for yet.
        keep = cycle.keep_alive and not cycle.waiting_for_100_continue
        body = b"" if cycle.scope["method"] == "HEAD" else body
        self.transport.write(head + (b"" if keep else CLOSE) + b"\r\n" + body)
        if not keep:
            self.transport.close()
        self.on_response_complete()

    # What goes out

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


@dataclass(frozen=True)
class Held:
    """Connections of a process: how many there may be, and those that have sent no whole request
    yet, the oldest first. These give way to new ones."""

    most: int
    silent: dict[Front, None] = field(default_factory=dict)


def _declared(cycle: RequestResponseCycle) -> int:
    """Bytes of a body, where its length is declared."""
    given = (value for name, value in cycle.scope["headers"] if name == b"content-length")
    return int(next(given, b"0"))


def config_of(settings: Settings, app: Any, **more: Any) -> uvicorn.Config:
    """A server's configuration: an application behind such connections."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    front = partial(
        Front,
        admission=Admission(settings.max_inflight),
        held=Held(min(settings.max_connections, max(files - SPARE_FILES, 1))),
        most_body=max(settings.max_body_bytes, settings.max_query_bytes),
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

"""Requests as they come in: bounded in size and time, and what is none is told so as a problem."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools

from serving.access.admission import refusal
from serving.observing import metrics
from serving.processes.joined import OneWrite

MOST_HEAD = 65_536  # bytes of a request that are no body: a server keeps them all
CLOSE = b"connection: close\r\n"
_BROKEN = (
    "this can't be read as HTTP/1.1: a method, a path, headers, and a body whose length is "
    "declared once"
)


class HeadTooLarge(ValueError):
    """A head that has come in whole has more bytes than are kept."""


class Incoming(OneWrite):
    """A connection on which a request has `timeout_s` to come in."""

    def __init__(self, *given: Any, timeout_s: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self._timeout_s = timeout_s
        self._awaited = ""  # what of a request is still coming: "head", "body" or nothing
        self._head = 0  # bytes of it that were no body, as far as they were parsed ...
        self._unparsed = 0  # ... and of what the parser keeps until it has an end
        self._parsed = False  # whether the last piece brought the end of anything
        self._timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._parsed = False
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, HeadTooLarge):
                self._too_large()
            else:
                self.turn_away(400, "Bad Request", "malformed-http", _BROKEN)
            return
        self._unparsed = 0 if self._parsed else self._unparsed + len(data)
        if self._awaited and max(self._head, self._unparsed) > MOST_HEAD:
            self._too_large()
            return
        answered = self.cycle is None or self.cycle.response_complete
        idle = answered and self.timeout_keep_alive_task is None
        if self._timer is None and (self._awaited or idle):
            self.wait_for_more()

    def _parse(self, data: bytes) -> None:
        """Where a client would rather speak another protocol (as Java's does), which the parser
        stops at, the head is parsed again without that: an upgrade is an offer."""
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as stopped:
                rest = rest[stopped.args[0] :]
                version = self.parser.get_http_version().encode()
                head = [
                    self.parser.get_method() + b" " + self.url + b" HTTP/" + version,
                    *(name + b": " + value for name, value in self.headers if name != b"upgrade"),
                ]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(b"\r\n".join((*head, b"", b"")))

    def _is_offer(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def on_message_begin(self) -> None:
        self._awaited, self._head, self._parsed = "head", 0, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head += len(url)
        self._parsed = True
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value) + len(": \r\n")
        self._parsed = True
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head > MOST_HEAD:
            raise HeadTooLarge
        if not self._is_offer():
            super().on_headers_complete()  # which raises where there is no path
            self._awaited = "body"

    def on_body(self, body: bytes) -> None:
        self._parsed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_offer():
            return
        self._awaited = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().on_message_complete()

    def wait_for_more(self) -> None:
        self._timer = self.loop.call_later(self._timeout_s, self._cut)

    def _cut(self) -> None:
        """A client that takes too long to say what it wants."""
        self._timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is we who don't read
            self.wait_for_more()
            return
        detail = f"a request comes in within {self._timeout_s:g} s"
        if self._awaited:
            self.turn_away(408, "Request Timeout", "incomplete", detail)
        else:
            self.transport.close()

    def _too_large(self) -> None:
        detail = f"a request has {MOST_HEAD} bytes beside its body at most"
        self.turn_away(431, "Request Header Fields Too Large", "too-large", detail)

    def turn_away(
        self, status: int, reason: str, name: str, detail: str, more: bytes = CLOSE
    ) -> None:
        """Close, and say why (with `more` lines of head) where the request that is coming in has no
        answer yet; not before those before it have theirs."""
        mine = self._awaited == "body"  # the last cycle is of this very request
        answered = self.cycle is None or self.cycle.response_complete
        if not mine and not answered:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if not mine or not (self.cycle.response_started or self.pipeline):
            metrics.problems(status, name).inc()
            head, body = refusal(status, reason, name, detail)
            self.transport.write(head + more + b"\r\n" + body)
        self.transport.close()

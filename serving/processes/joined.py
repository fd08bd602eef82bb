"""A response's head and body in one write: each write is a system call, and wakes the client."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 5.0  # that a closed connection may take to be read to its end


class OneWrite(HttpToolsProtocol):
    """uvicorn's protocol, which writes a head as soon as it is known, on such a transport."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Joined(transport))  # type: ignore[arg-type]


class Joined:
    """A transport that writes what it is given in one turn of the event loop together."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():  # perhaps nobody reads it
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

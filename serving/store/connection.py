"""How Redis is reached."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff

from serving.store.connecting import clients
from serving.store.connecting.address import Address
from serving.store.waiting import in_time

SERVING_TIMEOUT_S = 2.0  # what a service waits in the background, for one reply
_RETRIES = 6  # some 0.7 s in all: a server that starts again may be back by then


def connect(url: str) -> Any:
    """Connections for serving. Their type is Any, for redis-py's allows str wherever bytes come
    back."""
    # A lost connection is tried again at once; a server that hangs is not waited for twice.
    lost = (exceptions.ConnectionError,)
    retry = AsyncRetry(ExponentialBackoff(cap=0.2, base=0.02), _RETRIES, supported_errors=lost)
    return clients.concurrent(
        url, retry=retry, socket_timeout=SERVING_TIMEOUT_S, socket_connect_timeout=1.0
    )


async def hints(redis: Any, channels: Sequence[str], timeout_s: float) -> AsyncIterator[None]:
    """Yield after each message of these channels, and at least every `timeout_s`.

    A hint may be lost, so whoever follows looks at the store at every turn.
    """
    while True:
        with suppress(exceptions.ConnectionError, exceptions.TimeoutError, OSError):
            async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(*channels)
                while True:
                    await pubsub.get_message(timeout=timeout_s)
                    yield
        yield
        await asyncio.sleep(timeout_s)


class Direct:
    """Runs scripts over one connection that all requests share, and where it can't, over redis-py.

    redis-py's way through pool, locks and retries takes three times the CPU time. But it knows how
    to reach a server again, to give it its scripts, and what each error means: so whatever is no
    plain answer goes its way, a second time. Only for scripts that may run twice.
    """

    def __init__(self, url: str, timeout_s: float = SERVING_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._to = {} if Address.of(url).seeds else parse_url(url)
        known = {"path", "host", "port", "db", "username", "password", "connection_class"}
        plain = self._to.get("connection_class") is not SSLConnection
        self._may_dial = bool(self._to) and plain and self._to.keys() <= known
        self._line: _Line | None = None
        self._closed = False

    async def run(
        self,
        script: Any,
        keys: Sequence[str],
        arguments: Sequence[str | bytes | int | float],
    ) -> Any:
        """A script's reply; redis-py's exceptions, or TimeoutError."""
        line = self._line
        if line is not None and line.is_open:
            try:
                sent = line.send("EVALSHA", script.sha, len(keys), *keys, *arguments)
                reply = await in_time(sent, self._timeout_s)
            except TimeoutError:
                line.close()
                raise
            except ConnectionError:
                pass
            else:
                if not isinstance(reply, hiredis.HiredisError):
                    return reply
        reply = await in_time(script(keys=keys, args=arguments), self._timeout_s)
        # Another request may have dialled meanwhile, or be about to; or this is over.
        if self._may_dial and (self._line is None or not self._line.is_open):
            self._may_dial = False
            self._line = await self._dialled()
            if self._closed and self._line is not None:
                self._line.close()
            self._may_dial = not self._closed
        return reply

    async def _dialled(self) -> _Line | None:
        loop, to = asyncio.get_running_loop(), self._to
        try:
            async with asyncio.timeout(1.0):
                if "path" in to:
                    _, line = await loop.create_unix_connection(_Line, to["path"])
                else:
                    host, port = to.get("host", "localhost"), to.get("port", 6379)
                    _, line = await loop.create_connection(_Line, host, port)
                greetings: list[tuple[str | int, ...]] = [("SELECT", to.get("db", 0))]
                if "password" in to:
                    names = [to["username"]] if "username" in to else []
                    greetings.insert(0, ("AUTH", *names, to["password"]))
                replies = [await line.send(*greeting) for greeting in greetings]
        except OSError:
            return None
        if any(isinstance(reply, hiredis.HiredisError) for reply in replies):
            line.close()
        return line

    def close(self) -> None:
        self._may_dial, self._closed = False, True
        if self._line is not None:
            self._line.close()


class _Line(asyncio.Protocol):
    """A connection that answers commands in their order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def send(self, *command: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._transport.write(hiredis.pack_command(command))
        return future

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(ConnectionError("the connection was lost"))

    def close(self) -> None:
        self._transport.close()

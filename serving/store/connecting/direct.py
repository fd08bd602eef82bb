"""The way of decisions and rewards: connections of our own, one to each server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio.connection import SSLConnection
from redis.crc import key_slot

from serving.store.connecting import clients
from serving.store.connecting.address import Address, Place
from serving.store.keys import StoreUnavailable, waited
from serving.store.waiting import in_time

DIAL_S = 1.0
WAIT_SHARE = 0.8  # of a request's time, that replicas are waited for: what came of it is to be read
_HERE: Place = ("", 0)  # the one server, or whoever is the master
_NOTHING = object()

_Way = tuple[Place, str]  # to a server, and what it is kept for


class Direct:
    """Runs scripts over connections that all requests share, and where it can't, over redis-py.

    redis-py's way through pool, locks and retries takes three times the CPU time. But it knows how
    to reach a server again, to give it its scripts, and what each error means: so whatever is no
    plain answer goes its way, a second time. Only for scripts that may run twice.

    With `replicas`, whatever a script replies counts once so many replicas have all that its server
    had written then. Only the connection that wrote can tell, and it does nothing else meanwhile:
    each policy then has two of its own, for decisions and for rewards.
    """

    def __init__(self, url: str, client: Any, timeout_s: float, replicas: int = 0) -> None:
        self._to = Address.of(url)
        self._client = client
        self._timeout_s = timeout_s
        self._replicas = replicas
        self._lines: dict[_Way, _Line] = {}
        self._dialling: dict[_Way, asyncio.Task[None]] = {}
        self._closed = False

    async def run(
        self,
        script: Any,
        keys: Sequence[str],
        arguments: Sequence[str | bytes | int | float],
    ) -> Any:
        """A script's reply; the first key is a policy's.

        Raises
        ------
        redis-py's exceptions, or TimeoutError
        StoreUnavailable
            If too few replicas have it yet. It may be stored.
        """
        commands: list[tuple[Any, ...]] = [
            ("EVALSHA", script.sha, len(keys), *keys, *arguments),
        ]
        if self._replicas:
            wait_ms = max(round(WAIT_SHARE * 1_000 * self._timeout_s), 1)
            # A repeated call writes nothing, and a connection waits for what it has written.
            commands += [("SET", waited(keys[0]), ""), ("WAIT", self._replicas, wait_ms)]
        reply = await self._sent(keys, commands)
        if reply is not _NOTHING:
            return reply
        reply = await in_time(script(keys=keys, args=arguments), self._timeout_s)
        await self._dial(self._way(keys))
        if self._replicas and await self._sent(keys, commands) is _NOTHING:
            raise ConnectionError("no connection to ask for replicas")
        return reply

    async def _sent(self, keys: Sequence[str], commands: Sequence[tuple[Any, ...]]) -> Any:
        """The first command's reply, or _NOTHING where that is to be had otherwise."""
        way = self._way(keys)
        line = None if way is None else self._lines.get(way)
        if line is None or not line.is_open:
            return _NOTHING
        try:
            replies = await in_time(line.send(*commands), self._timeout_s)
        except TimeoutError:
            line.close()
            raise
        except ConnectionError:
            return _NOTHING
        errors = [reply for reply in replies if isinstance(reply, hiredis.HiredisError)]
        if errors:
            if str(errors[0]).startswith("READONLY"):  # another one is the master now
                line.close()
            return _NOTHING
        if self._replicas and replies[-1] < self._replicas:
            raise StoreUnavailable(
                f"{replies[-1]} of {self._replicas} replicas have it: it may be stored, and the "
                "same id, sent again, gets the answer that is"
            )
        return replies[0]

    def _way(self, keys: Sequence[str]) -> _Way | None:
        """Which connection's answer is wanted; None where redis-py doesn't know yet who has it."""
        kept_for = keys[0] if self._replicas else ""
        if self._to.kind != "cluster":
            return _HERE, kept_for
        nodes = self._client.nodes_manager.slots_cache.get(key_slot(keys[0].encode()))
        return ((nodes[0].host, nodes[0].port), kept_for) if nodes else None

    async def _dial(self, way: _Way | None) -> None:
        """Open a connection where there is none, unless this is over; requests dial together."""
        line = None if way is None else self._lines.get(way)
        if way is None or self._closed or (line is not None and line.is_open):
            return
        if way not in self._dialling:
            self._dialling[way] = asyncio.create_task(self._open(way))
        await asyncio.shield(self._dialling[way])

    async def _open(self, way: _Way) -> None:
        try:
            async with asyncio.timeout(DIAL_S):
                line = await self._dialled(way[0])
        except (OSError, clients.NOT_FOUND):
            return
        finally:
            del self._dialling[way]
        self._lines[way] = line
        if self._closed:
            line.close()

    async def _dialled(self, place: Place) -> _Line:
        loop, options = asyncio.get_running_loop(), self._to.options
        if "path" in options:
            _, line = await loop.create_unix_connection(_Line, options["path"])
        else:
            if self._to.kind == "sentinel":
                place = await asyncio.to_thread(clients.master, self._to)
            elif self._to.kind == "server":
                place = options.get("host", "localhost"), options.get("port", 6379)
            safe = _tls(options, place[0]) if self._to.tls else {}
            _, line = await loop.create_connection(_Line, *place, **safe)
        greetings: list[tuple[str | int, ...]] = [("SELECT", options.get("db", 0))]
        if options.get("password"):
            names = [options["username"]] if options.get("username") else []
            greetings.insert(0, ("AUTH", *names, options["password"]))
        replies = await line.send(*greetings)
        if any(isinstance(reply, hiredis.HiredisError) for reply in replies):
            line.close()
        return line

    def close(self) -> None:
        self._closed = True
        for line in self._lines.values():
            line.close()


def _tls(options: dict[str, Any], host: str) -> dict[str, Any]:
    """As redis-py would have it."""
    given = {name: value for name, value in options.items() if name.startswith("ssl_")}
    made: Any = SSLConnection(**given)
    return {"ssl": made.ssl_context.get(), "server_hostname": host}


class _Line(asyncio.Protocol):
    """A connection that answers commands in their order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int]] = deque()
        self._replies: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def send(self, *commands: tuple[Any, ...]) -> asyncio.Future[list[Any]]:
        """The replies to all of these commands."""
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, len(commands)))
        self._transport.write(b"".join(map(hiredis.pack_command, commands)))
        return future

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._replies.append(reply)
            future, count = self._waiting[0]
            if len(self._replies) == count:
                self._waiting.popleft()
                replies, self._replies = self._replies, []
                if not future.done():
                    future.set_result(replies)

    def connection_lost(self, error: Exception | None) -> None:
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(ConnectionError("the connection was lost"))

    def close(self) -> None:
        self._transport.close()

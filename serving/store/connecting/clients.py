"""Clients of whatever an address means. All that talk to Redis open theirs here.

Their types are Any, for redis-py's allow str wherever bytes come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import redis.asyncio
import redis.asyncio.cluster
from redis import exceptions
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import Connection, SSLConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from serving.store.connecting.address import Address, Place

CONNECTION: dict[str, Any] = {"socket_timeout": 5.0, "socket_connect_timeout": 2.0}
SERVING_TIMEOUT_S = 2.0  # what a service waits in the background, for one reply
_RETRIES = 6  # some 0.7 s in all: a server that starts again may be back by then
FAILED = exceptions.RedisError  # whatever a server says, or the way to it
NOT_FOUND = exceptions.ConnectionError  # nobody knows where a server is
LOST = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.RedisClusterException,  # no node answers, or a slot is nobody's
    OSError,
)
_ELSEWHERE = (exceptions.AskError, exceptions.MovedError, exceptions.ReadOnlyError)


def serving(url: str) -> Any:
    """Connections for what a service asks at once, to all policies."""
    # A lost connection is tried again at once; a server that hangs is not waited for twice.
    lost = (exceptions.ConnectionError,)
    backoff = ExponentialBackoff(cap=0.2, base=0.02)
    options: dict[str, Any] = {
        "retry": AsyncRetry(backoff, _RETRIES, supported_errors=lost),
        "socket_timeout": SERVING_TIMEOUT_S,
        "socket_connect_timeout": 1.0,
    }
    to = Address.of(url)
    if to.kind == "cluster":
        nodes = [redis.asyncio.cluster.ClusterNode(*seed) for seed in to.seeds]
        # Else it closes all connections after five redirections, those that others wait on too.
        options |= {"startup_nodes": nodes, "ssl": to.tls, "reinitialize_steps": 0}
        return _Cluster(**options | to.options)
    if to.kind == "sentinel":
        pool = redis.asyncio.ConnectionPool(
            connection_class=_AsyncFindingTLS if to.tls else _AsyncFinding,
            find=partial(master, to),
            **options | to.options,
        )
        return redis.asyncio.Redis.from_pool(pool)
    return redis.asyncio.Redis.from_url(url, **options)


async def ping(client: Any) -> None:
    """Return once a server that is written to has answered, of a cluster any; redis-py's exceptions
    where none does."""
    if not isinstance(client, redis.asyncio.RedisCluster):
        await client.ping()
        return
    await client.initialize()
    asked = [asyncio.ensure_future(client.ping(target_nodes=at)) for at in client.get_primaries()]
    for one in asked:
        one.add_done_callback(lambda done: done.cancelled() or done.exception())  # is retrieved
    try:
        await _first(asked)
    finally:
        for one in asked:
            one.cancel()


async def _first(asked: Collection[asyncio.Future[Any]]) -> None:
    """Until one of them is done well; an error of theirs where none is."""
    error: BaseException | None = None
    while asked:
        done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            error = one.exception()
            if error is None:
                return
    raise error or exceptions.ConnectionError("no node is a master")


def blocking(
    url: str, key: str, *, once: bool = False, connected: Callable[[Any], None] | None = None
) -> Any:
    """Connections to the server that has `key`, and all keys with its hash tag.

    When another server has taken over, a call fails as it does when the connection is lost, for
    what this one wrote last may be lost; the next one finds the new server. With `once`, nothing is
    tried a second time; `connected` greets each new connection, or refuses it.
    """
    options = CONNECTION | ({"retry": Retry(NoBackoff(), 0)} if once else {})
    if connected is not None:
        options["redis_connect_func"] = connected
    to = Address.of(url)
    if to.kind == "server":
        return redis.Redis.from_url(url, **options)
    find = partial(master, to)
    if to.kind == "cluster":
        find = partial(owner, to, key_slot(key.encode()), [*to.seeds])
    pool = redis.ConnectionPool(
        connection_class=_FindingTLS if to.tls else _Finding, find=find, **options | to.options
    )
    return redis.Redis.from_pool(pool)


def each(url: str) -> dict[str, Any]:
    """A client of each server that is written to, by host and port ('' where but one is named)."""
    to = Address.of(url)
    if to.kind == "server":
        return {"": redis.Redis.from_url(url, **CONNECTION)}
    return {f"{host}:{port}": one(host, port, to.tls, to.options) for host, port in masters(to)}


def masters(to: Address) -> list[Place]:
    """The servers that are written to, of a cluster or that Sentinels watch; ConnectionError where
    nobody knows, or a slot is nobody's."""
    if to.kind == "sentinel":
        return [master(to)]
    found = ranges(to, [*to.seeds])
    covered = sum(last - first + 1 for first, last, _ in found)
    if covered < REDIS_CLUSTER_HASH_SLOTS:
        missing = REDIS_CLUSTER_HASH_SLOTS - covered
        raise exceptions.ConnectionError(f"{missing} of its slots are nobody's")
    return sorted({place for _, _, place in found})


def master(to: Address) -> Place:
    """Who is the master of a service, as the first Sentinel that knows says; ConnectionError where
    none does."""
    said = "no Sentinel is named"
    for host, port in to.seeds:
        try:
            with one(host, port, to.tls, to.sentinel_options or {}) as client:
                found: Any = client.sentinel_get_master_addr_by_name(to.service)
        except (exceptions.RedisError, OSError) as error:
            said = str(error)
            continue
        if found is not None:
            return _text(found[0]), int(found[1])
        said = f"the Sentinel on {host}:{port} knows no service {to.service!r}"
    raise exceptions.ConnectionError(said)


def owner(to: Address, slot: int, known: list[Place]) -> Place:
    """Which master of a cluster has a slot, as the first of the `known` nodes that answers says;
    all that it names are known then. ConnectionError where none does."""
    for first, last, place in ranges(to, known):
        if first <= slot <= last:
            return place
    raise exceptions.ConnectionError(f"no node of the cluster has slot {slot}")


def ranges(to: Address, known: list[Place]) -> list[tuple[int, int, Place]]:
    """First slot, last slot and master of each range of a cluster's slots; as `owner`."""
    said = "no node is named"
    for host, port in known:
        try:
            with one(host, port, to.tls, to.options) as client:
                found: Any = client.execute_command("CLUSTER SLOTS")
        except (exceptions.RedisError, OSError) as error:
            said = str(error)
            continue
        shards = [(a, b, [_place(at, host) for at in nodes]) for a, b, *nodes in found]
        named = {place: None for _, _, nodes in shards for place in nodes}
        known[:] = [*to.seeds, *(place for place in named if place not in to.seeds)]
        return [(int(a), int(b), nodes[0]) for a, b, nodes in shards]
    raise exceptions.ConnectionError(said)


def _place(node: Sequence[Any], host: str) -> Place:
    """Of a node; it may not know its own host, which is then the one that was asked."""
    return _text(node[0]) or host, int(node[1])


def one(host: str, port: int, tls: bool, options: dict[str, Any]) -> redis.Redis:
    """A client of one node or Sentinel, for one question."""
    kind = SSLConnection if tls else Connection
    once = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 1.0, "socket_connect_timeout": 1.0}
    pool = redis.ConnectionPool(connection_class=kind, host=host, port=port, **options | once)
    return redis.Redis.from_pool(pool)


def _text(word: str | bytes) -> str:
    return word.decode() if isinstance(word, bytes) else word


class _Finding(Connection):
    """Asks where its server is each time that it connects."""

    def __init__(self, *, find: Callable[[], Place], **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._find = find

    def _connect(self) -> Any:
        self.host, self.port = self._find()
        return super()._connect()  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except _ELSEWHERE as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise exceptions.ConnectionError(f"another server has taken over: {error}") from error


class _FindingTLS(_Finding, SSLConnection):
    pass


class _AsyncFinding(AsyncConnection):
    """Asks where its server is each time that it connects."""

    def __init__(self, *, find: Callable[[], Place], **options: Any) -> None:
        super().__init__(**options)
        self._find = find

    async def _connect(self) -> None:
        self.host, self.port = await asyncio.to_thread(self._find)
        await super()._connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except _ELSEWHERE as error:
            await self.disconnect()
            raise exceptions.ConnectionError(f"another server has taken over: {error}") from error


class _Cluster(redis.asyncio.RedisCluster):
    """redis-py's, where many commands are sent at once."""

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        await self.initialize()  # else what comes before the first reply goes to any node
        try:
            return await super().execute_command(*words, **options)
        except AttributeError as error:
            # It closes all connections when the cluster is down, those that are being opened too.
            raise exceptions.ConnectionError("the connection was closed meanwhile") from error


class _AsyncFindingTLS(_AsyncFinding, AsyncSSLConnection):
    pass

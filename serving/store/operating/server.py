"""What a Redis server says of itself: persistence, memory, replicas, clock."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

from redis import exceptions

from serving.store.connecting.clients import each
from serving.store.waiting import reachable


@dataclass(frozen=True, slots=True)
class Server:
    """As it is now. `fsync` and `min_replicas` are None where it lets nobody read its settings;
    `failures` names what of its persistence went wrong when it was last tried, and `skew_ms` is its
    clock minus ours, known to `unsure_ms`."""

    version: str
    role: str
    append_only: bool
    fsync: str | None
    snapshots: bool
    failures: tuple[str, ...]
    eviction: str
    memory_bytes: int
    max_memory_bytes: int
    replicas: int
    min_replicas: int | None
    skew_ms: float
    unsure_ms: float


def look(url: str) -> dict[str, Server]:
    """Each server that is written to, by host and port; StoreUnavailable where one doesn't
    answer."""
    with reachable(), ExitStack() as opened:
        clients = {name: opened.enter_context(closing(c)) for name, c in each(url).items()}
        return {name: _look(client) for name, client in clients.items()}


def _look(client: Any) -> Server:
    before, (s, us), after = time.time(), client.time(), time.time()
    info: Any = client.info()
    tried = {
        "the append-only file": info.get("aof_last_write_status", "ok"),
        "rewriting the append-only file": info.get("aof_last_bgrewrite_status", "ok"),
        "the last snapshot": info.get("rdb_last_bgsave_status", "ok"),
    }
    return Server(
        version=str(info.get("valkey_version") or info.get("redis_version", "unknown")),
        role=info.get("role", "master"),
        append_only=bool(info.get("aof_enabled")),
        fsync=_setting(client, "appendfsync"),
        snapshots=bool(_setting(client, "save")),
        failures=tuple(name for name, status in tried.items() if status != "ok"),
        eviction=info.get("maxmemory_policy", "noeviction"),
        memory_bytes=int(info["used_memory"]),
        max_memory_bytes=int(info.get("maxmemory", 0)),
        replicas=int(info.get("connected_slaves", 0)),
        min_replicas=_number(_setting(client, "min-replicas-to-write")),
        skew_ms=1_000 * (s + us / 1e6 - (before + after) / 2),
        unsure_ms=1_000 * (after - before) / 2,
    )


def _setting(client: Any, name: str) -> str | None:
    """None where the server lets nobody read it, as hosted ones do."""
    with suppress(exceptions.ResponseError):
        found: str | None = client.config_get(name).get(name)
        return found
    return None


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)

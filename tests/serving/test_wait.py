"""With POINTSMAN_WAIT_REPLICAS nothing is acknowledged that a failover could lose."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from benchmarks.shards.valkeys import Node, free_ports
from serving.store.archiving import ArchiverStore
from serving.store.keys import Keys, StoreUnavailable
from serving.store.traffic import Report, Store, Stored
from tests.servers import http_service, settings_for, until
from tests.serving.test_direct import decision

TIMEOUT_S = 0.5


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """A server and its replica."""
    ports = free_ports(2)
    options = {"repl-diskless-sync-delay": "0"}
    primary, replica = (Node(port, tmp_path / str(port), options) for port in ports)
    try:
        primary.start()
        replica.start("--replicaof", f"127.0.0.1 {primary.port}")
        until(lambda: _linked(replica), "the replica follows", 30.0)
        yield primary, replica
    finally:
        for node in (primary, replica):
            if node.process is not None:
                node.kill()


def _linked(replica: Node) -> bool:
    with replica.client() as client:
        return bool(client.info("replication")["master_link_status"] == "up")


def test_an_answer_waits_for_the_replica(pair: tuple[Node, Node]):
    """It has decision and reward when they are acknowledged. While it hangs nothing is, within the
    request's time, though it may be stored: the same id, sent again over whichever connection, is
    acknowledged once the replica has it."""
    primary, replica = pair
    url = f"redis://127.0.0.1:{primary.port}"

    async def run() -> None:
        store, other = (Store(url, TIMEOUT_S, wait_replicas=1) for _ in range(2))
        for i in range(3):
            assert await store.record("p", decision(f"d{i}"), 60_000) is None
            assert replica.ask("EXISTS", Keys("p").decision(f"d{i}"))
            receipt = await store.report("p", Report(f"d{i}", quality=0.5), 5, 1_000)
            assert receipt.accepted == ["quality"]
            assert replica.ask("XLEN", Keys("p").outcomes) == i + 1
        await other.record("p", decision("other"), 60_000)
        replica.signal(signal.SIGSTOP)
        for through in (store, other, other):
            start = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await through.record("p", decision("late"), 60_000)
            assert time.monotonic() - start < 4 * TIMEOUT_S
        replica.signal(signal.SIGCONT)
        again = await _when_available(other)
        assert isinstance(again, Stored)
        assert replica.ask("EXISTS", Keys("p").decision("late"))
        for one in (store, other):
            await one.close()

    asyncio.run(run())
    assert primary.ask("XLEN", Keys("p").decisions) == 5


def test_what_is_archived_is_what_the_replica_has(pair: tuple[Node, Node]):
    """While it hangs the archiver waits; a log would keep what a failover takes back. A full memory
    is no reason to wait: only the archiver can free any."""
    primary, replica = pair
    url = f"redis://127.0.0.1:{primary.port}"
    primary.ask("XADD", Keys("p").decisions, "*", "record", "{}")
    with closing(ArchiverStore(url, "p", wait_replicas=1)) as store:
        primary.ask("CONFIG", "SET", "maxmemory", "1")
        assert len(store.entries("decisions", "0-0", 10)) == 1
        replica.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            store.entries("decisions", "0-0", 10)
        replica.signal(signal.SIGCONT)
        assert len(store.entries("decisions", "0-0", 10)) == 1


async def _when_available(store: Store) -> object:
    deadline = time.monotonic() + 30.0
    while True:
        try:
            return await store.record("p", decision("late"), 60_000)
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


def test_too_few_replicas_are_a_503(pair: tuple[Node, Node], tmp_path: Path):
    """It says what to do; with as many as are asked for, nothing changes for a caller."""
    url = f"redis://127.0.0.1:{pair[0].port}"
    asked = {"decision_id": "d1", "query": {"text": "question"}}
    with http_service(settings_for(url, tmp_path, wait_replicas=2, store_timeout_ms=500)) as http:
        refused = http.post("/route", json=asked)
        assert refused.status_code == 503
        assert "1 of 2 replicas have it" in refused.json()["detail"]
    with http_service(settings_for(url, tmp_path, wait_replicas=1, store_timeout_ms=500)) as http:
        assert _made(http, asked) == _made(http, asked)


def _made(http: httpx.Client, asked: dict[str, object]) -> object:
    return http.post("/route", json=asked).raise_for_status().json()

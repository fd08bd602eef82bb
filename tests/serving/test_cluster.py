"""A cluster of three: policies spread over its nodes, and nothing else changes for a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.shards.valkeys import Cluster
from offline_eval.log.reading import read_rows
from pointsman.archiver import Window, archive_burst
from pointsman.backup.redis_state import load, save
from serving.store.connecting.checking import refusal
from serving.store.operating import contents
from serving.store.operating.server import look
from serving.store.traffic import Store
from tests.servers import CONFIG, http_service, learn_all, settings_for, until
from tests.serving.test_direct import decision

POLICIES = ("default", "b", "c", "d")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_policies_on_all_nodes_serve_learn_and_are_archived(cluster: Cluster, tmp_path: Path):
    """Whichever node has a policy's slot: its decisions are recorded, learned from and archived."""
    assert {cluster.owner(name).port for name in POLICIES} == {n.port for n in cluster.masters}
    config = CONFIG + "".join(f"\n[policies.{name}]\n" for name in POLICIES[1:])
    with http_service(settings_for(cluster.url, tmp_path, config)) as http:
        for name in POLICIES:
            ids = [_round(http, name, i) for i in range(5)]
            assert learn_all(cluster.url, name) == 5
            taken = lambda: http.get(f"/policies/{name}").json()["events"] == 5  # noqa: B023, E731
            until(taken, f"serving takes what policy {name} has learned")
            assert http.get(f"/decisions/{ids[0]}", params={"policy": name}).status_code == 200
    log = str(tmp_path / "log")
    archive_burst(cluster.url, log, {name: Window(60_000, 60_000) for name in POLICIES})
    assert len(list(read_rows(log))) == 5 * len(POLICIES)


def _round(http: httpx.Client, policy: str, i: int) -> str:
    """A decision and its reward; its id."""
    asked = http.post("/route", json={"policy": policy, "query": {"text": f"question {i}"}})
    decision_id: str = asked.raise_for_status().json()["decision_id"]
    outcome = {"quality": i / 4, "latency_ms": 100 + i, "cost_usd": 0.001}
    told = {"policy": policy, "decision_id": decision_id, **outcome}
    assert len(http.post("/reward", json=told).raise_for_status().json()["accepted"]) == 3
    return decision_id


def test_a_store_that_has_just_been_opened_is_asked_for_much_at_once(cluster: Cluster):
    """Nothing goes to a node that hasn't the slot, and no connection is closed under another's
    hands: redis-py does both, left to itself."""

    async def run() -> None:
        store = Store(cluster.url)
        names = [f"many-{i}" for i in range(40)]
        made = await asyncio.gather(*(store.record(name, decision("d"), 60_000) for name in names))
        assert made == [None] * len(names)
        assert await store.decision(names[0], "d")
        await store.close()

    asyncio.run(run())


def test_a_wrong_kind_of_address_is_refused(cluster: Cluster):
    """One node's address would work for a third of the policies; the refusal says what to write."""
    assert refusal(cluster.url) is None
    port = cluster.masters[0].port
    assert "write redis+cluster://" in str(refusal(f"redis://127.0.0.1:{port}"))
    assert "no cluster answers on 127.0.0.1:1" in str(refusal("redis+cluster://127.0.0.1:1"))


def test_each_node_is_looked_at(cluster: Cluster):
    """One that has no memory left, or keeps nothing, loses the policies that it has."""
    found = look(cluster.url)
    assert found.keys() == {f"127.0.0.1:{node.port}" for node in cluster.masters}
    assert all(seen.append_only for seen in found.values())


def test_it_is_put_away_and_set_up_again(cluster: Cluster, tmp_path: Path):
    """Each node's keys, back on the node that has their slot."""
    for name in POLICIES:
        with cluster.owner(name).client() as client:
            client.hset(f"pm:{{{name}}}:decision:put-away", "record", name)
            client.xadd(f"pm:{{{name}}}:audit", {"kind": name}, "2000000000000-1")
    table = tmp_path / "redis.parquet"
    keys = save(cluster.url, table).keys
    contents.clear(cluster.url)
    assert contents.count(cluster.url) == 0
    with table.open("rb") as file:
        assert load(file, cluster.url, 0) == keys
    assert contents.count(cluster.url) == keys
    for name in POLICIES:
        with cluster.owner(name).client() as client:
            assert client.hget(f"pm:{{{name}}}:decision:put-away", "record") == name.encode()
            assert client.xrevrange(f"pm:{{{name}}}:audit")[0][1] == {b"kind": name.encode()}

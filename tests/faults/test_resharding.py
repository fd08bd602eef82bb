"""A policy moves to another node of a cluster under traffic."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.shards.valkeys import Cluster, Node
from tests.faults.conftest import Recovered
from tests.faults.places import OFTEN
from tests.faults.test_failover import started
from tests.faults.traffic import Traffic
from tests.faults.verifying import Recovery, verify
from tests.servers import CONFIG, running_up, until

pytestmark = pytest.mark.faults


def at_once(cluster: Cluster, source: Node, target: Node, slot: int) -> None:
    """As Valkey 9 does it by itself: the slot is the source's until all of it is there."""
    source.ask("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", cluster.id_of(target))


def key_by_key(cluster: Cluster, source: Node, target: Node, slot: int) -> None:
    """As `valkey-cli --cluster reshard` does it."""
    target.ask("CLUSTER SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    source.ask("CLUSTER SETSLOT", slot, "MIGRATING", cluster.id_of(target))
    while keys := source.ask("CLUSTER GETKEYSINSLOT", slot, 50):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
        time.sleep(0.05)  # a slot of millions of keys takes a while
    for node in (target, source, *cluster.nodes):
        node.ask("CLUSTER SETSLOT", slot, "NODE", cluster.id_of(target))


@pytest.mark.parametrize("move", [at_once, key_by_key])
def test_a_policy_moves_under_traffic(
    tmp_path: Path, recovered: Recovered, move: Callable[[Cluster, Node, Node, int], None]
):
    """At once, hardly anybody notices; key by key, callers see 503s while its keys are on both
    nodes. Nothing is lost or learned twice."""
    cluster = Cluster(tmp_path / "valkeys")
    log = str(tmp_path / "data" / "log")
    environment = {"POINTSMAN_REDIS_URL": cluster.url, **OFTEN}
    with started(cluster), running_up(tmp_path, CONFIG, **environment) as (_, http):
        with Traffic(str(http.base_url), seed=1, pause_s=0.01) as traffic:
            traffic.reach(400)
            source, slot = cluster.owner("default"), cluster.slot("default")
            target = next(node for node in cluster.masters if node is not source)
            began = time.monotonic()
            move(cluster, source, target, slot)
            until(lambda: cluster.owner("default") is target, "it has moved", 30.0)
            took = {"moving": time.monotonic() - began}
            recovery = Recovery(traffic.ledger, http, log)
            recovered(took | recovery.took())
            traffic.reach(traffic.ledger.acknowledged + 400)
        print(move.__name__, dict(traffic.ledger.answers), round(traffic.ledger.slowest_s, 3))
        assert traffic.ledger.answers.keys() <= {200, 503}
        verify(traffic.ledger, cluster.url, log)

"""A master falls, and its replica takes its place: what was acknowledged, having waited for that
replica, is there."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.shards.valkeys import Cluster, Node, Watched
from tests.faults.conftest import Recovered
from tests.faults.places import OFTEN
from tests.faults.traffic import Traffic
from tests.faults.verifying import Recovery, verify
from tests.servers import CONFIG, http_service, running_up, settings_for, until

POLICIES = ("default", "b", "c", "d")  # of which each of three masters has at least one
pytestmark = pytest.mark.faults


def killed(node: Node) -> None:
    node.kill()


def frozen(node: Node) -> None:
    node.signal(signal.SIGSTOP)


@contextmanager
def started(place: Cluster | Watched) -> Iterator[None]:
    try:
        place.start()
        yield
    finally:
        place.stop()


@pytest.mark.parametrize("fall", [killed, frozen])
@pytest.mark.parametrize("kind", ["cluster", "sentinel"])
def test_a_failover_loses_nothing_that_waited(
    tmp_path: Path, recovered: Recovered, kind: str, fall: Callable[[Node], None]
):
    """Kill -9 and hanging alike; callers see 503s alone until the old master is back as a replica,
    for nothing is acknowledged that one server has alone."""
    folder = tmp_path / "valkeys"
    place = Cluster(folder, replicas=1) if kind == "cluster" else Watched(folder)
    environment = {"POINTSMAN_REDIS_URL": place.url, "POINTSMAN_WAIT_REPLICAS": "1", **OFTEN}
    log = str(tmp_path / "data" / "log")
    with started(place), running_up(tmp_path, CONFIG, **environment) as (_, http):
        with Traffic(str(http.base_url), seed=1, pause_s=0.01) as traffic:
            traffic.reach(400)
            fallen = place.owner("default")
            fell = time.monotonic()
            fall(fallen)
            until(lambda: place.owner("default") is not fallen, "the replica takes over", 30.0)
            took = {"failover": time.monotonic() - fell}
            recovery = Recovery(traffic.ledger, http, log)
            back(fallen)
            recovered(took | recovery.took())
            traffic.reach(traffic.ledger.acknowledged + 400)
        assert traffic.ledger.answers.keys() <= {200, 503}
        verify(traffic.ledger, place.url, log)


def test_a_node_that_hangs_takes_no_other_with_it(tmp_path: Path):
    """Its policies get their 503s in time, and all others go on, whichever node it is."""
    cluster = Cluster(tmp_path / "valkeys", cluster_require_full_coverage="no")
    config = CONFIG + "".join(f"\n[policies.{name}]\n" for name in POLICIES[1:])
    with started(cluster):
        homes = {name: cluster.owner(name) for name in POLICIES}
        for hanging in cluster.masters:
            settings = settings_for(cluster.url, tmp_path, config, store_timeout_ms=500)
            with http_service(settings) as http:
                for name in POLICIES:
                    until(lambda: _status(http, name) == 200, f"policy {name} serves", 30.0)  # noqa: B023
                hanging.signal(signal.SIGSTOP)
                for name in 3 * POLICIES:
                    began = time.monotonic()
                    status = _status(http, name)
                    assert time.monotonic() - began < 5.0
                    assert status == (503 if homes[name] is hanging else 200), name
                hanging.signal(signal.SIGCONT)


def _status(http: httpx.Client, policy: str) -> int:
    asked = {"policy": policy, "query": {"text": "question"}}
    return http.post("/route", json=asked).status_code


def back(node: Node) -> None:
    """It serves again, if need be from its files."""
    if node.process is not None and node.process.poll() is None:
        node.signal(signal.SIGCONT)
    else:
        node.start()

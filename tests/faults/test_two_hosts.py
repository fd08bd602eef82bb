"""What two hosts run against one Valkey, each with its files: the same decisions, one state of
health, one learner at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.store.keys import Keys
from tests.faults import places
from tests.faults.conftest import Recovered
from tests.faults.places import Server, running
from tests.faults.traffic import PATIENCE_S, Traffic
from tests.faults.verifying import Recovery, verify
from tests.servers import CONFIG, ready, until
from tests.serving.test_connection import free_port

pytestmark = pytest.mark.faults

TAKEOVER_S = 10.0
HEARD_S = 1.0


@contextmanager
def part(name: str, folder: Path, server: Server, **more: str) -> Iterator[int]:
    """The pid of a part of a service that runs alone on its host; `pointsman NAME`."""
    shared = {"POINTSMAN_LOG": str(folder.parent / "log"), "POINTSMAN_WORKERS": "2", **more}
    process = places.command(name, folder, server.url, **shared)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30.0)


def test_two_hosts_are_one_service(tmp_path: Path, recovered: Recovered):
    """Two processes serve on each host, one learner and one archiver wait on each."""
    with ExitStack() as stack:
        server = stack.enter_context(running(Server(tmp_path / "valkey", free_port())))
        hosts, learners = [], []
        for name in ("one", "two"):
            folder, port = tmp_path / name, str(free_port())
            folder.mkdir()
            (folder / "pointsman.toml").write_text(CONFIG)
            stack.enter_context(part("serve", folder, server, POINTSMAN_PORT=port))
            http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}"))
            until(lambda http=http: ready(http), f"host {name} serves", PATIENCE_S)
            hosts.append(http)
            learners.append(stack.enter_context(part("learn", folder, server)))
            stack.enter_context(part("archive", folder, server))
            until(lambda: server.client().get(Keys("default").lease), "somebody learns", PATIENCE_S)
        log = str(tmp_path / "log")
        with Traffic([str(http.base_url) for http in hosts], seed=5, pause_s=0.01) as traffic:
            traffic.reach(400)
            recovery = Recovery(traffic.ledger, hosts[1], log)
            os.kill(learners[0], signal.SIGKILL)
            took = recovery.took()
            traffic.reach(traffic.ledger.acknowledged + 200)
        assert took["learning"] < TAKEOVER_S
        assert traffic.ledger.answers.keys() == {200}
        verify(traffic.ledger, server.url, log)
        assert_same_decisions(hosts)
        took["the other host knows an outage"] = heard(hosts)
        recovered(took)
        assert took["the other host knows an outage"] < HEARD_S


def assert_same_decisions(hosts: list[httpx.Client]) -> None:
    """The same probabilities once both have the newest snapshot, and one answer for one id, even
    where both are asked at the same time."""
    until(lambda: len({_snapshot(http) for http in hosts}) == 1, "both have it", PATIENCE_S)
    assert _pmf(hosts[0]) == _pmf(hosts[1])
    with ThreadPoolExecutor(2) as pool:
        for i in range(50):
            one, other = pool.map(lambda http, i=i: _route(http, f"both{i}"), hosts)
            assert one == other


def heard(hosts: list[httpx.Client]) -> float:
    """In how many seconds one host knows what callers have told the other."""
    while _is_in(hosts[0]):
        made = _route(hosts[0])
        outcome = {"error": "connection"} if made["arm"] == "large" else {"quality": 1.0}
        told = {"decision_id": made["decision_id"], **outcome}
        hosts[0].post("/reward", json=told).raise_for_status()
    since = time.monotonic()
    until(lambda: not _is_in(hosts[1]), "the other host knows", PATIENCE_S)
    return time.monotonic() - since


def _is_in(http: httpx.Client) -> bool:
    return "large" in _pmf(http)


def _pmf(http: httpx.Client) -> dict[str, float]:
    made = _route(http)
    return {row["arm"]: row["propensity"] for row in (made, *made["alternatives"])}


def _route(http: httpx.Client, decision_id: str | None = None) -> dict[str, Any]:
    asked = {"query": {"text": "Sort a list."}, "decision_id": decision_id}
    return dict(http.post("/route", json=asked).raise_for_status().json())


def _snapshot(http: httpx.Client) -> int:
    return int(http.get("/policies/default").json()["snapshot"])

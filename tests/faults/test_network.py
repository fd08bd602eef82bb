"""Redis is there and doesn't answer, or can't be reached: promise 1, and what callers wait for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.conftest import Recovered
from tests.faults.places import PATIENT, behind_proxy, frozen
from tests.faults.traffic import Ledger, Traffic

TIMEOUT_S = 0.5  # POINTSMAN_STORE_TIMEOUT_MS


def assert_deadlines_hold(ledger: Ledger, usual_s: float) -> None:
    """Nobody waited for Redis longer than it is waited for; the slowest answer before the fault,
    `usual_s`, says how busy the machine is besides."""
    assert ledger.slowest_s < TIMEOUT_S + 1.0 + 2.0 * usual_s


@pytest.mark.faults
def test_redis_frozen(tmp_path: Path, recovered: Recovered):
    """Its process is stopped under traffic, and goes on: what it had in its buffers, it does then.
    Meanwhile callers are refused, in time; afterwards nothing is lost or there twice."""
    with behind_proxy(tmp_path) as place:
        with place.traffic() as traffic:
            traffic.reach(200)
            recovery, usual_s = place.recovery(traffic), traffic.ledger.slowest_s
            with frozen(place.server.process.pid):
                time.sleep(10.0)
            recovery.restart()
            recovered(recovery.took())
            traffic.reach(traffic.ledger.acknowledged + 100)
        place.verify(traffic)
    assert traffic.ledger.answers.keys() == {200, 503}
    assert_deadlines_hold(traffic.ledger, usual_s)


class Deferring(Traffic):
    """Reports on what wasn't logged when it is told to."""

    asks_again = 0.0  # it would get another answer

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.deferred: list[tuple[Any, ...]] = []

    def _report(self, http: httpx.Client, about: dict[str, str], *rest: Any) -> None:
        if "token" in about:
            self.deferred.append((about, *rest))
        else:
            super()._report(http, about, *rest)

    def deliver(self, http: httpx.Client) -> None:
        for report in self.deferred:
            super()._report(http, *report)


@pytest.mark.faults
def test_redis_frozen_where_decisions_go_on(tmp_path: Path, recovered: Recovered):
    """Promise 6: no /route is refused, each in time; what was decided meanwhile is logged with its
    report once Redis is back, and is learned from, once."""
    with behind_proxy(tmp_path, POINTSMAN_DEGRADED="serve") as place:
        with Deferring(str(place.http.base_url), seed=1, pause_s=0.01) as traffic:
            traffic.reach(200)
            recovery, usual_s = place.recovery(traffic), traffic.ledger.slowest_s
            with frozen(place.server.process.pid):
                time.sleep(10.0)
            recovery.restart()
            recovered(recovery.took())
            traffic.reach(traffic.ledger.acknowledged + 100)
        traffic.deliver(place.http)
        place.verify(traffic)
    assert len(traffic.deferred) > 100
    assert_deadlines_hold(traffic.ledger, usual_s)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["refusing", "black_hole"])
def test_the_network_is_away(tmp_path: Path, recovered: Recovered, how: str):
    """For five seconds: connections are cut and refused, or nothing comes over them."""
    with behind_proxy(tmp_path) as place:
        with place.traffic() as traffic:
            traffic.reach(200)
            recovery, usual_s = place.recovery(traffic), traffic.ledger.slowest_s
            with getattr(place.proxy, how)():
                time.sleep(5.0)
            recovery.restart()
            recovered(recovery.took())
            traffic.reach(traffic.ledger.acknowledged + 100)
        place.verify(traffic)
    assert traffic.ledger.answers.keys() == {200, 503}
    assert_deadlines_hold(traffic.ledger, usual_s)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["cut", "lose"])
def test_connections_end(tmp_path: Path, recovered: Recovered, how: str):
    """All at once and again and again, with a word, or without one so that they are half open."""
    with behind_proxy(tmp_path) as place:
        with place.traffic() as traffic:
            traffic.reach(200)
            recovery, usual_s = place.recovery(traffic), traffic.ledger.slowest_s
            for _ in range(3):
                getattr(place.proxy, how)()
                traffic.reach(traffic.ledger.acknowledged + 100)
            recovery.restart()
            recovered(recovery.took())
        place.verify(traffic)
    assert traffic.ledger.answers.keys() <= {200, 503}
    assert_deadlines_hold(traffic.ledger, usual_s)


@pytest.mark.faults
def test_the_network_is_slow(tmp_path: Path, recovered: Recovered):
    """Each packet takes 0.1 s longer each way: requests do too, and none is refused."""
    with behind_proxy(tmp_path, **PATIENT) as place:
        with place.traffic() as traffic:
            traffic.reach(200)
            recovery = place.recovery(traffic)
            with place.proxy.slow(0.1):
                recovery.restart()
                recovered(recovery.took())
                traffic.reach(traffic.ledger.acknowledged + 100)
        place.verify(traffic)
    assert traffic.ledger.answers.keys() == {200}

"""Promise 1 under kill -9: what was acknowledged is there, and is learned from exactly once."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from serving.processes.embedded import running_url
from tests.faults import places
from tests.faults.conftest import Recovered
from tests.faults.places import OFTEN, PATIENT, WORDS
from tests.faults.traffic import LOST, PATIENCE_S, Traffic
from tests.faults.verifying import Recovery, verify
from tests.servers import CONFIG, ready, running_up, until
from tests.serving.test_connection import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds its victims in /proc")


@pytest.mark.parametrize(
    ("requests", "times"),
    [(600, 1), pytest.param(8_000, 4, marks=pytest.mark.faults)],
    ids=["600 requests", "8,000 requests"],
)
def test_kill_9_loses_and_repeats_nothing(tmp_path: Path, requests: int, times: int):
    """Every process of a service, and its Redis server (fsync always), dies at random moments.

    Every acknowledged decision and reward is in the log afterwards, once, and the learner's state
    is that of an undisturbed fold of the same events.
    """
    rng = random.Random(requests)
    victims = [name for name in WORDS for _ in range(times)]
    rng.shuffle(victims)
    moments = sorted(rng.randrange(requests // 20, requests) for _ in victims)
    workers = {"POINTSMAN_WORKERS": str(min(times, 2))}
    with running_up(tmp_path, CONFIG, POINTSMAN_FSYNC="always", **OFTEN, **workers) as (
        process,
        http,
    ):
        with Traffic(str(http.base_url), seed=requests) as traffic:
            for victim, moment in zip(victims, moments, strict=True):
                traffic.reach(moment)
                time.sleep(rng.uniform(0, 0.05))
                places.kill(victim, process.pid)
            traffic.reach(requests)
        until(lambda: ready(http), "it is ready again", PATIENCE_S)
        ledger = traffic.ledger
        verify(ledger, running_url(tmp_path / "data"), str(tmp_path / "data" / "log"))
        for decision_id in list(ledger.decisions)[:: max(len(ledger.decisions) // 100, 1)]:
            found = http.get(f"/decisions/{decision_id}").json()
            assert found["decision"]["arm"] == ledger.decisions[decision_id][0]
            assert found["outcome"].items() >= ledger.outcomes[decision_id].items()


@pytest.mark.faults
@pytest.mark.parametrize("victim", WORDS)
def test_each_part_comes_back(tmp_path: Path, recovered: Recovered, victim: str):
    """Killed with -9 under traffic. Callers lose connections to the serving process alone, and are
    refused while Redis is away alone."""
    environment = OFTEN if victim == "Redis server" else PATIENT
    with running_up(tmp_path, CONFIG, POINTSMAN_FSYNC="always", **environment) as (process, http):
        log = str(tmp_path / "data" / "log")
        with Traffic(str(http.base_url), seed=1, pause_s=0.01) as traffic:
            traffic.reach(400)
            recovery = Recovery(traffic.ledger, http, log)
            pid = places.found(victim, process.pid)
            places.kill(victim, process.pid)
            recovered(recovery.took())
            assert places.found(victim, process.pid) != pid
            traffic.reach(traffic.ledger.acknowledged + 200)
        verify(traffic.ledger, running_url(tmp_path / "data"), log)
    allowed = {"serving process": {200, LOST}, "Redis server": {200, 503}}
    assert traffic.ledger.answers.keys() <= allowed.get(victim, {200})


@pytest.mark.faults
def test_all_of_it_dies_and_is_started_again(tmp_path: Path, recovered: Recovered):
    """With kill -9 of the process that looks after the others, under traffic: they end as well, and
    whoever starts the service again, at once, finds all that was acknowledged."""
    log, port = str(tmp_path / "data" / "log"), free_port()
    environment = {"POINTSMAN_FSYNC": "always", "POINTSMAN_PORT": str(port), **OFTEN}
    with Traffic(f"http://127.0.0.1:{port}", seed=2, pause_s=0.01) as traffic:
        for _ in range(3):
            with running_up(tmp_path, CONFIG, **environment) as (process, _http):
                traffic.reach(traffic.ledger.acknowledged + 400)
                process.kill()
        began = time.monotonic()
        with running_up(tmp_path, CONFIG, **environment) as (process, http):
            recovery = Recovery(traffic.ledger, http, log)
            recovered({"starting": time.monotonic() - began, **recovery.took()})
            traffic.over()
            verify(traffic.ledger, running_url(tmp_path / "data"), log)
    assert traffic.ledger.answers.keys() <= {200, 503, LOST}


def test_a_server_that_dies_while_it_starts_is_started_again(tmp_path: Path):
    """However often that happens, the service goes on."""
    with running_up(tmp_path, CONFIG) as (process, http):
        for _ in range(3):
            places.kill("Redis server", process.pid)  # as soon as it is there: before it answers
        until(lambda: ready(http), "it is ready again", PATIENCE_S)
        assert process.poll() is None

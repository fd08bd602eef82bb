"""Promise 1 under kill -9: what was acknowledged is there, and is learned from exactly once."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from offline_eval.log import archive
from offline_eval.log.reading import read_rows
from offline_eval.log.segments import STREAMS
from policy.values.snapshot import unpack
from serving.processes.embedded import running_url
from serving.store.learning import LearnerStore
from tests.servers import CONFIG, assert_same_state, fold_again, offspring, ready, running_up, until

CLIENTS = 4
PATIENCE_S = 30.0  # how long a client goes on asking, and how long anything may take to come back
VICTIMS = {
    "learner": "learn",
    "archiver": "archive",
    "serving process": "serve",
    "Redis server": "valkey-server",
}
COMPONENTS = ("quality", "latency_ms", "cost_usd")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds its victims in /proc")


@dataclass
class Traffic:
    """Clients that ask until they are answered, and remember what was acknowledged."""

    url: str
    seed: int
    decisions: dict[str, tuple[str, float]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, float]] = field(default_factory=dict)
    requests: int = 0
    retries: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, rounds: int) -> None:
        """Make `rounds` decisions and report on each, from several connections at once."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._client, [range(i, rounds, CLIENTS) for i in range(CLIENTS)]))

    def _client(self, rounds: range) -> None:
        with httpx.Client(base_url=self.url, timeout=10.0) as http:
            for i in rounds:
                self._round(http, i)

    def _round(self, http: httpx.Client, i: int) -> None:
        rng = random.Random(self.seed * 1_000_000 + i)
        decision_id = f"d{i}"
        asked = {"decision_id": decision_id, "query": {"text": f"question {i % 97}"}}
        made = self._post(http, "/route", asked)
        self.decisions[decision_id] = made["arm"], made["propensity"]
        if rng.random() < 0.05:  # a client that lost the answer asks again
            assert self._post(http, "/route", asked) == made
        outcome = {
            "quality": rng.random(),
            "latency_ms": rng.uniform(50, 5_000),
            "cost_usd": rng.uniform(0, 0.01),
        }
        for part in _parts(outcome, rng):
            receipt = self._post(http, "/reward", {"decision_id": decision_id, **part})
            assert {*receipt["accepted"], *receipt["unchanged"]} == part.keys()
            self.outcomes.setdefault(decision_id, {}).update(part)

    def _post(self, http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask until there is an answer; a lost connection or a 503 acknowledges nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = http.post(path, json=body)
                if answer.status_code != 503:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"no answer to {path} within {PATIENCE_S} s"
            with self._lock:
                self.retries += 1
            time.sleep(0.02)
        assert answer.status_code == 200, answer.text
        with self._lock:
            self.requests += 1
        found: dict[str, Any] = answer.json()
        return found


def _parts(outcome: dict[str, float], rng: random.Random) -> Iterator[dict[str, float]]:
    """All at once, or quality last, as a grader's verdict would come."""
    if rng.random() < 0.8:
        yield outcome
    else:
        yield {name: outcome[name] for name in ("latency_ms", "cost_usd")}
        yield {"quality": outcome["quality"]}


class Killer:
    """Kills each kind of child `times` times, at random moments of a run of known length."""

    def __init__(self, pid: int, progress: Callable[[], int], seed: int) -> None:
        self._pid = pid
        self._progress = progress
        self._rng = random.Random(seed)
        self._over = threading.Event()
        self.killed: list[str] = []

    def run(self, requests: int, times: int) -> None:
        victims = [name for name in VICTIMS for _ in range(times)]
        self._rng.shuffle(victims)
        moments = sorted(self._rng.randrange(requests // 20, requests) for _ in victims)
        for victim, moment in zip(victims, moments, strict=True):
            while self._progress() < moment:
                if self._over.is_set():
                    return
                time.sleep(0.002)
            time.sleep(self._rng.uniform(0, 0.05))
            self.kill(victim)

    def stop(self) -> None:
        """The run is over: no moment beyond it will come."""
        self._over.set()

    def kill(self, victim: str) -> None:
        """Kill it, as soon as there is one."""
        until(lambda: self._killed(victim), f"there is a {victim}", PATIENCE_S)
        self.killed.append(victim)

    def _killed(self, victim: str) -> bool:
        for pid in offspring(self._pid):
            if VICTIMS[victim] in _command(pid):
                os.kill(pid, signal.SIGKILL)
                return True
        return False


def _command(pid: int) -> set[str]:
    """The words of a process's command line, without folders."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()
    except OSError:  # it has just ended
        return set()
    return {word.rpartition("/")[2] for word in words}


@pytest.mark.parametrize(
    ("rounds", "times"),
    [(300, 1), pytest.param(5_000, 5, marks=pytest.mark.slow)],
    ids=["300 decisions", "5,000 decisions"],
)
def test_kill_9_loses_and_repeats_nothing(tmp_path: Path, rounds: int, times: int):
    """Learner, archiver, serving process and Redis server (fsync always) die at random moments.

    Every acknowledged decision and reward is in the log afterwards, once, and the learner's state
    is that of an undisturbed fold of the same events.
    """
    environment = {
        "POINTSMAN_FSYNC": "always",
        "POINTSMAN_PUBLISH_INTERVAL_S": "0.05",
        "POINTSMAN_CHECKPOINT_INTERVAL_S": "0.2",  # often, so that some die while writing one
        "POINTSMAN_ARCHIVE_INTERVAL_S": "0.05",
    }
    with running_up(tmp_path, CONFIG, **environment) as (process, http):
        traffic = Traffic(str(http.base_url), seed=rounds)
        killer = Killer(process.pid, lambda: traffic.requests, seed=rounds)
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(killer.run, 2 * rounds, times)
            try:
                traffic.run(rounds)
            finally:
                killer.stop()
            killing.result()
        assert Counter(killer.killed) == dict.fromkeys(VICTIMS, times)
        assert len(traffic.decisions) == len(traffic.outcomes) == rounds
        until(lambda: ready(http), "it is ready again", PATIENCE_S)
        url = running_url(tmp_path / "data")
        with redis.Redis.from_url(url) as raw, closing(LearnerStore(url, "default")) as store:
            path = str(tmp_path / "data" / "log")
            until(lambda: _archived(raw, path), "the archiver comes to the end", PATIENCE_S)
            assert_nothing_is_lost(raw, path, traffic)
            assert_each_outcome_is_there_once(path, traffic)
            assert_learned_once(path, store)
        for decision_id in list(traffic.decisions)[:: max(rounds // 100, 1)]:
            found = http.get(f"/decisions/{decision_id}").json()
            assert found["decision"]["arm"] == traffic.decisions[decision_id][0]
            assert found["outcome"].items() >= traffic.outcomes[decision_id].items()


def test_a_server_that_dies_while_it_starts_is_started_again(tmp_path: Path):
    """However often that happens, the service goes on."""
    with running_up(tmp_path, CONFIG) as (process, http):
        killer = Killer(process.pid, lambda: 0, seed=0)
        for _ in range(3):
            killer.kill("Redis server")  # as soon as it is there: long before it answers
        until(lambda: ready(http), "it is ready again", PATIENCE_S)
        assert process.poll() is None


def _archived(raw: redis.Redis, path: str) -> bool:
    """Whether all that is in the streams is in the log."""
    at = archive.position(path, "default")
    ends = [raw.xrevrange(f"pm:{{default}}:{name}", count=1)[0][0] for name in STREAMS]
    return [entry.decode() for entry in ends] == [at.decisions, at.outcomes]


def assert_nothing_is_lost(raw: redis.Redis, path: str, traffic: Traffic) -> None:
    """Record and log hold each acknowledged decision as it was answered; the log holds it once,
    with its outcome."""
    logged = list(read_rows(path))
    made = [row.decision for row in logged]
    assert {d.decision_id: (d.arm, d.propensity) for d in made} == traffic.decisions
    assert len(logged) == len(traffic.decisions)
    for row in logged:
        told = {name: getattr(row.outcome, name) for name in COMPONENTS}
        assert told == traffic.outcomes[row.decision.decision_id]
    for decision_id, (arm, propensity) in traffic.decisions.items():
        fields = raw.hgetall(f"pm:{{default}}:decision:{decision_id}")
        assert (fields[b"arm"].decode(), float(fields[b"propensity"])) == (arm, propensity)
        stored = {name: float(fields[name.encode()]) for name in COMPONENTS}
        assert stored == traffic.outcomes[decision_id]


def assert_each_outcome_is_there_once(path: str, traffic: Traffic) -> None:
    """What a learner folds is what was acknowledged, no component of a decision twice."""
    found: dict[str, dict[str, float]] = {}
    for _, event in chain(*archive.events(path, "default")):
        seen = found.setdefault(event[b"decision_id"].decode(), {})
        part = {name: float(event[name.encode()]) for name in COMPONENTS if name.encode() in event}
        assert part
        assert not part.keys() & seen.keys()
        seen.update(part)
    assert found == traffic.outcomes


def assert_learned_once(path: str, store: LearnerStore) -> None:
    """The learner comes to the end of the stream, with the state of an undisturbed fold."""
    expected = fold_again(store, archive.events(path, "default"))
    until(
        lambda: _position(store.checkpoint("1")) == _position(expected),
        "the learner comes to the end of the stream",
        PATIENCE_S,
    )
    assert_same_state(store.checkpoint("1"), expected)
    assert unpack(expected).header.events == sum(map(len, archive.events(path, "default")))


def _position(checkpoint: bytes | None) -> str:
    return "" if checkpoint is None else unpack(checkpoint).header.position

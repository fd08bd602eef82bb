"""Alerts, dashboard and runbook speak of metrics that there are; and each alert fires."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from serving.processes.embedded import Embedded
from serving.store.archiving import ArchiverStore
from serving.store.keys import Alarm, Keys
from serving.store.learning import LearnerStore
from serving.store.operations import OperatorStore
from tests.servers import CONFIG, drive, http_service, override, ready, settings_for, until
from tests.serving.observing.figures import documented

pytest.importorskip("promql_parser", reason="promql-parser is not installed")

from tests.serving.observing import promql
from tests.serving.observing.promql import ALERTS, RULES

ROOT = Path(__file__).parents[3]
BOARD = json.loads((ROOT / "deploy/grafana/pointsman.json").read_text())
RUNBOOK = (ROOT / "docs" / "operating" / "runbook.md").read_text("utf-8")
KEYS = Keys("default")
OUT = {"error": "rate_limited", "retry_after_s": 600.0}
OWN_OF_PROMETHEUS = {"up"}

SMALL_BUDGET = """
[policies.default.budget]
usd = 0.00001
per = "hour"
hard = false

[policies.default.challenger]
model = "uniform"
"""


class World:
    """A service, its Redis, and what /metrics has shown since `begin`."""

    def __init__(self, http: httpx.Client, server: Embedded, stop: Callable[[], None]) -> None:
        self.http = http
        self.server = server
        self.raw = redis.Redis.from_url(server.url)
        self.stop = stop
        self._scrapes: list[promql.Scrape] = []

    def begin(self) -> None:
        self._scrapes.clear()

    def firing(self, after_s: float = 0.0) -> set[str]:
        """The alerts whose condition holds, or would if it still did so much later."""
        text = None
        with suppress(httpx.TransportError):
            text = self.http.get("/metrics").text
        now_s = time.time()
        self._scrapes.append(promql.Scrape.of(now_s, text))
        return promql.firing(self._scrapes, now_s + after_s)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Redis, meanwhile."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)
        until(lambda: ready(self.http), "Redis is found again")

    def out(self, arm: str) -> None:
        made = self.http.post("/route", json={"constraints": {"allow": [arm]}}).json()
        self.http.post("/reward", json={"decision_id": made["decision_id"], **OUT})

    def old(self, stream: str, age_s: float) -> None:
        self.raw.xadd(stream, {"old": "entry"}, f"{int((time.time() - age_s) * 1_000)}-0")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One service for all alerts, on a server of its own; the last one stops it."""
    folder = tmp_path_factory.mktemp("alerts")
    server = Embedded(folder / "valkey", fsync="everysec", max_memory_mb=256)
    server.start()
    with ExitStack() as stack:
        stack.callback(server.stop)
        running = stack.enter_context(ExitStack())
        bounds = {"max_inflight": 4, "store_timeout_ms": 500}
        settings = settings_for(server.url, folder, CONFIG + SMALL_BUDGET, **bounds)
        url = running.enter_context(http_service(settings)).base_url
        http = stack.enter_context(httpx.Client(base_url=url, timeout=10.0))
        world = World(http, server, running.close)
        stack.enter_context(closing(world.raw))
        yield world


# Each condition: what is there before, what brings the alert about, and what takes it back.
Condition = Callable[[World], Iterator[None]]


def old_entries(stream: str, age_s: float) -> Condition:
    """The first entry of a stream has been waiting."""

    def condition(world: World) -> Iterator[None]:
        yield
        world.old(stream, age_s)
        yield
        world.raw.delete(stream)

    return condition


def lease(store: type[LearnerStore] | type[ArchiverStore]) -> Condition:
    """Nobody holds it any more."""

    def condition(world: World) -> Iterator[None]:
        with closing(store(world.server.url, "default")) as holder:
            token = holder.acquire()
            yield
            holder.release(token)
            yield

    return condition


def redis_down(world: World) -> Iterator[None]:
    yield
    with world.frozen():
        yield


def redis_memory(world: World) -> Iterator[None]:
    yield
    world.raw.config_set("maxmemory", int(world.raw.info("memory")["used_memory"] * 1.1))
    yield
    world.raw.config_set("maxmemory", 256 << 20)


def redis_not_durable(world: World) -> Iterator[None]:
    yield
    world.raw.config_set("appendonly", "no")
    yield
    world.raw.config_set("appendonly", "yes")


def internal_error(world: World) -> Iterator[None]:
    world.raw.set(KEYS.decision("broken"), "not what belongs here")
    yield
    assert world.http.post("/route", json={"decision_id": "broken"}).status_code == 500
    yield


def slow(world: World) -> Iterator[None]:
    yield
    with ThreadPoolExecutor(1) as pool:
        with world.frozen():
            answer = pool.submit(world.http.post, "/route", json={})
            time.sleep(0.25)
        answer.result()
    yield


def unavailable(world: World) -> Iterator[None]:
    yield
    with world.frozen():
        assert world.http.post("/route", json={}).status_code == 503
    yield


def refusing(world: World) -> Iterator[None]:
    yield
    with world.frozen(), ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: world.http.post("/route", json={}), range(16)))
    assert 429 in {answer.status_code for answer in answers}
    yield


def rewards_missing(world: World) -> Iterator[None]:
    drive(world.http, 1)
    yield
    world.http.post("/route/batch", json={"requests": [{}] * 110}).raise_for_status()
    yield


def endpoint_out(world: World) -> Iterator[None]:
    yield
    world.out("small")
    yield


def degraded(world: World) -> Iterator[None]:
    yield
    world.out("large")
    assert world.http.post("/route", json={}).json()["degraded"] == "all_out"
    yield


def budget_too_small(world: World) -> Iterator[None]:
    yield
    drive(world.http, 20)
    yield


def champion_worse(world: World) -> Iterator[None]:
    yield
    assert override(world.server.url, "2", keep_share=0.1) == "1"
    with closing(OperatorStore(world.server.url, "default")) as store:
        assert store.alarm(Alarm("2", "1", ("it is worse",), 1_000))
    yield


def snapshot_stale(world: World) -> Iterator[None]:
    yield
    version = world.raw.hget(KEYS.state, "champion").decode()
    world.raw.hset(KEYS.snapshot(version), mapping={"number": 99, "head": b"damaged"})
    yield


def down(world: World) -> Iterator[None]:
    yield
    world.stop()
    yield


CONDITIONS: dict[str, Condition] = {
    "PointsmanLearnerNotRunning": lease(LearnerStore),
    "PointsmanArchiverNotRunning": lease(ArchiverStore),
    "PointsmanLearnerBehind": old_entries(KEYS.outcomes, 120.0),
    "PointsmanArchiverBehind": old_entries(KEYS.decisions, 1_000.0),
    "PointsmanBudgetTooSmall": budget_too_small,
    "PointsmanRewardsMissing": rewards_missing,
    "PointsmanInternalErrors": internal_error,
    "PointsmanRedisMemory": redis_memory,
    "PointsmanRedisNotDurable": redis_not_durable,
    "PointsmanSlow": slow,
    "PointsmanUnavailable": unavailable,
    "PointsmanRefusing": refusing,
    "PointsmanRedisDown": redis_down,
    "PointsmanEndpointOut": endpoint_out,
    "PointsmanDegraded": degraded,
    "PointsmanChampionWorse": champion_worse,
    "PointsmanSnapshotStale": snapshot_stale,
    "PointsmanDown": down,
}
LATER_S = {"PointsmanSnapshotStale": 27.0}  # how much longer than the test waits it must hold


@pytest.mark.parametrize("name", CONDITIONS)
def test_each_alert_fires_when_its_condition_comes_about(world: World, name: str):
    """And not before, on a real service, by what its /metrics show."""
    steps = CONDITIONS[name](world)
    world.begin()
    next(steps)
    try:
        assert name not in world.firing()
        next(steps)
        later_s = LATER_S.get(name, 0.0)
        until(lambda: name in world.firing(later_s), name)
    finally:
        next(steps, None)


def test_every_alert_has_a_condition_and_a_page_of_the_runbook():
    """And neither has one of an alert that doesn't exist."""
    assert CONDITIONS.keys() == ALERTS.keys()
    sections = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert sections == list(ALERTS)
    leads = ["*What it means.*", "*How to see it.*", "*What to do.*"]
    for name, text in zip(sections, RUNBOOK.split("\n## ")[1:], strict=True):
        assert re.findall(r"^\*.*?\*", text, re.MULTILINE) == leads, name
        assert ALERTS[name]["annotations"]["runbook"] == f"docs/operating/runbook.md#{name.lower()}"
        for anchor in re.findall(r"\(#(\w+)\)", text):
            assert anchor in {section.lower() for section in sections}


def drawn() -> Iterator[str]:
    """The expressions of the dashboard, with Grafana's variables filled in."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m")


def metric_of(name: str) -> str:
    """The documented metric that a series is of."""
    of_histogram = re.sub(r"_(bucket|count|sum)$", "", name)
    return of_histogram if of_histogram in documented() else name


@pytest.mark.parametrize("expression", [*drawn(), *(rule["expr"] for rule in RULES)])
def test_expressions_read_documented_metrics(expression: str):
    """By names and labels that docs/operating/metrics.md has."""
    documents = documented()
    for selector in promql.selectors(expression):
        metric = metric_of(selector.name)
        if metric not in OWN_OF_PROMETHEUS:
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert labels <= documents[metric].labels | {"le"}


def test_the_runbook_and_the_dashboard_name_documented_metrics():
    """Also where they only mention one."""
    documents = documented()
    mentioned = re.findall(r"pointsman_\w+", RUNBOOK + json.dumps(BOARD))
    assert {metric_of(name) for name in mentioned} <= documents.keys()


def test_the_dashboard_can_be_imported():
    """Panels have ids of their own, places that don't overlap, and a data source that is asked
    for."""
    panels: list[dict[str, Any]] = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert {one["name"] for one in BOARD["templating"]["list"]} == {"datasource", "policy"}

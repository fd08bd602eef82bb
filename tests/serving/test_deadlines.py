"""No request waits for Redis beyond its deadline, however Redis is away, and `/readyz` says why."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from serving.grouping import Group
from serving.observing.readiness import NotReady, Readiness
from serving.service import Service
from serving.store.keys import StoreUnavailable
from serving.store.traffic import Store
from serving.store.waiting import Circuit, in_time, wait_no_longer_than, within
from tests.servers import http_service, ready, settings_for, until
from tests.serving.test_direct import Server, free_port

TIMEOUT_MS = 300
SLACK_S = 1.2  # for a busy machine; redis-py's own patience, with retries, goes beyond it
QUERY = {"query": {"text": "hello"}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(free_port(), tmp_path / "s")
    made.start()
    yield made
    made.stop()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    os.kill(server.process.pid, signal.SIGSTOP)
    yield
    os.kill(server.process.pid, signal.SIGCONT)


@contextmanager
def refused(server: Server) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextmanager
def unanswered(server: Server) -> Iterator[None]:
    """In its place a socket whose backlog is full: connecting hangs, as where packets are lost."""
    server.stop()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind(("127.0.0.1", server.port))
        deaf.listen(0)
        queued = [socket.socket() for _ in range(3)]
        for one in queued:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", server.port))
        yield
        for one in queued:
            one.close()
    server.start()


def timed(http: httpx.Client, path: str, body: dict[str, Any] | None) -> tuple[Any, float]:
    start = time.monotonic()
    answer = http.get(path) if body is None else http.post(path, json=body)
    return answer, time.monotonic() - start


@pytest.mark.parametrize("away", [frozen, refused, unanswered])
def test_no_request_waits_beyond_the_deadline(server: Server, tmp_path: Path, away: Any):
    """The first ones give up in time, those that follow at once; `/readyz` always answers, and why;
    once Redis is back, so is the service, and an id that was asked for before has one answer."""
    settings = settings_for(server.urls[0], tmp_path, store_timeout_ms=TIMEOUT_MS)
    with http_service(settings) as http:
        made = http.post("/route", json=QUERY).json()
        reward = {"decision_id": made["decision_id"], "quality": 0.5}
        asked = {"decision_id": "same", **QUERY}
        with away(server):
            for path, body in (("/route", asked), ("/reward", reward)):
                answer, seconds = timed(http, path, body)
                assert answer.status_code == 503
                assert answer.json()["type"] == "/problems/store-unavailable"
                assert answer.headers["retry-after"] == "1"
                assert seconds < TIMEOUT_MS / 1_000 + SLACK_S
            start = time.monotonic()
            for _ in range(10):
                assert http.post("/route", json=asked).status_code == 503
            assert time.monotonic() - start < SLACK_S  # together, for nobody waits now
            answer, seconds = timed(http, "/readyz", None)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-ready")
            assert "since 20" in answer.json()["detail"]
            assert seconds < SLACK_S
        until(lambda: ready(http), "it is ready again")
        first = http.post("/route", json=asked)
        assert first.status_code == 200
        assert http.post("/route", json=asked).json() == first.json()
        if away is frozen:  # the others' server has forgotten all
            assert http.post("/reward", json=reward).status_code == 200
            with server.client(server.urls[0]) as raw:
                assert raw.xlen("pm:{default}:outcomes") == 1


def test_degraded_serving_answers_in_time_and_is_ready(server: Server, tmp_path: Path):
    """Promise 6, and a balancer must not take it out for what it is there for."""
    more = {"store_timeout_ms": TIMEOUT_MS, "degraded": "serve"}
    with http_service(settings_for(server.urls[0], tmp_path, **more)) as http:
        assert http.get("/readyz").json() == {"status": "ready", "why": None}
        with frozen(server):
            for _ in range(3):
                answer, seconds = timed(http, "/route", QUERY)
                assert (answer.status_code, answer.json()["logged"]) == (200, False)
                assert seconds < TIMEOUT_MS / 1_000 + SLACK_S
            answer = http.get("/readyz")
            assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
            assert "Redis" in answer.json()["why"]
        until(lambda: http.post("/route", json=QUERY).json()["logged"], "it logs again")


def test_a_service_that_starts_without_redis_waits_for_it(server: Server, tmp_path: Path):
    """It says that it has no policy yet, which is no 404, and needs no restart."""
    settings = settings_for(server.urls[0], tmp_path, store_timeout_ms=TIMEOUT_MS)
    server.stop()
    with http_service(settings) as http:
        assert http.get("/healthz").status_code == 200
        assert "no snapshot yet of a policy" in http.get("/readyz").json()["detail"]
        answer = http.post("/route", json=QUERY)
        assert (answer.status_code, "yet" in answer.json()["detail"]) == (503, True)
        server.start()
        until(lambda: http.post("/route", json=QUERY).status_code == 200, "it serves")
        assert ready(http)
        assert http.post("/route", json={"policy": "other", **QUERY}).status_code == 404


def test_what_is_being_stopped_is_not_ready():
    """Whatever else it could do: whoever asks goes elsewhere."""

    async def run() -> None:
        store = Store("redis://127.0.0.1:1")
        service = Service(store, lambda: 0)
        circuit = Circuit(1.0, store.ping, lambda: 0)
        readiness = Readiness(service, circuit, serves_unlogged=True)
        assert readiness.check() is None
        readiness.draining = True
        with pytest.raises(NotReady, match="being stopped"):
            readiness.check()
        await store.close()

    asyncio.run(run())


async def never() -> None:
    await asyncio.Event().wait()


def test_all_waits_of_a_request_share_one_deadline():
    """Waits at the same time count once; after the last bit of patience nothing is waited for."""

    async def run() -> None:
        circuit = Circuit(0.2, never, lambda: 0)
        wait_no_longer_than(circuit)
        await asyncio.gather(*(within(asyncio.sleep(0.05)) for _ in range(20)))
        assert await within(asyncio.sleep(0.05, "in time")) == "in time"
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await within(never())
        assert time.monotonic() - start < 0.19
        assert circuit.away is not None
        asked = asyncio.sleep(0, "more")
        with pytest.raises(StoreUnavailable):
            await within(asked)

    asyncio.run(run())


def test_what_nobody_waits_for_any_more_is_not_committed():
    """And those who go on waiting in the same group get their replies."""
    committed: list[int] = []
    free = asyncio.Event()

    async def commit(items: Any) -> Any:
        await free.wait()
        committed.extend(items)
        return items

    async def run() -> None:
        group: Group[int, int] = Group(commit)
        first = group.submit(1)
        await asyncio.sleep(0)
        given_up = group.submit(2)
        last = group.submit(3)
        with pytest.raises(TimeoutError):
            await in_time(given_up, 0.01)
        free.set()
        assert [await first, await last] == [1, 3]

    asyncio.run(run())
    assert committed == [1, 3]


def test_a_late_timer_reads_what_has_come_first():
    """Where this process was held up, its timer says nothing of Redis."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[str] = loop.create_future()
        waiting = asyncio.create_task(in_time(reply, 0.01))
        await asyncio.sleep(0)
        loop.call_later(0.02, lambda: loop.call_soon(reply.set_result, "here"))
        time.sleep(0.1)
        assert await waiting == "here"

    asyncio.run(run())


def test_a_look_notices_that_redis_is_back(raw: redis.Redis):
    """Within some tenths of a second; and a request that waited in vain is enough to close."""

    async def run() -> None:
        async def ping() -> None:
            await asyncio.to_thread(raw.ping)

        circuit = Circuit(5.0, ping, lambda: 7)
        circuit.open("it was away")
        assert circuit.away is not None
        assert circuit.away.since_ms == 7
        looking = asyncio.create_task(circuit.watch())
        async with asyncio.timeout(10.0):
            while circuit.away is not None:
                await asyncio.sleep(0.01)
        looking.cancel()

    asyncio.run(run())

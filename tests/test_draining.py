"""A stop under load: real services, SIGTERM, and callers that go on calling."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from offline_eval.log import archive
from policy.values.snapshot import unpack
from serving.processes.embedded import FOLDER, Embedded
from serving.processes.up import listen
from serving.store.per_policy import PolicyStore
from tests.servers import CONFIG, ready, running_up, settings_for, until

QUERY = {"query": {"text": "hello"}}


@contextmanager
def serving(
    redis_url: str, folder: Path, drain_s: float
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`pointsman serve` on a free port, once it is ready, and its address."""
    folder.mkdir()
    with closing(listen(settings_for("unused", folder, CONFIG))) as probe:
        port = probe.getsockname()[1]
    own = {"REDIS_URL": redis_url, "PORT": port, "DATA": folder, "DRAIN_S": drain_s}
    own["CONFIG"] = folder / "pointsman.toml"
    process = subprocess.Popen(
        [sys.executable, "-m", "pointsman", "serve"],
        env=os.environ | {f"POINTSMAN_{name}": str(value) for name, value in own.items()},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url) as client:
            until(lambda: ready(client), "the service is ready", 30.0)
        yield process, url
    finally:
        process.terminate()
        process.wait(20.0)


class Callers:
    """Threads that route and report all the time at the first of `urls`, and where that fails at
    the next. `heeding` ones leave out those whose /readyz says no."""

    def __init__(self, urls: list[str], threads: int, *, heeding: bool) -> None:
        self.rewarded: list[str] = []
        self.failures: list[str] = []
        self._urls, self._heeding = urls, heeding
        self._in = list(urls)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]
        if heeding:
            self._threads.append(threading.Thread(target=self._heed))

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20.0)

    def _heed(self) -> None:
        clients = {url: httpx.Client(base_url=url, timeout=10.0) for url in self._urls}
        while not self._ended.is_set():
            self._in = [url for url, client in clients.items() if ready(client)]
            time.sleep(0.1)
        for client in clients.values():
            client.close()

    def _call(self) -> None:
        clients = {url: httpx.Client(base_url=url, timeout=10.0) for url in self._urls}
        while not self._ended.is_set():
            made = self._answer(clients, "/route", QUERY)
            report = {"decision_id": made["decision_id"], "quality": 1.0}
            self._answer(clients, "/reward", report)
            self.rewarded.append(made["decision_id"])
            time.sleep(0.02)
        for client in clients.values():
            client.close()

    def _answer(
        self, clients: dict[str, httpx.Client], path: str, body: dict[str, object]
    ) -> dict[str, str]:
        for url in [*self._in, *self._urls]:
            try:
                answer = clients[url].post(path, json=body)
            except httpx.TransportError as error:
                self.failures.append(repr(error))
                continue
            assert answer.status_code == 200, answer.text
            found: dict[str, str] = answer.json()
            return found
        raise AssertionError("no service answers")


def stored(raw: redis.Redis, decision_id: str) -> bytes | None:
    found: bytes | None = raw.hget(f"pm:{{default}}:decision:{decision_id}", "quality")
    return found


@contextmanager
def half_sent(url: str) -> Iterator[Callable[[], bytes]]:
    """A request whose body has come in half; a call sends the rest, and reads what is answered."""
    body = b'{"query": {"text": "hello"}}'
    head = b"POST /route HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(place_of(url), timeout=20.0) as connection:
        connection.sendall(head + body[:5])

        def rest() -> bytes:
            connection.sendall(body[5:])
            return connection.recv(1_000)

        yield rest


def place_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def accepts(url: str) -> bool:
    try:
        socket.create_connection(place_of(url), timeout=5.0).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_no_request_fails_while_one_of_two_services_stops(raw: redis.Redis, tmp_path: Path):
    """Callers that heed /readyz meet no failure at all, those that only try again get each answer;
    a body that is still coming in when nothing is accepted any more is answered; and all that was
    acknowledged is stored."""
    redis_url = f"unix://{raw.connection_pool.connection_kwargs['path']}"
    with (
        serving(redis_url, tmp_path / "a", 4.0) as (stopping, a),
        serving(redis_url, tmp_path / "b", 0.0) as (_, b),
        Callers([a, b], 1, heeding=True) as heeding,
        Callers([a, b], 1, heeding=False) as stubborn,
        httpx.Client(base_url=a, timeout=20.0) as http,
        half_sent(a) as rest,
    ):
        until(lambda: min(len(heeding.rewarded), len(stubborn.rewarded)) > 20, "they call", 60.0)
        stopping.terminate()
        until(lambda: http.get("/readyz").status_code == 503, "it says that it drains", 4.0)
        assert http.post("/route", json=QUERY).status_code == 200
        assert http.get("/healthz").status_code == 200
        until(lambda: not accepts(a), "it accepts nothing any more", 30.0)
        assert rest().startswith(b"HTTP/1.1 200 OK")
        stopping.wait(30.0)
        done = len(heeding.rewarded), len(stubborn.rewarded)
        until(lambda: len(stubborn.rewarded) > done[1] + 20, "they go on", 60.0)
    assert stopping.returncode == 0
    assert heeding.failures == []
    assert len(heeding.rewarded) > done[0]
    assert {stored(raw, one) for one in (*heeding.rewarded, *stubborn.rewarded)} == {b"1.0"}


def test_a_service_that_stops_has_learned_and_archived_what_it_acknowledged(tmp_path: Path):
    """Serving ends first, learner and archiver after a last pass, the server last."""
    slow = {"POINTSMAN_CHECKPOINT_INTERVAL_S": "60", "POINTSMAN_ARCHIVE_INTERVAL_S": "60"}
    with running_up(tmp_path, CONFIG, POINTSMAN_DRAIN_S="3", **slow) as (process, http):
        url = str(http.base_url)
        with Callers([url, url], 2, heeding=False) as callers:
            until(lambda: len(callers.rewarded) > 20, "they call", 30.0)
            process.terminate()
            until(lambda: http.get("/readyz").status_code == 503, "it drains", 3.0)
            before = len(callers.rewarded)
            until(lambda: len(callers.rewarded) > before, "it still answers", 3.0)
        process.wait(30.0)
    assert process.returncode == 0
    assert callers.failures == []
    log = str(tmp_path / "data" / "log")
    rows = [row for table in archive.tables(log) for row in table.to_pylist()]
    archived = {row["decision_id"]: row["quality"] for row in rows}
    assert {archived.get(one) for one in callers.rewarded} == {1.0}
    server = Embedded(tmp_path / "data" / FOLDER, fsync="everysec", max_memory_mb=64)
    server.start()
    try:
        with closing(PolicyStore(server.url, "default")) as store:
            checkpoint = store.checkpoint("1")
    finally:
        server.stop()
    assert checkpoint is not None
    assert unpack(checkpoint).header.events == len(rows)


@pytest.mark.slow
def test_a_client_that_never_ends_its_request_does_not_keep_a_service(
    redis_url: str, tmp_path: Path
):
    """What is under way has five seconds."""
    with serving(redis_url, tmp_path / "a", 0.0) as (process, url), half_sent(url):
        httpx.get(f"{url}/healthz")  # it has accepted the connection before
        process.terminate()
        process.wait(30.0)

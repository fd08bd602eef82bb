"""A stop under load: real services, SIGTERM, and callers that go on calling."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
            time.sleep(0.05)
        for client in clients.values():
            client.close()

    def _call(self) -> None:
        clients = {url: httpx.Client(base_url=url, timeout=10.0) for url in self._urls}
        while not self._ended.is_set():
            made = self._answer(clients, "/route", QUERY)
            report = {"decision_id": made["decision_id"], "quality": 1.0}
            self._answer(clients, "/reward", report)
            self.rewarded.append(made["decision_id"])
            time.sleep(0.01)
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


def test_no_request_fails_while_one_of_two_services_stops(raw: redis.Redis, tmp_path: Path):
    """Callers that heed /readyz meet no failure at all, those that only try again get each answer;
    and all that was acknowledged is stored."""
    redis_url = f"unix://{raw.connection_pool.connection_kwargs['path']}"
    with (
        serving(redis_url, tmp_path / "a", 1.0) as (stopping, a),
        serving(redis_url, tmp_path / "b", 1.0) as (_, b),
        Callers([a, b], 2, heeding=True) as heeding,
        Callers([a, b], 2, heeding=False) as stubborn,
        httpx.Client(base_url=a) as http,
    ):
        until(lambda: min(len(heeding.rewarded), len(stubborn.rewarded)) > 20, "they call", 30.0)
        stopping.terminate()
        until(lambda: http.get("/readyz").status_code == 503, "it says that it drains", 1.0)
        assert "it is being stopped" in http.get("/readyz").json()["detail"]
        assert http.get("/healthz").status_code == 200
        assert http.post("/route", json=QUERY).status_code == 200
        stopping.wait(20.0)
        done = len(heeding.rewarded), len(stubborn.rewarded)
        until(lambda: len(stubborn.rewarded) > done[1] + 20, "they go on", 30.0)
    assert stopping.returncode == 0
    assert heeding.failures == []
    assert len(heeding.rewarded) > done[0]
    assert {stored(raw, one) for one in (*heeding.rewarded, *stubborn.rewarded)} == {b"1.0"}


def test_what_is_under_way_is_finished(redis_url: str, tmp_path: Path):
    """A body that is still coming in when the wait is over is answered."""
    body = b'{"query": {"text": "hello"}}'
    head = b"POST /route HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    with serving(redis_url, tmp_path / "a", 0.0) as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10.0) as connection:
            connection.sendall(head + body[:5])
            time.sleep(0.3)  # it has begun to read it
            process.terminate()
            time.sleep(0.5)  # and accepts nothing any more
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((host, int(port)), timeout=1.0)
            connection.sendall(body[5:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_a_service_that_stops_has_learned_and_archived_what_it_acknowledged(tmp_path: Path):
    """Serving ends first, learner and archiver after a last pass, the server last."""
    slow = {"POINTSMAN_CHECKPOINT_INTERVAL_S": "60", "POINTSMAN_ARCHIVE_INTERVAL_S": "60"}
    with running_up(tmp_path, CONFIG, POINTSMAN_DRAIN_S="0.5", **slow) as (process, http):
        url = str(http.base_url)
        with Callers([url, url], 2, heeding=False) as callers:
            until(lambda: len(callers.rewarded) > 50, "they call", 30.0)
            process.terminate()
            time.sleep(0.4)  # all the while it answers
            callers._ended.set()
        process.wait(30.0)
    assert process.returncode == 0
    assert callers.failures == []
    rows = [
        row for table in archive.tables(str(tmp_path / "data" / "log")) for row in table.to_pylist()
    ]
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
    with serving(redis_url, tmp_path / "a", 0.0) as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10.0) as connection:
            connection.sendall(b"POST /route HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{")
            time.sleep(0.3)
            process.terminate()
            process.wait(15.0)

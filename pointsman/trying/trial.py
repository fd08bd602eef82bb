"""A service to try things on: `pointsman up` on a free port, with all its files in one folder.

The demo, notebooks and experiments drive it like any other service. Knows no traffic.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import httpx

from offline_eval.log import archive
from offline_eval.log.segments import STREAMS
from pointsman_client import Client
from policy.config.schema import Config
from policy.config.toml import to_toml
from serving.processes.embedded import running_url
from serving.processes.supervision import die_with_parent
from serving.store.archiving import ArchiverStore

READY_S = 60.0
STOP_S = 20.0
ARCHIVED_S = 60.0
SWITCHED_S = 10.0
TIMEOUT_S = 30.0
JUDGED = (0, 3, 4)  # exit codes of a command that did its work: a gate may fail or be undecided
COMMAND = (sys.executable, "-m", "pointsman")


class Service:
    """A service on a configuration, from `start` to `stop` or within a `with` block.

    `client` is one for its `url`; what it and its children say goes to up.log in `folder`. It ends
    with this process, however that ends. The user's own POINTSMAN_ variables don't reach it.
    """

    client: Client

    def __init__(self, config_file: Path, folder: Path) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self.log = str(folder / "log")
        self._output = folder / "up.log"
        self._process: subprocess.Popen[bytes] | None = None
        own = {
            name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")
        }
        self._environment = {
            **own,
            "POINTSMAN_CONFIG": str(config_file.resolve()),
            "POINTSMAN_DATA": str(folder),
            "POINTSMAN_LOG": self.log,
            "POINTSMAN_PORT": str(port),
            "POINTSMAN_LOG_FORMAT": "text",  # a person reads it
            "POINTSMAN_ARCHIVE_INTERVAL_S": "0.5",  # who waits for it waits less
            "POINTSMAN_DRAIN_S": "0",
        }

    def start(self) -> Self:
        """Start it and wait until it is ready.

        Raises
        ------
        RuntimeError
            If it ends or isn't ready in time, with its last words.
        """
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*COMMAND, "up"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us: we end it in order
                preexec_fn=die_with_parent,
            )
        self.client = Client(self.url, timeout_s=TIMEOUT_S)
        try:
            self._await_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it in order; its files stay."""
        if self._process is None:
            return
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def command(self, *arguments: str) -> str:
        """What `pointsman ARGUMENTS` prints when it is run beside this service.

        Raises
        ------
        RuntimeError
            If the command fails, with what it says.
        """
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in JUDGED:
            raise RuntimeError(f"pointsman {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def archived(self, policy: str = "default") -> str:
        """Where the log is, once all that the service has acknowledged lies in it.

        Raises
        ------
        RuntimeError
            If that takes too long.
        """
        with closing(ArchiverStore(running_url(self.folder), policy)) as store:
            _await(lambda: self._is_archived(store, policy), ARCHIVED_S, "everything is archived")
        return self.log

    def _is_archived(self, store: ArchiverStore, policy: str) -> bool:
        at = archive.position(self.log, policy)
        return not any(store.entries(stream, getattr(at, stream), 1) for stream in STREAMS)

    def await_champion(self, version: str, policy: str = "default") -> None:
        """Wait until the service decides with a version that was promoted.

        Raises
        ------
        RuntimeError
            If that takes too long.
        """
        _await(lambda: self._champion(policy) == version, SWITCHED_S, f"version {version} serves")

    def _champion(self, policy: str) -> str:
        serving = {one["policy"]: one["champion"] for one in self.client.policies()}
        return str(serving[policy])

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_S
        with httpx.Client(base_url=self.url, timeout=2.0) as http:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    if http.get("/readyz").is_success:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        what = "ended" if process.poll() is not None else f"was not ready within {READY_S:.0f} s"
        last = self._output.read_text("utf-8", "replace").strip().splitlines()[-1:]
        raise RuntimeError(f"the service {what}: {''.join(last) or 'it said nothing'}")


class TemporaryService(Service):
    """A service whose folder is made for it, and removed when it is stopped."""

    def __init__(self, config: Config) -> None:
        self._temporary = TemporaryDirectory(prefix="pointsman-trial-")
        folder = Path(self._temporary.name)
        config_file = folder / "pointsman.toml"
        config_file.write_text(to_toml(config), "utf-8")
        super().__init__(config_file, folder)

    def stop(self) -> None:
        super().stop()
        self._temporary.cleanup()


def start(config: Config) -> Service:
    """A running service with these arms and policies; its `stop` removes all that it has stored."""
    return TemporaryService(config).start()


def _await(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

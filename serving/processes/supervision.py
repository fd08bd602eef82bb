"""Child processes: started together, restarted when they die, ended together."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

STOP_S = 10.0
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
STEADY_S = 10.0  # a child that ran this long starts again without delay
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Run in a new child: have Linux end it when its parent is killed; elsewhere a no-op."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """A command that is kept running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    pass_fds: Sequence[int] = ()
    ended: Callable[[int], object] = lambda pid: None  # told of each process that has ended
    stop_s: float = STOP_S  # that it may take to end
    process: subprocess.Popen[bytes] | None = None
    _failures: int = 0
    _started: float = 0.0
    _retry_at: float = 0.0

    def start(self) -> None:
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, **self.environment},
            pass_fds=self.pass_fds,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )

    def tend(self) -> None:
        """Start it again if it has ended, more slowly the more often it ends at once."""
        now = time.monotonic()
        if self.process is not None and (status := self.process.poll()) is not None:
            self._failures = 0 if now - self._started > STEADY_S else self._failures + 1
            delay_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)] if self._failures else 0.0
            level = logging.ERROR if status else logging.WARNING
            log.log(level, "%s ended with status %s; starting it again", self.name, status)
            self.ended(self.process.pid)
            self.process, self._retry_at = None, now + delay_s
        if self.process is None and now >= self._retry_at:
            self.start()


def run(
    ranks: Sequence[Sequence[Child]], tend: Callable[[], None], ending: Callable[[], None]
) -> None:
    """Keep all children running until SIGTERM or SIGINT, calling `tend` as well; then call `ending`
    and end them, rank by rank, the last one first."""
    stopping = False

    def stop(signum: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        while not stopping:
            tend()
            for child in (child for rank in ranks for child in rank):
                child.tend()
            time.sleep(0.05)
    finally:
        ending()
        for rank in reversed(ranks):
            end(rank)
        for signum, handler in before.items():
            signal.signal(signum, handler)


def end(children: Sequence[Child]) -> None:
    """Ask all to end, wait, and kill those that won't."""
    began = time.monotonic()
    running = [
        (child.process, began + child.stop_s)
        for child in children
        if child.process is not None and child.process.poll() is None
    ]
    for process, _ in running:
        with suppress(ProcessLookupError):
            process.terminate()
    for process, deadline in running:
        try:
            process.wait(max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

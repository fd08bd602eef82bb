"""A server that, told to stop, first says so and goes on answering for a while."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

GRACE_S = 5  # that what is under way when it no longer accepts anything may still take


class Draining(uvicorn.Server):
    """uvicorn's, which on SIGTERM says that it drains (`say`), answers for another `drain_s`
    seconds, each connection one last time, and then stops as uvicorn does: it accepts no more, and
    finishes what is under way. A second signal, and SIGINT, end the wait.
    """

    def __init__(self, config: uvicorn.Config, drain_s: float, say: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain_s, self._say = drain_s, say
        self._ends_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or not self.started or self._ends_at is not None:
            super().handle_exit(sig, frame)
            return
        self._ends_at = time.monotonic() + self._drain_s
        self._say()
        # Whoever keeps a connection would otherwise lose it in the middle of a request.
        close = b"connection", b"close"
        self.config.encoded_headers.append(close)
        self.server_state.default_headers = [*self.server_state.default_headers, close]

    async def on_tick(self, counter: int) -> bool:
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            super().handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)

"""An open-loop load: requests are sent at a rate, whatever became of those before. From a process
of its own, over keep-alive connections, as `load` does; but any status is an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.load import PATIENCE_S, Sender, complete

TICK_S = 0.001


@dataclass(frozen=True)
class Answers:
    """What came back, by status: how long each answer took from when it was sent, in ms. Requests
    for which no connection was free were never sent: `unsent`; of those that were `cut` the
    connection was lost before an answer."""

    seconds: float
    latency_ms: dict[int, NDArray[np.float64]]
    unsent: int
    cut: int

    def per_s(self, status: int) -> float:
        return len(self.of(status)) / self.seconds

    def of(self, status: int) -> NDArray[np.float64]:
        return self.latency_ms.get(status, np.zeros(0))

    def percentile_ms(self, status: int, q: float) -> float:
        """NaN where there is no such answer."""
        found = self.of(status)
        return float(np.percentile(found, q)) if len(found) else float("nan")


class Arrivals(Sender[Answers]):
    """The open loop."""

    def __init__(self) -> None:
        super().__init__(_run)

    def run(
        self, port: int, requests: Sequence[bytes], connections: int, per_s: float, seconds: float
    ) -> Answers:
        """Send requests, `per_s` evenly, to a port of this host for some seconds.

        Raises
        ------
        RuntimeError
            If no connection can be made.
        """
        return self.sent(port, requests, connections, per_s, seconds)


async def _run(
    port: int, requests: Sequence[bytes], connections: int, per_s: float, seconds: float
) -> Answers:
    loop = asyncio.get_running_loop()
    free: deque[_Link] = deque()
    closed: deque[_Link] = deque()
    links = [_Link(free, closed) for _ in range(connections)]
    for link in links:
        await loop.create_connection(lambda link=link: link, "127.0.0.1", port)  # type: ignore[misc]
    coming, unsent, sent = cycle(requests), 0, 0
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        due = int(passed * per_s)
        for _ in range(due - sent):
            if free:
                free.popleft().send(next(coming))
            else:
                unsent += 1
        sent = due
        if closed:  # idle for too long, as a rule
            link = closed.popleft()
            await loop.create_connection(lambda link=link: link, "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.sleep(TICK_S)
    took = time.perf_counter() - start
    async with asyncio.timeout(PATIENCE_S):
        while len(free) + len(closed) < connections:
            await asyncio.sleep(TICK_S)
    by_status: dict[int, list[NDArray[np.float64]]] = {}
    for link in links:
        for status, taken in link.taken_ns.items():
            by_status.setdefault(status, []).append(np.array(taken) / 1e6)
        link.close()
    latency_ms = {status: np.concatenate(parts) for status, parts in by_status.items()}
    return Answers(took, latency_ms, unsent, sum(link.cut for link in links))


class _Link(asyncio.Protocol):
    """One connection, free when its last answer is complete."""

    def __init__(self, free: deque[_Link], closed: deque[_Link]) -> None:
        self._free, self._closed = free, closed
        self._answer = b""
        self._sent_ns = 0
        self.cut = 0
        self.taken_ns: dict[int, list[int]] = {}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._free.append(self)

    def send(self, request: bytes) -> None:
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if complete(self._answer):
            taken = time.perf_counter_ns() - self._sent_ns
            self.taken_ns.setdefault(int(self._answer[9:12]), []).append(taken)
            self._answer = b""
            self._free.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._answer = b""
        if self in self._free:
            self._free.remove(self)
        else:
            self.cut += 1
        self._closed.append(self)

    def close(self) -> None:
        self._transport.close()

"""A light closed-loop load: raw HTTP/1.1 over keep-alive connections, from a process of its own.

Each connection sends its next request when the answer to the last one is complete. It knows just
enough of HTTP for that, so that two cores have room for client, service and store.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import uvloop
from numpy.typing import NDArray

PATIENCE_S = 30.0

Told = TypeVar("Told")

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Run:
    """What one run took: `latency_ms` (n,) of each answer, and the client's own CPU time."""

    seconds: float
    latency_ms: NDArray[np.float64]
    cpu_s: float

    @property
    def per_s(self) -> float:
        return len(self.latency_ms) / self.seconds

    def percentile_ms(self, q: float) -> float:
        return float(np.percentile(self.latency_ms, q))


def post(path: str, body: bytes) -> bytes:
    """The bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Sender(Generic[Told]):
    """A process that sends load as `send` does, when told to, and tells what came back; a context
    manager."""

    def __init__(self, send: Callable[..., Coroutine[Any, Any, Told]]) -> None:
        self._send = send

    def __enter__(self) -> Self:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, self._send), daemon=True)
        self._process.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.join()

    def sent(self, *given: Any) -> Told:
        """What came of it; RuntimeError with what went wrong."""
        self._pipe.send(given)
        reply: Told | str = self._pipe.recv()
        if isinstance(reply, str):
            raise RuntimeError(reply)
        return reply


def _work(pipe: Connection, send: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    while True:
        try:
            pipe.send(uvloop.run(send(*pipe.recv())))
        except (OSError, ValueError) as error:
            pipe.send(f"{send.__module__}: {error!r}")


class Load(Sender[Run]):
    """The closed loop."""

    def __init__(self) -> None:
        super().__init__(_run)

    def run(self, port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Run:
        """Send requests to a port of this host for some seconds.

        Raises
        ------
        RuntimeError
            If an answer isn't 200, or a connection is lost.
        """
        return self.sent(port, requests, connections, seconds)


async def _run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Run:
    loop = asyncio.get_running_loop()
    start, cpu_s = time.perf_counter_ns(), time.process_time()
    clients = [
        _Client(
            islice(cycle(requests), i, None, connections),
            start + int(seconds * 1e9),
            loop.create_future(),
        )
        for i in range(connections)
    ]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    async with asyncio.timeout(seconds + PATIENCE_S):
        await asyncio.gather(*(client.done for client in clients))
    return Run(
        (time.perf_counter_ns() - start) / 1e9,
        np.concatenate([client.taken_ns for client in clients]) / 1e6,
        time.process_time() - cpu_s,
    )


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(
        self, requests: Iterator[bytes], deadline_ns: int, done: asyncio.Future[None]
    ) -> None:
        self._requests = requests
        self._deadline_ns = deadline_ns
        self._answer = b""
        self._sent_ns = 0
        self.done = done
        self.taken_ns: list[int] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        request = next(self._requests)
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not complete(self._answer):
            return
        now_ns = time.perf_counter_ns()
        self.taken_ns.append(now_ns - self._sent_ns)
        if not self._answer.startswith(b"HTTP/1.1 200 "):
            self._fail(f"expected status 200, got {self._answer[:500]!r}")
            return
        self._answer = b""
        if now_ns < self._deadline_ns:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._fail(f"connection lost: {error}")

    def _fail(self, reason: str) -> None:
        self.done.set_exception(ValueError(reason))
        self._transport.close()


def complete(answer: bytes) -> bool:
    """Whether head and body are there; the services measured here always declare a length."""
    end = answer.find(_END)
    if end < 0:
        return False
    length = answer[:end].lower().partition(_LENGTH)[2].partition(b"\r")[0]
    return len(answer) >= end + len(_END) + int(length)


def cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

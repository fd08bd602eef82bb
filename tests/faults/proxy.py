"""A TCP proxy: its connections can be cut, slowed, stalled or left half open. Knows no protocol."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

CHUNK = 65_536


class Proxy:
    """Listens on a port of loopback and forwards to `target`, which may be moved; `port` is where.

    With `tls`, what connects speaks that, and the target doesn't.

    A thread of its own runs it, so what is done to it acts at once, whatever the caller does next.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self._tls = tls
        self._delay_s = 0.0
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.port = int(self._run(self._listen()))

    def close(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Close all connections, as a server that ended would; new ones are taken."""
        self._run(self._cut())

    def lose(self) -> None:
        """Let all connections be half open: they stay, and nothing passes over them ever again.
        New ones work."""
        self._run(self._lose())

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Cut all connections, and each new one at once."""
        self._refusing = True
        self.cut()
        yield
        self._refusing = False

    @contextmanager
    def slow(self, delay_s: float) -> Iterator[None]:
        """Each piece that is read comes so much later."""
        self._delay_s = delay_s
        yield
        self._delay_s = 0.0

    @contextmanager
    def black_hole(self) -> Iterator[None]:
        """Nothing passes, and nobody is told; what was sent arrives afterwards, as TCP has it."""
        self._loop.call_soon_threadsafe(self._flowing.clear)
        yield
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10.0)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return int(self._server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cut()
        await asyncio.sleep(0)  # for what closing has scheduled

    async def _cut(self) -> None:
        for end in [*self._ends]:
            end.transport.abort()
        self._ends.clear()

    async def _lose(self) -> None:
        self._dead |= self._ends

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        await self._flowing.wait()
        try:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._ends |= {writer, onward}
        for source, to, back in ((reader, onward, writer), (onward_reader, writer, onward)):
            task = asyncio.create_task(self._forward(source, to, back))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flowing.wait()
                if to in self._dead:
                    continue
                to.write(data)
                await to.drain()
        if to not in self._dead:
            for end in (to, back):
                end.transport.abort()
                self._ends.discard(end)

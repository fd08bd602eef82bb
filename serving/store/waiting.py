"""How long anybody waits for Redis: a request, for all that it asks, no longer than the settings
say, and not at all while Redis is known to be away. Knows no command."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from redis import exceptions

from serving.store.keys import StoreUnavailable, Unreachable

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

LOOK_S = 0.5  # between two looks at a Redis that answers, ...
LOOK_AGAIN_S = 0.1  # ... and at one that is away
HELD_UP_S = 0.05  # a timer this late says that we were held up, not Redis
TURNS = 4  # of the event loop, in which what has come is read and passed on
_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.RedisClusterException,  # no node answers, or a slot is nobody's
    OSError,
)
_MOVING = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.ClusterError,
    exceptions.AskError,
    exceptions.TryAgainError,
)
_NO_WRITES = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "LOADING")


@contextmanager
def reachable() -> Iterator[None]:
    """Every failure that says nothing of the request as one exception."""
    try:
        yield
    except _AWAY as error:
        raise Unreachable(f"Redis can't be reached: {error}") from error
    except exceptions.OutOfMemoryError as error:
        raise StoreUnavailable("Redis is at its memory limit and takes no writes") from error
    except _MOVING as error:
        raise StoreUnavailable(f"Redis takes no writes now: {error}") from error
    except exceptions.ResponseError as error:
        if str(error).startswith(_NO_WRITES):
            raise StoreUnavailable(f"Redis takes no writes now: {error}") from error
        raise


@dataclass(frozen=True, slots=True)
class Away:
    """Redis doesn't answer: since when, and what was seen of it then."""

    since_ms: int
    why: str


class Circuit:
    """Whether Redis answers. The first request that waited in vain opens it, and others fail at
    once; a look every so often, which waits as long as a request, opens and closes it. With
    `several` servers, of which one may be away, only the look does."""

    def __init__(
        self,
        timeout_s: float,
        ping: Callable[[], Awaitable[Any]],
        clock_ms: Callable[[], int],
        *,
        several: bool = False,
    ) -> None:
        self._several = several
        self.timeout_s = timeout_s
        self.away: Away | None = None
        self._ping = ping
        self._clock_ms = clock_ms
        self._look = asyncio.Event()

    def open(self, why: str) -> None:
        if self.away is None:
            self.away = Away(self._clock_ms(), why)
            self._look.set()
            log.warning("%s", why)

    def doubt(self, why: str) -> None:
        """A request has waited in vain."""
        if not self._several:
            self.open(why)

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            try:
                with reachable():
                    await in_time(self._ping(), self.timeout_s)
            except StoreUnavailable as error:
                self.open(str(error))
            except Exception as error:
                self.open(f"Redis doesn't answer a PING: {error}")
            else:
                if self.away is not None:
                    away_s = (self._clock_ms() - self.away.since_ms) / 1_000
                    log.warning("Redis answers again, after %.1f s", away_s)
                    self.away = None
            self._look.clear()
            try:
                async with asyncio.timeout(LOOK_S if self.away is None else LOOK_AGAIN_S):
                    await self._look.wait()
            except TimeoutError:
                pass


class Patience:
    """What is left of a request's wait for Redis: the time in which it waits for one reply at
    least counts."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self._left_s = circuit.timeout_s
        self._waits = 0
        self._since = 0.0

    async def on(self, reply: Awaitable[Reply]) -> Reply:
        if (away := self.circuit.away) is not None:
            _drop(reply)
            raise Unreachable(away.why)
        loop = asyncio.get_running_loop()
        if not self._waits:
            self._since = loop.time()
        self._waits += 1
        try:
            with reachable():
                left_s = self._left_s - (loop.time() - self._since)
                return await in_time(reply, max(left_s, 0.0))
        except Unreachable as error:
            self.circuit.doubt(str(error))
            raise
        finally:
            self._waits -= 1
            if not self._waits:
                self._left_s -= loop.time() - self._since


_PATIENCE: ContextVar[Patience | None] = ContextVar("patience", default=None)


def wait_no_longer_than(circuit: Circuit) -> None:
    """From here on, all of this request's waits together are bounded."""
    _PATIENCE.set(Patience(circuit))


async def within(reply: Awaitable[Reply]) -> Reply:
    """A reply, as far as this request's patience goes; outside of one, as long as it takes.

    Raises
    ------
    StoreUnavailable
        If nothing came, or was said to be known. What was asked may be done all the same.
    """
    patience = _PATIENCE.get()
    if patience is not None:
        return await patience.on(reply)
    with reachable():
        return await reply


async def in_time(reply: Awaitable[Reply], timeout_s: float) -> Reply:
    """A reply, or TimeoutError. redis-py heeds no cancellation now and then, so nobody waits for
    what was given up."""
    loop = asyncio.get_running_loop()
    future = _future_of(reply)
    due = loop.time() + timeout_s
    timer: asyncio.TimerHandle | None = None

    def expire(turns: int = TURNS) -> None:
        nonlocal timer, due
        if future.done():
            return
        if loop.time() > due + HELD_UP_S:
            due = loop.time() + HELD_UP_S
            timer = loop.call_at(due, expire)
        elif turns:  # what has come already is read first
            timer = loop.call_later(0, expire, turns - 1)
        else:
            future.set_exception(TimeoutError("no answer in time"))

    timer = loop.call_at(due, expire)
    try:
        return await future
    finally:
        timer.cancel()


def _future_of(reply: Awaitable[Reply]) -> asyncio.Future[Reply]:
    """A future that may be done before the reply has come, which is then given up."""
    if isinstance(reply, asyncio.Future) and not isinstance(reply, asyncio.Task):
        return reply
    task = asyncio.ensure_future(reply)
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def settle(task: asyncio.Future[Reply]) -> None:
        error = None if task.cancelled() else task.exception()
        if future.done():
            return
        if task.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    task.add_done_callback(settle)
    future.add_done_callback(lambda _: task.cancel())  # nothing, where it is done
    return future


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they heed it: redis-py swallows a cancellation now and then."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.5)


def _drop(reply: Awaitable[Any]) -> None:
    if isinstance(reply, asyncio.Future):
        reply.cancel()
    else:
        reply.close()  # type: ignore[attr-defined]

"""What concurrent requests submit, done together. Knows nothing of what it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Reply = TypeVar("Reply")

MAX_GROUP = 128  # decisions or rewards that one script call commits at most


class Group(Generic[Item, Reply]):
    """Commits what concurrent requests submit in one round trip; one is under way at a time, so
    the busier the service, the larger the group."""

    def __init__(self, commit: Callable[[Sequence[Item]], Awaitable[Sequence[Reply]]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[Item, asyncio.Future[Reply]]] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            # In a context of its own: how long the first one waits is no business of the others.
            self._task = asyncio.create_task(self._drain(), context=Context())
        return future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                group = [one for one in group if not one[1].done()]  # others have given up
                if group:
                    await self._commit_group(group)
        finally:
            self._task = None

    async def _commit_group(self, group: list[tuple[Item, asyncio.Future[Reply]]]) -> None:
        try:
            replies = await self._commit([item for item, _ in group])
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), reply in zip(group, replies, strict=True):
            if not future.done():  # the caller may have hung up
                future.set_result(reply)


class Turn(Generic[Item, Reply]):
    """Does what is submitted in one turn of the event loop in one go, at most `most` at a time."""

    def __init__(self, do: Callable[[Sequence[Item]], Sequence[Reply]], most: int) -> None:
        self._do = do
        self._most = most
        self._waiting: list[tuple[Item, asyncio.Future[Reply]]] = []

    def submit(self, item: Item) -> asyncio.Future[Reply]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._go)
        self._waiting.append((item, future))
        return future

    def _go(self) -> None:
        group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        try:
            replies = self._do([item for item, _ in group])
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), reply in zip(group, replies, strict=True):
                if not future.done():
                    future.set_result(reply)
        if self._waiting:  # after those who were waiting for this go
            asyncio.get_running_loop().call_soon(self._go)

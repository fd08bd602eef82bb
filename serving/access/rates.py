"""How many requests a key has in a minute, over all processes together.

A process takes a hundredth of them at a time from the count in Redis, and gives these out by
itself: never more than the limit in a minute of the clock, and of it at most a hundredth per
process unused; a round trip for every hundredth, not for every request. Without Redis each process
counts alone.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

from serving.grouping import Group
from serving.store.keys import DAY_MS, StoreUnavailable
from serving.store.waiting import within

MINUTE_MS = 60_000
PARTS = 100

Reserve = Callable[[str, int, int, int], Awaitable[int]]
"""(id of a key, minute, how many at most, limit) -> how many it gets."""


class TooManyRequests(RuntimeError):
    """What a key may do is done; `retry_after_s` until it may do more."""

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


def used_up(policy: str, most: int | None, now_ms: int) -> TooManyRequests:
    """What a key is told that has reported the rewards which it has a day of a policy."""
    wait_s = math.ceil((DAY_MS - now_ms % DAY_MS) / 1_000)
    return TooManyRequests(f"this key has {most} rewards a day of policy {policy!r}", wait_s)


class Rates:
    """What each key has left here."""

    def __init__(self, reserve: Reserve, clock_ms: Callable[[], int]) -> None:
        self._reserve = reserve
        self._clock_ms = clock_ms
        self._of: dict[str, _Allowance] = {}

    async def take(self, key_id: str, limit: int) -> None:
        """Count a request of a key that has `limit` a minute; TooManyRequests beyond them."""
        allowance = self._of.get(key_id)
        if allowance is None or allowance.limit != limit:
            allowance = self._of[key_id] = _Allowance(key_id, limit, self._reserve)
        now_ms = self._clock_ms()
        if not await allowance.take(now_ms // MINUTE_MS):
            wait_s = math.ceil((MINUTE_MS - now_ms % MINUTE_MS) / 1_000)
            raise TooManyRequests(f"this key has {limit} requests a minute", wait_s)


class _Allowance:
    """Of one key: what this process has taken of a minute, and not given out yet."""

    def __init__(self, key_id: str, limit: int, reserve: Reserve) -> None:
        self.limit = limit
        self._key_id = key_id
        self._reserve = reserve
        self._minute = 0
        self._taken = self._left = 0
        self._ended = False
        self._group: Group[int, bool] = Group(self._more)

    async def take(self, minute: int) -> bool:
        if minute != self._minute:
            self._minute, self._taken, self._left, self._ended = minute, 0, 0, False
        if not self._left and not self._ended:
            group = self._group
            try:
                return await within(_submitted(group, minute))
            except StoreUnavailable:
                if self._group is group:  # it may hang for long after Redis is back
                    self._group = Group(self._more)
                if not self._left:
                    most = max(1, self.limit // PARTS)
                    self._add(min(most, self.limit - self._taken), most)
        if self._left:
            self._left -= 1
            return True
        return False

    async def _more(self, askers: Sequence[int]) -> list[bool]:
        """Which of those who wait get one; they ask together."""
        minute, most = askers[-1], max(len(askers), self.limit // PARTS)
        got = await self._reserve(self._key_id, minute, most, self.limit)
        if minute == self._minute:
            self._add(got, most)
            self._left -= min(got, len(askers))
        return [i < got for i in range(len(askers))]

    def _add(self, got: int, most: int) -> None:
        """What was taken of the minute, of `most` that were wanted."""
        got = max(got, 0)
        self._taken += got
        self._left += got
        self._ended = got < most


async def _submitted(group: Group[int, bool], minute: int) -> bool:
    """Not before it is awaited, which it isn't while Redis is known to be away."""
    return await group.submit(minute)

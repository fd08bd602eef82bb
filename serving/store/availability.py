"""What serving knows of endpoints besides values: their health, and what is used of limits.

Knows bytes and strings, no rule.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from serving.store.connecting.hints import hints
from serving.store.keys import HEALTH, HEALTH_CHANGED, Keys, script
from serving.store.waiting import within

Swap = tuple[str, bytes, bytes]  # endpoint, what is known of it, what is to take its place


class AvailabilityStore:
    """The health of all endpoints and the counters of all policies, over connections of its
    maker's."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._swap = redis.register_script(script("health"))
        self._usage = redis.register_script(script("used", "usage"))

    async def health(self) -> dict[str, bytes]:
        """What is known of each endpoint that isn't sound."""
        known: Mapping[bytes, bytes] = await within(self._redis.hgetall(HEALTH))
        return {name.decode(): value for name, value in known.items()}

    async def swap(self, swaps: Sequence[Swap], tell: bool) -> list[bytes]:
        """Replace what is known, each where it is as given; what is known then."""
        arguments: list[Any] = [str(int(tell))]
        for swap in swaps:
            arguments.extend(swap)
        known: list[bytes] = await within(self._swap(keys=[HEALTH, HEALTH_CHANGED], args=arguments))
        return known

    async def used(self, policy: str, now_ms: int) -> dict[str, float]:
        """A policy's counters."""
        keys = Keys(policy)
        flat = await within(self._usage(keys=[keys.used, keys.under_way], args=[now_ms]))
        return {flat[i].decode(): float(flat[i + 1]) for i in range(0, len(flat), 2)}

    def hints(self, timeout_s: float) -> AsyncIterator[None]:
        """Yield where the health of an endpoint may have changed, and at least every
        `timeout_s`."""
        return hints(self._redis, [HEALTH_CHANGED], timeout_s)

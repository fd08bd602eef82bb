"""Messages that something is new. None is relied upon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from serving.store.connecting.clients import LOST


async def hints(redis: Any, channels: Sequence[str], timeout_s: float) -> AsyncIterator[None]:
    """Yield after each message of these channels, and at least every `timeout_s`.

    A hint may be lost, so whoever follows looks at the store at every turn.
    """
    while True:
        with suppress(*LOST):
            async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(*channels)
                while True:
                    await pubsub.get_message(timeout=timeout_s)
                    yield
        yield
        await asyncio.sleep(timeout_s)

"""Keys in Redis: shared by all policies, changed by operators, read by every serving process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import ValidationError

from serving.access.keys import Key
from serving.store.connecting import clients
from serving.store.connecting.hints import hints
from serving.store.keys import (
    ACCESS_AUDIT,
    ACCESS_KEYS,
    DAY_MS,
    KEYS_CHANGED,
    KEYS_USED,
    REQUESTS,
    Keys,
    decoded,
    script,
)
from serving.store.waiting import within

DAYS = 7  # for which it is kept what keys have reported

log = logging.getLogger(__name__)


class ChangedMeanwhile(RuntimeError):
    """Somebody else has changed a key at the same time: nothing was done."""


class NameTaken(RuntimeError):
    """A key that isn't revoked has the name that a new one was to have."""


class KeyStore:
    """Over a connection of its maker's."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._stored: dict[bytes, bytes] = {}  # what was read last, ...
        self._keys: Sequence[Key] = []  # ... and what that means: parsing takes 10 µs a key
        self._change = redis.register_script(script("change_key"))
        self._reserve = redis.register_script(script("reserve"))

    async def all(self) -> Sequence[Key]:
        """Every key there ever was, the oldest first. One that can't be read lets nobody in."""
        stored: dict[bytes, bytes] = await within(self._redis.hgetall(ACCESS_KEYS))
        if stored == self._stored:
            return self._keys
        found = []
        for key_id, raw in stored.items():
            try:
                found.append(Key.model_validate_json(raw))
            except ValidationError:
                log.error("key %s can't be read here: it lets nobody in", key_id.decode())
                found.append(_unreadable(key_id.decode()))
        self._stored, self._keys = stored, sorted(found, key=lambda key: key.created_at_ms)
        return self._keys

    async def put(self, key: Key, before: Key | None, what: str, by: str, now_ms: int) -> None:
        """Store a key, tell every process, and record who did `what`.

        Raises
        ------
        ChangedMeanwhile
            If it isn't stored as it was `before`.
        NameTaken
            If it is new, and its name isn't.
        ValueError
            If it couldn't be read again: times beyond the year 9999 ...
        """
        stored = key.model_dump_json()
        Key.model_validate_json(stored)
        entry = {"kind": what, "key": key.id, "name": key.name, "who": by, "at_ms": now_ms}
        entry["stored"] = key.model_dump_json(include={"scopes", "expires_at_ms"})
        old = "" if before is None else before.model_dump_json()
        done = await within(
            self._change(
                keys=[ACCESS_KEYS, ACCESS_AUDIT, KEYS_CHANGED],
                args=[key.id, old, stored, *(w for p in entry.items() for w in p)],
            )
        )
        if done < 0:
            raise NameTaken(f"there is a key {key.name!r} already: rotate or revoke it")
        if not done:
            raise ChangedMeanwhile(f"key {key.name} was changed meanwhile: try again")

    async def reserve(self, key_id: str, minute: int, most: int, limit: int) -> int:
        """Take up to `most` of the requests that a key has in a minute since 1970; how many."""
        counter = f"{REQUESTS}:{key_id}:{minute}"
        return int(await within(self._reserve(keys=[counter], args=[most, limit])))

    async def used(self, last_ms: Mapping[str, int]) -> None:
        """Keep when keys were last used."""
        await within(self._redis.hset(KEYS_USED, mapping=dict(last_ms)))

    async def add_decisions(self, policy: str, key_id: str, n: int, now_ms: int) -> None:
        """Count decisions that a key got."""
        counts = Keys(policy).reported(now_ms // DAY_MS)
        await within(self._redis.hincrby(counts, f"{key_id} decisions", n))
        await within(self._redis.expire(counts, DAYS * DAY_MS // 1_000))

    async def reported(self, policy: str, now_ms: int) -> list[Mapping[bytes, bytes]]:
        """What each key was counted for, today and on the days before."""
        keys, today = Keys(policy), now_ms // DAY_MS
        days = [keys.reported(today - i) for i in range(DAYS)]
        return [await within(self._redis.hgetall(day)) for day in days]

    async def last_used(self) -> dict[str, int]:
        """When each key was last used, in ms; those never used are absent."""
        stored: Mapping[bytes, bytes] = await within(self._redis.hgetall(KEYS_USED))
        return {key_id.decode(): int(at) for key_id, at in stored.items()}

    async def audit(self) -> list[dict[str, str]]:
        """What was done to keys, by whom, the oldest first."""
        entries = await within(self._redis.xrange(ACCESS_AUDIT))
        return [decoded(fields) for _, fields in entries]

    def hints(self, timeout_s: float) -> AsyncIterator[None]:
        """Yield where a key may have changed, and at least every `timeout_s`."""
        return hints(self._redis, [KEYS_CHANGED], timeout_s)


@asynccontextmanager
async def key_store(url: str) -> AsyncIterator[KeyStore]:
    """Over a connection of its own."""
    redis = clients.serving(url)
    try:
        yield KeyStore(redis)
    finally:
        await redis.aclose()


async def keys_at(url: str) -> Sequence[Key]:
    """The keys that a service on this Redis has; StoreUnavailable."""
    async with key_store(url) as store:
        return await store.all()


def _unreadable(key_id: str) -> Key:
    return Key.model_construct(
        id=key_id,
        name="(unreadable)",
        scopes={},
        digests=(),
        created_at_ms=0,
        created_by="",
        revoked_at_ms=0,
    )

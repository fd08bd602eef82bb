"""What the follower awaits: versions and their roles, catalogs, snapshots.

Knows bytes, strings and states in parts, no policy and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from types import MappingProxyType
from typing import Any

import orjson

from policy.stored import sound
from policy.values.parts import Parts
from policy.values.snapshot import State, read_head
from serving.store.connecting.hints import hints
from serving.store.keys import Alarm, Keys, Roles, decoded, roles_of, script
from serving.store.states import HEAD, completed, field, lacking
from serving.store.waiting import within

ATTEMPTS = 3  # at a snapshot, while newer ones are written


class VersionStore:
    """The versions of all policies that serving follows, over connections of its maker's."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._scripts = {
            name: redis.register_script(script(name))
            for name in ("register", "challenge", "catalog")
        }

    async def register(
        self, policy: str, fingerprint: str, config: bytes, encoder: bytes, now_ms: int
    ) -> str:
        """The version of this configuration; a policy's first one becomes its champion."""
        keys = Keys(policy)
        version: bytes = await within(
            self._scripts["register"](
                keys=[keys.versions, keys.state, keys.audit, keys.version("")],
                args=[fingerprint, config, encoder, now_ms],
            )
        )
        return version.decode()

    async def challenge(
        self,
        policy: str,
        version: str,
        challenger: str | None,
        share: float,
        now_ms: int,
        own: str,
    ) -> Roles:
        """Settle the roles, given the versions of the file's policy and of its challenger; `own` is
        the fingerprint of that policy's table, which tells whether it says something new."""
        keys = Keys(policy)
        reply: list[bytes] = await within(
            self._scripts["challenge"](
                keys=[keys.state, keys.audit],
                args=[
                    version,
                    challenger or "",
                    repr(share) if share else "0",
                    now_ms,
                    keys.published,
                    own,
                ],
            )
        )
        return roles_of(*reply)

    async def roles(self, policy: str) -> Roles:
        """Who has which role in a registered policy."""
        fields = await within(
            self._redis.hmget(Keys(policy).state, "champion", "challenger", "share")
        )
        return roles_of(*fields)

    async def alarm(self, policy: str) -> Alarm | None:
        """What the watch has to say of the champion, if anything."""
        told = await within(self._redis.hget(Keys(policy).state, "alarm"))
        if told is None:
            return None
        fields = orjson.loads(told)
        return Alarm(**{**fields, "reasons": tuple(fields["reasons"])})

    async def put_catalog(self, policy: str, revision: str, catalog: bytes, now_ms: int) -> bool:
        """Put a catalog revision in force; true if it differs from the one before."""
        keys = Keys(policy)
        changed = await within(
            self._scripts["catalog"](
                keys=[keys.catalog(revision), keys.state, keys.audit],
                args=[revision, catalog, now_ms],
            )
        )
        return bool(changed)

    async def catalog(self, policy: str, revision: str) -> bytes | None:
        stored: bytes | None = await within(self._redis.get(Keys(policy).catalog(revision)))
        return stored

    async def holds(self, policy: str, catalog: str, versions: Collection[str]) -> bool:
        """Whether a policy, a revision of its catalog and these versions are all registered, and
        the catalog is sound."""
        keys = Keys(policy)
        names = [keys.state, *map(keys.version, versions)]
        if int(await within(self._redis.exists(*names))) < len(names):
            return False
        stored = await self.catalog(policy, catalog)
        return stored is not None and sound("catalog", stored)

    async def state(self, policy: str) -> dict[str, str]:
        """All that is set in a policy's state."""
        return decoded(await within(self._redis.hgetall(Keys(policy).state)))

    async def version(self, policy: str, version: str) -> tuple[bytes, bytes]:
        """The configuration and encoder of a registered version."""
        config, encoder = await within(
            self._redis.hmget(Keys(policy).version(version), "config", "encoder")
        )
        if config is None or encoder is None:
            raise LookupError(f"policy {policy!r} has no version {version!r}")
        return config, encoder

    async def snapshot_number(self, policy: str, version: str) -> int:
        """The number of a version's newest snapshot, 0 before the first."""
        return int(await within(self._redis.hget(Keys(policy).snapshot(version), "number")) or 0)

    async def snapshot(
        self, policy: str, version: str, have: Parts = MappingProxyType({})
    ) -> tuple[int, State]:
        """Number and state of a version's newest snapshot; parts that the caller has aren't read
        again.

        Raises
        ------
        LookupError
            If there is none.
        ValueError
            If it is damaged.
        """
        name = Keys(policy).snapshot(version)
        for _ in range(ATTEMPTS):
            number, blob = await within(self._redis.hmget(name, "number", HEAD))
            if number is None or blob is None:
                raise LookupError(f"policy {policy!r} has no snapshot of version {version!r}")
            head = read_head(blob)
            lacks = lacking(head, have)
            fields = await within(self._redis.hmget(name, [*map(field, lacks), HEAD]))
            if fields.pop() == blob:  # else a newer one was written in between
                break
        read = dict(zip(lacks, fields, strict=True))
        return int(number), await asyncio.to_thread(completed, head, have, read)

    def hints(self, policies: Sequence[str], timeout_s: float) -> AsyncIterator[None]:
        """Yield after each published hint, and at least every `timeout_s`."""
        return hints(self._redis, [Keys(policy).published for policy in policies], timeout_s)

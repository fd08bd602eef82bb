"""What one policy's learner blocks on: the outcome stream, the lease, its versions' two blobs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from serving.store.keys import CONNECTION, Keys, Roles, reachable, roles_of, script

LEASE_MS = 3_000


class StaleLease(Exception):
    """Another learner has taken over: what this one has learned since is not to be written."""


Entry = tuple[str, dict[bytes, bytes]]


class LearnerStore:
    """What one policy's learner blocks on: the outcome stream, the lease, its two blobs."""

    def __init__(self, url: str, policy: str) -> None:
        # No second try: a server that came back may have lost its last events, and the learner
        # must then start over from the checkpoint.
        self._redis: Any = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **CONNECTION)
        self._keys = Keys(policy)
        self._lease = self._redis.register_script(script("lease"))
        self._commit = self._redis.register_script(script("commit"))
        self._register = self._redis.register_script(script("register"))

    def close(self) -> None:
        self._redis.close()

    def roles(self) -> Roles | None:
        """Who has which role, None before the policy was first registered."""
        with reachable():
            fields = self._redis.hmget(self._keys.state, ["champion", "challenger", "share"])
        return None if fields[0] is None else roles_of(*fields)

    def version(self, version: str) -> tuple[bytes, bytes]:
        """The configuration and encoder of a registered version."""
        with reachable():
            config, encoder = self._redis.hmget(self._keys.version(version), ["config", "encoder"])
        if config is None or encoder is None:
            raise LookupError(f"policy {self._keys.policy!r} has no version {version!r}")
        return config, encoder

    def catalog(self, revision: str) -> bytes:
        """The catalog of a revision that decisions name."""
        with reachable():
            stored: bytes | None = self._redis.get(self._keys.catalog(revision))
        if stored is None:
            raise LookupError(f"policy {self._keys.policy!r} has no catalog {revision!r}")
        return stored

    def checkpoint(self, version: str) -> bytes | None:
        with reachable():
            blob: bytes | None = self._redis.get(self._keys.checkpoint(version))
        return blob

    def outcomes(self, after: str, count: int, block_ms: int | None) -> list[Entry]:
        """Up to `count` outcome events behind the id `after`; waits `block_ms` for the first."""
        with reachable():
            reply: Any = self._redis.xread(
                {self._keys.outcomes: after}, count=count, block=block_ms
            )
        if not reply:
            return []
        streams = reply.values() if isinstance(reply, dict) else [reply[0][1]]
        return [(entry_id.decode(), fields) for entry_id, fields in next(iter(streams))]

    def acquire(self) -> int:
        """A fencing token, or 0 while another learner holds the lease."""
        with reachable():
            return int(self._lease(keys=[self._keys.lease, self._keys.fence], args=[LEASE_MS]))

    def register(self, fingerprint: str, config: bytes, encoder: bytes, now_ms: int) -> str:
        """The version of a configuration; a policy's first one becomes its champion."""
        keys = self._keys
        with reachable():
            version: Any = self._register(
                keys=[keys.versions, keys.state, keys.audit, keys.version("")],
                args=[fingerprint, config, encoder, now_ms],
            )
        return str(version.decode())

    def start(self, version: str, checkpoint: bytes, snapshot: bytes) -> None:
        """Write what a fitted version starts from, unless it has already begun to learn."""
        keys = self._keys
        with reachable(), self._redis.pipeline(transaction=True) as both:
            both.setnx(keys.checkpoint(version), checkpoint)
            both.hsetnx(keys.snapshot(version), "blob", snapshot)
            both.hsetnx(keys.snapshot(version), "number", 1)
            both.execute()

    def commit(self, token: int, version: str, checkpoint: bytes, snapshot: bytes) -> int:
        """Renew the lease and write what is not empty; the number of the new snapshot, or 0.

        Raises
        ------
        StaleLease
            If a later token has been given out: nothing was written.
        """
        keys = self._keys
        with reachable():
            number: Any = self._commit(
                keys=[
                    keys.lease,
                    keys.fence,
                    keys.checkpoint(version),
                    keys.snapshot(version),
                ],
                args=[token, LEASE_MS, checkpoint, snapshot, keys.published, version],
            )
        if number < 0:
            raise StaleLease(f"the learner's token {token} is no longer the newest")
        return int(number)

    def release(self, token: int) -> None:
        """Give the lease back, so that a successor needn't wait for it to run out."""
        with suppress(exceptions.RedisError, OSError):
            if self._redis.get(self._keys.lease) == str(token).encode():
                self._redis.delete(self._keys.lease)

"""What one policy's learner blocks on: the outcome stream, the lease, its versions' two blobs."""

from __future__ import annotations

from typing import Any

from serving.store.connection import reachable
from serving.store.keys import Entry, StaleLease, script
from serving.store.per_policy import LeasedStore


class LearnerStore(LeasedStore):
    """What one policy's learner blocks on: the outcome stream, the lease, its two blobs."""

    def __init__(self, url: str, policy: str) -> None:
        super().__init__(url, policy, lease="lease", fence="fence")
        self._commit = self._redis.register_script(script("commit"))
        self._register = self._redis.register_script(script("register"))

    def snapshot(self, version: str) -> bytes | None:
        with reachable():
            blob: bytes | None = self._redis.hget(self._keys.snapshot(version), "blob")
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
                args=[token, self.lease_ms, checkpoint, snapshot, keys.published, version],
            )
        if number < 0:
            raise StaleLease(f"the learner's token {token} is no longer the newest")
        return int(number)

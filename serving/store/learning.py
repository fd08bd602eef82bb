"""What one policy's learner blocks on: the outcome stream, the lease, its versions' states."""

from __future__ import annotations

from typing import Any

from policy.values.snapshot import State
from serving.store.keys import Entry, StaleLease, script
from serving.store.per_policy import LeasedStore
from serving.store.states import Change, joined
from serving.store.waiting import reachable

NOTHING = Change()


class LearnerStore(LeasedStore):
    """What one policy's learner blocks on: the outcome stream, the lease, its states."""

    def __init__(self, url: str, policy: str) -> None:
        super().__init__(url, policy, lease="lease", fence="fence")
        self._commit = self._redis.register_script(script("commit", frees=True))
        self._begin = self._redis.register_script(script("begin"))
        self._register = self._redis.register_script(script("register"))

    def snapshot(self, version: str) -> bytes | None:
        with reachable():
            return joined(self._redis.hgetall(self._keys.snapshot(version)))

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

    def start(self, version: str, checkpoint: State | None, snapshot: State) -> None:
        """Write what a fitted version starts from, unless it has already begun to learn."""
        keys = self._keys
        first, second = (
            Change(state).arguments(whole=True)[1:] for state in (checkpoint, snapshot)
        )
        both = [keys.checkpoint(version), keys.snapshot(version)]
        with reachable():
            self._begin(keys=both, args=[*first, *second])

    def commit(
        self, token: int, version: str, checkpoint: Change = NOTHING, snapshot: Change = NOTHING
    ) -> int:
        """Renew the lease and write what has changed; the number of the new snapshot, or 0.

        Raises
        ------
        StaleLease
            If a later token has been given out: nothing was written.
        """
        number = self._commit_once(token, version, checkpoint, snapshot, whole=False)
        if number == -2:  # the server has lost what was written before
            number = self._commit_once(token, version, checkpoint, snapshot, whole=True)
        if number < 0:
            raise StaleLease(f"the learner's token {token} is no longer the newest")
        return number

    def _commit_once(
        self, token: int, version: str, checkpoint: Change, snapshot: Change, *, whole: bool
    ) -> int:
        keys = self._keys
        with reachable():
            number: Any = self._commit(
                keys=[keys.lease, keys.fence, keys.checkpoint(version), keys.snapshot(version)],
                args=[
                    token,
                    self.lease_ms,
                    keys.published,
                    version,
                    *checkpoint.arguments(whole=whole),
                    *snapshot.arguments(whole=whole),
                ],
            )
        return int(number)

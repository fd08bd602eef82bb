"""How those that follow a policy's streams stand: their leases, and what waits for them."""

from __future__ import annotations

from typing import Any

from serving.store.keys import decoded
from serving.store.operations import OperatorStore
from serving.store.registered import GateRecord
from serving.store.states import HEAD
from serving.store.waiting import reachable


class StandingStore(OperatorStore):
    """One policy, as `pointsman doctor` and /metrics look at it. Blocks."""

    def holds(self, lease: str) -> bool:
        """Whether some process holds the `lease` or the `archive_lease`."""
        with reachable():
            return bool(self._redis.exists(getattr(self._keys, lease)))

    def archived(self) -> dict[str, str]:
        """The id up to which each stream is archived, by name, as the archiver said last."""
        with reachable():
            return decoded(self._redis.hgetall(self._keys.archived))

    def length(self, stream: str) -> int:
        """How many entries a stream holds."""
        with reachable():
            return int(self._redis.xlen(getattr(self._keys, stream)))

    def snapshot(self, version: str) -> tuple[int, bytes | None]:
        """Number and head of a version's newest snapshot; 0 and None before the first."""
        with reachable():
            number, head = self._redis.hmget(self._keys.snapshot(version), ["number", HEAD])
        return int(number or 0), head

    def verdict(self, version: str) -> GateRecord | None:
        """What the gate said of a version last."""
        with reachable():
            record = self._redis.hget(self._keys.version(version), "gate")
        return None if record is None else GateRecord.of(record)

    def waits_ms(self, stream: str, after: str) -> int:
        """How long the first entry behind the id `after` has been in the `decisions` or `outcomes`,
        by the server's clock; 0 where there is none."""
        with reachable():
            found: Any = self._redis.xrange(getattr(self._keys, stream), f"({after}", "+", 1)
            if not found:
                return 0
            seconds, microseconds = self._redis.time()
        now_ms = int(seconds) * 1_000 + int(microseconds) // 1_000
        return max(now_ms - int(found[0][0].partition(b"-")[0]), 0)

    def newest(self, stream: str) -> dict[bytes, bytes] | None:
        """The last entry of the `decisions` or `outcomes`, None where there is none."""
        with reachable():
            found: Any = self._redis.xrevrange(getattr(self._keys, stream), count=1)
        return found[0][1] if found else None

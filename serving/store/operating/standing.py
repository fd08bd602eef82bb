"""How those that follow a policy's streams stand: their leases, and what waits for them."""

from __future__ import annotations

from typing import Any

from serving.store.operations import OperatorStore
from serving.store.waiting import reachable


class StandingStore(OperatorStore):
    """One policy, as `pointsman doctor` looks at it. Blocks."""

    def holds(self, lease: str) -> bool:
        """Whether some process holds the `lease` or the `archive_lease`."""
        with reachable():
            return bool(self._redis.exists(getattr(self._keys, lease)))

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

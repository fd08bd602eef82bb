"""What an operator's commands do to one policy: who serves, and the record of why."""

from __future__ import annotations

from typing import Any

import redis

from serving.store.keys import CONNECTION, Keys, reachable, script


class OperatorStore:
    """The roles of one policy's versions, and its audit stream."""

    def __init__(self, url: str, policy: str) -> None:
        self._redis: Any = redis.Redis.from_url(url, **CONNECTION)
        self._keys = Keys(policy)
        self._promote = self._redis.register_script(script("promote"))

    def close(self) -> None:
        self._redis.close()

    def promote(self, version: str, who: str, why: str, now_ms: int) -> str | None:
        """Make a registered version champion; the one before, or None if it isn't registered."""
        keys = self._keys
        with reachable():
            before: Any = self._promote(
                keys=[keys.version(version), keys.state, keys.audit],
                args=[version, who, why, now_ms, keys.published],
            )
        return None if before is None else before.decode()

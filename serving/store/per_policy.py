"""What all who look after one policy read alike, and the lease of those that follow its streams."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import exceptions

from serving.store.connecting.clients import blocking
from serving.store.keys import Keys, Roles, decoded, roles_of, script
from serving.store.states import HEAD, joined
from serving.store.waiting import reachable


class PolicyStore:
    """One policy's roles, versions, catalogs and checkpoints. Blocks."""

    def __init__(
        self,
        url: str,
        policy: str,
        *,
        once: bool = False,
        connected: Callable[[Any], None] | None = None,
    ) -> None:
        self._keys = Keys(policy)
        self._redis: Any = blocking(url, self._keys.state, once=once, connected=connected)

    def close(self) -> None:
        self._redis.close()

    def state(self) -> dict[str, str]:
        """All that is set in the policy's state; LookupError if the policy isn't registered."""
        with reachable():
            fields = self._redis.hgetall(self._keys.state)
        if b"champion" not in fields:
            raise LookupError(f"no policy {self._keys.policy!r} is registered there")
        return decoded(fields)

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
        """The catalog of a revision that decisions name; LookupError if there is none."""
        with reachable():
            stored: bytes | None = self._redis.get(self._keys.catalog(revision))
        if stored is None:
            raise LookupError(f"policy {self._keys.policy!r} has no catalog {revision!r}")
        return stored

    def trimmed(self) -> dict[str, str]:
        """The id up to which each stream was trimmed, by name; each was archived up to there."""
        with reachable():
            fields = self._redis.hgetall(self._keys.trimmed)
        return {name.decode(): entry.decode() for name, entry in fields.items()}

    def origin(self) -> str:
        """Which service this is, as its logs say; '' before the policy was first registered."""
        with reachable():
            origin = self._redis.hget(self._keys.state, "origin")
        return "" if origin is None else str(origin.decode())

    def checkpoint(self, version: str) -> bytes | None:
        """All of a version's checkpoint, packed; None before its first."""
        with reachable():
            return joined(self._redis.hgetall(self._keys.checkpoint(version)))

    def checkpoint_head(self, version: str) -> bytes | None:
        """What tells its position."""
        with reachable():
            head: bytes | None = self._redis.hget(self._keys.checkpoint(version), HEAD)
        return head


class LeasedStore(PolicyStore):
    """Held by one process of its kind at a time."""

    lease_ms = 3_000

    def __init__(self, url: str, policy: str, *, lease: str, fence: str) -> None:
        self._leads = False
        super().__init__(url, policy, once=True, connected=self._connected)
        self._lease_key, self._fence_key = getattr(self._keys, lease), getattr(self._keys, fence)
        self._lease = self._redis.register_script(script("lease", frees=True))

    def _connected(self, connection: Any) -> None:
        """Refuse a second connection under one lease. The server may have lost the last events, or
        be another one that never had them: the reader must start over from what it has saved.
        redis-py would connect again by itself, and say nothing where it did between two calls."""
        if self._leads:
            raise exceptions.ConnectionError("the connection was lost")
        connection.on_connect()

    def acquire(self) -> int:
        """A fencing token, or 0 while another one holds the lease."""
        self._leads = False
        with reachable():
            token = int(self._lease(keys=[self._lease_key, self._fence_key], args=[self.lease_ms]))
        self._leads = token > 0
        return token

    def release(self, token: int) -> None:
        """Give the lease back, so that a successor needn't wait for it to run out."""
        self._leads = False
        with suppress(exceptions.RedisError, OSError):
            if self._redis.get(self._lease_key) == str(token).encode():
                self._redis.delete(self._lease_key)

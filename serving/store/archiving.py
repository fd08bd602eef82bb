"""What one policy's archiver blocks on: both streams, its lease, and what leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis import exceptions

from serving.store.keys import Entry, Roles, StaleLease, StoreUnavailable, order, script
from serving.store.per_policy import LeasedStore
from serving.store.waiting import reachable

WAIT_MS = 1_000  # for replicas
CHUNK = 1_000  # entries that Redis, which does one thing at a time, is asked for at once


class ArchiverStore(LeasedStore):
    """Both streams of one policy, named `decisions` and `outcomes` as their keys are.

    With `wait_replicas`, what is read of them is what so many replicas have: a master that falls,
    or goes on beside the one that has taken its place, may hold what will have never been, and the
    log would keep it.
    """

    def __init__(self, url: str, policy: str, wait_replicas: int = 0) -> None:
        self._replicas = wait_replicas
        super().__init__(url, policy, lease="archive_lease", fence="archive_fence")
        self._trim = self._redis.register_script(script("trim", frees=True))
        self._assume = self._redis.register_script(script("event", "assume", frees=True))

    def now_ms(self) -> int:
        """The server's clock."""
        with reachable():
            seconds, microseconds = self._redis.time()
        return int(seconds) * 1_000 + int(microseconds) // 1_000

    def entries(self, stream: str, after: str, count: int, upto: str = "+") -> list[Entry]:
        """Up to `count` entries behind the id `after`, to `upto`; fewer only where these end."""
        found: list[Entry] = []
        while len(found) < count:
            start = f"({found[-1][0] if found else after}"
            chunk = min(CHUNK, count - len(found))
            some = self._range(getattr(self._keys, stream), start, upto, chunk)
            found += [(entry.decode(), fields) for entry, fields in some]
            if len(some) < chunk:
                break
        return found

    def _range(self, name: str, start: str, upto: str, count: int) -> list[Any]:
        # All of it over one connection, and so of one server.
        asked = self._redis.pipeline(transaction=False)
        asked.xrange(name, start, upto, count)
        if self._replicas:
            asked.eval(script("mark", frees=True), 1, self._keys.waited)
            asked.execute_command("WAIT", self._replicas, WAIT_MS)
        with reachable():
            entries, *waited = asked.execute()
        if waited and waited[-1] < self._replicas:
            self._redis.connection_pool.disconnect()  # another server may be the master now
            raise StoreUnavailable(f"{waited[-1]} of {self._replicas} replicas have the {name}")
        return list(entries)

    def last_entry(self, stream: str, upto: str) -> str | None:
        """The id of the last entry that is not behind `upto`, None where there is none."""
        with reachable():
            found = self._redis.xrevrange(getattr(self._keys, stream), upto, "-", 1)
        return found[0][0].decode() if found else None

    def swept(self) -> str | None:
        """The id up to which decisions have been swept for a missing quality, None before any."""
        with reachable():
            entry: bytes | None = self._redis.get(self._keys.swept)
        return None if entry is None else entry.decode()

    def assume(
        self, decision_ids: Sequence[str], quality: float, upto: str, now_ms: int, window_ms: int
    ) -> int:
        """Give each of these decisions this quality, unless it has one, an error, or was
        withdrawn; how many got it. `upto` is swept then. Once more changes nothing."""
        keys = self._keys
        decisions = (keys.decision(decision_id) for decision_id in decision_ids)
        with reachable():
            assumed: Any = self._assume(
                keys=[keys.outcomes, keys.learned, keys.swept, *decisions],
                args=[now_ms, window_ms, repr(float(quality)), upto],
            )
        return int(assumed)

    def unsweep(self) -> None:
        """Forget how far was swept: whoever sweeps again starts with what the stream holds."""
        with reachable():
            self._redis.delete(self._keys.swept)

    def go_on_after(self, stream: str, entry: str) -> bool:
        """Give no id again up to this one, to a stream that a server which lost its last entries
        has set back; true if it was."""
        name = getattr(self._keys, stream)
        with reachable(), suppress(exceptions.ResponseError):  # there is no such stream
            last = self._redis.xinfo_stream(name)["last-generated-id"].decode()
            if order(last) < order(entry):
                # Refused where an entry beyond it has come meanwhile, which is as good.
                self._redis.execute_command("XSETID", name, entry)
                return True
        return False

    def tell(self, **archived: str) -> None:
        """Say up to which id each stream is archived, for whoever looks at it; nothing is done by
        that."""
        with reachable(), suppress(exceptions.OutOfMemoryError):
            self._redis.hset(self._keys.archived, mapping=archived)

    def keep(
        self,
        token: int,
        decisions: str = "",
        outcomes: str = "",
        roles: Roles | None = None,
    ) -> int:
        """Renew the lease, and drop entries before these ids; how many went.

        Outcomes go only while `roles`, whose checkpoints don't need them, are in force.

        Raises
        ------
        StaleLease
            If a later token has been given out: nothing was dropped.
        """
        keys = self._keys
        champion = roles.champion if roles else ""
        challenger = (roles.challenger if roles else None) or ""
        with reachable():
            gone: Any = self._trim(
                keys=[
                    self._lease_key,
                    self._fence_key,
                    keys.decisions,
                    keys.outcomes,
                    keys.trimmed,
                    keys.state,
                ],
                args=[token, self.lease_ms, decisions, outcomes, champion, challenger],
            )
        if gone < 0:
            raise StaleLease(f"the archiver's token {token} is no longer the newest")
        return int(gone)

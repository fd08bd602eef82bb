"""Every Redis key, stream and script. Knows bytes and strings, no policy and no HTTP.

`Store` is what serving awaits, `LearnerStore` what the learner blocks on. All keys of one policy
share the hash tag `{policy}`, so that a script may touch several of them on a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

Item = TypeVar("Item")
Reply = TypeVar("Reply")

LEASE_MS = 3_000
MAX_GROUP = 128  # decisions or rewards that one script call commits at most
SERVING_TIMEOUT_S = 2.0
_RETRIES = 4
_NO_WRITES = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "LOADING")
_CONNECTION: dict[str, Any] = {"socket_timeout": 5.0, "socket_connect_timeout": 2.0}


class StoreUnavailable(Exception):
    """Redis can't be reached, or can't take writes now: nothing was acknowledged."""


class StaleLease(Exception):
    """Another learner has taken over: what this one has learned since is not to be written."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of all keys of one policy."""

    policy: str

    def __getattr__(self, name: str) -> str:
        if name in _NAMES:
            return f"pm:{{{self.policy}}}:{name}"
        raise AttributeError(name)

    def decision(self, decision_id: str) -> str:
        return f"pm:{{{self.policy}}}:decision:{decision_id}"

    def catalog(self, revision: str) -> str:
        return f"pm:{{{self.policy}}}:catalog:{revision}"

    def version(self, version: str) -> str:
        return f"pm:{{{self.policy}}}:version:{version}"

    def checkpoint(self, version: str) -> str:
        return f"pm:{{{self.policy}}}:checkpoint:{version}"

    def snapshot(self, version: str) -> str:
        return f"pm:{{{self.policy}}}:snapshot:{version}"


_NAMES = frozenset(
    {
        "decisions",  # stream: every decision, in the order of acknowledgement
        "outcomes",  # stream: self-contained outcome events; what the learner folds
        "audit",  # stream: versions, promotions, catalog revisions, with who and why
        "versions",  # hash: fingerprint -> version
        "state",  # hash: champion, previous, challenger, share, asked (of it, by the file), catalog
        "lease",  # the learner's lease: its token, with a time to live
        "fence",  # counter: the last fencing token given out
        "published",  # channel: a hint that a snapshot or champion is new
    }
)


@cache
def _script(name: str) -> str:
    return resources.files("serving").joinpath("scripts", f"{name}.lua").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class NewDecision:
    """What the decision script stores. `request` digests the body, for a repeated id.

    `shadow` is what the outcome's event will say of the challenger, and `challenger_x` the context
    that it sees where that is another; both are empty where there is none.
    """

    decision_id: str
    request: str
    record: bytes
    x: bytes
    arm: str
    list_cost_usd: float
    version: str
    encoder: str
    made_at_ms: int
    propensity: float
    catalog: str
    eligible: bytes
    shadow: bytes = b""
    challenger_x: bytes = b""

    def arguments(self) -> tuple[str | bytes | int | float, ...]:
        return (
            self.request,
            self.record,
            self.x,
            self.arm,
            repr(self.list_cost_usd),
            self.version,
            self.encoder,
            self.made_at_ms,
            repr(self.propensity),
            self.catalog,
            self.eligible,
            self.shadow,
            self.challenger_x,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """A decision that already had this id."""

    request: str
    record: bytes
    x: bytes
    challenger_x: bytes | None = None


@dataclass(frozen=True, slots=True)
class Roles:
    """Who serves a policy and who learns in its shadow, with which share of the draw."""

    champion: str
    challenger: str | None = None
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome on its way in: None is absent. Floats are compared by their repr."""

    decision_id: str
    quality: float | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None
    error: str | None = None
    executed_arm: str | None = None
    executed_list_cost_usd: float | None = None
    executed: bool | None = None

    def arguments(self) -> tuple[str, ...]:
        return (
            _number(self.quality),
            _number(self.latency_ms),
            _number(self.cost_usd),
            self.error or "",
            self.executed_arm or "",
            _number(self.executed_list_cost_usd),
            "" if self.executed is None else str(int(self.executed)),
        )


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value) + 0.0)  # -0.0 is 0.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a report: status is ok, unknown or conflict (`accepted` then names it)."""

    status: str
    accepted: list[str]
    unchanged: list[str]
    missing: list[str]
    late: bool


def answers(url: str) -> bool:
    """Whether a server answers at this address now; no second try."""
    client = redis.Redis.from_url(url, retry=None, socket_timeout=1.0, socket_connect_timeout=1.0)
    try:
        return bool(client.ping())
    except (exceptions.RedisError, OSError):
        return False
    finally:
        client.close()


class _Group(Generic[Item, Reply]):
    """Commits what concurrent requests submit in one round trip; one is under way at a time, so
    the busier the service, the larger the group."""

    def __init__(self, commit: Callable[[Sequence[Item]], Awaitable[Sequence[Reply]]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[Item, asyncio.Future[Reply]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                await self._commit_group(group)
        finally:
            self._task = None

    async def _commit_group(self, group: list[tuple[Item, asyncio.Future[Reply]]]) -> None:
        try:
            replies = await self._commit([item for item, _ in group])
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), reply in zip(group, replies, strict=True):
            if not future.done():  # the caller may have hung up
                future.set_result(reply)


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise StoreUnavailable(f"Redis can't be reached: {error}") from error
    except exceptions.OutOfMemoryError as error:
        raise StoreUnavailable("Redis is at its memory limit and takes no writes") from error
    except (exceptions.BusyLoadingError, exceptions.ReadOnlyError) as error:
        raise StoreUnavailable(f"Redis takes no writes now: {error}") from error
    except exceptions.ResponseError as error:
        if str(error).startswith(_NO_WRITES):
            raise StoreUnavailable(f"Redis takes no writes now: {error}") from error
        raise


class Store:
    """What serving awaits: decisions and outcomes in, versions and snapshots out.

    Both scripts are idempotent, so a call whose answer was lost is safe to send again.
    """

    def __init__(self, url: str) -> None:
        # A lost connection is tried again at once; a server that hangs is not waited for twice.
        lost = (exceptions.ConnectionError,)
        retry = AsyncRetry(ExponentialBackoff(cap=0.2, base=0.01), _RETRIES, supported_errors=lost)
        # redis-py's types allow str wherever bytes come back: Any says what they can't.
        self._redis: Any = redis.asyncio.Redis.from_url(
            url, retry=retry, socket_timeout=SERVING_TIMEOUT_S, socket_connect_timeout=1.0
        )
        self._scripts = {
            name: self._redis.register_script(_script(name))
            for name in ("decide", "reward", "register", "challenge", "catalog")
        }
        self._decisions: dict[tuple[str, int], _Group[NewDecision, Stored | None]] = {}
        self._reports: dict[tuple[str, int], _Group[tuple[int, Report], Receipt]] = {}

    async def close(self) -> None:
        await self._redis.aclose()

    async def ping(self) -> None:
        with _reachable():
            await self._redis.ping()

    async def record(self, policy: str, decision: NewDecision, retention_ms: int) -> Stored | None:
        """Write a decision and its log entry; the stored one instead if the id is taken.

        Raises
        ------
        StoreUnavailable
            If nothing can be said of the write: it must not be acknowledged.
        """
        group = self._decisions.get((policy, retention_ms))
        if group is None:
            group = _Group(lambda items: self._record(policy, items, retention_ms))
            self._decisions[policy, retention_ms] = group
        return await group.submit(decision)

    async def _record(
        self, policy: str, decisions: Sequence[NewDecision], retention_ms: int
    ) -> list[Stored | None]:
        keys = Keys(policy)
        names = [keys.decisions, *(keys.decision(d.decision_id) for d in decisions)]
        arguments: list[Any] = [retention_ms]
        for decision in decisions:
            arguments.extend(decision.arguments())
        with _reachable():
            replies = await self._scripts["decide"](keys=names, args=arguments)
        return [None if r is None else Stored(r[0].decode(), *r[1:]) for r in replies]

    async def report(self, policy: str, report: Report, now_ms: int, window_ms: int) -> Receipt:
        """Accept each component of an outcome once, and append the event that teaches it."""
        group = self._reports.get((policy, window_ms))
        if group is None:
            group = _Group(lambda items: self._report(policy, items, window_ms))
            self._reports[policy, window_ms] = group
        return await group.submit((now_ms, report))

    async def _report(
        self, policy: str, reports: Sequence[tuple[int, Report]], window_ms: int
    ) -> list[Receipt]:
        keys = Keys(policy)
        names = [keys.outcomes, *(keys.decision(r.decision_id) for _, r in reports)]
        arguments: list[Any] = [max(now for now, _ in reports), window_ms]
        for _, report in reports:
            arguments.extend(report.arguments())
        with _reachable():
            replies = await self._scripts["reward"](keys=names, args=arguments)
        return [_receipt(r) for r in replies]

    async def decision(self, policy: str, decision_id: str) -> dict[str, bytes] | None:
        """All fields stored for a decision, or None if it is unknown or expired."""
        with _reachable():
            fields = await self._redis.hgetall(Keys(policy).decision(decision_id))
        return {name.decode(): value for name, value in fields.items()} or None

    async def register(
        self, policy: str, fingerprint: str, config: bytes, encoder: bytes, now_ms: int
    ) -> str:
        """The version of this configuration; a policy's first one becomes its champion."""
        keys = Keys(policy)
        with _reachable():
            version: bytes = await self._scripts["register"](
                keys=[keys.versions, keys.state, keys.audit, keys.version("")],
                args=[fingerprint, config, encoder, now_ms],
            )
        return version.decode()

    async def challenge(
        self, policy: str, version: str, challenger: str | None, share: float, now_ms: int
    ) -> Roles:
        """Settle the roles, given the versions of the file's policy and of its challenger."""
        keys = Keys(policy)
        with _reachable():
            reply: list[bytes] = await self._scripts["challenge"](
                keys=[keys.state, keys.audit],
                args=[
                    version,
                    challenger or "",
                    repr(share) if share else "0",
                    now_ms,
                    keys.published,
                ],
            )
        return _roles(*reply)

    async def roles(self, policy: str) -> Roles:
        """Who has which role in a registered policy."""
        with _reachable():
            fields = await self._redis.hmget(Keys(policy).state, "champion", "challenger", "share")
        return _roles(*fields)

    async def put_catalog(self, policy: str, revision: str, catalog: str, now_ms: int) -> bool:
        """Put a catalog revision in force; true if it differs from the one before."""
        keys = Keys(policy)
        with _reachable():
            changed = await self._scripts["catalog"](
                keys=[keys.catalog(revision), keys.state, keys.audit],
                args=[revision, catalog, now_ms],
            )
        return bool(changed)

    async def catalog(self, policy: str, revision: str) -> bytes | None:
        with _reachable():
            stored: bytes | None = await self._redis.get(Keys(policy).catalog(revision))
        return stored

    async def state(self, policy: str) -> dict[str, str]:
        """All that is set in a policy's state."""
        with _reachable():
            return _decoded(await self._redis.hgetall(Keys(policy).state))

    async def version(self, policy: str, version: str) -> tuple[bytes, bytes]:
        """The configuration and encoder of a registered version."""
        with _reachable():
            config, encoder = await self._redis.hmget(
                Keys(policy).version(version), "config", "encoder"
            )
        if config is None or encoder is None:
            raise LookupError(f"policy {policy!r} has no version {version!r}")
        return config, encoder

    async def snapshot_number(self, policy: str, version: str) -> int:
        """The number of a version's newest snapshot, 0 before the first."""
        with _reachable():
            return int(await self._redis.hget(Keys(policy).snapshot(version), "number") or 0)

    async def snapshot(self, policy: str, version: str) -> tuple[int, bytes]:
        """Number and blob of a version's newest snapshot."""
        with _reachable():
            number, blob = await self._redis.hmget(Keys(policy).snapshot(version), "number", "blob")
        if number is None or blob is None:
            raise LookupError(f"policy {policy!r} has no snapshot of version {version!r}")
        return int(number), blob

    async def hints(self, policies: Sequence[str], timeout_s: float) -> AsyncIterator[None]:
        """Yield after each published hint, and at least every `timeout_s`.

        A hint may be lost, so whoever follows looks at the store at every turn.
        """
        channels = [Keys(policy).published for policy in policies]
        while True:
            with suppress(exceptions.ConnectionError, exceptions.TimeoutError, OSError):
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(*channels)
                    while True:
                        await pubsub.get_message(timeout=timeout_s)
                        yield
            yield
            await asyncio.sleep(timeout_s)


def _roles(champion: bytes, challenger: bytes | None, share: bytes | None) -> Roles:
    if not challenger:
        return Roles(champion.decode())
    return Roles(champion.decode(), challenger.decode(), float(share or 0.0))


def _receipt(reply: list[Any]) -> Receipt:
    status, accepted, unchanged, missing, late = reply
    return Receipt(
        status.decode(),
        [name.decode() for name in accepted],
        [name.decode() for name in unchanged],
        [name.decode() for name in missing],
        bool(late),
    )


def _decoded(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


Entry = tuple[str, dict[bytes, bytes]]


class LearnerStore:
    """What one policy's learner blocks on: the outcome stream, the lease, its two blobs."""

    def __init__(self, url: str, policy: str) -> None:
        # No second try: a server that came back may have lost its last events, and the learner
        # must then start over from the checkpoint.
        self._redis: Any = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_CONNECTION)
        self._keys = Keys(policy)
        self._lease = self._redis.register_script(_script("lease"))
        self._commit = self._redis.register_script(_script("commit"))
        self._promote = self._redis.register_script(_script("promote"))
        self._register = self._redis.register_script(_script("register"))

    def close(self) -> None:
        self._redis.close()

    def roles(self) -> Roles | None:
        """Who has which role, None before the policy was first registered."""
        with _reachable():
            fields = self._redis.hmget(self._keys.state, ["champion", "challenger", "share"])
        return None if fields[0] is None else _roles(*fields)

    def version(self, version: str) -> tuple[bytes, bytes]:
        """The configuration and encoder of a registered version."""
        with _reachable():
            config, encoder = self._redis.hmget(self._keys.version(version), ["config", "encoder"])
        if config is None or encoder is None:
            raise LookupError(f"policy {self._keys.policy!r} has no version {version!r}")
        return config, encoder

    def catalog(self, revision: str) -> bytes:
        """The catalog of a revision that decisions name."""
        with _reachable():
            stored: bytes | None = self._redis.get(self._keys.catalog(revision))
        if stored is None:
            raise LookupError(f"policy {self._keys.policy!r} has no catalog {revision!r}")
        return stored

    def checkpoint(self, version: str) -> bytes | None:
        with _reachable():
            blob: bytes | None = self._redis.get(self._keys.checkpoint(version))
        return blob

    def outcomes(self, after: str, count: int, block_ms: int | None) -> list[Entry]:
        """Up to `count` outcome events behind the id `after`; waits `block_ms` for the first."""
        with _reachable():
            reply: Any = self._redis.xread(
                {self._keys.outcomes: after}, count=count, block=block_ms
            )
        if not reply:
            return []
        streams = reply.values() if isinstance(reply, dict) else [reply[0][1]]
        return [(entry_id.decode(), fields) for entry_id, fields in next(iter(streams))]

    def acquire(self) -> int:
        """A fencing token, or 0 while another learner holds the lease."""
        with _reachable():
            return int(self._lease(keys=[self._keys.lease, self._keys.fence], args=[LEASE_MS]))

    def register(self, fingerprint: str, config: bytes, encoder: bytes, now_ms: int) -> str:
        """The version of a configuration; a policy's first one becomes its champion."""
        keys = self._keys
        with _reachable():
            version: Any = self._register(
                keys=[keys.versions, keys.state, keys.audit, keys.version("")],
                args=[fingerprint, config, encoder, now_ms],
            )
        return str(version.decode())

    def start(self, version: str, checkpoint: bytes, snapshot: bytes) -> None:
        """Write what a fitted version starts from, unless it has already begun to learn."""
        keys = self._keys
        with _reachable(), self._redis.pipeline(transaction=True) as both:
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
        with _reachable():
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

    def promote(self, version: str, who: str, why: str, now_ms: int) -> str | None:
        """Make a registered version champion; the one before, or None if it isn't registered."""
        keys = self._keys
        with _reachable():
            before: Any = self._promote(
                keys=[keys.version(version), keys.state, keys.audit],
                args=[version, who, why, now_ms, keys.published],
            )
        return None if before is None else before.decode()

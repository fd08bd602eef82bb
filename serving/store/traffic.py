"""What the routes await: decisions and outcomes in, and what is stored of one.

Knows bytes and strings, no policy and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serving.store.connection import Direct, connect, reachable
from serving.store.keys import Keys, script
from serving.store.versions import VersionStore

Item = TypeVar("Item")
Reply = TypeVar("Reply")

MAX_GROUP = 128  # decisions or rewards that one script call commits at most


@dataclass(frozen=True, slots=True)
class NewDecision:
    """What the decision script stores. `request` digests the body, for a repeated id.

    `shadow` is what the outcome's event will say of the challenger, and `challenger_x` the context
    that it sees where that is another; `asked` is what rules choose by, where they are an
    incumbent. All three are empty where there is none.
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
    asked: str = ""

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
            self.asked,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """A decision that already had this id."""

    request: str
    record: bytes
    x: bytes
    challenger_x: bytes | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome on its way in: None is absent. Floats are compared by their repr.

    `late_counts`: the policy takes silence for an answer, so the log takes one that comes late.
    """

    decision_id: str
    quality: float | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None
    error: str | None = None
    executed_arm: str | None = None
    executed_list_cost_usd: float | None = None
    executed: bool | None = None
    ttft_ms: float | None = None
    retry_after_s: float | None = None
    late_counts: bool = False

    def arguments(self) -> tuple[str, ...]:
        return (
            _number(self.quality),
            _number(self.latency_ms),
            _number(self.cost_usd),
            self.error or "",
            self.executed_arm or "",
            _number(self.executed_list_cost_usd),
            "" if self.executed is None else str(int(self.executed)),
            _number(self.ttft_ms),
            _number(self.retry_after_s),
            str(int(self.late_counts)),
        )


@dataclass(frozen=True, slots=True)
class Correction:
    """Values that overrule those accepted, None where one stands; by whom and why."""

    decision_id: str
    by: str
    reason: str
    quality: float | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None

    def arguments(self) -> tuple[str, ...]:
        return (
            _number(self.quality),
            _number(self.latency_ms),
            _number(self.cost_usd),
            self.by,
            self.reason,
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


@dataclass(frozen=True, slots=True)
class Overruled:
    """What became of a correction: status is ok, unknown, withdrawn, failed (the decision has an
    error, which means quality 0) or unreported (`corrected` then names what never arrived)."""

    status: str
    corrected: list[str]
    unchanged: list[str]


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


class Store:
    """What the routes await; `versions` is what the follower does, over the same connections.

    Decisions, reports and corrections are idempotent, so a call whose answer was lost is safe to
    send again.
    """

    def __init__(self, url: str) -> None:
        self._redis = connect(url)
        self._direct = Direct(url)
        self.versions = VersionStore(self._redis)
        self._decide = self._redis.register_script(script("decide"))
        self._scripts = {
            name: self._redis.register_script(script("event", name))
            for name in ("reward", "correct")
        }
        self._decisions: dict[tuple[str, int], _Group[NewDecision, Stored | None]] = {}
        self._reports: dict[tuple[str, int], _Group[tuple[int, Report], Receipt]] = {}
        self._corrections: dict[tuple[str, int], _Group[tuple[int, Correction], Overruled]] = {}

    async def close(self) -> None:
        self._direct.close()
        await self._redis.aclose()

    async def ping(self) -> None:
        with reachable():
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
        with reachable():
            replies = await self._direct.run(self._decide, names, arguments)
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
        return [_receipt(r) for r in await self._append("reward", policy, reports, window_ms)]

    async def correct(
        self, policy: str, correction: Correction, now_ms: int, window_ms: int
    ) -> Overruled:
        """Overrule what was accepted, and append the event that takes it back."""
        group = self._corrections.get((policy, window_ms))
        if group is None:
            group = _Group(lambda items: self._correct(policy, items, window_ms))
            self._corrections[policy, window_ms] = group
        return await group.submit((now_ms, correction))

    async def _correct(
        self, policy: str, corrections: Sequence[tuple[int, Correction]], window_ms: int
    ) -> list[Overruled]:
        replies = await self._append("correct", policy, corrections, window_ms)
        return [Overruled(status.decode(), _names(a), _names(b)) for status, a, b in replies]

    async def _append(
        self,
        name: str,
        policy: str,
        items: Sequence[tuple[int, Report]] | Sequence[tuple[int, Correction]],
        window_ms: int,
    ) -> list[Any]:
        """The replies of a script that appends to the outcomes stream."""
        keys = Keys(policy)
        decisions = (keys.decision(item.decision_id) for _, item in items)
        arguments: list[Any] = [max(now for now, _ in items), window_ms]
        for _, item in items:
            arguments.extend(item.arguments())
        with reachable():
            replies: list[Any] = await self._direct.run(
                self._scripts[name], [keys.outcomes, keys.learned, *decisions], arguments
            )
        return replies

    async def decision(self, policy: str, decision_id: str) -> dict[str, bytes] | None:
        """All fields stored for a decision, or None if it is unknown or expired."""
        with reachable():
            fields = await self._redis.hgetall(Keys(policy).decision(decision_id))
        return {name.decode(): value for name, value in fields.items()} or None


def _receipt(reply: list[Any]) -> Receipt:
    status, accepted, unchanged, missing, late = reply
    return Receipt(
        status.decode(), _names(accepted), _names(unchanged), _names(missing), bool(late)
    )


def _names(reply: list[bytes]) -> list[str]:
    return [name.decode() for name in reply]

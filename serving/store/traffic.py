"""What the routes await: decisions and outcomes in, and what is stored of one.

Knows bytes and strings, no policy and no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.grouping import Group
from serving.observing import metrics
from serving.store.availability import AvailabilityStore
from serving.store.connecting import clients
from serving.store.connecting.address import Address
from serving.store.connecting.direct import Direct
from serving.store.keys import DAY_MS, Keys, script
from serving.store.versions import VersionStore
from serving.store.waiting import within


@dataclass(frozen=True, slots=True)
class NewDecision:
    """What the decision script stores. `request` digests the body, for a repeated id.

    `shadow` is what the outcome's event will say of the challenger, and `challenger_x` the context
    that it sees where that is another; `asked` is what rules choose by, where they are an
    incumbent, `place` where the arm is called, `taken` what that takes of limits, and `plan` what
    its events repeat of a plan. `session` names one that this is a turn of, with how long an idle
    one is kept (`idle_ms`), the `draw` that a later turn belongs to, or else the one that this
    decision `replaces`. All are empty where there is none.
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
    place: str = ""
    taken: Mapping[str, Any] = field(default_factory=dict)
    plan: bytes = b""
    session: Mapping[str, str | int] = field(default_factory=dict)

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
            self.place,
            self._taken(),
            self.plan,
            orjson.dumps(self.session) if self.session else b"",
        )

    def _taken(self) -> bytes:
        if not self.taken:
            return b""
        member = orjson.dumps([self.decision_id, *self.taken["under_way"]]).decode()
        return orjson.dumps({**self.taken, "member": member})


@dataclass(frozen=True, slots=True)
class Stored:
    """A decision that already had this id."""

    request: str
    record: bytes
    x: bytes
    challenger_x: bytes | None = None
    turn: bytes | None = None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A turn was not recorded: its session's draw is another one than it was made for."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A decision was not recorded: it would have gone beyond this one of its bounds."""

    bound: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A decision was recorded with what it takes; how many calls are then under way where it asked
    for that, and which turn of its session it is."""

    under_way: list[int]
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome on its way in: None is absent. Floats are compared by their repr.

    `late_counts`: the policy takes silence for an answer, so the log takes one that comes late.
    `teaches`: the error, if any, says something of the arm's quality.
    `attempts`: the calls that were made, as JSON.
    `key`: the id of the caller's key, '' without one, and how many reports (`most`) it has a day.
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
    teaches: bool = True
    tokens: int | None = None
    attempts: str | None = None
    key: str = ""
    most: int | None = None

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
            str(int(self.teaches)),
            "" if self.tokens is None else str(self.tokens),
            self.attempts or "",
            self.key,
            "" if self.most is None else str(self.most),
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
    key: str = ""

    def arguments(self) -> tuple[str, ...]:
        return (
            _number(self.quality),
            _number(self.latency_ms),
            _number(self.cost_usd),
            self.by,
            self.reason,
            self.key,
        )


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value) + 0.0)  # -0.0 is 0.0


@dataclass(frozen=True, slots=True)
class Over:
    """A call is over: of which arm, at which place ('' where there is but the arm, or nobody
    knows), when it was decided on, and whether this is the first that was heard of it."""

    arm: str
    place: str
    made_at_ms: int
    first: bool
    used: Mapping[str, float]
    """The counters that it has moved, as they stand then."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a report: status is ok, unknown, conflict (`accepted` then names it) or
    used_up: its key has no more today."""

    status: str
    accepted: list[str]
    unchanged: list[str]
    missing: list[str]
    late: bool
    over: Over | None = None


@dataclass(frozen=True, slots=True)
class Overruled:
    """What became of a correction: status is ok, unknown, withdrawn, failed (the decision has an
    error, which means quality 0) or unreported (`corrected` then names what never arrived)."""

    status: str
    corrected: list[str]
    unchanged: list[str]


Recorded = Stored | Refused | Elsewhere | Taken | None
"""None: as it is."""


class Store:
    """What the routes await; `versions` is what the follower does, over the same connections.

    Decisions, reports and corrections are idempotent, so a call whose answer was lost is safe to
    send again.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = clients.SERVING_TIMEOUT_S,
        wait_replicas: int = 0,
    ) -> None:
        self.redis = self._redis = clients.serving(url)
        self.has_several = Address.of(url).kind == "cluster"  # servers, for different policies
        self._direct = Direct(url, self._redis, timeout_s, wait_replicas)
        self.versions = VersionStore(self._redis)
        self.availability = AvailabilityStore(self._redis)
        self._decide = self._redis.register_script(script("used", "join", "decide"))
        self._scripts = {
            "reward": self._redis.register_script(
                script("event", "account", "used", "settle", "turn", "reward")
            ),
            "correct": self._redis.register_script(script("event", "used", "correct")),
        }
        self._decisions: dict[tuple[str, int], Group[NewDecision, Recorded]] = {}
        self._reports: dict[tuple[str, int], Group[tuple[int, Report], Receipt]] = {}
        self._corrections: dict[tuple[str, int], Group[tuple[int, Correction], Overruled]] = {}

    async def close(self) -> None:
        self._direct.close()
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raises what redis-py does, where nobody answers."""
        await clients.ping(self._redis)

    async def record(self, policy: str, decision: NewDecision, retention_ms: int) -> Recorded:
        """Write a decision and its log entry; the stored one instead if the id is taken.

        Raises
        ------
        StoreUnavailable
            If nothing can be said of the write: it must not be acknowledged.
        """
        group = self._decisions.get((policy, retention_ms))
        if group is None:
            group = Group(lambda items: self._record(policy, items, retention_ms))
            self._decisions[policy, retention_ms] = group
        return await within(group.submit(decision))

    async def _record(
        self, policy: str, decisions: Sequence[NewDecision], retention_ms: int
    ) -> list[Recorded]:
        keys = Keys(policy)
        names = [keys.decisions, keys.used, keys.under_way]
        names += (keys.decision(d.decision_id) for d in decisions)
        arguments: list[Any] = [retention_ms]
        for decision in decisions:
            arguments.extend(decision.arguments())
        with metrics.store_seconds("decide").time():
            replies = await within(self._direct.run(self._decide, names, arguments))
        return [_recorded(reply) for reply in replies]

    async def draw_of(self, policy: str, session: str) -> tuple[str, dict[str, bytes]]:
        """The decision id of a session's draw, and all that is stored of it; both are empty where
        there is none."""
        draw = await within(self._redis.hget(Keys(policy).session(session), "draw"))
        if draw is None:
            return "", {}
        return draw.decode(), await self.decision(policy, draw.decode()) or {}

    async def report(self, policy: str, report: Report, now_ms: int, window_ms: int) -> Receipt:
        """Accept each component of an outcome once, and append the event that teaches it."""
        group = self._reports.get((policy, window_ms))
        if group is None:
            group = Group(lambda items: self._report(policy, items, window_ms))
            self._reports[policy, window_ms] = group
        return await within(group.submit((now_ms, report)))

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
            group = Group(lambda items: self._correct(policy, items, window_ms))
            self._corrections[policy, window_ms] = group
        return await within(group.submit((now_ms, correction)))

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
        reported = keys.reported(arguments[0] // DAY_MS)
        names = [keys.outcomes, keys.learned, *decisions, reported, keys.used, keys.under_way]
        with metrics.store_seconds(name).time():
            replies: list[Any] = await within(
                self._direct.run(self._scripts[name], names, arguments)
            )
        return replies

    async def decision(self, policy: str, decision_id: str) -> dict[str, bytes] | None:
        """All fields stored for a decision, or None if it is unknown or expired."""
        fields = await within(self._redis.hgetall(Keys(policy).decision(decision_id)))
        return {name.decode(): value for name, value in fields.items()} or None


def _recorded(reply: Any) -> Recorded:
    if reply is None:
        return None
    if isinstance(reply, int):
        return Refused(reply)
    if all(isinstance(value, int) for value in reply):
        return Taken(reply)
    if reply[0] == b"session":
        return Elsewhere()
    if reply[0] == b"turn":
        return Taken(reply[2:], reply[1])
    return Stored(reply[0].decode(), *reply[1:])


def _receipt(reply: list[Any]) -> Receipt:
    status, accepted, unchanged, missing, late, *over = reply
    return Receipt(
        status.decode(),
        _names(accepted),
        _names(unchanged),
        _names(missing),
        bool(late),
        *(_over(*call) for call in over),
    )


def _over(arm: bytes, place: bytes, made_at_ms: bytes, first: int, counts: list[Any]) -> Over:
    used = {counts[i].decode(): float(counts[i + 1]) for i in range(0, len(counts), 2)}
    return Over(arm.decode(), place.decode(), int(made_at_ms), bool(first), used)


def _names(reply: list[bytes]) -> list[str]:
    return [name.decode() for name in reply]

"""What a call takes of the limits of its endpoint, its arm and its provider, and what is left.

Counters have names, and somebody else keeps them: this says which ones a call moves, and which of
them add up to what a limit bounds. A minute is the 10 s that go on and the six before, so that no
60 s hold more than the limit however the provider counts; a day is a UTC day. Knows no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from policy.arms.arm import Arm
from policy.arms.endpoints import Endpoint, Limits

STEP_MS = 10_000
STEPS = 7  # that a minute is counted by: one goes on, six are over
DAY_MS = 86_400_000
UNDER_WAY_MS = 120_000
"""A call whose outcome nobody has reported by then no longer counts as under way."""

KINDS = ("under_way", "requests", "tokens", "usd")
Used = Callable[[str], float]  # what a counter stands at


@dataclass(frozen=True, slots=True)
class Bound:
    """What may be taken: the counters `fields` add up to `limit` at most. `kind` is requests,
    tokens, usd or under_way; `fields[0]` is the one that a call moves."""

    kind: str
    name: str
    fields: tuple[str, ...]
    limit: float
    more_ms: int | None
    """When more is to be had, None where nobody knows."""

    def left(self, used: Used) -> float:
        return self.limit - sum(map(used, self.fields))

    def why(self) -> str:
        until = "" if self.more_ms is None else f" until {moment(self.more_ms)}"
        return f"{self.name} is used up{until}"


class Scope:
    """An endpoint, an arm or a provider, by a name that no other one has."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.limits = limits
        self.under_way = f"0 under_way {name}"
        """The counter of calls that are under way."""
        self._name = name
        self._step, self._bounds = -1, list[Bound]()

    def bounds(self, now_ms: int) -> list[Bound]:
        """What of its limits holds now, in the order in which they are told."""
        if now_ms // STEP_MS != self._step:
            self._step = now_ms // STEP_MS
            self._bounds = self._bounds_in(self._step)
        return self._bounds

    def _bounds_in(self, step: int) -> list[Bound]:
        limits, found = self.limits, []
        day = step * STEP_MS // DAY_MS
        # Counters are named by when they end (in s), so that they can be dropped then.
        ends = [(step + STEPS - n) * STEP_MS // 1_000 for n in range(STEPS)]
        today = (day + 1) * DAY_MS
        if limits.max_concurrency is not None:
            found.append(
                Bound(
                    "under_way",
                    f"max_concurrency {limits.max_concurrency} of {self._name}",
                    (self.under_way,),
                    limits.max_concurrency,
                    None,
                )
            )
        for kind in ("requests", "tokens"):
            a_minute = getattr(limits, f"{kind}_per_minute")
            if a_minute is not None:
                fields = tuple(f"{end} {kind} {self._name}" for end in ends)
                name = f"{kind}_per_minute {a_minute} of {self._name}"
                found.append(Bound(kind, name, fields, a_minute, (step + 1) * STEP_MS))
            a_day = getattr(limits, f"{kind}_per_day")
            if a_day is not None:
                field = f"{today // 1_000} {kind} {self._name}"
                name = f"{kind}_per_day {a_day} of {self._name}"
                found.append(Bound(kind, name, (field,), a_day, today))
        if limits.credits_usd is not None:
            name = f"credits_usd {limits.credits_usd:g} of {self._name}"
            found.append(Bound("usd", name, (f"0 usd {self._name}",), limits.credits_usd, None))
        return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where an arm is called: an endpoint, or the arm itself where it has none. `key` is what its
    health is kept by."""

    key: str
    endpoint: Endpoint | None
    scopes: tuple[Scope, ...]
    """Whose limits a call here counts for; an endpoint's own comes first where it counts."""

    @property
    def url(self) -> str | None:
        return None if self.endpoint is None else self.endpoint.url

    @property
    def weight(self) -> float:
        return 1.0 if self.endpoint is None else self.endpoint.weight

    @property
    def under_way(self) -> str:
        """The counter of the calls that are under way here, where there are scopes."""
        return self.scopes[0].under_way

    @property
    def bounded(self) -> bool:
        return any(scope.limits.limited for scope in self.scopes)

    def bounds(self, now_ms: int) -> list[Bound]:
        return [bound for scope in self.scopes for bound in scope.bounds(now_ms)]


def places(arm: Arm, provider: Limits | None) -> tuple[Place, ...]:
    """All of an arm's, in its own order."""
    shared = [Scope(f"arm {arm.id}", arm)] if arm.limited else []
    if provider is not None and provider.limited:
        shared.append(Scope(f"provider {arm.provider}", provider))
    if not arm.endpoints:
        return (Place(arm.id, None, tuple(shared)),)
    several = len(arm.endpoints) > 1
    return tuple(
        Place(
            f"{arm.id} {one.url}",
            one,
            (Scope(f"endpoint {one.url} of {arm.id}", one), *shared)
            if several or one.limited
            else tuple(shared),
        )
        for one in arm.endpoints
    )


def amount(bound: Bound, tokens: float, usd: float) -> float:
    """What one call takes of it."""
    return {"tokens": tokens, "usd": usd}.get(bound.kind, 1.0)


def taken(
    place: Place, told: Sequence[Place], made_at_ms: int, tokens: int, usd: float, others: Used
) -> dict[str, Any]:
    """What a decision takes at a place, for the script that records it; empty where that is
    nothing. The script tells what is then under way at the places `told`.

    `others` are the counters of other policies, which bound this one too.
    """
    if not place.scopes:
        return {}
    bounds = place.bounds(made_at_ms)
    counters = {kind: [bound.fields[0] for bound in bounds if bound.kind == kind] for kind in KINDS}
    if len(told) > 1 and place.under_way not in counters["under_way"]:
        counters["under_way"].insert(0, place.under_way)
    return {
        **counters,
        "n_tokens": tokens,
        "n_usd": usd,
        "until_ms": made_at_ms + UNDER_WAY_MS,
        "bounds": [
            [bound.left(others) - amount(bound, tokens, usd), bound.fields] for bound in bounds
        ],
        "told": [one.under_way for one in told],
    }


def moved(takes: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The counters that a decision moves, and by how much."""
    if takes:
        amounts = (1.0, 1.0, takes["n_tokens"], takes["n_usd"])
        for kind, by in zip(KINDS, amounts, strict=True):
            for counter in takes[kind]:
                yield counter, by


def moment(ms: int) -> str:
    """A time as people read it, to the second above."""
    return datetime.fromtimestamp(-(-ms // 1_000), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

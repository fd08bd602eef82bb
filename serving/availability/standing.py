"""Where each arm of a catalog can be called at this moment, and which place takes the next call.

Pure: health and counters are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from policy.arms.availability import EVERYTHING, Availability
from policy.arms.catalog import Catalog, Vector
from policy.arms.endpoints import Limits, least_outstanding
from serving.availability.health import WELL, Health
from serving.availability.limits import Bound, Place, Used, moment, places

Healths = Mapping[str, Health]  # by place; who isn't there is well
LEAST = {"usd": 1e-12}  # that must be left for another call; of all else it is 1


class Map:
    """All places of a catalog's arms, by arm."""

    def __init__(self, catalog: Catalog, providers: Mapping[str, Limits]) -> None:
        self.catalog = catalog
        self.places = {arm.id: places(arm, providers.get(arm.provider)) for arm in catalog.arms}
        self.bounded = [
            arm for arm, here in self.places.items() if any(place.bounded for place in here)
        ]
        self.counted = any(place.scopes for here in self.places.values() for place in here)

    @cached_property
    def arm_of(self) -> Mapping[str, str]:
        """The arm of a place's key."""
        return {place.key: arm for arm, here in self.places.items() for place in here}


@dataclass(frozen=True, slots=True)
class _Stand:
    """How one place stands: whether its health lets it be called, and its bounds."""

    place: Place
    health: Health
    open: bool
    spent: Bound | None
    tokens_left: float
    usd_left: float


def _stand(place: Place, healths: Healths, used: Used, now_ms: int) -> _Stand:
    health = healths.get(place.key, WELL)
    spent, left = None, {"tokens": np.inf, "usd": np.inf}
    for bound in place.bounds(now_ms):
        rest = bound.left(used)
        if bound.kind in left:
            left[bound.kind] = min(left[bound.kind], rest)
        if spent is None and rest < LEAST.get(bound.kind, 1.0):
            spent = bound
    is_open = health.is_in() or health.may_be_tried(now_ms)
    return _Stand(place, health, is_open, spent, left["tokens"], left["usd"])


def _stands(here: Sequence[Place], healths: Healths, used: Used, now_ms: int) -> list[_Stand]:
    """How an arm's places stand. While none is in, one is tried for all, and none of them is back
    before that is over, but what a Retry-After put out."""
    stands = [_stand(place, healths, used, now_ms) for place in here]
    alike = [stand.health for stand in stands if not stand.health.asked]
    over_ms = max((health.tried_until_ms for health in alike), default=0)
    if over_ms <= now_ms or any(health.is_in() for health in alike):
        return stands
    return [s if s.health.asked else _waiting(s, over_ms) for s in stands]


def _waiting(stand: _Stand, over_ms: int) -> _Stand:
    """The same, until the trial of another place is over."""
    return replace(stand, open=False, health=replace(stand.health, tried_until_ms=over_ms))


def availability(map_: Map, healths: Healths, used: Used, now_ms: int) -> Availability:
    """What can be called of a catalog's arms now."""
    unwell = [map_.arm_of[key] for key in healths if key in map_.arm_of]
    if not unwell and not map_.bounded:
        return EVERYTHING
    out: dict[str, str] = {}
    back_ms: dict[str, int] = {}
    k = len(map_.catalog)
    answered, tokens_left, usd_left = np.ones(k), np.full(k, np.inf), np.full(k, np.inf)
    for arm in dict.fromkeys((*map_.bounded, *unwell)):
        stands = _stands(map_.places[arm], healths, used, now_ms)
        unspent = [stand for stand in stands if stand.spent is None]
        usable = [stand for stand in unspent if stand.open]
        if not usable:
            out[arm] = "; ".join(dict.fromkeys(_why(stand, now_ms) for stand in stands))
            if unspent:
                back_ms[arm] = min(stand.health.back_ms() for stand in unspent)
            continue
        i = map_.catalog.index(arm)
        answered[i] = 1.0 - float(np.mean([stand.health.rate(now_ms) for stand in usable]))
        tokens_left[i] = max(stand.tokens_left for stand in usable)
        usd_left[i] = max(stand.usd_left for stand in usable)
    return Availability(
        out,
        back_ms,
        _unless(answered, 1.0),
        _unless(tokens_left, np.inf),
        _unless(usd_left, np.inf),
    )


def _unless(values: Vector, usual: float) -> Vector | None:
    return None if (values == usual).all() else values


def _why(stand: _Stand, now_ms: int) -> str:
    health = stand.health
    at = "" if stand.place.url is None else f"{stand.place.url} is "
    if stand.spent is not None:
        return stand.spent.why()
    if health.until_ms > now_ms:
        return f"{at}out until {moment(health.until_ms)} ({health.why})"
    return f"{at}out ({health.why}), being tried until {moment(health.tried_until_ms)} at most"


def shown(here: Sequence[Place], healths: Healths, used: Used, now_ms: int) -> list[dict[str, Any]]:
    """An arm's places, as `PlaceBody` tells of them."""
    rows = []
    for place in here:
        health = healths.get(place.key, WELL)
        trying = health.tried_until_ms > now_ms or health.may_be_tried(now_ms)
        rows.append(
            {
                "endpoint": place.url,
                "state": "in" if health.is_in() else "tried" if trying else "out",
                "why": health.why or None,
                "until_ms": health.until_ms or None,
                "failing": health.rate(now_ms),
                "under_way": int(used(place.under_way)) if place.scopes else None,
                "limits": [
                    {"limit": bound.name, "left": bound.left(used), "more_ms": bound.more_ms}
                    for bound in place.bounds(now_ms)
                ],
            }
        )
    return rows


def soonest(here: Sequence[Place], healths: Healths) -> Place:
    """Which of an arm's places comes back first, where all are out."""
    return min(here, key=lambda place: healths.get(place.key, WELL).back_ms())


def next_place(
    here: Sequence[Place],
    healths: Healths,
    used: Used,
    now_ms: int,
    needs: tuple[float, float],
    u: float,
) -> tuple[Place, bool] | None:
    """Which of an arm's places takes a call that needs so many tokens and so much USD, and whether
    that call tries it; None where none can be called now.

    One that may be tried is tried first; else the least outstanding by weight, u in [0, 1) choosing
    among equals. Failures in a row count as outstanding: what fails fast is no quick answer.
    """
    if len(here) == 1 and here[0].key not in healths:
        return here[0], False
    tokens, usd = needs
    stands = _stands(here, healths, used, now_ms)
    fit = [s for s in stands if not s.spent and s.tokens_left >= tokens and s.usd_left >= usd]
    usable = [stand for stand in fit if stand.open]
    if not usable:
        return None
    for stand in usable:
        if not stand.health.is_in():
            return stand.place, True
    if len(usable) == 1:
        return usable[0].place, False
    chosen = least_outstanding(
        [stand.place.weight for stand in usable],
        [used(stand.place.under_way) + stand.health.row() for stand in usable],
        u,
    )
    return usable[chosen].place, False

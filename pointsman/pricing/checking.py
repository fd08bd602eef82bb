"""A catalog's prices, held against the calendar and against a list."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pointsman.pricing.editing import COSTS, Listed, news
from policy.arms.arm import Arm


class Finding(NamedTuple):
    arm: str
    what: str


def findings(
    arms: Sequence[Arm], on: datetime.date, max_age_days: int, listed: Listed | None = None
) -> list[Finding]:
    """What is wrong with the arms' prices on a day, in their order: missing, old, or other than a
    list says. Of providers that the list doesn't know nothing can be said by it."""
    return [
        Finding(arm.id, what)
        for arm in arms
        for what in (*_by_date(arm, on, max_age_days), *_by_list(arm, listed))
    ]


def _by_date(arm: Arm, on: datetime.date, max_age_days: int) -> Iterator[str]:
    if arm.prices_checked is None:
        yield "nobody has said when its prices were checked (prices_checked)"
    elif (days := (on - arm.prices_checked).days) > max_age_days:
        yield f"its prices were checked {days} days ago, on {arm.prices_checked}"


def _by_list(arm: Arm, listed: Listed | None) -> Iterator[str]:
    if listed is None or arm.provider not in listed.providers:
        return
    found = listed.of(arm)
    if found is None:
        yield f"the list has no {arm.provider}/{arm.model}"
        return
    for key, price in news(arm, found).items():
        if key == "price_tiers":
            yield "the list has other price_tiers"
        elif key == "price_changes":
            days = ", ".join(str(change.on) for change in price) or "none"
            yield f"the list has other price_changes: {days}"
        elif key in COSTS:
            own = getattr(arm, key)
            said = "is missing" if own is None else f"is {own:g}"
            yield f"{key} {said}, the list has {price:g}"

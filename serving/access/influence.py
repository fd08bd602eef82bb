"""How much a key's rewards have moved what a policy believes of its arms, and how unlike those of
others they are. Pure: from what was counted of each key."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Sums(NamedTuple):
    """Of n qualities: their sum, and that of their squares."""

    n: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def plus(self, other: Sums) -> Sums:
        return Sums(*map(sum, zip(self, other, strict=True)))

    @property
    def mean(self) -> float | None:
        return self.total / self.n if self.n else None

    @property
    def variance(self) -> float:
        """Unbiased; 0 for fewer than two."""
        if self.n < 2:
            return 0.0
        return max(self.squares - self.total**2 / self.n, 0.0) / (self.n - 1)


class Reported(NamedTuple):
    """What one key was counted for: decisions, reports, and the qualities among these by arm."""

    decisions: int
    rewards: int
    arms: Mapping[str, Sums]


def by_key(days: Iterable[Mapping[bytes, bytes]]) -> dict[str, Reported]:
    """What was counted on these days, by key; see account.lua for the fields."""
    counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    arms: defaultdict[str, defaultdict[str, Sums]] = defaultdict(lambda: defaultdict(Sums))
    places = {"n": 0, "sum": 1, "squares": 2}
    for day in days:
        for field, value in day.items():
            key, what, *arm = field.decode().split(" ")
            if arm:
                part = [0.0, 0.0, 0.0]
                part[places[what]] = float(value)
                arms[key][arm[0]] = arms[key][arm[0]].plus(Sums(*part))
            else:
                counts[key][what] += int(value)
    return {
        key: Reported(counts[key]["decisions"], counts[key]["rewards"], dict(arms[key]))
        for key in counts.keys() | arms.keys()
    }


def figures(found: Mapping[str, Reported], key: str) -> dict[str, Any]:
    """What `KeyFiguresBody` tells of a key; the arm whose qualities are the least like those of
    others comes first."""
    own = found.get(key, Reported(0, 0, {}))
    beside = {arm: compared(sums, _of_others(found, key, arm)) for arm, sums in own.arms.items()}
    order = sorted(beside, key=lambda arm: -abs(beside[arm]["difference_se"] or 0.0))
    return {
        "decisions": own.decisions,
        "rewards": own.rewards,
        "moved": _largest(beside, "moved"),
        "unlike_se": _largest(beside, "difference_se"),
        "arms": [{"arm": arm, **beside[arm]} for arm in order],
    }


def _largest(beside: Mapping[str, Mapping[str, float | None]], name: str) -> float | None:
    return max((abs(v) for one in beside.values() if (v := one[name]) is not None), default=None)


def compared(own: Sums, others: Sums) -> dict[str, float | None]:
    """One key's qualities of an arm beside those of all others.

    `moved` is the mean of all less the mean of the others; `difference_sd` the difference of the
    means over the pooled standard deviation (Cohen's d), `difference_se` over its standard error
    (Welch's t). Null where there is nothing to compare.

    >>> one = compared(Sums(2, 2.0, 2.0), Sums(2, 1.0, 0.52))
    >>> [round(one[name], 3) for name in ("difference", "moved", "difference_sd", "difference_se")]
    [0.5, 0.25, 5.0, 5.0]
    """
    told: dict[str, float | None] = {
        "n": own.n,
        "quality": own.mean,
        "others_n": others.n,
        "others_quality": others.mean,
        "moved": None,
        "difference": None,
        "difference_sd": None,
        "difference_se": None,
    }
    if own.mean is None or others.mean is None:
        return told
    difference = own.mean - others.mean
    told["difference"] = difference
    told["moved"] = own.n / (own.n + others.n) * difference
    degrees = own.n + others.n - 2
    spread = (own.n - 1) * own.variance + (others.n - 1) * others.variance
    error = own.variance / own.n + others.variance / others.n
    if degrees > 0 and spread > 0:
        told["difference_sd"] = difference / math.sqrt(spread / degrees)
        told["difference_se"] = difference / math.sqrt(error)
    return told


def _of_others(found: Mapping[str, Reported], key: str, arm: str) -> Sums:
    sums = Sums()
    for other, reported in found.items():
        if other != key:
            sums = sums.plus(reported.arms.get(arm, Sums()))
    return sums

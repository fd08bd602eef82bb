"""What the gate asks for, what it has looked at, and the verdict that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from offline_eval.gate.difference import Difference

Answer = Literal["pass", "fail", "undecided"]
State = Literal["ok", "blocks", "fails", "not evaluable"]

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What the gate asks for. Margins of latency and cost are shares of their reference values."""

    alpha: float = 0.05  # chance that a version that is never better passes, over all its looks
    guardrail_alpha: float = 0.05  # chance that any guardrail blocks without harm beyond its margin
    quality_margin: float = 0.02
    latency_margin: float = 0.05
    cost_margin: float = 0.05
    error_margin: float = 0.02
    task_margin: float = 0.05  # of reward, for each task type
    max_age_ms: int = 7 * DAY_MS  # of the newest row
    unsupported_mass: float = 0.01  # of the challenger's probability, where the log has none
    calibration_alpha: float = 0.001
    arrival_p_value: float = 0.001
    arrival_spread: float = 0.02  # between arms' shares of missing rewards, below which it's let be
    share_to_try: float = 0.1  # of the draw, that the advice is about

    def __post_init__(self) -> None:
        for name in ("alpha", "guardrail_alpha", "calibration_alpha", "share_to_try"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)!r}")
        for name in self.__slots__:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `blocks` keeps a version from passing for now, `fails` for
    good; both say why."""

    name: str
    state: State
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`rounds_needed` is how many more it would take at the rate so far, None where none would do;
    `rounds_with_share` the same if the challenger were given `share` of the draw."""

    verdict: Answer
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    figures: Mapping[str, float]
    rounds_needed: int | None = None
    share: float | None = None
    rounds_with_share: int | None = None


def conclude(
    checks: Sequence[Check],
    difference: Difference | None,
    figures: Mapping[str, float],
    settings: Settings,
) -> Verdict:
    failed = [check.text for check in checks if check.state == "fails"]
    open_ = [check.text for check in checks if check.state in ("blocks", "not evaluable")]
    if failed:
        return Verdict("fail", tuple(failed), tuple(checks), figures)
    if not open_:
        shown = tuple(check.text for check in checks if check.name in ("difference", "recent half"))
        return Verdict("pass", shown, tuple(checks), figures)
    needed = difference.rounds_needed() if difference is not None else None
    if difference is None or not needed:
        if difference is not None and needed is None:
            open_.append("at the present estimate more rounds would not show it")
        return Verdict("undecided", tuple(open_), tuple(checks), figures)
    told = f"at the rate so far it would take about {_round_up(needed):,} more rounds"
    share = with_share = None
    if difference.shortening > 1.05:
        share, with_share = settings.share_to_try, _round_up(needed / difference.shortening)
        told += f", or {with_share:,} if the challenger were given {share:.0%} of the draw"
    return Verdict(
        "undecided", (*open_, told), tuple(checks), figures, _round_up(needed), share, with_share
    )


def _round_up(rounds: float) -> int:
    """To two digits: more would claim too much.

    >>> _round_up(1234.0)
    1300
    """
    digits = max(math.floor(math.log10(max(rounds, 1.0))) - 1, 0)
    return int(math.ceil(rounds / 10**digits) * 10**digits)

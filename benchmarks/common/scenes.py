"""What happens to a policy in `benchmarks.drift`: phases of a set of outcomes, and what changes
between them. Knows nothing of how they are played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.result import Hindsight
from policy.arms.catalog import Catalog, Index, Vector
from policy.config.schema import PolicyConfig

PRICE_FACTOR = 0.1
LEARNED, PHASE = 1_785, 608  # ParetoBandit's validation split and the phases of its test split
FAILING, FAILED_QUALITY = "mistral-large-2512", 0.75
NEWCOMER = "gemini-2.5-flash"
SCENES = ("steady", "swap", "plunge", "prices", "joins", "upgrade", "fails", "degrades", "onboards")


@dataclass(frozen=True, eq=False)
class Phase:
    """What is so from a round on: outcomes, rewards (n, k) and the best arm per category (n,).

    A disabled arm is there for nobody, the best rule included.
    """

    start: int
    outcomes: OutcomeSet
    reward: Vector
    rule: Index

    @classmethod
    def of(cls, start: int, outcomes: OutcomeSet, config: PolicyConfig) -> Phase:
        judged = Hindsight.of(outcomes, config)
        there = np.where(outcomes.catalog.enabled, judged.reward, -np.inf)
        rule = replace(judged, reward=there).rule(np.arange(len(outcomes)))
        return cls(start, outcomes, judged.reward, rule)


@dataclass(frozen=True, eq=False)
class Scene:
    """Phases in order, the first from round 0; `change` is the round that figures are told from.

    `failing` or `rising` is the arm, by position, whose share tells how soon the policy noticed.
    """

    phases: tuple[Phase, ...]
    change: int
    failing: int | None = None
    rising: int | None = None

    @property
    def changed(self) -> Phase:
        return next(phase for phase in self.phases if phase.start == self.change)

    @property
    def deserved(self) -> float | None:
        """The share of queries that the best rule gives the rising arm."""
        return None if self.rising is None else float((self.changed.rule == self.rising).mean())


def scene(name: str, outcomes: OutcomeSet, config: PolicyConfig, rounds: int) -> Scene | None:
    """A scene of a set; None where the set has not the arms it is about."""
    if name in ("degrades", "onboards"):
        return _of_paretobandit(name, outcomes, config)
    hindsight = Hindsight.of(outcomes, config)
    half, ranked = rounds // 2, np.argsort(-hindsight.reward.mean(axis=0), kind="stable").tolist()
    best = ranked[0]
    before, after, failing, rising = outcomes, outcomes, None, None
    if name in ("swap", "plunge"):
        failing, rising = best, ranked[len(ranked) // 2 if name == "swap" else -1]
        after = _swapped(outcomes, failing, rising)
    elif name == "prices":
        rising = int(outcomes.quality.mean(axis=0).argmax())
        after = _priced(outcomes, rising, PRICE_FACTOR)
    elif name == "joins":
        rising = best
        before = _without(outcomes, [rising])
    elif name == "upgrade":
        rising = best
        better = ranked[: (len(ranked) + 1) // 2]
        before, after = _without(outcomes, better), _without(outcomes, better[1:])
    elif name == "fails":
        failing = best
        after = _failing(outcomes, failing, 0.0)
    phases = Phase.of(0, before, config), Phase.of(half, after, config)
    return Scene(phases, half, failing, rising)


def _of_paretobandit(name: str, outcomes: OutcomeSet, config: PolicyConfig) -> Scene | None:
    arm = FAILING if name == "degrades" else NEWCOMER
    if arm not in outcomes.catalog:
        return None
    i = outcomes.catalog.index(arm)
    if name == "onboards":
        phases = [(0, _without(outcomes, [i])), (LEARNED, outcomes)]
        return Scene(tuple(Phase.of(*p, config) for p in phases), LEARNED, rising=i)
    change = LEARNED + PHASE
    degraded = _failing(outcomes, i, FAILED_QUALITY / float(outcomes.quality[:, i].mean()))
    phases = [(0, outcomes), (change, degraded), (change + PHASE, outcomes)]
    return Scene(tuple(Phase.of(*p, config) for p in phases), change, failing=i)


def _swapped(outcomes: OutcomeSet, a: int, b: int) -> OutcomeSet:
    columns = np.arange(len(outcomes.catalog))
    columns[[a, b]] = b, a
    return replace(
        outcomes,
        quality=outcomes.quality[:, columns],
        cost_usd=outcomes.cost_usd[:, columns],
        latency_ms=outcomes.latency_ms[:, columns],
    )


def _priced(outcomes: OutcomeSet, i: int, factor: float) -> OutcomeSet:
    arm = outcomes.catalog.arms[i]
    prices = {name: getattr(arm, name) * factor for name in ("usd_per_mtok_in", "usd_per_mtok_out")}
    cost_usd = outcomes.cost_usd.copy()
    cost_usd[:, i] *= factor
    return replace(outcomes, catalog=_changed(outcomes.catalog, [i], prices), cost_usd=cost_usd)


def _without(outcomes: OutcomeSet, absent: Sequence[int]) -> OutcomeSet:
    return replace(outcomes, catalog=_changed(outcomes.catalog, absent, {"enabled": False}))


def _failing(outcomes: OutcomeSet, i: int, factor: float) -> OutcomeSet:
    quality = outcomes.quality.copy()
    quality[:, i] *= factor
    return replace(outcomes, quality=quality)


def _changed(catalog: Catalog, some: Sequence[int], update: Mapping[str, Any]) -> Catalog:
    arms = list(catalog.arms)
    for i in some:
        arms[i] = arms[i].model_copy(update=update)
    return Catalog(tuple(arms))

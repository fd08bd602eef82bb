"""What the caller's own router has chosen, as a pmf over the action set. Nothing here draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from policy.arms.catalog import Index
from policy.arms.constraints import Excluded
from policy.records import Vector

TOLERANCE = 1e-6  # how far a reported pmf may sum from 1: it comes in decimal notation


class WrongChoice(ValueError):
    """The choice of the caller's router is missing, or can't have been made."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The arm that a caller's router chose, and the probabilities by which it did.

    Without a pmf the router counts as deterministic.
    """

    arm: str
    pmf: Mapping[str, float] | None = None


class Eligible(Protocol):
    """An action set that knows why the other arms are out."""

    @property
    def index(self) -> Index: ...
    @property
    def excluded(self) -> Excluded: ...


def reported(choice: Choice | None, ids: Sequence[str], eligible: Eligible) -> tuple[Vector, int]:
    """The router's pmf (k,) and the position of its arm in the action set.

    Raises
    ------
    WrongChoice
        If there is no choice, its arm isn't eligible, or the pmf isn't one over eligible arms that
        leaves the chosen arm a chance.
    """
    if choice is None:
        raise WrongChoice(
            "the caller's own router acts in this policy: say with `chosen` which arm it chose"
        )
    arms = [ids[i] for i in eligible.index]
    if choice.arm not in arms:
        why = dict(eligible.excluded).get(choice.arm, "not in the catalog")
        raise WrongChoice(f"chosen arm {choice.arm!r} is not eligible: {why}")
    chosen = arms.index(choice.arm)
    pmf = np.zeros(len(arms))
    if choice.pmf is None:
        pmf[chosen] = 1.0
        return pmf, chosen
    for arm, p in choice.pmf.items():
        if arm in arms:
            pmf[arms.index(arm)] = p
        elif p > 0:
            why = dict(eligible.excluded).get(arm, "not in the catalog")
            raise WrongChoice(f"chosen.pmf gives {p!r} to {arm!r}, which is not eligible: {why}")
    total = float(pmf.sum())
    if not (pmf.min() >= 0 and abs(total - 1.0) <= TOLERANCE):
        raise WrongChoice(f"chosen.pmf must be probabilities that sum to 1, their sum is {total!r}")
    if not pmf[chosen] > 0:
        raise WrongChoice(f"chosen.pmf gives no probability to the chosen arm {choice.arm!r}")
    return pmf / total, chosen


@dataclass(frozen=True, slots=True)
class _Bare:
    """An action set of which nobody asks why."""

    index: Index
    excluded: Excluded = ()


def tried(choice: Choice | None, ids: Sequence[str], index: Index) -> Vector | None:
    """The router's pmf (k,) where it told one that fits the action set; it doesn't act here, so
    None where it didn't."""
    try:
        return reported(choice, ids, _Bare(index))[0]
    except WrongChoice:
        return None

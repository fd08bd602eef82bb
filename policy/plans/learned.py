"""What plans' outcomes tell beyond what their arms let expect. A pure function of their order.

A judge that is often wrong, answers that fail together, a provider that charges for calls that were
cancelled: what a plan came to, less what was expected of it before the draw, is averaged per kind
of plan, plan, and plan and task type, each drawn to the one before by BELIEF outcomes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policy.plans.latencies import BINS, Latencies, Spread
from policy.plans.plan import Plan, kind_of
from policy.records import Vector
from policy.values.arrays import expect, pack, unpack

C = 3  # components: quality, s(latency), s(cost)
BELIEF = (30.0, 30.0, 60.0)  # outcomes that a kind's 0 counts for, a plan's kind, a cell's plan
KEPT = 0.999  # of an outcome's weight after another one of its cell
NOISE = 0.1  # variance of an outcome, where none was seen; it counts for BELIEF outcomes
SLOPE, SLOPE_WEIGHT = 0.4, 5.0


@dataclass(slots=True)
class _Cell:
    """Weights, sums and sums of squares (C,) of what was not expected."""

    n: Vector = field(default_factory=lambda: np.zeros(C))
    sum: Vector = field(default_factory=lambda: np.zeros(C))
    squares: Vector = field(default_factory=lambda: np.zeros(C))

    def add(self, beyond: Vector) -> None:
        """One outcome (C,); NaN is no part of it."""
        known = ~np.isnan(beyond)
        value = np.where(known, beyond, 0.0)
        kept = np.where(known, KEPT, 1.0)
        self.n = kept * self.n + known
        self.sum = kept * self.sum + value
        self.squares = kept * self.squares + value * value


@dataclass(frozen=True, slots=True)
class Beyond:
    """What is added to a plan's expected components (C,), its variance (C,), and how much of what
    was uncertain of the plan before its first outcome still is, in [0, 1]."""

    mean: Vector
    variance: Vector
    unknown: float


@dataclass(frozen=True, slots=True, eq=False)
class PlanValues:
    """What serving decides with: `beyond` any plan, the spreads of arms' latencies, and the slope
    of a second answer's quality over a first one's."""

    cells: Mapping[str, _Cell] = field(default_factory=dict)
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    slope: float = SLOPE
    _found: dict[tuple[str, int], Beyond] = field(default_factory=dict)

    def beyond(self, action: str, task: int) -> Beyond:
        """What is known of a plan for a task type."""
        known = self._found.get((action, task))
        if known is None:
            known = self._found[action, task] = self._beyond(action, task)
        return known

    def _beyond(self, action: str, task: int) -> Beyond:
        kind, plan, cell = _names(action, task)
        found = self._of(cell, BELIEF[2], self._of(plan, BELIEF[1], self._of_kind(kind)))
        known = self.cells.get(plan)
        outcomes = 0.0 if known is None else float(known.n[0])
        return Beyond(found[0], found[1] / found[2], BELIEF[1] / (BELIEF[1] + outcomes))

    def _of_kind(self, kind: str) -> _Estimate:
        belief, noise = BELIEF[0], np.full(C, NOISE)
        cell = self.cells.get(kind)
        if cell is None:
            return np.zeros(C), noise, np.full(C, belief)
        weight = cell.n + belief
        return cell.sum / weight, (cell.squares + belief * noise) / weight, weight

    def _of(self, name: str, belief: float, above: _Estimate) -> _Estimate:
        """A cell that is drawn to the one above it."""
        cell = self.cells.get(name)
        mean, noise, weight = above
        if cell is None:
            return mean, noise, np.minimum(weight, belief)
        weight = cell.n + belief
        return (cell.sum + belief * mean) / weight, noise, weight


_Estimate = tuple[Vector, Vector, Vector]
"""Mean, noise variance and weight (C,) of a cell."""

NOTHING = PlanValues()


def _names(action: str, task: int) -> tuple[str, str, str]:
    return str(kind_of(action)), action, f"{action} {task}"


class PlanLearning:
    """The sums, of outcomes in the order of the stream."""

    def __init__(self) -> None:
        self._cells: dict[str, _Cell] = {}
        self._latencies = Latencies()
        self._products = np.zeros(
            2
        )  # of what first answers fell short by, with itself and seconds'

    @property
    def slope(self) -> float:
        """How much of what a first answer falls short by, a second one does."""
        own, both = self._products.tolist()
        return float((both + SLOPE_WEIGHT * SLOPE) / (own + SLOPE_WEIGHT))

    def add(self, plan: Plan, components: Vector) -> None:
        """What a plan came to (C,); NaN is what isn't known, or was added before."""
        if plan.expected is None or plan.task is None:
            return
        beyond = components - np.array(plan.expected)
        for name in _names(plan.id, plan.task):
            self._cells.setdefault(name, _Cell()).add(beyond)

    def compare(self, first: float, second: float) -> None:
        """What two answers to one query were worth beyond what was expected of them."""
        if not np.isnan(first + second):
            self._products = KEPT * self._products + (first * first, first * second)

    def add_latencies(self, arms: Sequence[str], latency_ms: Vector) -> None:
        """Of calls (n,) in their order; NaN is passed over."""
        self._latencies.add(arms, latency_ms)

    def values(self) -> PlanValues:
        cells = {name: _Cell(c.n, c.sum, c.squares) for name, c in self._cells.items()}
        return PlanValues(cells, self._latencies.spreads(), self.slope)

    def to_record(self) -> str:
        """Text for a header; equal sums give equal text."""
        cells, counts = list(self._cells.values()), self._latencies.counts
        arrays = {
            "cells": np.array([[c.n, c.sum, c.squares] for c in cells]).reshape(-1, 3, C),
            "latencies": np.array(list(counts.values())).reshape(-1, BINS),
            "products": self._products,
        }
        header: dict[str, Any] = {"cells": list(self._cells), "arms": list(counts)}
        return base64.b64encode(pack(header, arrays)).decode()

    @classmethod
    def of(cls, record: str) -> PlanLearning:
        """What `to_record` gave; ValueError for anything else."""
        header, arrays = unpack(base64.b64decode(record, validate=True))
        names, arms = header["cells"], header["arms"]
        expect(
            arrays,
            {"cells": (len(names), 3, C), "latencies": (len(arms), BINS), "products": (2,)},
        )
        learned = cls()
        learned._cells = {n: _Cell(*c.copy()) for n, c in zip(names, arrays["cells"], strict=True)}
        counts = arrays["latencies"]
        learned._latencies = Latencies({a: c.copy() for a, c in zip(arms, counts, strict=True)})
        learned._products = arrays["products"].copy()
        return learned

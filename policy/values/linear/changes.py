"""Noticing that an arm isn't what it was, by its residuals. Knows no sums; reads no clock.

A CUSUM (Page 1954, "Continuous inspection schemes") of each arm and component, upwards and
downwards, of residuals about the posterior that was last referred to, in standard deviations:

    S <- max(0, S + z towards one side - slack),   an alarm where S > THRESHOLD
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.values.arrays import expect, floats
from policy.values.linear.pooling import Array, C, Fitted
from policy.values.parts import Part

Index = NDArray[np.intp]

SLACK = 0.25  # standard deviations that a mean may be off for ever, beside what is unknown of it
THRESHOLD = 20.0
CLIP = 3.0  # standard deviations: one outcome alone is no change
REST = 64  # events after an alarm, until what was learned since can be referred to
GUESS = 10.0  # outcomes that the posterior's word counts for, on how far residuals scatter
REFERENCE = "reference"
"""The name of a part: the means, which change when the variances are learned."""
OWN, OTHERS = 0.05, 0.3
"""What is left of the evidence after an alarm: of the arm's that changed, and of all others', for
what changes one arm often changes several."""


class Watch:
    """The tests' state, and all alarms that there were: (event count, component, arm) each.

    An alarm is of one component, and what it does is bounded: the sums of that component lose
    weight, and no further alarm of it comes for REST events.
    """

    def __init__(self, d: int) -> None:
        self._d = d
        self._mean = np.zeros((0, C, d))
        self._reference: Part | None = None  # of that
        self._sd = np.zeros((0, C))
        self._slack = np.zeros((0, C))
        self._sums = np.zeros((0, C, 2))
        self._squares = np.zeros((0, C, 2))  # of residuals in `_sd`, and how many
        self._quiet = np.zeros(C, dtype=np.int64)  # until so many events are learned
        self.alarms = np.zeros((0, 3), dtype=np.int64)

    def refer(self, fitted: Fitted, taught: NDArray[np.bool_]) -> None:
        """Measure residuals from this posterior from now on, of what was `taught` (k, c)."""
        more = len(fitted.sd) - len(self._sums)
        self._mean, self._reference = fitted.posterior.mean[:, :C].copy(), None
        self._sd = np.where(taught, fitted.sd, 0.0)
        self._slack = SLACK + fitted.doubt
        self._sums = np.concatenate([self._sums, np.zeros((more, C, 2))])
        self._squares = np.concatenate([self._squares, np.zeros((more, C, 2))])

    def first(self, arm: Index, x: Array, y: Array, events: int) -> int | None:
        """Look at events in their order, up to the first that gives an alarm; its row, if any.

        `events` were learned before. What wasn't taught when a posterior was last referred to isn't
        tested: its spread is 0 here.
        """
        tested = np.flatnonzero(arm < len(self._sd))
        if not len(tested):
            return None
        a = arm[tested]
        residual, sd = self.residuals(a, x[tested], y[tested])
        z = np.clip(residual / sd, -CLIP, CLIP)
        sums, squares, quiet = self._sums, self._squares, self._quiet.tolist()
        slack = self._slack
        for i, one, row in zip(tested.tolist(), a.tolist(), z.tolist(), strict=True):
            for c, residual in enumerate(row):
                if residual != residual or events + i < quiet[c]:  # noqa: PLR0124 - NaN
                    continue
                total, count = squares[one, c] + (residual * residual, 1.0)
                squares[one, c] = total, count
                off = residual / max(1.0, math.sqrt((total + GUESS) / (count + GUESS)))
                up = max(0.0, sums[one, c, 0] + off - slack[one, c])
                down = max(0.0, sums[one, c, 1] - off - slack[one, c])
                sums[one, c] = up, down
                if max(up, down) > THRESHOLD:
                    self._alarm(events + i + 1, c, one)
                    return i
        return None

    def residuals(self, arm: Index, x: Array, y: Array) -> tuple[Array, Array]:
        """(n, c) of events about what was referred to, and their spreads; NaN where an arm's
        component wasn't taught by then."""
        residual, sd = np.full((2, len(arm), C), np.nan)
        rows = np.flatnonzero(arm < len(self._sd))
        a = arm[rows]
        sd[rows] = np.where(self._sd > 0.0, self._sd, np.nan)[a]
        predicted = np.einsum("nd,ncd->nc", x[rows], self._mean[a])
        residual[rows] = np.where(np.isnan(sd[rows]), np.nan, y[rows, :C] - predicted)
        return residual, sd

    def _alarm(self, events: int, component: int, arm: int) -> None:
        self.alarms = np.append(self.alarms, [[events, component, arm]], axis=0)
        self._sums[:, component] = 0.0
        self._quiet[component] = events + REST

    def kept(self, k: int) -> Array:
        """(k, c) what is left of the sums after the last alarm."""
        _, component, arm = self.alarms[-1].tolist()
        left = np.ones((k, C))
        left[:, component] = OTHERS
        left[arm, component] = OWN
        return left

    def left(self, arm: Index, number: Index) -> Array:
        """(n, c) what all alarms have left of the components (n, c) of events with this number."""
        share = np.ones(number.shape)
        for events, component, changed in self.alarms.tolist():
            kept = np.where(arm == changed, OWN, OTHERS)
            before = number[:, component] < events
            share[:, component] *= np.where(before, kept, 1.0)
        return share

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is small of it, by name."""
        return {
            "refer_sd": self._sd,
            "refer_slack": self._slack,
            "quiet": self._quiet,
            "alarms": self.alarms,
            "squares": self._squares,
            "cusum": self._sums,
        }

    def reference(self) -> Part:
        """The means that residuals are of."""
        if self._reference is None:
            self._reference = Part.of(self._mean.tobytes())
        return self._reference

    def restore(self, arrays: Mapping[str, NDArray[Any]], reference: Part) -> None:
        """Take over what `arrays` and `reference` gave; ValueError for anything else."""
        k, m = len(arrays["refer_sd"]), len(arrays["alarms"])
        shapes = {"refer_sd": (k, C), "refer_slack": (k, C), "quiet": (C,), "alarms": (m, 3)}
        shapes |= {"squares": (k, C, 2), "cusum": (k, C, 2)}
        expect({name: arrays[name] for name in shapes}, shapes)
        self._sd = arrays["refer_sd"]
        self._mean = floats([reference.data], "<f8", k * C * self._d).reshape(k, C, self._d)
        self._slack = arrays["refer_slack"]
        self._sums, self._squares = arrays["cusum"], arrays["squares"]
        self._quiet = arrays["quiet"]
        self.alarms = arrays["alarms"]

"""How late a service's snapshots come, counted in rounds. Knows no policy and no service."""

from __future__ import annotations

from collections import deque
from typing import Protocol

RATE = 250.0
"""Rounds a second of one caller over HTTP who waits for each answer, measured on two cores."""
GAP_S, LATE_S = 0.11, 0.015
"""Between two snapshots (the learner's interval and its work), and from a snapshot's last outcome
to the first decision by it; `python -m benchmarks.http_parity` measures both."""


class Lag(Protocol):
    """Asked before each decision, with the rounds decided and the outcomes that have arrived, both
    since the start: how many of these outcomes the snapshot in force has, never fewer than before.
    """

    def __call__(self, decided: int, arrived: int) -> int: ...


class Published:
    """As a service publishes: the first outcome at once, then all that have come every `gap`
    rounds; decisions see it `late` rounds after that."""

    def __init__(self, gap: int, late: int) -> None:
        self._gap, self._late = gap, late
        self._due = 0
        self._made = self._seen = 0
        self._coming: deque[tuple[int, int]] = deque()

    @classmethod
    def at(cls, rate: float) -> Published:
        """That of a service which is asked `rate` times a second."""
        return cls(max(round(rate * GAP_S), 1), round(rate * LATE_S))

    def __call__(self, decided: int, arrived: int) -> int:
        if arrived > self._made and decided >= self._due:
            self._made = arrived
            self._due = decided + self._gap
            self._coming.append((decided + self._late, arrived))
        while self._coming and self._coming[0][0] <= decided:
            self._seen = self._coming.popleft()[1]
        return self._seen

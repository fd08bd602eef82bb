"""How a challenger compares with the champion that acts: agreement, and what it would have earned.

Additive sums over outcome events, and the estimates that follow from them. Self-normalised
importance weighting (SNIPS; Swaminathan and Joachims 2015, "The Self-Normalized Estimator for
Counterfactual Learning", NeurIPS 28, equation 9): mean = sum(w y) / sum(w) with w = q(a) / p(a), q
the version's own probability of the arm that acted and p the one it was drawn with. Knows no
stream and no store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.objective import COMPONENTS, Scales, Weights, components
from policy.records import Vector

Flags = NDArray[np.bool_]

SUPPORT = 0.99  # of the challenger's choices, that the acting router must have given a chance
MIN_ESS = 10.0  # decisions' worth, below which nothing is said of an estimate's error
VALUES = ("quality", "latency_ms", "cost_usd", "scaled latency", "scaled cost")
SCALED = (0, 3, 4)  # of these, the columns that the reward is linear in
COUNTS = ("decisions", "other_arm", "probability", "top", "support")
# Of each value y, with the challenger's weight w and the champion's v:
MOMENTS = ("1", "w", "v", "wy", "vy", "ww", "wv", "vv", "wwy", "wvy", "vvy", "wwyy", "wvyy", "vvyy")
SIZE = len(COUNTS) + len(VALUES) * len(MOMENTS)


@dataclass(frozen=True, slots=True, eq=False)
class ShadowBatch:
    """n outcome events of decisions that one challenger watched, as columns in stream order.

    An event holds what was reported with it, so a decision may have several: `first` marks the one
    that counts the decision. `evaluable` is false where another arm was executed than was drawn.
    """

    champions: Sequence[str]  # the version that acted
    first: Flags
    evaluable: Flags
    propensity: Vector  # (n,) > 0, of the arm that was drawn
    challenger: Vector  # (n,) the challenger's own probability of it
    champion: Vector  # (n,) the champion's own
    top: Vector  # (n,) 1 where it is the challenger's most probable arm, 1 / m where m arms tie
    support: Vector  # (n,) of the challenger's probabilities, what fell on arms that could be drawn
    values: Vector  # (n, 5), NaN where not reported


def values_of(
    quality: Vector,
    latency_ms: Vector,
    cost_usd: Vector,
    error: Flags,
    settled: Flags,
    scales: Scales,
) -> Vector:
    """(n, 5): quality, latency and cost as reported, and the latter two as the reward takes them.

    An error is quality 0 and, in the scaled columns, stands for what is absent as it does in the
    reward. `settled` (n, 3) marks what an earlier event of the decision has counted.
    """
    y = components(quality, latency_ms, cost_usd, error, scales)
    raw = np.stack([latency_ms, cost_usd], axis=1)
    values = np.concatenate([y[:, :1], raw, y[:, 1:]], axis=1)
    values[settled[:, (0, 1, 2, 1, 2)]] = np.nan
    return values


class Scoreboard:
    """The sums of one challenger, by the champion in whose shadow it was."""

    def __init__(self) -> None:
        self._sums: dict[str, Vector] = {}

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, batch: ShadowBatch) -> None:
        """Add events; the same sums result wherever the stream is cut into batches."""
        self._add(batch.champions, _terms(batch))

    def correct(self, old: ShadowBatch, new: ShadowBatch) -> None:
        """Put the values of corrected events in the place of those they had, NaN where one
        stands."""
        self._add(new.champions, _terms(new) - _terms(old))

    def _add(self, of: Sequence[str], terms: Vector) -> None:
        champions = np.array(of)
        for champion in dict.fromkeys(of):
            rows = terms[champions == champion]
            before = self._sums.get(champion, np.zeros(SIZE))
            # cumsum adds one row after the other, where sum would add pairwise.
            self._sums[champion] = np.cumsum(np.vstack([before, rows]), axis=0)[-1]

    def against(self, champion: str) -> Tally:
        """What is known of the challenger beside one champion."""
        return Tally(self._sums.get(champion, np.zeros(SIZE)))

    def to_record(self) -> dict[str, Any] | None:
        """As JSON has it; None where nothing was added yet."""
        return {name: sums.tolist() for name, sums in self._sums.items()} or None

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> Scoreboard:
        """What `to_record` gave; ValueError where the sums aren't ours."""
        board = cls()
        for champion, sums in (record or {}).items():
            if len(sums) != SIZE:
                raise ValueError(f"expected {SIZE} sums of a challenger, got {len(sums)}")
            board._sums[champion] = np.array(sums, dtype=np.float64)
        return board


def _terms(batch: ShadowBatch) -> Vector:
    """(n, SIZE): what each event adds."""
    first, counted = batch.first, batch.first & batch.evaluable
    agreement = np.stack([batch.challenger, batch.top, batch.support], axis=1)
    counts = np.concatenate(
        [
            np.stack([counted, first & ~batch.evaluable], axis=1),
            np.where(counted[:, None], agreement, 0.0),
        ],
        axis=1,
    )
    y = batch.values
    known = ~np.isnan(y) & batch.evaluable[:, None]
    w = (batch.challenger / batch.propensity)[:, None] * np.ones_like(y)
    v = (batch.champion / batch.propensity)[:, None] * np.ones_like(y)
    products = (w * w, w * v, v * v)
    moments = np.stack(
        [
            np.ones_like(y),
            w,
            v,
            w * y,
            v * y,
            *products,
            *(p * y for p in products),
            *(p * y * y for p in products),
        ],
        axis=2,
    )
    moments[~known] = 0.0
    return np.concatenate([counts, moments.reshape(len(y), -1)], axis=1)


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimated mean: value, standard error and effective sample size in decisions.

    `value` is None where it can't be known, and `se` also where too few decisions tell.
    """

    value: float | None
    se: float | None
    ess: float


UNKNOWN = Figure(None, None, 0.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity under both versions. `difference` is challenger - champion; `why`, in words,
    says why the challenger's can't be known."""

    challenger: Figure
    champion: Figure
    difference: Figure
    why: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """The sums (SIZE,) of one challenger beside one champion."""

    sums: Vector

    @property
    def decisions(self) -> int:
        """Evaluable decisions with an outcome."""
        return int(self.sums[0])

    @property
    def other_arm(self) -> int:
        """Decisions left out: their caller executed another arm than was drawn."""
        return int(self.sums[1])

    @property
    def probability(self) -> float | None:
        """Agreement: the challenger's mean probability of the arm that acted."""
        return self._mean(2)

    @property
    def top(self) -> float | None:
        """Agreement: the share of decisions whose arm was the challenger's most probable one."""
        return self._mean(3)

    @property
    def covered(self) -> float | None:
        """The share of the challenger's choices that the acting router could have made."""
        return self._mean(4)

    def _mean(self, position: int) -> float | None:
        return float(self.sums[position] / self.sums[0]) if self.decisions else None

    def compare(self, weights: Weights) -> dict[str, Comparison]:
        """The reward under these weights, and quality, latency_ms and cost_usd."""
        values = [self._compare(column) for column in range(len(VALUES))]
        reward = _reward([values[column] for column in SCALED], weights)
        return {"reward": reward, **dict(zip(VALUES[:3], values, strict=False))}

    def _compare(self, column: int) -> Comparison:
        start = len(COUNTS) + column * len(MOMENTS)
        m = dict(zip(MOMENTS, self.sums[start : start + len(MOMENTS)].tolist(), strict=True))
        champion = _figure(m, "v")
        why = self._why() or (None if m["1"] else f"no {VALUES[column]} was reported yet")
        if why is None and not m["w"]:
            why = "no arm that acted was one that the challenger would have chosen"
        if why is not None:
            return Comparison(UNKNOWN, champion, UNKNOWN, why)
        challenger = _figure(m, "w")
        return Comparison(challenger, champion, _difference(m, challenger, champion), None)

    def _why(self) -> str | None:
        if self.covered is None:
            return "no decision has an outcome yet"
        if self.covered < SUPPORT:
            return (
                "the acting router never tried the arms that the challenger prefers in "
                f"{1.0 - self.covered:.0%} of its choices, so nobody knows what they would have "
                "earned"
            )
        return None


def _figure(m: Mapping[str, float], w: str) -> Figure:
    """The self-normalised mean, its linearised standard error, and the effective sample size
    (sum w)^2 / sum w^2 (Kong 1992)."""
    if not m[w]:
        return UNKNOWN
    mean = m[f"{w}y"] / m[w]
    ess = m[w] ** 2 / m[w + w]
    squares = m[f"{w}{w}yy"] - 2.0 * mean * m[f"{w}{w}y"] + mean**2 * m[w + w]
    return Figure(mean, _root(squares, m[w] ** 2) if ess >= MIN_ESS else None, ess)


def _difference(m: Mapping[str, float], challenger: Figure, champion: Figure) -> Figure:
    """challenger - champion, whose errors are correlated: both are means of the same outcomes."""
    a, b = challenger.value, champion.value
    ess = min(challenger.ess, champion.ess)
    if a is None or b is None:
        return UNKNOWN
    if challenger.se is None or champion.se is None:
        return Figure(a - b, None, ess)
    shared = m["wvyy"] - (a + b) * m["wvy"] + a * b * m["wv"]
    variance = challenger.se**2 + champion.se**2 - 2.0 * shared / (m["w"] * m["v"])
    return Figure(a - b, _root(variance, 1.0), ess)


def _root(variance: float, of: float) -> float:
    return math.sqrt(max(variance, 0.0) / of)  # rounding may leave a tiny negative


def _reward(scaled: Sequence[Comparison], weights: Weights) -> Comparison:
    """The reward is linear in its components, so its mean follows from theirs.

    They may come from different events, so their errors can't be combined exactly: they are added,
    which is never too little.
    """
    slopes = (weights.quality, -weights.latency, -weights.cost)
    parts = [(slope, one) for slope, one in zip(slopes, scaled, strict=True) if slope]
    why = next((one.why for _, one in parts if one.why is not None), None)
    if why is not None and why.startswith("no scaled"):
        rows = zip(COMPONENTS, slopes, scaled, strict=True)
        missing = [name for name, slope, one in rows if slope and one.why]
        why = f"no {' and no '.join(missing)} was reported yet, which the objective weighs"
    constant = weights.latency + weights.cost
    return Comparison(
        _sum(constant, [(slope, one.challenger) for slope, one in parts]),
        _sum(constant, [(slope, one.champion) for slope, one in parts]),
        _sum(0.0, [(slope, one.difference) for slope, one in parts]),
        why,
    )


def _sum(constant: float, parts: Sequence[tuple[float, Figure]]) -> Figure:
    value, se = constant, 0.0
    known = True
    for slope, part in parts:
        if part.value is None:
            return UNKNOWN
        value += slope * part.value
        known = known and part.se is not None
        se += abs(slope) * (part.se or 0.0)
    return Figure(value, se if known else None, min(part.ess for _, part in parts))

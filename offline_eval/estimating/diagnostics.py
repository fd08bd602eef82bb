"""Can this log answer at all? Effective sample size, overlap, propensity calibration, arrival of
rewards. Arrays in, figures out; what follows from them is for the gate and the reader."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

PROPENSITY_EDGES = (0.0, 0.01, 0.03, 0.1, 0.3, 0.7, 1.0)
STAKES = np.array([-0.5, -0.2, -0.05, -0.02, 0.02, 0.05, 0.2, 0.5])  # on "drawn more often"
LEAST_ROWS = 30  # of an arm, before its arrival rate counts


def effective_sample_size(weights: Vector) -> float:
    """(sum w)^2 / sum w^2: how many rows of equal weight would tell as much (Kish 1965); 0 for
    no weight at all."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far the log's draws cover a policy: NaN where there are no rows."""

    unsupported: float  # mean probability that it puts where nothing could be drawn
    effective: float  # rows
    max_weight: float

    @property
    def evaluable(self) -> bool:
        """False without rows, or where no drawn arm is one that the policy would ever choose."""
        return self.effective > 0


def overlap(policy: Vector, drawn: Vector, chosen: Index) -> Overlap:
    """Of a policy's pmf (n, k) with the pmf that was drawn from (n, k) and the columns chosen."""
    if not len(chosen):
        return Overlap(math.nan, 0.0, math.nan)
    row = np.arange(len(chosen))
    weights = policy[row, chosen] / drawn[row, chosen]
    outside = np.where(drawn > 0, 0.0, policy).sum(axis=1)
    return Overlap(
        float(outside.mean()), effective_sample_size(weights), float(weights.max(initial=0.0))
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """How often an arm (or any arm of a propensity bin) was drawn, and should have been."""

    name: str
    drawn: int
    expected: float
    se: float  # of what is drawn, if the log is true
    p_value: float  # of one chi-square at this look: for reading
    log_e: float  # largest so far, valid at every look: for deciding


def calibration(
    pmf: Vector, actions: Index, chosen: Index, ids: Sequence[str]
) -> tuple[tuple[Drawn, ...], float]:
    """Does the drawn arm follow the logged pmf? Per arm and per bin of propensity, and the largest
    log e-value of the whole, which exceeds log(1 / alpha) with probability at most alpha.

    pmf and actions (n, k) as in the log (positions in `ids`, -1 is padding), chosen (n,) columns.
    For each group, 1{drawn} - its logged probability has mean 0 given the past if the log is true;
    bets on either sign grow if it isn't. The whole is the mean of the groups' wealths.
    """
    n = len(chosen)
    hit = np.arange(pmf.shape[1]) == chosen[:, None]
    names, happened, likely = [], [], []
    for arm in np.unique(actions[actions >= 0]).tolist():
        names.append(ids[arm])
        happened.append((hit & (actions == arm)).any(axis=1))
        likely.append(np.where(actions == arm, pmf, 0.0).sum(axis=1))
    for low, high in pairwise(PROPENSITY_EDGES):
        within = (pmf > low) & (pmf <= high)
        if within.any():
            names.append(f"propensity in ({low:g}, {high:g}]")
            happened.append((hit & within).any(axis=1))
            # All arms may be in one bin, and rounding then leaves a little more than 1.
            likely.append(np.minimum(np.where(within, pmf, 0.0).sum(axis=1), 1.0))
    if not n or not names:
        return (), 0.0
    wealths = np.empty((len(names), n))
    groups = []
    for g, name in enumerate(names):
        wealths[g] = _log_wealth(happened[g] - likely[g])
        expected, variance = float(likely[g].sum()), float((likely[g] * (1 - likely[g])).sum())
        drawn = int(happened[g].sum())
        p_value = _p_value(drawn - expected, variance)
        se = math.sqrt(variance)
        groups.append(Drawn(name, drawn, expected, se, p_value, wealths[g].max()))
    most = wealths.max(axis=0)
    whole = most + np.log(np.exp(wealths - most).mean(axis=0))
    return tuple(groups), float(whole.max())


@dataclass(frozen=True, slots=True)
class Arrival:
    """Which part of the rewards has come, per arm."""

    rows: dict[str, int]
    missing: dict[str, float]  # share of the arm's rows
    p_value: float  # that arms differ by chance only; NaN where there is nothing to compare
    spread: float  # largest less smallest share, of arms with LEAST_ROWS


def arrival(arm: Index, arrived: Mask, ids: Sequence[str]) -> Arrival:
    """Chi-square test of independence between arm (n,) and arrival (n,) of the reward."""
    counts = np.bincount(arm, minlength=len(ids))
    absent = np.bincount(arm[~arrived], minlength=len(ids))
    used: list[int] = np.flatnonzero(counts).tolist()
    enough = np.flatnonzero(counts >= LEAST_ROWS)
    rates = absent / np.maximum(counts, 1)
    spread = float(np.ptp(rates[enough])) if len(enough) else 0.0
    p_value = math.nan
    if len(enough) > 1:
        table = np.stack([absent[enough], (counts - absent)[enough]])
        p_value = 1.0 if (table.sum(axis=1) == 0).any() else _independence(table)
    return Arrival(
        rows={ids[a]: int(counts[a]) for a in used},
        missing={ids[a]: float(rates[a]) for a in used},
        p_value=p_value,
        spread=spread,
    )


def worst(weight: Vector, reward: Vector) -> Vector:
    """Rewards (n,) with what is missing (NaN) set to the end of [0, 1] that speaks against the
    weight (n,). With its opposite this bounds any weighted mean over all that the missing might
    have been (Manski 1990, "Nonparametric Bounds on Treatment Effects", AER 80)."""
    filled: Vector = np.where(np.isnan(reward), weight < 0, reward)
    return filled


def _log_wealth(surprise: Vector) -> Vector:
    """(n,) of a mixture of two-sided bets on surprises in [-1, 1] (n,)."""
    path = np.cumsum(np.log1p(STAKES * surprise[:, None]), axis=0)
    most = path.max(axis=1)
    wealth: Vector = most + np.log(np.exp(path - most[:, None]).mean(axis=1))
    return wealth


def _p_value(difference: float, variance: float) -> float:
    if variance <= 0:
        return 1.0 if abs(difference) < 1e-9 else 0.0
    return float(stats.chi2.sf(difference**2 / variance, 1))


def _independence(table: Vector) -> float:
    return float(stats.chi2_contingency(table, correction=False).pvalue)

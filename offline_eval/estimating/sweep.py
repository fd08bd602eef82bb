"""Many candidates on one log: simultaneous intervals, and how much of a lead is selection.

The best of many estimates is too high, for it was chosen for being high. Terms per round (n, m) of
all candidates tell how much of that is luck. Nothing here is a verdict: only the gate decides, on
rows that chose nothing. Knows no log and no policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating.intervals import Interval, student_t
from offline_eval.estimating.reward_models import folds

Vector = NDArray[np.float64]
Index = NDArray[np.int64]

FOLDS = 10
RESAMPLES = 4_000
NOTE = "nothing here is a verdict: only the gate decides, on rows that chose nothing"


@dataclass(frozen=True, slots=True, eq=False)
class Lead:
    """The winner's lead over the champion, as it looks and as it is.

    `naive` is of the terms that chose the winner, with bounds that hold whoever wins. `honest`
    values, fold by fold, whoever wins the other folds; `agreement` is the share of folds in which
    that is the winner of all rows. `selection` is what is between them.
    """

    winner: str
    naive: Interval
    honest: float
    agreement: float

    @property
    def selection(self) -> float:
        return self.naive.estimate - self.honest


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """m candidates beside a champion: values and leads (m,), each set with intervals that hold all
    together."""

    names: tuple[str, ...]
    values: tuple[Interval, ...]
    leads: tuple[Interval, ...]
    lead: Lead


def compare(
    names: Sequence[str],
    terms: Vector,
    champion: Vector,
    decision_ids: Sequence[str],
    *,
    alpha: float = 0.05,
    seed: int = 0,
    count: int = FOLDS,
    doubts: Sequence[str | None] | None = None,
) -> Comparison:
    """Of terms (n, m) of `names`, and those of the champion or the logging policy (n,).

    `doubts` (m,) say why intervals of a candidate's terms can't be trusted.

    Raises
    ------
    ValueError
        If there are no candidates, or too few rows to choose on some and value on others.
    """
    n, m = terms.shape
    if not m or len(names) != m or champion.shape != (n,):
        raise ValueError(
            f"expected terms (n, m) of {len(names)} candidates and (n,) of the champion,"
            f" got {terms.shape} and {champion.shape}"
        )
    doubts = doubts or [None] * m
    differences = terms - champion[:, None]
    values, leads = (
        tuple(map(Interval.doubted, simultaneous(some, alpha, seed), doubts))
        for some in (terms, differences)
    )
    return Comparison(
        names=tuple(names),
        values=values,
        leads=leads,
        lead=lead_of_winner(names, differences, leads, decision_ids, count),
    )


def simultaneous(
    terms: Vector, alpha: float = 0.05, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Interval, ...]:
    """Intervals of the means of terms (n, m) that hold all m together with 1 - alpha.

    mean_j +- c sd_j / sqrt(n), c the 1 - alpha quantile of max_j |Σ_i e_i (t_ij - mean_j)| /
    (sqrt(n) sd_j) over draws e of N(0, 1): the multiplier bootstrap, which knows how much the
    candidates have in common (Chernozhukov, Chetverikov and Kato 2013, "Gaussian approximations and
    multiplier bootstrap for maxima of sums of high-dimensional random vectors", Annals of
    Statistics 41). Given the terms these sums are normal with the terms' correlations, so they are
    drawn as such. Not narrower than each candidate's own Student-t interval, and not for deciding:
    like that one it is too narrow where few rows weigh much, and says so.
    """
    n = len(terms)
    own = [student_t(column, alpha) for column in terms.T]
    spread = terms.std(axis=0, ddof=1) if n > 1 else np.zeros(terms.shape[1])
    moves = np.isfinite([one.low for one in own])
    if not moves.any():
        return tuple(own)
    alike = np.atleast_2d(np.corrcoef(terms[:, moves], rowvar=False))
    rng = np.random.default_rng(seed)
    sums = rng.multivariate_normal(np.zeros(len(alike)), alike, resamples, method="eigh")
    half = float(np.quantile(np.abs(sums).max(axis=1), 1.0 - alpha)) * spread / math.sqrt(n)
    return tuple(
        Interval(
            one.estimate,
            min(one.low, one.estimate - wide),
            max(one.high, one.estimate + wide),
            one.warning,
        )
        for one, wide in zip(own, half.tolist(), strict=True)
    )


def lead_of_winner(
    names: Sequence[str],
    leads: Vector,
    intervals: Sequence[Interval],
    decision_ids: Sequence[str],
    count: int = FOLDS,
) -> Lead:
    """Of leads (n, m) and their `simultaneous` intervals (m,).

    The naive lead's interval is the winner's of these: they hold the true leads of all candidates
    together, so with the same probability that of the one that wins, whoever it is and however it
    was chosen (Chernozhukov, Chetverikov and Kato 2013, as in `simultaneous`).

    The honest lead is by cross-validation: the winner of all folds but one is valued on that one.
    Each fold's value is unbiased for the candidate that was chosen without it, so the mean is never
    too high for the best one, and low only as far as less data chooses worse (van Hasselt 2013,
    "Estimating the maximum expected value: an analysis of (nested) cross validation and the maximum
    sample average", https://arxiv.org/abs/1302.7175). Ten folds choose from nearly all rows. It has
    no interval: the folds' choices depend on one another, which its terms don't know.
    """
    fold = folds(decision_ids, count)
    rows = np.bincount(fold, minlength=count)
    if len(leads) < 2 or not (rows < len(leads)).all():
        raise ValueError(f"{len(leads)} rows are too few to choose on some and value on others")
    sums = np.zeros((count, leads.shape[1]))
    np.add.at(sums, fold, leads)
    others = (sums.sum(axis=0) - sums) / (len(leads) - rows)[:, None]
    chosen = others.argmax(axis=1)  # (count,)
    winner = int(leads.mean(axis=0).argmax())
    return Lead(
        winner=names[winner],
        naive=intervals[winner],
        honest=float(leads[np.arange(len(leads)), chosen[fold]].mean()),
        agreement=float(np.average(chosen == winner, weights=rows)),
    )

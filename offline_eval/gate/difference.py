"""What the judged rounds say of the difference challenger - champion, and how that grew.

Knows no margin and no verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from offline_eval.estimating import diagnostics
from offline_eval.estimating.intervals import ConfidenceSequence, EProcess
from offline_eval.gate.rows import Rounds
from offline_eval.gate.terms import BETS, Pair, plain_terms, terms_for
from offline_eval.log.data import Index, Vector

CHUNK = 10_000  # rows at a time
LOOKS = 400  # points of a trail


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """The challenger's reward less the champion's."""

    better: EProcess
    worse: EProcess
    alpha: float
    terms: Vector  # (n,) of the rows whose reward has come, for reading
    decisive: Vector  # (n,) the terms, untruncated, that are bet on
    low: float  # of the confidence sequence
    high: float
    bounds: tuple[float, float]  # over all that missing rewards might have been
    rounds: int
    shortening: float  # by which the share to try would divide a term's variance

    @classmethod
    def of(cls, rounds: Rounds, alpha: float, share: float, pessimistic: bool) -> Difference:
        """Without rows whose reward is missing, or, to be pessimistic, with the reward that speaks
        against what is to be shown."""
        better, worse = EProcess(0.0, BETS), EProcess(0.0, BETS)
        sequence = ConfidenceSequence(2 * alpha, -1.0, 1.0, BETS)
        there = ~np.isnan(rounds.reward)
        weight = rounds.pair.at_chosen(rounds.pair.weights())
        against = diagnostics.worst(weight, rounds.reward)
        favour = diagnostics.worst(-weight, rounds.reward)
        for rows in chunks(np.arange(len(rounds)) if pessimistic else np.flatnonzero(there)):
            pair, predicted = rounds.pair[rows], rounds.predicted_reward[rows]
            other = pair.turned()
            better.fold(terms_for(pair, against[rows], predicted))
            worse.fold(terms_for(other, favour[rows], predicted))
            sequence.fold(
                terms_for(pair, against[rows], predicted, mean=1.0),
                terms_for(other, favour[rows], predicted, mean=1.0),
            )
        plain = [plain_terms(rounds.pair, r, rounds.predicted_reward) for r in (against, favour)]
        low, high = sequence.interval
        return cls(
            better=better,
            worse=worse,
            alpha=alpha,
            terms=plain[0][there],
            decisive=plain[0] if pessimistic else plain[0][there],
            low=low,
            high=high,
            bounds=(float(plain[0].mean()), float(plain[1].mean())),
            rounds=len(rounds),
            shortening=_shortening(rounds.pair, share),
        )

    @property
    def estimate(self) -> float:
        return float(self.terms.mean()) if len(self.terms) else math.nan

    @property
    def recent(self) -> float:
        """The estimate of the later half of the rows."""
        late = self.terms[len(self.terms) // 2 :]
        return float(late.mean()) if len(late) else math.nan

    def figures(self) -> dict[str, float]:
        return {
            "rounds": float(self.rounds),
            "rewarded": float(len(self.terms)),
            "estimate": self.estimate,
            "recent": self.recent,
            "low": self.low,
            "high": self.high,
            "worst_if_missing": self.bounds[0],
            "best_if_missing": self.bounds[1],
            "log_e_better": self.better.log_e,
            "log_e_better_peak": self.better.peak,
            "log_e_worse_peak": self.worse.peak,
            "log_e_needed": -math.log(self.alpha),
            "alpha": self.alpha,
        }

    def rounds_needed(self) -> float | None:
        """At the rate at which evidence has grown, or would if bets were as fine as they could be:
        mean^2 / (2 variance) a round. None where the mean isn't positive."""
        if self.better.refutes(self.alpha):
            return 0.0
        if not (len(self.decisive) and self.decisive.mean() > 0):
            return None
        ideal = float(self.decisive.mean() ** 2) / (2.0 * max(float(self.decisive.var()), 1e-12))
        rate = max(self.better.growth(), min(ideal, 1.0))
        return max(-math.log(self.alpha) - self.better.log_e, 0.0) / rate


@dataclass(frozen=True, slots=True, eq=False)
class Trail:
    """How the evidence of a difference grew: log e-values after some of the rounds (l,), with
    rewards; `needed` decides."""

    rounds: Index  # (l,) so many had been folded in
    better: Vector  # (l,)
    worse: Vector  # (l,)
    needed: float

    @classmethod
    def of(cls, rounds: Rounds, alpha: float, looks: int = LOOKS) -> Trail:
        """Of the rounds whose reward has come, as `Difference.of` folds them, with a point after
        every so many that there are about `looks`."""
        rows = np.flatnonzero(~np.isnan(rounds.reward))
        better, worse = EProcess(0.0, BETS), EProcess(0.0, BETS)
        points = []
        for some in np.array_split(rows, max(min(looks, len(rows)), 1)):
            pair, reward = rounds.pair[some], rounds.reward[some]
            predicted = rounds.predicted_reward[some]
            better.fold(terms_for(pair, reward, predicted))
            worse.fold(terms_for(pair.turned(), reward, predicted))
            points.append((better.rows, better.log_e, worse.log_e))
        at, up, down = np.array(points).T
        return cls(at.astype(np.int64), up, down, -math.log(alpha))

    def first(self, log_e: Vector) -> int | None:
        """The first point (of l) at which `better` or `worse` has reached what is needed."""
        reached = np.flatnonzero(log_e >= self.needed)
        return int(reached[0]) if len(reached) else None


def _shortening(pair: Pair, share: float) -> float:
    """Variance of importance weighting as drawn, over that if the challenger had `share`."""
    gain = pair.better - pair.worse
    tried = (1.0 - share) * pair.worse + share * pair.better
    spreads = [
        np.divide(gain**2, p, out=np.zeros_like(gain), where=p > 0).sum()
        for p in (pair.drawn, tried)
    ]
    return float(spreads[0] / spreads[1]) if spreads[1] > 0 else 1.0


def chunks(rows: Index) -> list[Index]:
    """In order, so that a long log needs no more memory than a short one."""
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]

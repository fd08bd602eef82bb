"""Two policies on a log: the difference between them, round by round, for bets on its sign.

Both pmfs, and the prediction that serves as control variate, are those logged at decision time: so
each term's expectation, given all rounds before, is the true difference of that round
(Karampatziakis, Mineiro and Ramdas 2021, "Off-policy Confidence Sequences", ICML; Waudby-Smith et
al. 2022, https://arxiv.org/abs/2210.10768). A prediction fitted later would break that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating.intervals import AT_STAKE, Bets

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Rows = NDArray[np.bool_] | NDArray[np.int64] | slice

# Halves from 0.32. A bet of about sqrt(2 log(1 / alpha) / (n variance)) shows the smallest
# difference in n rounds: those with most of the wealth are right for thousands to tens of thousands
# of rounds under a share of a tenth, the small ones for a floor, where hits are rare and large.
BETS = Bets(
    0.32 * np.power(0.5, np.arange(10.0)),
    np.array([0.02, 0.13, 0.3, 0.3, 0.15, 0.04, 0.02, 0.02, 0.01, 0.01]),
)
_HUGE = 1e300  # not inf: 0 * inf is NaN


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two policies on n rounds of up to k arms; a row's padding has probability 0 everywhere."""

    better: Vector  # (n, k) pmf of the policy that is asked to be better
    worse: Vector  # (n, k)
    drawn: Vector  # (n, k) the pmf that the arm was really drawn from
    chosen: Index  # (n,) column of the arm

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: Rows) -> Pair:
        return Pair(self.better[rows], self.worse[rows], self.drawn[rows], self.chosen[rows])

    def turned(self) -> Pair:
        return Pair(self.worse, self.better, self.drawn, self.chosen)

    def weights(self) -> Vector:
        """(n, k) (better - worse) / drawn; 0 where an arm could not be drawn."""
        gain = self.better - self.worse
        weights: Vector = np.divide(gain, self.drawn, out=np.zeros_like(gain), where=self.drawn > 0)
        return weights

    def at_chosen(self, table: Vector) -> Vector:
        """(n,) the chosen arm's column of (n, k)."""
        of_chosen: Vector = np.take_along_axis(table, self.chosen[:, None], axis=1)[:, 0]
        return of_chosen


def plain_terms(pair: Pair, outcome: Vector, predicted: Vector) -> Vector:
    """(n,) doubly robust difference, without truncation: for reading."""
    weights = pair.weights()
    own = (pair.better - pair.worse) * predicted
    residual = outcome - pair.at_chosen(predicted)
    terms: Vector = own.sum(axis=1) + pair.at_chosen(weights) * residual
    return terms


def terms_for(
    pair: Pair, outcome: Vector, predicted: Vector, bets: Bets = BETS, mean: float = 0.0
) -> Vector:
    """(n, j) difference better - worse of outcomes in [0, 1], as far down as each bet can bear.

    The smaller the bet, the more of the prediction is used: its control variate is truncated to
    `room / weight`, so that no term falls below -1 - room, with room set so that the bet loses at
    most `AT_STAKE` of its wealth against means up to `mean`. Truncating the control variate leaves
    the expectation as it is. Arms that could not be drawn count as 0 where the better policy gains
    by them and as 1 where the other does, which can only speak against "better".
    """
    rooms = AT_STAKE / bets.sizes - 1.0 - mean
    if not (rooms >= 0).all():
        raise ValueError(
            f"bets must be at most {AT_STAKE / (1 + mean):.3g} against means of {mean}"
        )
    gain, weights = pair.better - pair.worse, pair.weights()
    per_gain = np.divide(1.0, weights, out=np.full_like(weights, _HUGE), where=weights > 0)
    per_loss = np.divide(-1.0, weights, out=np.full_like(weights, _HUGE), where=weights < 0)
    unknown = (pair.drawn <= 0) & (gain != 0)
    weight = pair.at_chosen(weights)
    terms = np.empty((len(pair), len(bets)))
    with np.errstate(over="ignore"):
        for j, room in enumerate(rooms.tolist()):
            used = np.maximum(np.minimum(predicted, room * per_gain), 1.0 - room * per_loss)
            used = np.where(unknown, gain < 0, used)
            terms[:, j] = (gain * used).sum(axis=1) + weight * (outcome - pair.at_chosen(used))
    return terms

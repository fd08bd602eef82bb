"""One target on a log: what it would have earned by every estimator, and what speaks against it.

For reading. Knows no file, no table and no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating import diagnostics, estimators, rounds
from offline_eval.estimating.estimators import Estimate
from offline_eval.estimating.rounds import Rounds
from offline_eval.log.data import LoggedData
from policy import objective
from policy.objective import Scales

Vector = NDArray[np.float64]

OUTCOMES = ("quality", "latency_ms", "cost_usd")


@dataclass(frozen=True, slots=True, eq=False)
class Valuation:
    """`reward` by estimator; `outcomes` in their own units, self-normalised, each from the rows
    that have it. `effective` is the effective sample size of the importance weights."""

    reward: Mapping[str, Estimate]
    outcomes: Mapping[str, Estimate]
    rounds: Rounds
    effective: float | None  # None where the log has no propensities, nor weights

    @property
    def unsupported(self) -> float | None:
        """As `Rounds` has it; None where nobody knows what the log might have drawn."""
        return None if self.effective is None else self.rounds.unsupported

    @property
    def max_weight(self) -> float | None:
        """The largest importance weight."""
        return None if self.effective is None else float(self.rounds.weights.max(initial=0.0))


def value(
    data: LoggedData, pmf: Vector, reward: Vector, scales: Scales, q: Vector | None = None
) -> Valuation:
    """Of a target's pmf (n, kmax), with a `reward` (n,) and a reward model's `q` (n, kmax).

    Raises
    ------
    ValueError
        If the log or the pmf can't be used, saying at which rows.
    """
    made = rounds.of(data, pmf, reward, q)
    return Valuation(
        reward=rounds.estimates(made),
        outcomes=_outcomes(data, pmf, scales, made),
        rounds=made,
        effective=None
        if made.propensities == "unknown"
        else diagnostics.effective_sample_size(made.weights),
    )


def logged(data: LoggedData, reward: Vector, scales: Scales) -> dict[str, float | None]:
    """The log's own means of reward and outcomes; None where nothing has come."""
    columns = {"reward": reward} | dict(zip(OUTCOMES, _measured(data, scales).T, strict=True))
    means: dict[str, float | None] = {}
    for name, values in columns.items():
        there = data.executed & ~np.isnan(values)
        weights = data.stands_for[there]
        means[name] = float(np.average(values[there], weights=weights)) if len(weights) else None
    return means


def _measured(data: LoggedData, scales: Scales) -> Vector:
    """(n, 3) quality, which an error makes 0, latency in ms and cost in USD."""
    quality, latency_ms, cost_usd = data.outcomes.T
    y = objective.components(quality, latency_ms, cost_usd, data.error, scales)
    return np.stack([y[:, 0], latency_ms, cost_usd], axis=1)


def _outcomes(data: LoggedData, pmf: Vector, scales: Scales, made: Rounds) -> dict[str, Estimate]:
    why = rounds.UNKNOWN if made.propensities == "unknown" else made.why_not()
    if why is not None:
        return dict.fromkeys(OUTCOMES, estimators.not_evaluable(why))
    chosen = (data.actions == data.arm[:, None]).argmax(axis=1)
    weights = rounds.weights_of(pmf, chosen, data.propensity)
    found = {}
    for name, values in zip(OUTCOMES, _measured(data, scales).T, strict=True):
        there = data.executed & ~np.isnan(values)
        one = estimators.snips(weights[there], values[there], data.stands_for[there])
        found[name] = one if made.doubt is None else one.doubted(made.doubt)
    return found

"""Whether a log is one that may be evaluated: what is wrong with it, and at which rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from offline_eval.log import problems
from offline_eval.log.data import LoggedData, Mask

TOLERANCE = 1e-6


def check_log(data: LoggedData) -> None:
    """Refuse what no estimator may use.

    Raises
    ------
    ValueError
        Saying in one line what is wrong, and at which rows first.
    """
    chosen = (data.actions == data.arm[:, None]) & (data.actions >= 0)
    at_arm = np.where(chosen, data.pmf, 0.0).sum(axis=1)
    possible = (data.propensity > 0) & (data.propensity <= 1)
    quality, latency_and_cost = data.outcomes[:, 0], data.outcomes[:, 1:]
    checks = {
        "decision ids must not repeat": _repeated(data.decision_ids),
        "propensities must be given": np.isnan(data.propensity),
        "propensities must be in (0, 1]": ~possible & ~np.isnan(data.propensity),
        "action sets must hold the chosen arm, once": chosen.sum(axis=1) != 1,
        "pmfs must be >= 0": ~(data.pmf >= 0).all(axis=1),
        "pmfs must sum to 1": ~(np.abs(data.pmf.sum(axis=1) - 1.0) <= TOLERANCE),
        "propensities must be the pmf at the chosen arm": (
            possible & ~(np.abs(at_arm - data.propensity) <= TOLERANCE) & chosen.any(axis=1)
        ),
        "qualities must be in [0, 1]": (quality < 0) | (quality > 1),
        "latencies and costs must be >= 0 and finite": (
            (latency_and_cost < 0) | np.isinf(latency_and_cost)
        ).any(axis=1),
        "weights must be >= 0, and not all 0": ~(
            (data.weights >= 0).all(axis=1) & (data.weights.sum(axis=1) > 0)
        ),
        "a row must stand for a positive number of decisions": ~(
            (data.stands_for > 0) & np.isfinite(data.stands_for)
        ),
    }
    found = [
        f"{what}: {problems.rows(wrong, data.decision_ids)}"
        for what, wrong in checks.items()
        if wrong.any()
    ]
    if found:
        raise ValueError("; ".join(found))


def _repeated(decision_ids: Sequence[str]) -> Mask:
    """(n,) true where an id was there before."""
    n = len(decision_ids)
    if len(set(decision_ids)) == n:
        return np.zeros(n, dtype=bool)
    _, first = np.unique(np.array(decision_ids, dtype=object), return_index=True)
    return ~np.isin(np.arange(n), first)

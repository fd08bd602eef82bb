"""Whether a log is one that may be evaluated: what is wrong with it, and at which rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from offline_eval.log import problems
from offline_eval.log.data import LoggedData, Mask

TOLERANCE = 1e-6


UNKNOWN = "propensities must be given"
WAY_ON = (
    "; without any, the direct method alone can value a log: `evaluate` does, and `import-log"
    " --propensities estimated` makes some"
)


def check_log(data: LoggedData, *, without_propensities: bool = False) -> None:
    """Refuse what no estimator may use; a log `without_propensities` is one for the direct method.

    Raises
    ------
    ValueError
        Saying in one line what is wrong, and at which rows first.
    """
    chosen = (data.actions == data.arm[:, None]) & (data.actions >= 0)
    at_arm = np.where(chosen, data.pmf, 0.0).sum(axis=1)
    given = ~np.isnan(data.propensity)
    possible = (data.propensity > 0) & (data.propensity <= 1)
    quality, latency_and_cost = data.outcomes[:, 0], data.outcomes[:, 1:]
    drawn = {
        UNKNOWN: ~given,
        "propensities must be in (0, 1]": ~possible & given,
        "pmfs must be >= 0": given & ~(data.pmf >= 0).all(axis=1),
        "pmfs must sum to 1": given & ~(np.abs(data.pmf.sum(axis=1) - 1.0) <= TOLERANCE),
        "propensities must be the pmf at the chosen arm": (
            possible & ~(np.abs(at_arm - data.propensity) <= TOLERANCE) & chosen.any(axis=1)
        ),
    }
    checks = {
        "decision ids must not repeat": _repeated(data.decision_ids),
        "action sets must hold the chosen arm, once": chosen.sum(axis=1) != 1,
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
        for what, wrong in (checks if without_propensities else drawn | checks).items()
        if wrong.any()
    ]
    if found:
        way_on = WAY_ON if data.propensities == "unknown" else ""
        raise ValueError("; ".join(found) + way_on)


def _repeated(decision_ids: Sequence[str]) -> Mask:
    """(n,) true where an id was there before."""
    n = len(decision_ids)
    if len(set(decision_ids)) == n:
        return np.zeros(n, dtype=bool)
    _, first = np.unique(np.array(decision_ids, dtype=object), return_index=True)
    return ~np.isin(np.arange(n), first)

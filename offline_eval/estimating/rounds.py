"""A log and a target policy's pmf -> the plain arrays that estimators take, and all estimates.

Rows that can't count are left out, each kind by its count: never as zeros. Whether the target has
support on this log is decided here, and without it nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating import estimators, tuning
from offline_eval.estimating.estimators import Estimate, Vector
from offline_eval.log import problems
from offline_eval.log.checking import TOLERANCE, check_log
from offline_eval.log.data import LoggedData, Propensities

Index = NDArray[np.int64]

UNSUPPORTED = 0.01  # of the target's choices, that the log may be silent about
ESTIMATED = (
    "its propensities are estimated from the log: biased if choices depended on anything but the"
    " context"
)
UNKNOWN = "the log has no propensities: only the direct method (dm) can say anything"


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """The m rows of a log that count for a target, and what was left out.

    `at` (m,) are their positions in the log. `q_logged` and `v_target` (m,) are there with a reward
    model. `unsupported` is the share of the target's probability that lies on arms to which the
    logging policy gave none; `dropped` counts what was left out, by reason.
    """

    at: Index
    weights: Vector  # (m,)
    reward: Vector  # (m,)
    stands_for: Vector | None  # (m,); None where each row stands for itself
    q_logged: Vector | None
    v_target: Vector | None
    unsupported: float
    dropped: Mapping[str, int]
    propensities: Propensities = "logged"  # weights are 0 where they are unknown

    def __len__(self) -> int:
        return len(self.at)

    @property
    def doubt(self) -> str | None:
        """Why no interval of the weights can be trusted; None where they come from a record."""
        return ESTIMATED if self.propensities == "estimated" else None

    def why_not(self, tolerance: float = UNSUPPORTED) -> str | None:
        """Why no estimator may say anything of this target; None where they may."""
        return why_not(len(self), self.unsupported, self.dropped, tolerance)


def why_not(
    counted: int, unsupported: float, dropped: Mapping[str, int], tolerance: float = UNSUPPORTED
) -> str | None:
    """As `Rounds.why_not`, of how many rows count."""
    if not counted:
        left_out = ", ".join(f"{count:,} {why}" for why, count in dropped.items())
        return f"no row counts: {left_out}" if left_out else "there are no rows"
    if unsupported > tolerance:
        return (
            f"{unsupported:.2%} of the target's choices are arms that the logging policy "
            f"never tried, more than {tolerance:.2%}: nobody knows what they would have earned"
        )
    return None


def of(data: LoggedData, pmf: Vector, reward: Vector, q: Vector | None = None) -> Rounds:
    """The rows of `data` that count, for a target's `pmf` (n, kmax) and a `reward` (n,).

    `q` (n, kmax) are a model's rewards of each row's arms, all that can be used of a log without
    propensities. A row without a reward is left out
    (which is fair only where what goes missing doesn't depend on the arm), and so is one whose arm
    wasn't executed as drawn.

    Raises
    ------
    ValueError
        If the log is one that `check_log` refuses, or the pmf none over the rows' action sets.
    """
    unknown = data.propensities == "unknown"
    check_log(data, without_propensities=unknown)
    check_pmf(data, pmf)
    missing = np.isnan(reward)
    counts = data.executed & ~missing
    dropped = {
        "executed another arm than was drawn, or none": int((~data.executed).sum()),
        "have no reward": int((missing & data.executed).sum()),
    }
    at = np.flatnonzero(counts)
    everything = len(at) == len(data)
    rows = slice(None) if everything else at
    actions, pmf = data.actions[rows], pmf[rows]
    chosen = (actions == data.arm[rows][:, None]).argmax(axis=1)
    weights = np.zeros(len(chosen))
    if not unknown:
        weights = weights_of(pmf, chosen, data.propensity[rows])
    stands_for = data.stands_for[rows]
    q_logged = v_target = None
    if q is not None:
        q = q[rows]
        q_logged = at_arm(q, chosen)
        v_target = expected(pmf, q)
    silent = np.where(data.pmf[rows] == 0.0, pmf, 0.0).sum(axis=1)
    return Rounds(
        at=at,
        weights=weights,
        reward=reward[rows],
        stands_for=None if (stands_for == 1.0).all() else stands_for,
        q_logged=q_logged,
        v_target=v_target,
        unsupported=float(np.average(silent, weights=stands_for)) if len(at) else 0.0,
        dropped={why: count for why, count in dropped.items() if count},
        propensities=data.propensities,
    )


def check_pmf(data: LoggedData, pmf: Vector) -> None:
    """Refuse what is no pmf (n, kmax) over the rows' action sets, saying at which rows."""
    if pmf.shape != data.actions.shape:
        raise ValueError(f"expected a pmf of shape {data.actions.shape}, got {pmf.shape}")
    sums = pmf.sum(axis=1)
    possible = np.isfinite(sums) & (pmf >= 0.0).all(axis=1)
    wrong = {
        "the target's pmf must be >= 0": ~possible,
        "the target's pmf must sum to 1": possible & ~(np.abs(sums - 1.0) <= TOLERANCE),
        "the target's pmf must be 0 beyond the action set": (
            possible & (np.where(data.actions < 0, pmf, 0.0) != 0.0).any(axis=1)
        ),
    }
    found = [
        f"{what}: {problems.rows(where, data.decision_ids)}"
        for what, where in wrong.items()
        if where.any()
    ]
    if found:
        raise ValueError("; ".join(found))


def estimates(rounds: Rounds, tolerance: float = UNSUPPORTED) -> dict[str, Estimate]:
    """Every estimator by name; those that need a reward model only where there is one.

    Clip, threshold and shrinkage are tuned on these rows (`tuning.tuned`).
    """
    s, q, v = rounds.stands_for, rounds.q_logged, rounds.v_target
    names = ["ips", "clipped_ips", "snips"]
    names += ["dm", "dr", "sndr", "switch_dr", "dros"] if q is not None else []
    if why := rounds.why_not(tolerance):
        return {name: estimators.not_evaluable(why) for name in names}
    if rounds.propensities == "unknown":
        known = {} if v is None else {"dm": estimators.dm(v, s)}
        return {name: estimators.not_evaluable(UNKNOWN) for name in names} | known
    found = _weighted(rounds)
    doubt = rounds.doubt
    return found if doubt is None else {name: one.doubted(doubt) for name, one in found.items()}


def _weighted(rounds: Rounds) -> dict[str, Estimate]:
    w, r, s = rounds.weights, rounds.reward, rounds.stands_for
    q, v = rounds.q_logged, rounds.v_target
    clip = tuning.tuned(tuning.THRESHOLDS, w, r, 0.0, 0.0, np.minimum)
    found = {
        "ips": estimators.ips(w, r, s),
        "clipped_ips": estimators.clipped_ips(w, r, clip, s),
        "snips": estimators.snips(w, r, s),
    }
    if q is None or v is None:
        return found
    threshold = tuning.tuned(tuning.THRESHOLDS, w, r, q, v, estimators.switched)
    shrinkage = tuning.tuned(tuning.SHRINKAGES, w, r, q, v, estimators.shrunk)
    return found | {
        "dm": estimators.dm(v, s),
        "dr": estimators.dr(w, r, q, v, s),
        "sndr": estimators.sndr(w, r, q, v, s),
        "switch_dr": estimators.switch_dr(w, r, q, v, threshold, s),
        "dros": estimators.dros(w, r, q, v, shrinkage, s),
    }


def weights_of(pmf: Vector, chosen: Index, propensity: Vector) -> Vector:
    """Importance weights (n,): the target's probability of the column `chosen` (n,), over the
    propensity (n,) with which it was drawn."""
    return at_arm(pmf, chosen) / propensity


def at_arm(of_arms: Vector, chosen: Index) -> Vector:
    """Of (n, k) the column `chosen` (n,) of each row."""
    n, k = of_arms.shape
    if not of_arms.flags.c_contiguous:
        return of_arms[np.arange(n), chosen]
    flat: Vector = of_arms.reshape(-1).take(np.arange(0, n * k, k) + chosen)
    return flat


def expected(pmf: Vector, q: Vector) -> Vector:
    """Σ_a π(a|x) q(x, a), (n,); what a model doesn't know counts only where the target goes."""
    total: Vector = np.einsum("nk,nk->n", pmf, q)
    if np.isnan(total.sum()):
        total = np.einsum("nk,nk->n", pmf, np.where(pmf > 0.0, q, 0.0))
    return total

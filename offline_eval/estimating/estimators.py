"""What a target policy would have earned, from plain arrays over n logged rounds.

An estimate comes with influence terms (n,): their mean is its value and their variance over n the
variance of it, so interval, gate and plot are made of terms. What these don't know, such as a
bias, is a doubt that goes with them. The arrays: `weights` (n,) is the target's probability of the
logged arm over its propensity, `reward` (n,) in [0, 1], `q_logged` (n,) a model's prediction of it,
fitted on other rows, and `v_target` (n,) what that model expects of the target, Σ_a π(a|x) q(x, a).
A row of the log that stands for several decisions counts as `stands_for` (n,) of them. Knows no log
and no policy; `rounds.py` makes the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating.intervals import Interval, effective_of, few_rows, student_t
from offline_eval.log.problems import rows

Vector = NDArray[np.float64]


_WHERE_CUT = "biased by what the model gets wrong where weights are cut, which its terms don't know"
BIASED = {  # by estimator: why no interval of its terms can be trusted
    "clipped_ips": "biased by what clipped weights leave out, which its terms don't know",
    "dm": "biased by what the model gets wrong, which its terms don't know",
    "switch_dr": _WHERE_CUT,
    "dros": _WHERE_CUT,
}
NEED_REWARDS = ("ips", "dr", "sndr")  # beside SNIPS, whose terms are spread by rewards alone


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """`value` is None where nothing can be said, and `why` says why; `terms` (n,) is empty then.
    `doubting` says why an interval made of the terms can't be trusted, where they don't show it; it
    is asked when somebody wants to know."""

    value: float | None
    terms: Vector
    why: str | None = None
    doubting: Callable[[], str | None] | None = None

    @property
    def doubt(self) -> str | None:
        """Why an interval made of the terms can't be trusted, if they don't show it."""
        return None if self.doubting is None else self.doubting()

    def doubted(self, why: str) -> Estimate:
        """With one doubt more."""
        return replace(self, doubting=lambda: "; ".join(filter(None, (why, self.doubt))))

    @property
    def se(self) -> float | None:
        """The standard error that the terms imply; None for fewer than two."""
        n = len(self.terms)
        return float(self.terms.std(ddof=1)) / math.sqrt(n) if n > 1 else None

    def interval(
        self, alpha: float = 0.05, made: Callable[[Vector, float], Interval] = student_t
    ) -> Interval | None:
        """Of the terms, with the doubt for its warning; None where nothing can be said."""
        return None if self.value is None else made(self.terms, alpha).doubted(self.doubt)


def not_evaluable(why: str) -> Estimate:
    """The answer where there is none."""
    return Estimate(None, np.empty(0), why)


def few_rewards(n: int, snips: float, squares: float, fourths: float) -> str | None:
    """The doubt of `NEED_REWARDS` where rewards hardly differ in the rows that carry weight.

    It is told from n terms of SNIPS, whose spread is that of the rewards: their mean, and of their
    deviations d Σ d² and Σ d⁴. Weights and model spread the others' terms there, which says nothing
    of the rewards that weren't seen.
    """
    return few_rows(n, effective_of(n, snips, squares, fourths), "its rewards differ in ")


def ips(weights: Vector, reward: Vector, stands_for: Vector | None = None) -> Estimate:
    """Inverse propensity scoring, mean(w r): unbiased wherever the log has support.

    Horvitz and Thompson 1952; for bandits Dudík, Langford and Li 2011,
    https://arxiv.org/abs/1103.4601, section 2.1.
    """
    if refused := _refused(weights):
        return refused
    found = _mean(weights * reward, stands_for, reward)
    return _doubted(found, weights, reward, stands_for)


def clipped_ips(
    weights: Vector, reward: Vector, clip: float, stands_for: Vector | None = None
) -> Estimate:
    """IPS with weights of at most `clip` >= 1.

    Biased downwards for rewards >= 0, by E[(w - clip)+ r]: its terms tell the variance, not that.
    Ionides 2008, "Truncated Importance Sampling", https://doi.org/10.1198/106186008X320456,
    section 2.
    """
    _expect_at_least(clip, 1.0, "clip")
    if refused := _refused(weights):
        return refused
    terms = np.minimum(weights, clip)
    terms *= reward
    return _biased(_mean(terms, stands_for, reward), BIASED["clipped_ips"])


def snips(weights: Vector, reward: Vector, stands_for: Vector | None = None) -> Estimate:
    """Self-normalised IPS, Σ w r / Σ w: a mean of rewards, so it moves along when they shift.

    Swaminathan and Joachims 2015, "The Self-Normalized Estimator for Counterfactual Learning",
    NeurIPS 28, equation 9; its variance by the delta method: Owen 2013, "Monte Carlo theory,
    methods and examples", https://artowen.su.domains/mc/, section 9.2.
    """
    return _refused(weights) or _ratio(weights, reward, stands_for, reward)


def dm(v_target: Vector, stands_for: Vector | None = None) -> Estimate:
    """The direct method, mean(v): as good as the model, whose error its terms don't know.

    Dudík, Langford and Li 2011, https://arxiv.org/abs/1103.4601, section 2.1.
    """
    if not len(v_target):
        return _NO_ROWS
    return _biased(_mean(v_target, stands_for, v_target=v_target), BIASED["dm"])


def dr(
    weights: Vector,
    reward: Vector,
    q_logged: Vector,
    v_target: Vector,
    stands_for: Vector | None = None,
) -> Estimate:
    """Doubly robust, mean(v + w (r - q)): unbiased like IPS, with what the model left to explain.

    Dudík, Langford and Li 2011, https://arxiv.org/abs/1103.4601, section 2.2.
    """
    if refused := _refused(weights):
        return refused
    found = _corrected(weights, reward - q_logged, reward, q_logged, v_target, stands_for)
    return _doubted(found, weights, reward, stands_for)


def sndr(
    weights: Vector,
    reward: Vector,
    q_logged: Vector,
    v_target: Vector,
    stands_for: Vector | None = None,
) -> Estimate:
    """Self-normalised DR, mean(v) + Σ w (r - q) / Σ w.

    Thomas and Brunskill 2016, https://arxiv.org/abs/1604.00923, the section on the weighted doubly
    robust estimator, for one step.
    """
    if refused := _refused(weights):
        return refused
    terms = _ratio(weights, reward - q_logged, stands_for, reward, q_logged).terms
    terms += _mean(v_target, stands_for, v_target=v_target).terms
    found = Estimate(float(terms.mean()), terms)
    return _doubted(found, weights, reward, stands_for)


def switch_dr(
    weights: Vector,
    reward: Vector,
    q_logged: Vector,
    v_target: Vector,
    threshold: float,
    stands_for: Vector | None = None,
) -> Estimate:
    """DR, but the model alone where a weight is above `threshold`: biased by its error there.

    Wang, Agarwal and Dudík 2017, https://arxiv.org/abs/1612.01205, section 4 (SWITCH with DR).
    """
    _expect_at_least(threshold, 0.0, "threshold")
    if refused := _refused(weights):
        return refused
    kept = switched(weights, threshold)
    found = _corrected(kept, reward - q_logged, reward, q_logged, v_target, stands_for)
    return _biased(found, BIASED["switch_dr"])


def dros(
    weights: Vector,
    reward: Vector,
    q_logged: Vector,
    v_target: Vector,
    shrinkage: float,
    stands_for: Vector | None = None,
) -> Estimate:
    """DR with optimistic shrinkage: weights λ w / (w² + λ) for `shrinkage` λ; DM at 0, DR at inf.

    Su, Dimakopoulou, Krishnamurthy and Dudík 2020, https://arxiv.org/abs/1907.09623, section 3
    (optimistic shrinkage).
    """
    _expect_at_least(shrinkage, 0.0, "shrinkage")
    if refused := _refused(weights):
        return refused
    kept = shrunk(weights, shrinkage)
    found = _corrected(kept, reward - q_logged, reward, q_logged, v_target, stands_for)
    return _biased(found, BIASED["dros"])


def switched(weights: Vector, threshold: float) -> Vector:
    """Weights (n,) of SWITCH: 0 above the threshold."""
    return weights * (weights <= threshold)


def shrunk(weights: Vector, shrinkage: float) -> Vector:
    """Weights (n,) of DRos: at most √λ / 2."""
    if math.isinf(shrinkage) or shrinkage == 0.0:
        return weights if shrinkage else np.zeros_like(weights)
    kept: Vector = weights * weights
    kept += shrinkage
    np.divide(weights, kept, out=kept)
    kept *= shrinkage
    return kept


_NO_ROWS = not_evaluable("there are no rows")
NO_SUPPORT = not_evaluable("no arm that was logged is one that the target would choose")


def _refused(weights: Vector) -> Estimate | None:
    """Why there is no estimate; None where there is one."""
    if not len(weights):
        return _NO_ROWS
    least, most = float(weights.min()), float(weights.max())  # NaN where one is
    if not (least >= 0.0 and most < math.inf):
        wrong = ~(np.isfinite(weights) & (weights >= 0.0))
        raise ValueError(f"weights must be finite and >= 0: {rows(wrong)}")
    return None if most > 0.0 else NO_SUPPORT


def _expect_at_least(value: float, least: float, name: str) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be >= {least:g}, got {value!r}")


def _corrected(
    weights: Vector,
    residual: Vector,
    reward: Vector,
    q_logged: Vector,
    v_target: Vector,
    stands_for: Vector | None,
) -> Estimate:
    """mean(v + w (r - q)); `residual` is overwritten."""
    residual *= weights
    residual += v_target
    return _mean(residual, stands_for, reward, q_logged, v_target)


def _mean(
    per_row: Vector,
    stands_for: Vector | None,
    reward: Vector | None = None,
    q_logged: Vector | None = None,
    v_target: Vector | None = None,
) -> Estimate:
    """The mean of (n,), weighted by `stands_for`; the rest is what it was made of."""
    if stands_for is not None:
        return _ratio(stands_for, per_row, None, reward, q_logged, v_target)
    value = float(per_row.mean())
    if not math.isfinite(value):
        raise incomplete(reward, q_logged, v_target)
    return Estimate(value, per_row)


def _ratio(
    weights: Vector,
    y: Vector,
    stands_for: Vector | None,
    reward: Vector | None = None,
    q_logged: Vector | None = None,
    v_target: Vector | None = None,
) -> Estimate:
    """Σ w y / Σ w, with terms from its linearisation around the expectations."""
    if stands_for is not None:
        weights = weights * stands_for
    total = float(weights.sum())
    value = dot(weights, y) / total
    if not math.isfinite(value):
        raise incomplete(reward, q_logged, v_target)
    terms = y - value
    terms *= weights
    terms *= len(weights) / total
    terms += value
    return Estimate(value, terms)


def _biased(found: Estimate, why: str) -> Estimate:
    return replace(found, doubting=lambda: why)


def _doubted(
    found: Estimate, weights: Vector, reward: Vector, stands_for: Vector | None
) -> Estimate:
    """With `few_rewards`."""

    def doubting() -> str | None:
        counted = weights if stands_for is None else weights * stands_for
        total = float(counted.sum())
        mean = dot(counted, reward) / total
        d = reward - mean
        d *= counted
        d *= len(d) / total
        d *= d
        return few_rewards(len(d), mean, float(d.sum()), dot(d, d))

    return replace(found, doubting=doubting)


def dot(a: Vector, b: Vector) -> float:
    return float(np.einsum("n,n->", a, b))  # np.dot may wait for a busy core, to gain nothing


def incomplete(
    reward: Vector | None, q_logged: Vector | None, v_target: Vector | None
) -> ValueError:
    """What made an estimate no number, and at which rows."""
    given = {
        "rewards are missing, which is not 0": reward,
        "q_logged must be finite": q_logged,
        "v_target must be finite": v_target,
    }
    found = [
        f"{what}: {rows(~np.isfinite(values))}"
        for what, values in given.items()
        if values is not None and not np.isfinite(values).all()
    ]
    return ValueError("; ".join(found) or "the terms' sum is too large")

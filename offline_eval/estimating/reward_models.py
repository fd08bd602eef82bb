"""Reward models for the estimators that use one: what each row's arms would have earned.

Cross-fitted: what is predicted for a row was learned from other folds, so that a model's error is
independent of the row's own reward (Chernozhukov et al. 2018, "Double/debiased machine learning",
https://arxiv.org/abs/1608.00060, section 3). Knows no target policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from offline_eval.log import problems
from offline_eval.log.data import LoggedData

Vector = NDArray[np.float64]
Index = NDArray[np.int64]

FOLDS = 5
SHARED, OWN = 1.0, 10.0  # ridge penalties: noise variance over the variance of a coefficient
ROWS_AT_ONCE = 65_536


def folds(decision_ids: Sequence[str], count: int = FOLDS) -> Index:
    """The fold (n,) of each decision, a hash of its id: the same in every run, log and order."""
    of = hashlib.blake2b
    digests = b"".join(of(i.encode(), digest_size=8).digest() for i in decision_ids)
    return (np.frombuffer(digests, dtype=">u8") % count).astype(np.int64)


def ridge(
    data: LoggedData,
    reward: Vector,
    *,
    count: int = FOLDS,
    shared: float = SHARED,
    own: float = OWN,
) -> Vector:
    """Predicted rewards (n, kmax) in [0, 1] of each row's arms, NaN beyond its action set.

    Ridge regression of `reward` (n,) on the contexts with coefficients β + δ_a: β is shared by the
    arms and penalised by `shared`, δ_a is an arm's own and penalised by `own` (a joint ridge:
    Evgeniou and Pontil 2004, "Regularized multi-task learning", KDD, section 2.1). Learned from
    rows of the other folds that have a reward and executed the arm that was drawn.
    """
    return Sums.of(data, reward, count).coefficients(shared, own).predict(data)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a joint ridge regression needs to know of rows: those of two parts of a log add up, by
    the names of their arms."""

    ids: tuple[str, ...]  # the arms, sorted; none where there were no rows
    xx: Vector  # (folds, arms, d, d) Σ x xᵀ
    xy: Vector  # (folds, arms, d) Σ x r

    @classmethod
    def nothing(cls, count: int = FOLDS) -> Sums:
        return cls((), np.zeros((count, 0, 0, 0)), np.zeros((count, 0, 0)))

    @classmethod
    def of(cls, data: LoggedData, reward: Vector, count: int = FOLDS) -> Sums:
        """Of the rows that have a reward (n,) and executed the arm that was drawn."""
        if count < 2:
            raise ValueError(f"cross-fitting needs at least 2 folds, got {count}")
        usable = data.executed & ~np.isnan(reward)
        xx, xy = _sums(data, reward, folds(data.decision_ids, count), usable, count)
        return cls(data.ids, xx, xy)

    def __add__(self, other: Sums) -> Sums:
        if not (self.ids and other.ids):
            return self if self.ids else other
        ids = tuple(sorted({*self.ids, *other.ids}))
        (xx, xy), (more_xx, more_xy) = self._spread(ids), other._spread(ids)
        return Sums(ids, xx + more_xx, xy + more_xy)

    def _spread(self, ids: tuple[str, ...]) -> tuple[Vector, Vector]:
        """`xx` and `xy` over more arms: 0 for those that are new."""
        if ids == self.ids:
            return self.xx, self.xy
        at = [ids.index(arm) for arm in self.ids]
        count, _, d = self.xy.shape
        xx, xy = np.zeros((count, len(ids), d, d)), np.zeros((count, len(ids), d))
        xx[:, at], xy[:, at] = self.xx, self.xy
        return xx, xy

    def coefficients(self, shared: float = SHARED, own: float = OWN) -> Coefficients:
        """For each fold, what the others teach."""
        count = len(self.xx)
        theta = np.empty(self.xy.shape)
        for f in range(count):
            others = np.arange(count) != f
            xx, xy = self.xx[others].sum(axis=0), self.xy[others].sum(axis=0)
            theta[f] = _solve(xx, xy, shared, own)
        return Coefficients(self.ids, theta)


@dataclass(frozen=True, slots=True, eq=False)
class Coefficients:
    """A fitted regression; row f of `theta` (folds, arms, d) is for the rows of fold f."""

    ids: tuple[str, ...]
    theta: Vector

    def predict(self, data: LoggedData) -> Vector:
        """(n, kmax) of rows whose arms are `ids`, as `ridge` says."""
        q = np.full(data.actions.shape, np.nan)
        fold = folds(data.decision_ids, len(self.theta))
        for f, theta in enumerate(self.theta):
            at = np.flatnonzero(fold == f)
            for some in np.split(at, range(ROWS_AT_ONCE, len(at), ROWS_AT_ONCE)):
                all_arms = np.clip(data.contexts[some].astype(np.float64) @ theta.T, 0.0, 1.0)
                q[some] = np.take_along_axis(all_arms, np.maximum(data.actions[some], 0), axis=1)
        q[data.actions < 0] = np.nan
        return q


def _sums(
    data: LoggedData, reward: Vector, fold: Index, usable: NDArray[np.bool_], count: int
) -> tuple[Vector, Vector]:
    """Σ x xᵀ (folds, arms, d, d) and Σ x r (folds, arms, d)."""
    k, d = len(data.ids), data.contexts.shape[1]
    xx, xy = np.zeros((count, k, d, d)), np.zeros((count, k, d))
    wild = ~np.isfinite(data.contexts.sum(axis=1))
    if wild.any():
        raise ValueError(f"contexts must be finite: {problems.rows(wild)}")
    for start in range(0, len(data), ROWS_AT_ONCE):
        some = start + np.flatnonzero(usable[start : start + ROWS_AT_ONCE])
        if not len(some):
            continue
        cell = fold[some] * k + data.arm[some]
        order = np.argsort(cell, kind="stable")
        some, cell = some[order], cell[order]
        x, r = data.contexts[some].astype(np.float64), reward[some]
        cuts = np.flatnonzero(np.diff(cell, prepend=-1)).tolist()
        for at, to in pairwise([*cuts, len(cell)]):
            f, a = divmod(int(cell[at]), k)
            xx[f, a] += x[at:to].T @ x[at:to]
            xy[f, a] += r[at:to] @ x[at:to]
    return xx, xy


def _solve(xx: Vector, xy: Vector, shared: float, own: float) -> Vector:
    """β + δ_a (arms, d) of the joint ridge regression.

    Given β, δ_a = (G_a + μ)⁻¹ (b_a - G_a β); put into β's normal equations that leaves d of them:
    (Σ_a μ (G_a + μ)⁻¹ G_a + λ) β = Σ_a μ (G_a + μ)⁻¹ b_a.
    """
    eye = np.eye(xx.shape[-1])
    both = np.concatenate([xx, xy[:, :, None]], axis=2)
    solved = np.linalg.solve(xx + own * eye, both)  # (G_a + μ)⁻¹ [G_a, b_a]
    pull, alone = solved[:, :, :-1], solved[:, :, -1]
    beta = np.linalg.solve(own * pull.sum(axis=0) + shared * eye, own * alone.sum(axis=0))
    theta: Vector = beta + alone - pull @ beta
    return theta

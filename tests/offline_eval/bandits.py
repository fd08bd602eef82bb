"""Simulated rounds whose truth is known, and every estimator of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_eval.estimating import estimators
from offline_eval.estimating.estimators import Estimate, Vector


@dataclass(frozen=True)
class Logged:
    """n rounds, and the pmfs and models (n, k) that they come from."""

    weights: Vector
    reward: Vector
    q_logged: Vector
    v_target: Vector
    arm: Any
    propensity: Vector
    target: Vector
    q: Vector
    truth: float


def simulate(seed: int, n: int, k: int = 4, model_error: float = 0.2) -> Logged:
    """Bernoulli rewards whose means depend on arm and context; the target prefers better arms."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, 1))
    means = 0.2 + 0.5 * np.abs(x - np.arange(k) / k)
    logging = rng.dirichlet(np.full(k, 2.0), n) * 0.8 + 0.2 / k
    target = np.exp(4.0 * means)
    target /= target.sum(axis=1, keepdims=True)
    arm = (rng.random((n, 1)) > np.cumsum(logging, axis=1)).sum(axis=1).clip(max=k - 1)
    reward = (rng.random(n) < means[np.arange(n), arm]).astype(np.float64)
    q = means + model_error * (np.arange(k) / k - 0.3)
    return of_pmfs(arm, reward, logging[np.arange(n), arm], target, q, means)


def of_pmfs(
    arm: Any, reward: Vector, propensity: Vector, target: Vector, q: Vector, means: Vector
) -> Logged:
    rows = np.arange(len(arm))
    return Logged(
        weights=target[rows, arm] / propensity,
        reward=reward,
        q_logged=q[rows, arm],
        v_target=(target * q).sum(axis=1),
        arm=arm,
        propensity=propensity,
        target=target,
        q=q,
        truth=float((target * means).sum(axis=1).mean()),
    )


EVERY: dict[str, Callable[[Logged], Estimate]] = {
    "ips": lambda o: estimators.ips(o.weights, o.reward),
    "clipped_ips": lambda o: estimators.clipped_ips(o.weights, o.reward, 3.0),
    "snips": lambda o: estimators.snips(o.weights, o.reward),
    "dm": lambda o: estimators.dm(o.v_target),
    "dr": lambda o: estimators.dr(o.weights, o.reward, o.q_logged, o.v_target),
    "sndr": lambda o: estimators.sndr(o.weights, o.reward, o.q_logged, o.v_target),
    "switch_dr": lambda o: estimators.switch_dr(
        o.weights, o.reward, o.q_logged, o.v_target, threshold=2.0
    ),
    "dros": lambda o: estimators.dros(o.weights, o.reward, o.q_logged, o.v_target, shrinkage=20.0),
}

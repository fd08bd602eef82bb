"""Propensities of a log that has none, estimated from what it chose in which contexts.

They are right only if the choice depended on nothing but the context: whatever else it depended on,
and the reward with it, biases what is made of them, and nothing in the log can tell. Rosenbaum and
Rubin 1983, "The central role of the propensity score", Biometrika 70; with estimated ones, Hirano,
Imbens and Ridder 2003, https://doi.org/10.1111/1468-0262.00442.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from policy.records import Vector

PENALTY = 1.0  # on coefficients: the precision of their normal prior
RARE = 0.02  # of 1 / k: an estimate below it can't be told from never, and is taken for it
ITERATIONS = 200


def estimated(x: NDArray[np.float32], arm: NDArray[np.int64], k: int) -> Vector:
    """The probability of each of k arms in each row, (n, k), of contexts x (n, d) and the arms
    chosen (n,): a multinomial logistic regression with a ridge penalty.

    An arm that seems to have had less than `RARE` / k is given none, unless it was the one chosen:
    where rules decided, the log has no support for the other arms, and must not seem to have.
    """
    rows, which = _distinct(x)
    counts = np.zeros((len(rows), k))
    np.add.at(counts, (which, arm), 1.0)
    pmf = _softmax(rows @ _fitted(rows, counts))[which]
    chosen = np.arange(k) == arm[:, None]
    pmf[(pmf < RARE / k) & ~chosen] = 0.0
    fair: Vector = pmf / pmf.sum(axis=1, keepdims=True)
    return fair


def _distinct(x: NDArray[np.float32]) -> tuple[Vector, NDArray[np.int64]]:
    """The contexts that there are, with a constant, and which of them each row has."""
    rows, which = np.unique(x, axis=0, return_inverse=True)
    constant = np.ones((len(rows), 1))
    return np.concatenate([rows.astype(np.float64), constant], axis=1), which.reshape(-1)


def _fitted(x: Vector, counts: Vector) -> Vector:
    """Coefficients (d, k) of the most probable regression of counts (m, k) on x (m, d); the
    constant, the last of d, is free."""
    d, k = x.shape[1], counts.shape[1]
    total = counts.sum(axis=1, keepdims=True)
    penalty = np.full((d, 1), PENALTY)
    penalty[-1] = 1e-6

    def loss(flat: Vector) -> tuple[float, Vector]:
        theta = flat.reshape(d, k)
        p = _softmax(x @ theta)
        value = -np.sum(counts * np.log(np.maximum(p, 1e-300)))
        value += 0.5 * np.sum(penalty * theta**2)
        slope = x.T @ (total * p - counts) + penalty * theta
        return float(value), slope.ravel()

    found = minimize(
        loss, np.zeros(d * k), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}
    )
    theta: Vector = found.x.reshape(d, k)
    return theta


def _softmax(scores: Vector) -> Vector:
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    p: Vector = likely / likely.sum(axis=1, keepdims=True)
    return p

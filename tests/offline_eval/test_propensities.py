"""Estimated propensities: right where choices depend on the context alone, silent under rules."""

from __future__ import annotations

import numpy as np
import pytest

from offline_eval.importing import propensities

N = 6_000


def drawn(pmf: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Contexts of as many groups as `pmf` (groups, k) has, and arms drawn from it."""
    rng = np.random.default_rng(seed)
    group = rng.integers(len(pmf), size=N)
    arm = (rng.random(N)[:, None] > np.cumsum(pmf[group], axis=1)).sum(axis=1)
    return np.eye(len(pmf), dtype=np.float32)[group], arm


def test_shares_of_groups_by_hand():
    """What was chosen in a group is what was likely there: within four standard errors of it."""
    pmf = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    x, arm = drawn(pmf)
    found = propensities.estimated(x, arm, 3)
    likely = pmf[x.argmax(axis=1)]
    error = 4 * np.sqrt(likely * (1 - likely) / (N / 2))
    assert (np.abs(found - likely) < error).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(N), abs=1e-12)


def test_what_was_never_chosen_has_no_probability():
    """Rules have no overlap, and an estimate of theirs must not seem to."""
    x, arm = drawn(np.array([[1.0, 0.0], [0.0, 1.0]]))
    found = propensities.estimated(x, arm, 2)
    assert (found == np.eye(2)[arm]).all()


def test_the_chosen_arm_is_never_impossible():
    """However rare it was."""
    x = np.ones((1_001, 1), dtype=np.float32)
    arm = np.array([0] * 1_000 + [1])
    found = propensities.estimated(x, arm, 2)
    assert found[-1, 1] == pytest.approx(1 / 1_001, rel=0.01)
    assert (found[:-1, 1] == 0.0).all()


def test_one_arm_is_certain():
    """There is nothing to estimate."""
    assert (
        propensities.estimated(np.ones((3, 2), dtype=np.float32), np.zeros(3, int), 1).tolist()
        == [[1.0]] * 3
    )

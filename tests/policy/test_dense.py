"""Many small matrices at once: against LAPACK's inverse."""

from __future__ import annotations

import numpy as np
import pytest

from policy.values.linear.dense import AT_ONCE, chosen, inverted


@pytest.mark.parametrize("d", [1, 2, 7, 8, 9, 17, 64, 101])
@pytest.mark.parametrize("prior", [1.0, 1e-5])
def test_an_inverse_is_as_exact_as_lapacks(d: int, prior: float):
    """Of any size; near to singular too, where the truth is known for one outcome's sums: to what
    the matrix's condition leaves of a float's 16 digits."""
    x = np.random.default_rng(d).standard_normal((5, 1, d))
    squares = x @ x.swapaxes(1, 2)
    eye = np.eye(d)
    matrices = x.swapaxes(1, 2) @ x + prior * eye
    true = eye / prior - x.swapaxes(1, 2) @ x / prior / (prior + squares)
    condition = float(squares.max()) / prior + 1.0
    assert np.abs(inverted(matrices) - true).max() * prior < 4e-15 * condition * d


def test_what_rounding_has_left_indefinite_is_inverted_all_the_same():
    """A learner that stopped for it would learn nothing any more."""
    matrices = np.array([[[1.0, 1.0 + 1e-15], [1.0 + 1e-15, 1.0]], np.eye(2)])
    assert np.isfinite(inverted(matrices)).all()
    np.testing.assert_allclose(inverted(matrices)[1], np.eye(2))


def test_each_inverse_is_the_same_in_any_company():
    """Bit for bit: what is computed again beside others is what it was."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 30, 64))
    matrices = x.swapaxes(1, 2) @ x + np.eye(64)
    together = inverted(matrices)
    for i in (0, 7, 39):
        assert (inverted(matrices[i : i + 1])[0] == together[i]).all()


def test_what_is_present_is_passed_over_once():
    """Column by column, in groups of AT_ONCE rows at most."""
    present = np.random.default_rng(1).random((100, 3)) < 0.5
    seen = np.zeros_like(present, dtype=int)
    for column, rows in chosen(present):
        assert 0 < len(rows) <= AT_ONCE
        seen[rows, column] += 1
    assert (seen == present).all()

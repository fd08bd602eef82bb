"""Many small symmetric matrices at once. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

LEAF = 8  # rows of a triangle that LAPACK inverts; larger ones are cut in half
AT_ONCE = 24  # matrices of 64 x 64: as many as stay in a core's cache


def inverted(matrices: Array) -> Array:
    """Inverses of symmetric positive definite matrices (n, d, d), in about half of LAPACK's time
    for one after the other, and as exact; where rounding has left one indefinite, in LAPACK's."""
    try:
        inverse = _lower(np.asarray(np.linalg.cholesky(matrices), dtype=np.float64))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.inv(matrices), dtype=np.float64)
    product: Array = inverse.swapaxes(-1, -2) @ inverse
    return product


def _lower(triangles: Array) -> Array:
    """Inverses of lower triangular matrices (n, d, d)."""
    d = triangles.shape[-1]
    if d <= LEAF:
        return np.asarray(np.linalg.inv(triangles), dtype=np.float64)
    h = d // 2
    first, second = _lower(triangles[:, :h, :h]), _lower(triangles[:, h:, h:])
    inverse = np.zeros(triangles.shape)
    inverse[:, :h, :h], inverse[:, h:, h:] = first, second
    np.matmul(-second @ triangles[:, h:, :h], first, out=inverse[:, h:, :h])
    return inverse


def chosen(present: NDArray[np.bool_]) -> Iterator[tuple[int, Index]]:
    """Each column of what is `present` (k, c), with the rows that have it, AT_ONCE at a time."""
    for column in range(present.shape[1]):
        rows = np.flatnonzero(present[:, column])
        for at in range(0, len(rows), AT_ONCE):
            yield column, rows[at : at + AT_ONCE]

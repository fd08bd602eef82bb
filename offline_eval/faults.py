"""How a fault is told: at which rows it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHOWN = 5  # row numbers that an error names


def rows(wrong: NDArray[np.bool_]) -> str:
    """The first rows at which `wrong` (n,) is true, and how many more there are.

    >>> rows(np.array([False, True, True]))
    'rows 1, 2'
    """
    at = np.flatnonzero(wrong)
    more = f" and {len(at) - SHOWN:,} more" if len(at) > SHOWN else ""
    return f"row{'s' if len(at) > 1 else ''} {', '.join(map(str, at[:SHOWN]))}{more}"

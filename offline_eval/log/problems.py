"""How a fault is told: at which rows it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHOWN = 5  # row numbers that an error names


def rows(wrong: NDArray[np.bool_], decision_ids: Sequence[str] | None = None) -> str:
    """The first rows at which `wrong` (n,) is true, and how many more there are; with the id of the
    first one's decision, where ids (n,) are given, for rows may be counted from anywhere.

    >>> rows(np.array([False, True, True]), ["a", "b", "c"])
    'rows 1, 2 (from decision b on)'
    """
    at = np.flatnonzero(wrong)
    more = f" and {len(at) - SHOWN:,} more" if len(at) > SHOWN else ""
    told = f"row{'s' if len(at) > 1 else ''} {', '.join(map(str, at[:SHOWN]))}{more}"
    if decision_ids is None:
        return told
    first = f"decision {decision_ids[at[0]]}"
    return f"{told} ({first})" if len(at) == 1 else f"{told} (from {first} on)"

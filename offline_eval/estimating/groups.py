"""A log by task type, or by whatever else its rows are grouped by. Knows no estimator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from offline_eval.estimating import rounds
from offline_eval.estimating.rounds import Rounds
from offline_eval.log.data import LoggedData, Vector


def per_group(
    data: LoggedData, groups: Sequence[str], pmf: Vector, reward: Vector, q: Vector | None = None
) -> dict[str, Rounds]:
    """What `rounds.of` gives for each of the `groups` (n,) by itself; rows of other groups count
    among those without a reward."""
    names = np.array(groups, dtype=np.str_)
    if names.shape != (len(data),):
        raise ValueError(f"groups must name all {len(data)} rows, got {len(groups)}")
    return {
        str(name): rounds.of(data, pmf, np.where(names == name, reward, np.nan), q)
        for name in np.unique(names)
    }

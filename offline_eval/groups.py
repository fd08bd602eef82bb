"""A log by task type, or by whatever else its rows are grouped by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.encoder import Encoder
from features.signals import TASK_TYPES
from offline_eval import rounds
from offline_eval.log import LoggedData, Vector
from offline_eval.rounds import Rounds


def task_types(data: LoggedData, encoder: Encoder) -> tuple[str, ...]:
    """(n,) the most probable task type of each row, as its context has it.

    Raises
    ------
    ValueError
        If the contexts were not made by `encoder`.
    """
    if data.encoder != encoder.fingerprint:
        raise ValueError(
            f"the log's contexts are of encoder {data.encoder or 'none'}, not of "
            f"{encoder.fingerprint}: their task types can't be read"
        )
    mix = data.contexts[:, encoder.groups["task"]]
    return tuple(TASK_TYPES[i] for i in mix.argmax(axis=1).tolist())


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

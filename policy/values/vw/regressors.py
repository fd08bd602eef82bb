"""A regressor per component: what VW runs with, what its numbers mean, its models as bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from vowpal_wabbit_next import Example, Workspace

from policy.objective import COMPONENTS, Scales
from policy.records import Vector
from policy.values.parts import VALUES, Part, Parts
from policy.values.vw.examples import ARM, LETTERS

FORMAT = 2  # raise it when the same events would be taught differently
C = len(COMPONENTS)
SIGNS = np.array([-1.0, 1.0, 1.0])  # VW's numbers are costs: less quality is more of it
CB_TYPES = ("mtr", "dr", "ips")
ARGUMENTS = (
    "--cb_adf",
    "--quiet",
    *("-b", "18"),
    *(word for letter in LETTERS.values() for word in ("-q", letter + ARM)),
    # Coin betting needs no learning rate; and a model file keeps all that it goes on with, so that
    # learning after a reload equals learning without one. A file doesn't keep what `--l2` needs,
    # nor what `--normalized` (in VW's default) needs for the second regressor of dr.
    "--coin",
    # A propensity below 0.2 counts as 0.2. Unclipped, the rare outcome of a floor of 1% weighed a
    # hundred times as much as a usual one, and brought more noise than news.
    *("--clip_p", "0.2"),
)
"""Coin betting: after Orabona and Tommasi 2017, https://arxiv.org/abs/1705.07795. The cb types are
compared in Bietti, Agarwal and Langford 2018, https://arxiv.org/abs/1802.04064 (as iwr: mtr)."""
BOUNDS = ("--min_prediction", "-3", "--max_prediction", "3")
"""For mtr. Else VW clips what it predicts, while it learns, to the labels seen so far: a weight
that has overshot the smallest one gets no gradient any more, and the overshoot stays. dr, which
regresses on all actions, comes closer by itself, and with these a file wouldn't keep all that it
needs."""


def arguments(cb_type: str) -> list[str]:
    """What a component's workspace is made with."""
    return [*ARGUMENTS, "--cb_type", cb_type, *(BOUNDS if cb_type == "mtr" else ())]


class Regressors:
    """A workspace per component that learns, and what was last stored of it."""

    def __init__(self, cb_type: str) -> None:
        self._workspaces = [Workspace(arguments(cb_type)) for _ in COMPONENTS]
        self._stored: list[Part | None] = [None] * C  # until they learn again

    def teach(self, component: int, examples: list[Example]) -> None:
        """Fold one decision in."""
        self._workspaces[component].learn_one(examples)
        self._stored[component] = None

    def stored(self) -> tuple[Part, ...]:
        """Each as VW stores it; equal ones give equal bytes.

        A running one also counts what it has read since it was loaded; one that is loaded and
        stored at once has forgotten that, and nothing else.
        """
        for c, workspace in enumerate(self._workspaces):
            if self._stored[c] is None:
                copy = Workspace(["--quiet"], model_data=workspace.serialize())
                self._stored[c] = Part.of(copy.serialize())
        return tuple(model for model in self._stored if model is not None)

    def restore(self, models: Sequence[Part]) -> None:
        """Go on from what `stored` gave."""
        self._workspaces = [Workspace(["--quiet"], model_data=model.data) for model in models]
        self._stored = list(models)


def zero(scales: Scales) -> Vector:
    """(3,) what VW's zero stands for: a middling quality, half the reference latency, and a cost
    as listed."""
    return np.array([0.5, float(scales.latency(scales.latency_ref_ms / 2)), 0.0])


def pack(header: dict[str, Any], models: Sequence[Part]) -> dict[str, Part]:
    """The header, and a part per component."""
    head = json.dumps({**header, "format": FORMAT}).encode()
    return {VALUES: Part.of(head), **dict(zip(COMPONENTS, models, strict=True))}


def unpack(parts: Parts) -> tuple[dict[str, Any], tuple[Part, ...]]:
    """What `pack` wrote; ValueError for anything else."""
    try:
        header = json.loads(parts[VALUES].data)
        if header["format"] != FORMAT:
            raise ValueError(f"expected VW format {FORMAT}, got {header['format']!r}")
        return header, tuple(parts[component] for component in COMPONENTS)
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"not the parts of a VW model or view: {error!r}") from error

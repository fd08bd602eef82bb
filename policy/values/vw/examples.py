"""A decision as VW examples: one of the context, shared, and one per arm.

Examples are built from numbers: in VW's text format a `|`, a `:` or a space inside a name would
inject features.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vowpal_wabbit_next import CBLabel, Example

from policy.arms.arm import Arm
from policy.records import Context

LETTERS: Mapping[str, str] = {
    "task": "t",
    "signals": "s",
    "hints": "h",
    "label": "l",
    "text": "x",
}
ARM, TRAITS = "a", "p"
"""VW's namespaces: one per kind of the encoder's features, and two of an arm."""


class Encoding:
    """Where the features of x go: a namespace and hashed indices for each group."""

    def __init__(self, sizes: Sequence[tuple[str, int]]) -> None:
        self._parts = []
        start = 0
        for name, size in sizes:
            if name != "bias" and size:
                hashes = np.array([_hash(f"{name}:{i}") for i in range(size)], dtype=np.uint64)
                letter = LETTERS[name.rstrip("0123456789")]  # all slots of labels have one
                self._parts.append((letter, slice(start, start + size), hashes))
            start += size

    def shared(self, x: Context) -> Example:
        """The context x (d,); what is 0 in it is absent."""
        example = Example()
        example.set_label(CBLabel(shared=True))
        for letter, part, hashes in self._parts:
            values = x[part]
            present = values.nonzero()[0]
            if len(present):
                _push(example, letter, hashes[present], values[present])
        return example


@cache
def encoding(sizes: tuple[tuple[str, int], ...]) -> Encoding:
    """By the groups' names and sizes, in the order of x."""
    return Encoding(sizes)


def action(arm: Arm) -> Example:
    """An arm by its id and its traits, without a label."""
    example = Example()
    example.set_label(CBLabel())
    example[ARM].push_feature(_hash(f"arm:{arm.id}"), 1.0)
    traits = _traits(arm)
    _push(
        example,
        TRAITS,
        np.array([_hash(f"trait:{name}") for name in traits], dtype=np.uint64),
        np.array(list(traits.values()), dtype=np.float32),
    )
    return example


def _push(example: Example, letter: str, hashes: NDArray[np.uint64], values: Context) -> None:
    group: Any = example[letter]  # its stubs mean arrays, and say something else
    group.push_many_features(hashes, values)


def _traits(arm: Arm) -> dict[str, float]:
    traits = {
        "price_in": math.log1p(100.0 * arm.usd_per_mtok_in) / 8.0,
        "price_out": math.log1p(100.0 * arm.usd_per_mtok_out) / 8.0,
    }
    if arm.context_window_tokens is not None:
        traits["context_window"] = math.log2(arm.context_window_tokens) / 20.0
    traits[f"provider:{arm.provider}"] = 0.5
    return traits | {f"capability:{name}": 0.5 for name in arm.capabilities}


@lru_cache(maxsize=16_384)
def _hash(name: str) -> int:
    """32 bits of any string: what it holds can't be mistaken for syntax."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")

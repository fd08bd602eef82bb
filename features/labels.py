"""Callers' labels as codes: dense vectors that a linear model tells apart. Knows no query.

A task label has features of its own. Any other label has a slot: D_SLOT features that hold its
value, so that a model with a variance per slot learns which label says something, and an empty one
(a user's id) costs the others nothing. No label is known beforehand: its name hashes to a slot,
and where another label of the same query has that, it takes the next free one. Labels that always
come together thus have slots of their own, up to SLOTS of them; with more, several share a slot and
its variance. Slots that are left over are given to those that there are, which tells more of their
values apart.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Code = NDArray[np.float32]

SLOTS = 3
D_SLOT = 5
TASK_PREFIX_WEIGHT = 0.7  # of `code` in the label `code/review`
LABELS_WEIGHT = 0.7  # the norm of all other labels together, beside the task label's 1


@lru_cache(maxsize=4_096)
def task_code(label: str, m: int) -> Code:
    """A task label's code (m,) of norm 1; `code/review` is also, in part, a `code`."""
    total = _signs(f"task:{label}", m)
    first, slash, _ = label.partition("/")
    if not slash:
        return total
    shared = total + np.float32(TASK_PREFIX_WEIGHT) * _signs(f"task:{first}", m)
    shared /= np.float32(math.sqrt(1.0 + TASK_PREFIX_WEIGHT**2))
    shared.flags.writeable = False
    return shared


def code(labels: Mapping[str, str], language: str | None = None) -> Code:
    """(SLOTS * D_SLOT,) of all labels but the task's, of about the norm LABELS_WEIGHT; zeros
    without any. The order of the labels doesn't matter."""
    told = {f"label:{name}": value for name, value in labels.items()}
    if language:
        told["language"] = language.lower()
    total = np.zeros((SLOTS, D_SLOT), dtype=np.float32)
    if told:
        for slot, names in enumerate(_slots(tuple(sorted(told)))):
            scale = np.float32(LABELS_WEIGHT / math.sqrt(SLOTS * len(names)))
            for name in names:
                total[slot] += scale * _directions(name, told[name])[slot]
    return total.ravel()


@lru_cache(maxsize=4_096)
def _slots(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Whose values each slot holds; every label has one."""
    held: list[list[str]] = [[] for _ in range(SLOTS)]
    for name in names:
        home = crc32(_raw(name))
        slot = min(range(SLOTS), key=lambda slot: (len(held[slot]), (slot - home) % SLOTS))
        held[slot].append(name)
    before = ((held[slot - back] for back in range(SLOTS)) for slot in range(SLOTS))
    return tuple(tuple(next(names for names in those if names)) for those in before)


@lru_cache(maxsize=16_384)
def _directions(name: str, value: str) -> Code:
    """(SLOTS, D_SLOT) a value's unit vector in each slot; no two values share one."""
    raw = b"pointsman label\n%d:" % len(name) + _raw(f"{name}={value}")
    drawn = np.frombuffer(hashlib.shake_256(raw).digest(SLOTS * D_SLOT), dtype=np.uint8)
    made = drawn.reshape(SLOTS, D_SLOT) - 127.5
    unit: Code = (made / np.sqrt((made**2).sum(axis=1, keepdims=True))).astype(np.float32)
    unit.flags.writeable = False
    return unit


@lru_cache(maxsize=4_096)
def _signs(label: str, m: int) -> Code:
    """A dense sign code (m,) of norm 1: any two labels differ in about half of the places.

    One-hot buckets would make colliding labels the same for ever; these stay separable.
    """
    digest = hashlib.shake_256(b"pointsman hint\n" + _raw(label)).digest((m + 7) // 8)
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:m]
    signs: Code = ((2.0 * bits - 1.0) / math.sqrt(m)).astype(np.float32)
    signs.flags.writeable = False
    return signs


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")

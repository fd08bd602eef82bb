"""A model's state in named parts, so that what hasn't changed needn't be written or read again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes, and by what they are known; equal bytes have equal digests."""

    digest: str
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Part:
        return cls(hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest(), data)


Parts = Mapping[str, Part]

VALUES = "values"
"""The part that every model has: what is small, or changes with each event."""


class Kept:
    """One part per row of something, made again only where the row has changed since."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._changes: list[int] = []

    def of(self, changes: Iterable[int], data: Callable[[int], bytes]) -> list[Part]:
        """The rows' parts; `changes` counts how often each row has changed, `data` gives one's
        bytes."""
        for i, count in enumerate(changes):
            if i == len(self._parts):
                self._parts.append(Part.of(data(i)))
                self._changes.append(count)
            elif self._changes[i] != count:
                self._parts[i], self._changes[i] = Part.of(data(i)), count
        return list(self._parts)


def numbered(name: str, parts: Iterable[Part]) -> dict[str, Part]:
    """Rows' parts by name."""
    return {f"{name}:{i}": part for i, part in enumerate(parts)}


def of_rows(name: str, parts: Parts, count: int) -> list[Part]:
    """What `numbered` has named; KeyError where one is missing."""
    return [parts[f"{name}:{i}"] for i in range(count)]

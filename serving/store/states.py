"""Checkpoints and snapshots in Redis: a hash each, of a head and the parts that it vouches for.

What is written is what has changed; what is read, all of it or what the reader lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policy.stored import Unreadable
from policy.values.parts import Parts
from policy.values.snapshot import Head, State, digest_of, read_head

HEAD = "head"


@dataclass(frozen=True, slots=True)
class Change:
    """A state to be written, and the one that was written before, if one was by this writer.

    Where another one is in place, or `before` is None, all of it is written.
    """

    state: State | None = None
    before: State | None = None

    def arguments(self, *, whole: bool) -> list[Any]:
        """For a script: the digest of the head that must be in place ('' for any), how many words
        follow, and fields with their values."""
        if self.state is None:
            return [b"", 0]
        before = None if whole else self.before
        known: Parts = {} if before is None else before.parts
        words: list[Any] = [HEAD, self.state.head()]
        for name, part in self.state.parts.items():
            if known.get(name) != part:
                words += [field(name), part.data]
        return [b"" if before is None else digest_of(before.head()), len(words), *words]


def field(name: str) -> str:
    """Of a part, in the hash."""
    return f"part:{name}"


def joined(stored: Mapping[bytes, bytes]) -> bytes | None:
    """The whole hash as `State.pack` would write it; None where there is none. Whoever unpacks it
    sees whether a part is missing or damaged; Unreadable where there is no head to tell."""
    if not stored:
        return None
    if HEAD.encode() not in stored:
        raise Unreadable(f"a damaged snapshot: of {len(stored)} fields none is its head")
    head = stored[HEAD.encode()]
    parts = (stored.get(field(name).encode(), b"") for name in read_head(head).table)
    return b"".join([head, *parts])


def lacking(head: Head, have: Parts) -> list[str]:
    """Names of the parts that a reader has not, or not as they are now."""
    return [
        name
        for name, (_, digest) in head.table.items()
        if name not in have or have[name].digest != digest
    ]


def completed(head: Head, have: Parts, read: Mapping[str, bytes | None]) -> State:
    """A state from what a reader had and what it has read; ValueError where these don't fit."""
    parts = {
        name: head.checked(name, read[name]) if name in read else have[name] for name in head.table
    }
    return State(head.header, parts)

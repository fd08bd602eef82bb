"""Parts of a model or view that can't be read, made of ones that can."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator

from policy.values.parts import VALUES, Part, Parts


def altered(parts: Parts, name: str, data: Callable[[bytes], bytes]) -> Parts:
    """With other bytes in one part."""
    return {**parts, name: Part.of(data(parts[name].data))}


def claiming(parts: Parts, **changes: object) -> Parts:
    """With other words in the header of what every model has."""

    def changed(body: bytes) -> bytes:
        (length,) = struct.unpack_from("<I", body)
        header = json.loads(body[4 : 4 + length]) | changes
        head = json.dumps(header).encode()
        return struct.pack("<I", len(head)) + head + body[4 + length :]

    return altered(parts, VALUES, changed)


def damaged(parts: Parts) -> Iterator[Parts]:
    """One part missing, or what every model has cut short, too long or something else."""
    for name in parts:
        yield {other: part for other, part in parts.items() if other != name}
    for data in (
        lambda body: b"",
        lambda body: body[:3],
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: b"\xff" * len(body),
    ):
        yield altered(parts, VALUES, data)

"""A model's state <-> bytes, with its version, stream position and checksums. No pickle.

Knows nothing of what the parts mean: `linear` and its like write and read them themselves.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from policy.stored import FORMATS, Unreadable, other_format
from policy.values.parts import Part, Parts

MAGIC = b"PMSNAP%02d" % FORMATS["snapshot"]
_NAME = MAGIC[:-2]  # which every format begins with, its number as two digits following
_LENGTH = struct.Struct(">I")
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Header:
    """`position` is the id of the last outcome event that the parts have folded in.

    `scores` are the sums of a challenger's running estimates up to there, None where it never was
    a challenger: they lie in the header so that one atomic write holds them with the position.
    So do, where the policy has an incumbent, `ledger` (a checkpoint's) and `standing` (a
    snapshot's): see policy/choosing/incumbent.py. `plans` is what plans' outcomes have told, from
    the first of them on: see policy/plans/learned.py.
    """

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    kind: str
    version: str
    encoder: str
    position: Annotated[str, Field(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")]
    events: Annotated[int, Field(ge=0)]
    scores: dict[str, list[float]] | None = None
    ledger: str | None = None
    standing: dict[str, float] | None = None
    plans: str | None = None


@dataclass(frozen=True, slots=True)
class _Head(Header):
    """As it stands in a head, with length and digest of each part by its name."""

    parts: dict[str, tuple[Annotated[int, Field(ge=0)], str]] = field(default_factory=dict)


_HEAD = TypeAdapter(_Head)


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint or a snapshot holds."""

    header: Header
    parts: Parts

    def head(self) -> bytes:
        """Magic, SHA-256 of the rest, header length, and the header as JSON, with a table of the
        parts, their lengths and digests: so the head vouches for them."""
        table = {name: [len(part.data), part.digest] for name, part in self.parts.items()}
        header = json.dumps({**asdict(self.header), "parts": table}).encode()
        rest = _LENGTH.pack(len(header)) + header
        return MAGIC + hashlib.sha256(rest).digest() + rest

    def pack(self) -> bytes:
        """The head, and the parts one after the other."""
        return b"".join([self.head(), *(part.data for part in self.parts.values())])


@dataclass(frozen=True, slots=True)
class Head:
    """What a head tells: the header, length and digest of each part, and its own length."""

    header: Header
    table: Mapping[str, tuple[int, str]]
    length: int

    def checked(self, name: str, data: bytes | None) -> Part:
        """A part that was read; Unreadable where it isn't the one that the head is of."""
        size, digest = self.table[name]
        part = Part.of(data or b"")
        if part.digest != digest:
            raise Unreadable(f"part {name!r} of {size} bytes fails its checksum")
        return part


def read_head(blob: bytes) -> Head:
    """The head that a blob begins with; Unreadable where it isn't one of ours, is of another
    format, is cut short or has a flipped bit."""
    start = len(MAGIC) + _DIGEST_BYTES
    if len(blob) < start + _LENGTH.size or not blob.startswith(_NAME):
        raise Unreadable(f"not a Pointsman snapshot ({len(blob)} bytes)")
    if not blob.startswith(MAGIC):
        number = blob[len(_NAME) : len(MAGIC)].decode(errors="replace")
        raise other_format("snapshot", int(number) if number.isdecimal() else number)
    (length,) = _LENGTH.unpack_from(blob, start)
    end = start + _LENGTH.size + length
    if hashlib.sha256(blob[start:end]).digest() != digest_of(blob):
        raise Unreadable(f"snapshot of {len(blob)} bytes fails its checksum")
    try:
        said = _HEAD.validate_json(blob[start + _LENGTH.size : end])
    except ValidationError as error:
        raise Unreadable(f"not the head of a snapshot: {error.errors()[0]['msg']}") from None
    return Head(Header(*(getattr(said, f.name) for f in fields(Header))), said.parts, end)


def digest_of(head: bytes) -> bytes:
    """The SHA-256 that a head carries: it is that of one state alone."""
    return head[len(MAGIC) : len(MAGIC) + _DIGEST_BYTES]


def unpack(blob: bytes) -> State:
    """What `State.pack` wrote.

    Raises
    ------
    Unreadable
        If the blob isn't one of ours, is of another format, is cut short or has a flipped bit.
    """
    head, parts = read_head(blob), {}
    at = head.length
    for name, (size, _) in head.table.items():
        parts[name] = head.checked(name, blob[at : at + size])
        at += size
    if at != len(blob):
        raise Unreadable(f"snapshot of {len(blob)} bytes fails its checksum: expected {at}")
    return State(head.header, parts)

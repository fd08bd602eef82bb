"""A model's state <-> bytes, with its version, stream position and a checksum. No pickle.

Knows nothing of what the body means: `linear` and its like write and read that themselves.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

MAGIC = b"PMSNAP01"
_LENGTH = struct.Struct(">I")
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Header:
    """`position` is the id of the last outcome event that the body has folded in.

    `scores` are the sums of a challenger's running estimates up to there, None where it never was
    a challenger: they lie in the header so that one atomic write holds them with the position.
    So do, where the policy has an incumbent, `ledger` (a checkpoint's) and `standing` (a
    snapshot's): see policy/choosing/incumbent.py.
    """

    kind: str
    version: str
    encoder: str
    position: str
    events: int
    scores: dict[str, Any] | None = None
    ledger: str | None = None
    standing: dict[str, float] | None = None


def pack(header: Header, body: bytes) -> bytes:
    """Magic, SHA-256 of the rest, header length, header as JSON, body."""
    head = json.dumps(asdict(header), sort_keys=True).encode()
    rest = _LENGTH.pack(len(head)) + head + body
    return MAGIC + hashlib.sha256(rest).digest() + rest


def unpack(blob: bytes) -> tuple[Header, bytes]:
    """The header and body that `pack` was given.

    Raises
    ------
    ValueError
        If the blob isn't one of ours, is cut short or has a flipped bit.
    """
    start = len(MAGIC) + _DIGEST_BYTES
    if len(blob) < start + _LENGTH.size or not blob.startswith(MAGIC):
        raise ValueError(f"not a Pointsman snapshot ({len(blob)} bytes)")
    rest = blob[start:]
    if hashlib.sha256(rest).digest() != blob[len(MAGIC) : start]:
        raise ValueError(f"snapshot of {len(blob)} bytes fails its checksum")
    (length,) = _LENGTH.unpack_from(rest)
    end = _LENGTH.size + length
    return Header(**json.loads(rest[_LENGTH.size : end])), rest[end:]

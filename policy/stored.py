"""The formats of what is stored: their numbers, and JSON that carries number and checksum.

A number is raised where what was written under it would be refused from now on, or misread; a field
that may be absent needs no new one. Then `python -m tests.formats` writes a file of the new format,
and that of the old one stays a test. Other formats than the present one are refused, by number.
Knows nothing of what is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import orjson

from features import encoder

FORMATS: Mapping[str, int] = {
    "snapshot": 3,  # and checkpoint: the head, and all that lies in header and parts
    "encoder": encoder.FORMAT,
    "version": 1,  # a version's configuration
    "catalog": 1,
    "decision": 1,
    "log": 4,  # its Parquet files: decisions, outcomes, and both joined
    "position": 1,  # how far a log is archived
    "backup": 1,  # what a backup says of itself
    "range": 1,  # which rows of a log a version was fitted on
}


class Unreadable(ValueError):
    """What is stored is damaged, or isn't of the format that this release reads."""


def other_format(kind: str, found: object) -> Unreadable:
    """Why something is refused, where it isn't of the present format."""
    number = "without a format number" if found is None else f"of format {found}"
    return Unreadable(f"a {kind} {number}: this release of Pointsman reads format {FORMATS[kind]}")


def sealed(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Fields as JSON, with their format and the SHA-256 of all that."""
    body = {"format": FORMATS[kind], **fields}
    return orjson.dumps({**body, "sha256": _digest(body)})


def opened(kind: str, data: bytes | str) -> dict[str, Any]:
    """What `sealed` was given.

    Raises
    ------
    Unreadable
        If it is damaged, of another format, or something else.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"a damaged {kind}: {error}") from None
    found = body.get("format") if isinstance(body, dict) else None
    if found != FORMATS[kind]:
        raise other_format(kind, found)
    if body.pop("sha256", None) != _digest(body):
        raise Unreadable(f"a damaged {kind}: the checksum doesn't match")
    return {name: value for name, value in body.items() if name != "format"}


def sound(kind: str, data: bytes | str) -> bool:
    """Whether `opened` takes it."""
    try:
        opened(kind, data)
    except Unreadable:
        return False
    return True


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


_LINE = b'{"format":%d,"crc32":"%08x%08x%08x",'


def sealed_record(kind: str, record: bytes, *beside: bytes) -> bytes:
    """A JSON object with its format, and the CRC-32 of its bytes and of at most two blobs that are
    stored beside it: quicker than `sealed`, for what is written with each request."""
    sums = [crc32(blob) for blob in (record[1:], *beside)]
    return _LINE % (FORMATS[kind], *sums, *[0] * (3 - len(sums))) + record[1:]


def opened_record(kind: str, data: bytes, *beside: bytes) -> dict[str, Any]:
    """What `sealed_record` was given, as far as it is `beside` here; Unreadable as `opened`."""
    size = len(_LINE % (FORMATS[kind], 0, 0, 0))
    record = data[size:]
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"a damaged {kind}: {error}") from None
    if not isinstance(fields, dict):
        raise other_format(kind, None)
    found, sums = fields.pop("format", None), fields.pop("crc32", "")
    if found != FORMATS[kind]:
        raise other_format(kind, found)
    here = "".join(f"{crc32(blob):08x}" for blob in (record, *beside))
    if not isinstance(sums, str) or not sums.startswith(here):
        raise Unreadable(f"a damaged {kind}: the checksum doesn't match")
    return fields

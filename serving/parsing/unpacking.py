"""A compressed body -> its bytes, as far as the limit goes."""

from __future__ import annotations

import gzip
import io
import zlib

from serving.parsing.decoding import Malformed


class TooLarge(ValueError):
    """A body or batch beyond the limit."""


def unpacked(raw: bytes, limit: int) -> bytes:
    """What was packed by gzip.

    Raises
    ------
    Malformed
        If it wasn't, or is damaged.
    TooLarge
        Beyond `limit` bytes; no more than these are ever unpacked.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            body = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Malformed(f"the body is no whole gzip: {error}") from None
    if len(body) > limit:
        raise TooLarge(f"a body may have {limit} bytes at most when unpacked")
    return body

r"""A large body without the middles of its long strings: nobody reads these.

All that is slow here lets other threads run: numpy and hashlib work without the interpreter's lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import orjson
from numpy.typing import NDArray

from features.query import FOCUS_CHARS, TAIL_CHARS, without_middle
from serving.parsing.decoding import decode

SHORT = 8_192  # bytes of a string that is left as it is
MOST = 12  # bytes that a character can take: \ud83d\ude00
HEAD_CHARS = FOCUS_CHARS - TAIL_CHARS
HEAD, TAIL = MOST * (HEAD_CHARS + 1), MOST * (TAIL_CHARS + 1)
BLOCK = 1 << 18
QUOTE, BACKSLASH = b'"\\'

Bytes = NDArray[np.uint8]


def without_middles(raw: bytes) -> bytes:
    """The same JSON, of whose long strings only those characters are left that a query's focus may
    hold; what was left out is counted and told apart by a digest (`features.query.length`)."""
    pieces: list[bytes] = []
    at = 0
    for opened, closed in _long_strings(raw):
        pieces += (raw[at:opened], _excerpt(raw, opened + 1, closed))
        at = closed + 1
    return b"".join((*pieces, raw[at:]))


def _long_strings(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where strings beyond SHORT open and close."""
    data = np.frombuffer(raw, dtype=np.uint8)
    opened = np.zeros(0, dtype=np.intp)  # where the string that a block begins in was opened
    for start in range(0, len(data), BLOCK):
        quotes = np.flatnonzero(data[start : start + BLOCK] == QUOTE) + start
        ends = np.concatenate([opened, quotes[~_escaped(raw, data, quotes)]])
        opened = ends[len(ends) // 2 * 2 :]
        pairs = ends[: len(ends) // 2 * 2].reshape(-1, 2)
        yield from pairs[pairs[:, 1] - pairs[:, 0] > SHORT].tolist()


def _escaped(raw: bytes, data: Bytes, quotes: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which quotes follow an odd number of backslashes."""
    odd: NDArray[np.bool_] = data[quotes - 1] == BACKSLASH
    two = np.flatnonzero(odd)
    two = two[data[quotes[two] - 2] == BACKSLASH]
    odd[two] = [_backslashes(raw, at) % 2 == 1 for at in quotes[two].tolist()]
    return odd


def _backslashes(raw: bytes, at: int) -> int:
    """How many backslashes stand before `at`."""
    reach = 64
    while True:
        before = raw[max(at - reach, 0) : at]
        rest = len(before.rstrip(b"\\"))
        if rest or reach >= at:
            return len(before) - rest
        reach *= 16


def _excerpt(raw: bytes, start: int, end: int) -> bytes:
    """The JSON of a long string that stands between `start` and `end`."""
    if end - start <= HEAD + TAIL:
        head = tail = decode(b'"%b"' % raw[start:end])
        dropped = len(head) - FOCUS_CHARS
    else:
        first, last = _boundary(raw, start, start + HEAD), _boundary(raw, start, end - TAIL)
        head, tail = decode(b'"%b"' % raw[start:first]), decode(b'"%b"' % raw[last:end])
        middle = np.frombuffer(raw, dtype=np.int8)[first:last]
        kept = np.frombuffer(raw, dtype=np.int8)[start:first]
        # Escapes take several bytes each: as often in the middle as at the beginning.
        per_byte = len(head) / _characters(kept)
        dropped = round(per_byte * _characters(middle)) + len(head) + len(tail) - FOCUS_CHARS
    if dropped <= 0:
        return b'"%b"' % raw[start:end]
    digest = hashlib.blake2b(memoryview(raw)[start:end], digest_size=16).hexdigest()
    excerpt = without_middle(head[:HEAD_CHARS], dropped, digest, tail[-TAIL_CHARS:])
    return orjson.dumps(excerpt)


def _characters(data: NDArray[np.int8]) -> int:
    """How many characters begin in UTF-8: each byte but those that go on with one."""
    blocks = (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
    return sum(int(np.count_nonzero(block >= -64)) for block in blocks)


def _boundary(raw: bytes, start: int, at: int) -> int:
    """`at`, or a little before it, where no escape of the string from `start` on is cut."""
    last = raw.rfind(b"\\", max(at - 6, start), at)
    if last < 0:
        return at
    return last if _backslashes(raw, last + 1) % 2 else at

"""JSON -> Python's own types. Repairs what isn't Unicode; refuses a key that stands twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import orjson

MOST_KEYS = 10_000  # of an object in a large body: what checks them lets nobody else run


_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,128}")


class Malformed(ValueError):
    """No JSON, or one that says two things at once."""


def shown(name: str) -> str:
    """What stands where a name should, as an answer repeats it: text is not.

    >>> shown("quality"), shown("Dear Sir or Madam, ...")
    ('quality', '(22 characters)')
    """
    return name if _NAME.fullmatch(name) else f"({len(name)} characters)"


def decode(raw: bytes) -> Any:
    """A body's content, as quickly as can be.

    Raises
    ------
    Malformed
        If it isn't JSON, or a key stands twice in one object.

    >>> decode(b'{"text": "half of a pair: \\\\ud83d"}')["text"][-1]
    '\\ufffd'
    """
    try:
        body = orjson.loads(raw)
        written = orjson.dumps(body)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return decode_with_care(raw)
    # Of a key that stands twice one is lost, and its colon with it. Only a colon that was written
    # as an escape (\u003a) could make up for that.
    if raw.count(b":") != written.count(b":") or rb"\u003" in raw:
        return decode_with_care(raw)
    return body


def decode_with_care(raw: bytes) -> Any:
    """The same, for any input, and giving way to other threads at each object."""
    if not raw:
        raise Malformed("the body is empty")
    text = raw.decode("utf-8-sig", "replace")
    if r"\ud" in text or r"\uD" in text:
        text = _ESCAPE.sub(_whole, text)
    try:
        return json.loads(text, object_pairs_hook=_object)
    except Malformed:
        raise
    except RecursionError:
        raise Malformed("it is nested too deep") from None
    except ValueError as error:  # so also for a number of too many digits
        raise Malformed(str(error)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_KEYS:
        raise Malformed(f"an object may have {MOST_KEYS} keys at most, got {len(pairs)}")
    body = dict(pairs)
    if len(body) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise Malformed(f"the key {shown(twice)} stands twice in one object")
    return body


_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _whole(escape: re.Match[str]) -> str:
    return r"\ufffd" if escape["half"] else escape[0]

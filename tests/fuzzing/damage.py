"""What may have happened to something on its way: bytes that are damaged, JSON that says other
things. Each example has little time, so that nothing that hangs goes unnoticed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

MOST_S = 5.0  # of CPU, for one example: they take milliseconds
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "0", "nan", "-1", "1e999", "\x00", "\ud800", "a" * 5_000, "2026-13-01"]),
    st.text(max_size=8),
    st.lists(st.none() | st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.none() | st.integers(), max_size=3),
)
SPLINTERS = st.binary(max_size=8) | st.sampled_from(
    [
        b"\0" * 40,
        b"\xff" * 9,
        b"[" * 3_000,
        b"{",
        b'"',
        b"\r\n",
        b"=",
        b"[[arms]]\n",
        b"1e999",
        b"\\u",
    ]
)


def examples(count: int) -> settings:
    """So many in the suite; POINTSMAN_FUZZ times as many by `make fuzz`."""
    return settings(max_examples=count * int(os.environ.get("POINTSMAN_FUZZ", "1")))


@contextmanager
def soon() -> Iterator[None]:
    """What is done within takes no more than MOST_S of CPU."""
    before = time.thread_time()
    yield
    assert time.thread_time() - before < MOST_S


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Cut short, or with some bytes flipped, dropped, doubled or put in."""
    data = whole
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        to = min(len(data), at + draw(st.integers(0, 60)))
        how = draw(st.sampled_from(["cut", "flip", "drop", "double", "insert"]))
        if how == "cut":
            data = data[:at]
        elif how == "flip" and data:
            data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        elif how == "drop":
            data = data[:at] + data[to:]
        elif how == "double":
            data = data[:to] + data[at:to] * draw(st.sampled_from([1, 2, 50])) + data[to:]
        else:
            data = data[:at] + draw(SPLINTERS) + data[at:]
    return data


@st.composite
def scrambled(draw: st.DrawFn, value: Any) -> Any:
    """The same JSON with something else at one to three places, or without what was there."""
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    return value


def _changed(draw: Callable[..., Any], value: Any) -> Any:
    inside = isinstance(value, dict | list) and bool(value)
    if not inside or not draw(st.integers(0, 4)):
        return draw(JUNK)
    keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    if isinstance(value, dict):
        changed = dict(value)
        if not draw(st.integers(0, 6)):
            changed[draw(st.text(max_size=6))] = changed.pop(key)
            return changed
    else:
        changed = list(value)  # type: ignore[assignment]
    changed[key] = _changed(draw, value[key])
    return changed

"""What is stored carries a format and a checksum; each format that ever was has a file here.

Where a test of a present file fails, what it was written with can't be read any more: raise its
number in policy/stored.py, run `python -m tests.formats`, and leave the old file: it is refused.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from features.encoder import MAGIC
from policy.stored import FORMATS
from policy.values import arrays
from policy.values.parts import VALUES
from policy.values.snapshot import unpack
from tests.formats import FIGURES, FOLDER, Stored, everything
from tests.offline_eval.rows import same

ALL = everything()
EARLIER = [
    (one, path)
    for one in ALL
    for path in sorted(FOLDER.iterdir())
    if path.name in [one.path(number).name for number in range(FORMATS[one.kind])]
]


def by_name(one: object) -> str:
    return one.name if isinstance(one, Stored | Path) else str(one)


@pytest.mark.parametrize("one", ALL, ids=by_name)
def test_a_file_of_the_present_format_is_read_as_what_it_was(one: Stored):
    """By whatever is written later under its number."""
    found, recorded = one.read(one.path().read_bytes()), json.loads(FIGURES.read_bytes())
    if one.path().name in recorded:
        assert_within(recorded[one.path().name], found)
    else:
        known = one.read(one.written)
        assert same(found, known) if not isinstance(found, list) else all(map(same, found, known))


@pytest.mark.parametrize("one", ALL, ids=by_name)
def test_what_is_written_has_the_layout_of_its_format(one: Stored):
    """All that a file of the same number has, and of the same kind; what may be absent may be
    new."""
    lost = set(layout(one.kind, one.path().read_bytes())) - set(layout(one.kind, one.written))
    assert not lost, f"raise the number of {one.kind!r}: these are no longer written"


@pytest.mark.parametrize(("one", "path"), EARLIER, ids=by_name)
def test_a_file_of_an_earlier_format_is_refused_by_its_number(one: Stored, path: Path):
    """In one line that names both numbers, or says that it has none."""
    number = int(re.search(r"-(\d+)\.", path.name)[1])  # type: ignore[index]
    said = f"of format {number}" if number else "without a format number|is missing|damaged"
    with pytest.raises(ValueError, match=said) as refused:
        one.read(path.read_bytes())
    assert "\n" not in str(refused.value)


def test_every_kind_has_a_file():
    """And no file is of nothing."""
    assert {one.kind for one in ALL} == FORMATS.keys()
    known = {one.path(n).name for one in ALL for n in range(FORMATS[one.kind] + 1)}
    assert {path.name for path in FOLDER.iterdir()} - {FIGURES.name} <= known


@pytest.mark.parametrize("one", ALL, ids=by_name)
def test_a_file_of_a_later_format_is_refused_by_its_number(one: Stored):
    """As after a downgrade."""
    with pytest.raises(ValueError, match=f"format {FORMATS[one.kind] + 1}.* reads format"):
        one.read(later(one))


@pytest.mark.parametrize("one", ALL, ids=by_name)
def test_what_is_torn_or_flipped_is_refused_or_reads_the_same(one: Stored):
    """Wherever it is: never an answer made of damage, and never another error."""
    whole, known = one.written, one.read(one.written)
    for at in {*range(12), *range(12, len(whole), len(whole) // 20), len(whole) - 1}:
        torn, flipped = whole[:at], bytearray(whole)
        flipped[at] ^= 1 << at % 8
        for damaged in (torn, bytes(flipped)):
            try:
                found = one.read(damaged)
            except ValueError:
                continue
            assert damaged != torn, at
            assert same(found, known) or str(found) == str(known), at


@pytest.mark.parametrize("one", ALL, ids=by_name)
def test_what_is_foreign_is_refused(one: Stored):
    """Other programs' files, and nothing at all."""
    for foreign in (b"", b"{}", b"[]", b"null", b"\x80\x04N.", b"PAR1" * 9, b"\xff" * 99):
        with pytest.raises(ValueError):  # noqa: PT011 - each in words of its own
            one.read(foreign)


def assert_within(recorded: Any, found: Any) -> None:
    """All that was recorded is found; a mapping may say more."""
    if isinstance(recorded, Mapping):
        for name, value in recorded.items():
            assert_within(value, found[name])
    else:
        figures = isinstance(recorded, list) and all(isinstance(v, int | float) for v in recorded)
        assert found == (pytest.approx(recorded, rel=1e-5, nan_ok=True) if figures else recorded)


def later(one: Stored) -> bytes:
    """The same under the next number."""
    now, then, whole = FORMATS[one.kind], FORMATS[one.kind] + 1, one.written
    if one.kind == "snapshot":
        return whole.replace(b"PMSNAP%02d" % now, b"PMSNAP%02d" % then, 1)
    if one.kind == "log":
        return whole.replace(b"%d " % now, b"%d " % then)
    if one.kind == "encoder":
        payload = whole[len(MAGIC) + 32 :].replace(b'"format": %d' % now, b'"format": %d' % then)
        return MAGIC + hashlib.sha256(payload).digest() + payload
    return whole.replace(b'"format":%d' % now, b'"format":%d' % then, 1)


def layout(kind: str, data: bytes) -> Iterator[str]:
    """Names of all that is in it, each with its kind."""
    if kind == "log":
        for field in pq.read_schema(io.BytesIO(data)):
            yield str(field)
    elif kind == "encoder":
        head, _, body = data[len(MAGIC) + 32 :].partition(b"\n")
        yield from _of_json({**json.loads(head), "body": len(body)})
    elif kind == "snapshot":
        yield from _of_state(data)
    else:
        yield from _of_json(orjson.loads(data))


def _of_state(blob: bytes) -> Iterator[str]:
    state = unpack(blob)
    yield from _of_json(asdict(state.header))
    if state.header.plans is not None:
        yield from _of_arrays(base64.b64decode(state.header.plans))
    for name, part in state.parts.items():
        if state.header.kind == "vw":
            yield from _of_json(orjson.loads(part.data)) if name == VALUES else [name]
        else:
            yield from _of_arrays(part.data) if name == VALUES else [f"{name} {len(part.data)}"]


def _of_arrays(packed: bytes) -> Iterator[str]:
    header, found = arrays.unpack(packed)
    yield from _of_json({name: value for name, value in header.items() if name != "arrays"})
    for name, array in found.items():
        yield f"{name} {array.dtype} {array.ndim}"


def _of_json(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _of_json(one, f"{path}.{name}")
    elif isinstance(value, list):
        for one in value[:1]:
            yield from _of_json(one, f"{path}[]")
    else:
        yield f"{path} {'number' if isinstance(value, int | float) else type(value).__name__}"

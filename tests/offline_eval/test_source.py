"""Bytes of others' logs: packed or not, marked or not, from a file or standard input."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offline_eval.importing import source

TEXT = b"arm,reward\na,1\nb,\n"
MARK = b"\xef\xbb\xbf"
ROWS = [{"arm": "a", "reward": "1"}, {"arm": "b", "reward": None}]


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def told(content: bytes, tmp_path: Path, name: str = "log.csv") -> list[object]:
    file = tmp_path / name
    file.write_bytes(content)
    return list(source.records(file, lambda count: None))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_packed_and_marked_text_is_read(
    pack: Callable[[bytes], bytes], mark: bytes, tmp_path: Path
):
    """Whatever the file is called: its first bytes say what it is."""
    assert told(pack(mark + TEXT), tmp_path) == ROWS


def test_parts_packed_one_after_the_other_are_one_log(tmp_path: Path):
    """As log rotation makes them."""
    head, tail = TEXT[:14], TEXT[14:]
    assert told(gzip.compress(head) + gzip.compress(tail), tmp_path) == ROWS
    assert told(zstd(head) + zstd(tail), tmp_path) == ROWS


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_damaged_file_is_refused(pack: Callable[[bytes], bytes], tmp_path: Path):
    """A log that ends in the middle is not taken for a whole one."""
    with pytest.raises(ValueError, match=r"log\.csv: (gzip|zstd): Truncated"):
        told(pack(TEXT)[:-5], tmp_path)


def test_another_encoding_is_named(tmp_path: Path):
    """UTF-16 by its mark, anything else where it isn't UTF-8."""
    with pytest.raises(ValueError, match=r"log\.csv: expected UTF-8, got UTF-16"):
        told(TEXT.decode().encode("utf-16"), tmp_path)
    with pytest.raises(ValueError, match=r"log\.csv: expected UTF-8: invalid"):
        told(TEXT + b"\xe4,1\n", tmp_path)


def test_the_size_of_the_file_is_what_is_told(tmp_path: Path):
    """Not that of what is in it, so that progress is right for packed files too."""
    file = tmp_path / "log.csv.gz"
    file.write_bytes(gzip.compress(TEXT * 9_000))
    seen: list[int] = []
    assert len(list(source.records(file, seen.append))) == 3 * 9_000 - 1
    assert sum(seen) == file.stat().st_size == source.size(file)


def test_standard_input_is_a_file_like_any_other(monkeypatch: pytest.MonkeyPatch):
    """Packed, too."""
    given = io.TextIOWrapper(io.BytesIO(gzip.compress(MARK + TEXT)))
    monkeypatch.setattr(sys, "stdin", given)
    assert list(source.records(Path("-"), lambda count: None)) == ROWS
    assert source.size(Path("-")) == 0


def test_tables_are_told_apart_by_their_content(tmp_path: Path):
    """Parquet, JSON lines, and CSV with its usual delimiters."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"arm": ["a", "b"], "reward": [1.0, None]}), buffer)
    numbers = [{"arm": "a", "reward": 1.0}, {"arm": "b", "reward": None}]
    assert told(buffer.getvalue(), tmp_path) == numbers
    assert told(gzip.compress(buffer.getvalue()), tmp_path) == numbers
    lines = b'{"arm": "a", "reward": 1.0}\n\n{"arm": "b"}\n'
    assert told(lines, tmp_path) == numbers
    assert told(TEXT.replace(b",", b";"), tmp_path) == ROWS
    assert told(TEXT.replace(b",", b"\t"), tmp_path) == ROWS


def test_a_key_that_only_some_lines_have_is_a_column(tmp_path: Path):
    """An error that stands only where there was one is not overlooked."""
    first, second = told(b'{"arm": "a"}\n{"arm": "b", "error": "timeout"}\n', tmp_path)
    assert first == {"arm": "a", "error": None}
    assert second == {"arm": "b", "error": "timeout"}


def test_cells_may_hold_line_breaks_and_much_text(tmp_path: Path):
    """A prompt of a megabyte is a cell."""
    text = "a line\nand, another\n" * 50_000
    (row,) = told(f'arm,text\na,"{text}"\n'.encode(), tmp_path)
    assert row == {"arm": "a", "text": text}


def test_a_line_that_is_no_row_is_told(tmp_path: Path):
    """And the others are read."""
    assert told(b"arm,reward\na,1,2\nb,1\n", tmp_path) == [
        "3 cells where the header has 2",
        {"arm": "b", "reward": "1"},
    ]
    assert told(b'{"arm": "a"}\n[1]\n', tmp_path) == [{"arm": "a"}, "not a JSON object"]
    with pytest.raises(ValueError, match="two columns have the same name: arm, arm"):
        told(b"arm,arm\na,b\n", tmp_path)


@pytest.mark.parametrize(
    ("file", "name"), [("a/log.json", "log"), ("log.json.gz", "log"), ("log.v2.csv", "log.v2")]
)
def test_a_file_gives_its_rows_the_same_ids_packed_or_not(file: str, name: str):
    """Importing it again, packed meanwhile, replaces them."""
    assert source.name(Path(file)) == name


def test_a_damaged_parquet_is_told_in_one_line(tmp_path: Path):
    """Wherever a byte is another one: a header of a page too."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"arm": ["a", "b"]}), buffer)
    whole, refused = buffer.getvalue(), 0
    for at in range(4, len(whole), 3):
        try:
            told(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :], tmp_path)
        except ValueError as error:
            refused += "\n" not in str(error)
    assert refused > 20

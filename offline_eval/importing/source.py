"""Where the bytes of another service's log come from: a file or standard input, packed or not.

What a stream is, is told from its first bytes, never from a name. Knows no format of logs.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

STDIN = Path("-")
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
UTF8_MARK = b"\xef\xbb\xbf"
OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
DELIMITERS = ",;\t"

Read = Callable[[int], object]  # is told of so many bytes more


def name(file: Path) -> str:
    """What to call a file's rows: its name without what says how it is packed and what it holds.

    >>> name(Path("logs/monday.csv.gz")), name(Path("-"))
    ('monday', 'stdin')
    """
    if file == STDIN:
        return "stdin"
    packed = file.suffix in (".gz", ".zst", ".zstd")
    return Path(file.stem).stem if packed else file.stem


def size(file: Path) -> int:
    """In bytes, as it lies there; 0 of standard input."""
    return 0 if file == STDIN else file.stat().st_size


@contextmanager
def opened(file: Path, read: Read = lambda _: None) -> Iterator[io.BufferedReader]:
    """Unpacked, and without a byte order mark; `read` is told how many bytes were taken of the
    file itself.

    Raises
    ------
    ValueError
        If it is in an encoding other than UTF-8, or is damaged.
    """
    with _raw(file) as raw:
        told = _buffered(_Told(raw, read))
        kind = next((kind for mark, kind in PACKED.items() if _starts(told, mark)), None)
        stream = told if kind is None else _buffered(pa.CompressedInputStream(told, kind))
        try:
            for mark, encoding in OTHER_MARKS.items():
                if _starts(stream, mark):
                    raise ValueError(f"{file}: expected UTF-8, got {encoding}")
            if _starts(stream, UTF8_MARK):
                stream.read(len(UTF8_MARK))
            yield stream
        except OSError as error:
            if kind is None:
                raise
            raise ValueError(f"{file}: {kind}: {str(error).splitlines()[0]}") from error


def records(file: Path, read: Read) -> Iterator[dict[str, Any] | str]:
    """The rows of a table by its columns' names: of Parquet, JSON lines, or CSV with a header,
    whose cells are text, None where they are empty. A row that is none is why it isn't."""
    with opened(file, read) as stream:
        first = stream.peek(1).lstrip()[:1]
        if is_parquet(stream):
            yield from _parquet(file, stream)
        elif first in (b"{", b"["):
            yield from _json(stream)
        else:
            yield from _csv(file, stream)


def is_parquet(stream: io.BufferedReader) -> bool:
    return _starts(stream, b"PAR1")


@contextmanager
def _raw(file: Path) -> Iterator[BinaryIO]:
    if file == STDIN:
        yield sys.stdin.buffer
        return
    with file.open("rb") as raw:
        yield raw


class _Told(io.RawIOBase):
    """Bytes of `raw`, with `read` told of each part."""

    def __init__(self, raw: BinaryIO, read: Read) -> None:
        self._from, self._read = raw, read

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        part = self._from.read(len(into))
        into[: len(part)] = part
        self._read(len(part))
        return len(part)


def _buffered(stream: Any) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", stream))


def _starts(stream: io.BufferedReader, mark: bytes) -> bool:
    return stream.peek(len(mark))[: len(mark)] == mark


def _parquet(file: Path, stream: io.BufferedReader) -> Iterator[dict[str, Any]]:
    whole = io.BytesIO(stream.read())
    try:
        for batch in pq.ParquetFile(whole).iter_batches(batch_size=1_000):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:  # of a page that is damaged
        raise ValueError(f"{file}: {str(error).splitlines()[0]}") from error


def _json(stream: io.BufferedReader) -> Iterator[dict[str, Any] | str]:
    """Each row has the keys of all: a log of requests may name an error only where there was one,
    which is known when the last line has been read."""
    lines = [line for line in stream if line.strip()]
    keys: dict[str, None] = {}
    for line in lines:
        row = _object(line)
        keys |= dict.fromkeys(row) if isinstance(row, dict) else {}
    for line in lines:
        row = _object(line)
        yield {**keys, **row} if isinstance(row, dict) else row


def _object(line: bytes) -> dict[str, Any] | str:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {str(error).splitlines()[0]}"
    return row if isinstance(row, dict) else "not a JSON object"


def _csv(file: Path, stream: io.BufferedReader) -> Iterator[dict[str, Any] | str]:
    csv.field_size_limit(2**31 - 1)  # a cell may be a whole prompt
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    try:
        header = text.readline()
        most = max(DELIMITERS, key=header.count)
        names = next(csv.reader([header], delimiter=most), [])
        if len(set(names)) < len(names):
            raise ValueError(f"{file}: two columns have the same name: {', '.join(names)}")
        for cells in csv.reader(text, delimiter=most):
            if len(cells) == len(names):
                yield {name: cell or None for name, cell in zip(names, cells, strict=True)}
            elif cells:
                yield f"{len(cells)} cells where the header has {len(names)}"
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected UTF-8: {error.reason}") from error
    except csv.Error as error:
        raise ValueError(f"{file}: {error}") from error

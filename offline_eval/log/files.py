"""Files of a log, wherever they lie: in a folder, or at any URI that pyarrow or fsspec knows.

A Parquet file of ours has a CRC-32 per page and, in its footer, its format and the footer's own
CRC-32: so what is torn or damaged is refused, and not read as something else.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from zlib import crc32

import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.fs as pfs
import pyarrow.parquet as pq

from policy.stored import FORMATS, Unreadable, other_format

CHECKED = pds.ParquetFileFormat(page_checksum_verification=True)
_MARK = "pointsman_log"  # names what the footer says: the format, a blank, and its CRC-32
_MARKED = re.compile(rb"pointsman_log\x18.(\d+)(?: ([0-9a-f]{8}))?", re.DOTALL)
_UNKNOWN = b"0" * 8  # stands for the CRC-32 while that is taken
_END = struct.Struct("<I4s")  # of a Parquet file: how long the footer is, and PAR1


def shown(path: str) -> str:
    """A path or URI without what may be secret in it: who comes, with which password, and the
    query.

    >>> shown("s3://id:secret@bucket/log?endpoint_override=host")
    's3://bucket/log'
    """
    if "://" not in path:
        return path
    parts = urlsplit(path)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def filesystem(path: str) -> tuple[Any, str]:
    """A file system and the path on it; fsspec, where installed, knows more than pyarrow."""
    if "://" not in path:
        return pfs.LocalFileSystem(), str(pfs.LocalFileSystem().normalize_path(path)).rstrip("/")
    try:
        found, root = pfs.FileSystem.from_uri(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - not ours to require

            other, root = url_to_fs(path)
        except (ImportError, ValueError):
            said = str(error).splitlines()[0].replace(path, shown(path))
            raise ValueError(f"{shown(path)}: {said}") from error
        found = pfs.PyFileSystem(pfs.FSSpecHandler(other))
    return found, root.rstrip("/")


@contextmanager
def completed(on: Any, name: str) -> Iterator[str]:
    """A hidden name to write to. The file gets its own name when all of it is there, and replaces
    one that had it; in a folder it is on the disk by then."""
    folder, _, last = name.rpartition("/")
    on.create_dir(folder, recursive=True)
    hidden = f"{folder}/.{last}.writing"  # dotted files are passed over by readers
    yield hidden
    local = isinstance(on, pfs.LocalFileSystem)
    if local:
        _sync(hidden)
    on.move(hidden, name)
    if local:
        _sync(folder)


def put(on: Any, name: str, content: bytes) -> None:
    """Write a whole file at once."""
    with completed(on, name) as hidden, on.open_output_stream(hidden) as file:
        file.write(content)


def get(on: Any, name: str) -> bytes:
    with on.open_input_stream(name) as file:
        content: bytes = file.read()
    return content


def put_table(on: Any, name: str, rows: pa.Table) -> None:
    """Write a whole Parquet file at once."""
    put(on, name, parquet(rows))


def parquet(rows: pa.Table) -> bytes:
    """A Parquet file, with its checksums."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer, rows.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({_MARK: f"{FORMATS['log']} {_UNKNOWN.decode()}"})
    data = bytearray(buffer.getbuffer())
    footer = _footer(data)
    at = len(data) - len(footer) + _crc_at(footer)
    data[at : at + len(_UNKNOWN)] = b"%08x" % crc32(footer)
    return bytes(data)


def check(on: Any, names: Iterable[str]) -> None:
    """Look at the footers of Parquet files, before they are read.

    Raises
    ------
    Unreadable
        Where one is damaged, of another format, or not ours.
    """
    for name in names:
        with on.open_input_file(name) as file:
            size = file.size()
            file.seek(max(size - _END.size, 0))
            end = file.read()
            length = _END.unpack(end)[0] if len(end) == _END.size else 0
            file.seek(max(size - length - _END.size, 0))
            tail = file.read()
        try:
            _check(_footer(tail))
        except Unreadable as error:
            raise Unreadable(f"{name}: {error}") from None


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Whatever is found to be wrong with files at a path while they are read is Unreadable, in one
    line; one that has gone is not."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise Unreadable(f"{path}: can't be read: {why}") from error


def _check(footer: bytes) -> None:
    marked = _MARKED.search(footer)
    if marked is None:
        raise Unreadable(f"expected a log of format {FORMATS['log']}, got other files")
    number, crc = marked.groups()
    if crc is None or int(number) != FORMATS["log"]:
        raise other_format("log", int(number))
    at = marked.start(2)
    if b"%08x" % crc32(footer[:at] + _UNKNOWN + footer[at + len(crc) :]) != crc:
        raise Unreadable("a damaged log: the checksum doesn't match")


def _crc_at(footer: bytes) -> int:
    """Where in a footer its CRC-32 stands."""
    marked = _MARKED.search(footer)
    if marked is None or marked.group(2) is None:
        raise AssertionError("Parquet's writer has dropped the mark")
    return marked.start(2)


def _footer(data: bytes | bytearray) -> bytes:
    """With the eight bytes that end the file."""
    length, magic = _END.unpack(data[-_END.size :]) if len(data) >= _END.size else (0, b"")
    if magic != b"PAR1" or length + _END.size > len(data):
        raise Unreadable("no whole Parquet file")
    return bytes(data[-length - _END.size :])


def _sync(name: str) -> None:
    """A crash of the machine must not take what has been told as written."""
    descriptor = os.open(name, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

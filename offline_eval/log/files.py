"""Files of a log, wherever they lie: in a folder, or at any URI that pyarrow or fsspec knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.fs as pfs


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
            raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
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


def _sync(name: str) -> None:
    """A crash of the machine must not take what has been told as written."""
    descriptor = os.open(name, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

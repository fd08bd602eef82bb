"""What a backup says of itself: format, when and of what it was made, its files' digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import pyarrow.fs as pfs

from offline_eval.log import files
from policy.stored import opened, sealed

MANIFEST = "manifest.json"  # written last: without it there is no backup
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    size: int
    sha256: str


@dataclass(slots=True)
class Manifest:
    """`log` says by policy how far the log went, and `log_included` whether it is in the backup;
    `artifacts` is where MLflow's files lay, '' where its store isn't in the backup."""

    made_at_ms: int
    pointsman: str
    keys: int = 0
    log_path: str = ""
    log_included: bool = False
    log: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: str = ""
    files: dict[str, File] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return sealed("backup", asdict(self))

    @classmethod
    def of(cls, text: bytes) -> Self:
        """ValueError, where it is none, damaged, or of another format."""
        try:
            told = opened("backup", text)
            sizes = {name: File(**one) for name, one in told.pop("files").items()}
            return cls(**told, files=sizes)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no backup's manifest: {error!r}") from error


class Folder:
    """The files of a backup, in a folder or at a URI, with a record of what was put there."""

    def __init__(self, path: str) -> None:
        self._on, self._root = files.filesystem(path)
        self._path = files.shown(path)
        self.put: dict[str, File] = {}

    def add(self, name: str, source: Any) -> None:
        """Copy what a stream holds into a file of this name."""
        digest, size = hashlib.sha256(), 0
        with (
            files.completed(self._on, f"{self._root}/{name}") as hidden,
            self._on.open_output_stream(hidden) as target,
        ):
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
                size += len(chunk)
        self.put[name] = File(size, digest.hexdigest())

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        with self._on.open_input_file(f"{self._root}/{name}") as file:
            yield file

    def finish(self, manifest: Manifest) -> None:
        """Make it a backup."""
        manifest.files = self.put
        files.put(self._on, f"{self._root}/{MANIFEST}", manifest.to_json())

    def check_new(self) -> None:
        """ValueError, where there is a backup already, or anything else."""
        selector = pfs.FileSelector(self._root, allow_not_found=True)
        if self._on.get_file_info(selector):
            raise ValueError(f"{self._path} isn't empty: give each backup a folder of its own")

    def manifest(self) -> Manifest:
        """ValueError, where there is no whole backup; LookupError where there is none at all."""
        try:
            text = files.get(self._on, f"{self._root}/{MANIFEST}")
        except FileNotFoundError:
            raise LookupError(
                f"{self._path}: no backup lies there ({MANIFEST} is missing)"
            ) from None
        try:
            return Manifest.of(text)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error

    def check(self, manifest: Manifest) -> None:
        """ValueError, where a file is missing, or isn't what was put there."""
        for name, expected in manifest.files.items():
            digest, size = hashlib.sha256(), 0
            try:
                with self.opened(name) as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                        size += len(chunk)
            except FileNotFoundError:
                raise ValueError(f"{self._path}: {name} is missing") from None
            if (size, digest.hexdigest()) != (expected.size, expected.sha256):
                raise ValueError(f"{self._path}: {name} isn't what was put there: it is damaged")

"""A service's log: what of it was in Redis, or had left it, at the moment of a backup."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from typing import Any

import pyarrow.fs as pfs

from offline_eval.log import archive, files
from offline_eval.log.segments import (
    POSITION,
    START,
    STREAMS,
    Position,
    Segment,
    file_names,
    find_segments,
    order,
    own_folder,
    position_file,
    read_segments,
)
from pointsman.backup.manifest import Folder, Manifest

NAME = "log/"
ATTEMPTS = 5


def save(path: str, policy: str, to: Folder, upto: Mapping[str, str]) -> Position:
    """Copy a policy's entries `upto` these ids of each stream; how far that goes."""
    on, root = files.filesystem(path)
    for _ in range(ATTEMPTS):
        with suppress(FileNotFoundError):  # merged into another since it was listed
            at, segments = _listed(path, policy)
            ends = {s: min(getattr(at, s), upto.get(s, START), key=order) for s in STREAMS}
            for stream, segment in segments:
                _add(on, root, stream, segment, ends[stream], to)
            for name in file_names(on, f"{own_folder(root, policy)}/_catalogs"):
                with on.open_input_stream(name) as file:
                    to.add(NAME + name.removeprefix(f"{root}/"), file)
            break
    else:
        raise OSError(
            f"{files.shown(path)}: files of policy {policy!r} go faster than they can be copied"
        )
    at = replace(at, **ends)
    own = own_folder(root, policy).removeprefix(f"{root}/")
    to.add(f"{NAME}{own}/{POSITION}", BytesIO(position_file(at)))
    return at


def _listed(path: str, policy: str) -> tuple[Position, list[tuple[str, Segment]]]:
    """How far the log goes, and the files that make it up to there, with their stream: they are
    merged only when that has changed."""
    on, root = files.filesystem(path)
    while True:
        at = archive.position(path, policy)
        found = [(s, one) for s in STREAMS for one in find_segments(on, root, s, policy)]
        if archive.position(path, policy) == at:
            return at, found


def _add(on: Any, root: str, stream: str, segment: Segment, end: str, to: Folder) -> None:
    """A file, or what of it isn't behind `end`."""
    name = NAME + segment.name.removeprefix(f"{root}/")
    if name in to.put or segment.first > order(end):
        return
    if segment.last <= order(end):
        with on.open_input_stream(segment.name) as file:
            to.add(name, file)
        return
    rows = read_segments(on, [segment], stream)
    entries = [entry for entry in rows["entry"].to_pylist() if order(entry) <= order(end)]
    made = files.parquet(rows.slice(0, len(entries)))
    first, _, token = segment.name.rpartition("/")[2].split("_")
    to.add(f"{name.rpartition('/')[0]}/{first}_{entries[-1]}_{token}", BytesIO(made))


def is_empty(path: str) -> bool:
    on, root = files.filesystem(path)
    return not on.get_file_info(pfs.FileSelector(root, allow_not_found=True))


def load(source: Folder, manifest: Manifest, path: str) -> None:
    """Put the log at `path`, positions last: they say which files count."""
    on, root = files.filesystem(path)
    names = [name for name in manifest.files if name.startswith(NAME)]
    for name in sorted(names, key=lambda name: name.endswith(POSITION)):
        target = f"{root}/{name.removeprefix(NAME)}"
        with (
            source.opened(name) as file,
            files.completed(on, target) as hidden,
            on.open_output_stream(hidden) as out,
        ):
            while chunk := file.read(1 << 20):
                out.write(chunk)

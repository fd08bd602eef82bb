"""Room on the disks that a service writes to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from offline_eval.mlflow_store import SQLITE
from pointsman.doctor.finding import Finding, Level, Told, named
from serving.processes.embedded import FOLDER
from serving.settings import Settings

LITTLE_BYTES = 2 * 2**30
TOO_LITTLE_BYTES = 200 * 2**20


def places(chosen: Settings, mlflow_uri: str) -> dict[str, Path]:
    """What is written on this host, by what it is."""
    found = {"data": chosen.data, "log": Path(chosen.log_path())}
    if "://" in chosen.log_path():
        del found["log"]
    if mlflow_uri.startswith(SQLITE):
        found["MLflow"] = Path(unquote(mlflow_uri.removeprefix(SQLITE))).parent
    return found


def checked(
    where: Mapping[str, Path], little: int = LITTLE_BYTES, too_little: int = TOO_LITTLE_BYTES
) -> list[Finding]:
    """A warning where fewer than `little` bytes are free, a fault below `too_little` or where
    nothing can be written."""
    free = {name: shutil.disk_usage(_there(path)).free for name, path in where.items()}
    told = list(_told(where, free, little, too_little))
    shown = ", ".join(f"{name} {bytes_ / 2**30:,.1f} GiB" for name, bytes_ in free.items())
    return named("disk", told, f"free: {shown}")


def _told(
    where: Mapping[str, Path], free: Mapping[str, int], little: int, too_little: int
) -> Iterator[Told]:
    for name, path in where.items():
        if not os.access(_there(path), os.W_OK):
            yield "fault", f"{name}: {path} can't be written by this user", "give it to the service"
        if name == "data" and (stored := path / FOLDER).exists() and stored.stat().st_mode & 0o007:
            what = f"others on this machine may read {stored}: stored text, hashes of keys"
            yield "warning", what, f"chmod 700 {stored}"
        if free[name] < little:
            level: Level = "fault" if free[name] < too_little else "warning"
            what = f"{name}: {free[name] / 2**20:,.0f} MiB are free for {path}"
            yield level, what, "make room: when it ends, nothing is acknowledged any more"


def _there(path: Path) -> Path:
    """The path, or what there is of it."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())

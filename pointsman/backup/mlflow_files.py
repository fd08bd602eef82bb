"""MLflow's store, where it is a file of our own: its database and its artifacts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from offline_eval.mlflow_store import SQLITE
from pointsman.backup.manifest import Folder, Manifest

DATABASE = "mlflow/mlflow.db"
ARTIFACTS = "mlflow/artifacts/"


def database_of(uri: str) -> Path | None:
    """Its file; None where the store is a server's."""
    return Path(unquote(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else None


def save(path: Path, to: Folder, manifest: Manifest, place: Path) -> None:
    """Database first: what it names of artifacts is there by then."""
    copy = place / "mlflow.db"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    with copy.open("rb") as file:
        to.add(DATABASE, file)
    artifacts = path.absolute().parent / "artifacts"
    for one in sorted(artifacts.rglob("*")):
        if one.is_file():
            with one.open("rb") as file:
                to.add(ARTIFACTS + one.relative_to(artifacts).as_posix(), file)
    manifest.artifacts = artifacts.as_uri()


def load(source: Folder, manifest: Manifest, path: Path) -> None:
    """Set it up at `path`; what it says of where artifacts lie becomes true again."""
    artifacts = path.absolute().parent / "artifacts"
    for name in manifest.files:
        if name.startswith(ARTIFACTS):
            _copy(source, name, artifacts / name.removeprefix(ARTIFACTS))
    made = path.with_suffix(".restoring")
    _copy(source, DATABASE, made)
    with closing(sqlite3.connect(made)) as database, database:
        _move(database, manifest.artifacts, artifacts.as_uri())
    made.replace(path)


def _copy(source: Folder, name: str, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with source.opened(name) as file, to.open("wb") as target:
        while chunk := file.read(1 << 20):
            target.write(chunk)


def _move(database: sqlite3.Connection, before: str, after: str) -> None:
    """Wherever a column begins with the folder before, name the one after."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            if "CHAR" in kind.upper() or "TEXT" in kind.upper():
                database.execute(
                    f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '
                    f'WHERE substr("{column}", 1, ?) = ?',
                    (after, len(before) + 1, len(before), before),
                )

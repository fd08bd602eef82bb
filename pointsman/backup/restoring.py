"""A backup -> a service that goes on where the other one was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offline_eval.log import files
from offline_eval.registry import default_uri
from pointsman.backup import log_files, mlflow_files, redis_state
from pointsman.backup.manifest import Folder, Manifest
from pointsman.backup.taking import CONFIG
from serving.processes.embedded import FOLDER, Embedded
from serving.settings import Settings
from serving.store.connecting.checking import require_usable
from serving.store.operating import contents


def restore(chosen: Settings, source: str, now_ms: int, *, force: bool) -> Iterator[str]:
    """Set the service up, and say what was done, line by line. All of the backup is checked before
    anything is written.

    Raises
    ------
    LookupError, StoreUnavailable, EmbeddedError, OSError
    ValueError
        If the backup is damaged, or there is something where it belongs and `force` isn't given;
        where a service runs there, in any case.
    """
    folder = Folder(source)
    manifest = folder.manifest()
    folder.check(manifest)
    with _redis(chosen) as url:
        if leases := contents.held(url):
            raise ValueError(f"a service runs on that Redis ({leases[0]} is held): stop it first")
        if found := contents.count(url):
            if not force:
                raise ValueError(
                    f"that Redis holds {found:,} keys of a service: --force drops them"
                )
            contents.clear(url)
        with folder.opened(redis_state.NAME) as file:
            keys = redis_state.load(file, url, now_ms)
        yield f"{keys:,} keys ({manifest.keys - keys:,} have expired since)"
    yield from _files(folder, manifest, chosen, force=force)


def _files(folder: Folder, manifest: Manifest, chosen: Settings, *, force: bool) -> Iterator[str]:
    if force or not chosen.config.exists():
        chosen.config.parent.mkdir(parents=True, exist_ok=True)
        with folder.opened(CONFIG) as file:
            chosen.config.write_bytes(file.read())
        yield f"the configuration, as {chosen.config}"
    else:
        yield f"{chosen.config} stays as it is"
    if manifest.log_included:
        log = files.shown(chosen.log_path())
        if log_files.is_empty(chosen.log_path()):
            log_files.load(folder, manifest, chosen.log_path())
            yield f"the log, at {log}"
        else:
            yield f"the log at {log} stays as it is"
    database = mlflow_files.database_of(default_uri(chosen.data))
    if not manifest.artifacts or database is None:
        yield "nothing for MLflow"
    elif force or not database.exists():
        mlflow_files.load(folder, manifest, database)
        yield f"MLflow's store, as {database}"
    else:
        yield f"MLflow's store {database} stays as it is"


@contextmanager
def _redis(chosen: Settings) -> Iterator[str]:
    """The operator's own, or the embedded server of a service that doesn't run."""
    if chosen.redis_url is not None:
        require_usable(chosen.redis_url)
        yield chosen.redis_url
        return
    place: Path = chosen.data / FOLDER
    embedded = Embedded(place, fsync=chosen.fsync, max_memory_mb=chosen.max_memory_mb)
    embedded.start()
    try:
        yield embedded.url
    finally:
        embedded.stop()

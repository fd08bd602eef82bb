"""A running service -> a backup.

Redis first, as it is at one moment. What had left its streams by then is in the log, which is
copied after it, up to that moment: so nothing is in neither, and what is in both is known by its
id.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from offline_eval.log import archive, files
from offline_eval.log.segments import START, STREAMS
from offline_eval.registry import default_uri
from pointsman.backup import log_files, mlflow_files, redis_state
from pointsman.backup.manifest import Folder, Manifest
from serving.processes.config_file import ConfigFile
from serving.settings import Settings
from serving.store.keys import Keys

CONFIG = "pointsman.toml"


def take(chosen: Settings, url: str, to: str, now_ms: int, *, with_log: bool) -> Manifest:
    """Put Redis' keys, the configuration, MLflow's store where it is a file, and how far the log
    goes, or the log, into an empty folder.

    Raises
    ------
    StoreUnavailable, ConfigError, EmbeddedError, OSError
    ValueError
        If there is something in the folder.
    """
    folder = Folder(to)
    folder.check_new()
    policies = ConfigFile(chosen.config).read().policies
    log_path = files.shown(chosen.log_path())
    made = Manifest(now_ms, version("pointsman"), log_path=log_path, log_included=with_log)
    with TemporaryDirectory(prefix="pointsman-backup-") as place:
        table = Path(place, redis_state.NAME)
        saved = redis_state.save(url, table)
        made.keys = saved.keys
        _add(folder, redis_state.NAME, table)
        for policy in policies:
            keys = Keys(policy)
            ends = {stream: saved.ends.get(getattr(keys, stream), START) for stream in STREAMS}
            at = (
                log_files.save(chosen.log_path(), policy, folder, ends)
                if with_log
                else archive.position(chosen.log_path(), policy)
            )
            made.log[policy] = {"decisions": at.decisions, "outcomes": at.outcomes}
        database = mlflow_files.database_of(default_uri(chosen.data))
        if database is not None and database.exists():
            mlflow_files.save(database, folder, made, Path(place))
        _add(folder, CONFIG, chosen.config)
    folder.finish(made)
    return made


def _add(folder: Folder, name: str, path: Path) -> None:
    with path.open("rb") as file:
        folder.add(name, file)

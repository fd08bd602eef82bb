"""An MLflow store: runs, metrics, files. The only importer of mlflow, which takes a second to load
and is loaded when used. Knows no policy and no version."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from offline_eval.log.reading import Range

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENVIRONMENT = {  # what is already set stays
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # what a command prints is the command's
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its seven, doubling the wait, take minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
SQLITE = "sqlite:///"
_SQLITE_MAGIC = b"SQLite format 3\0"
_NOT_IN_NAMES = re.compile(r"[^\w./ -]")  # of metrics and parameters
_LONGEST_NAME = 250
_LONGEST_VALUE = 6_000


class Store:
    """The store at `uri`, sqlite:///PATH or a server's address: its client, and what is written to
    a run. Raises RuntimeError, in one line, where it can't be used."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.shown = _without_password(uri)
        with self.reaching():
            self.client = _client(uri)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Whatever goes wrong within is one line."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        try:
            yield
        except (MlflowException, SQLAlchemyError) as error:
            told = str(error).strip().splitlines()[0].replace(self._uri, "")
            raise RuntimeError(f"MLflow at {self.shown}: {told}") from error

    def experiment(self, name: str) -> str:
        """Its id, after it is there."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, _artifacts(self._uri))
            except MlflowException:  # another process was first, or the name is one of a deleted
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def create_model(self, name: str, description: str) -> None:
        """Unless it is there."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            self.client.create_registered_model(name, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def describe(self, version: Any, text: str, tags: Mapping[str, str]) -> None:
        """Show text and tags with a model version and with its run."""
        note = text[:_LONGEST_VALUE]
        self.client.set_tag(version.run_id, "mlflow.note.content", note)  # the run's description
        self.client.update_model_version(version.name, version.version, note)
        for key, value in tags.items():
            self.client.set_tag(version.run_id, key, value)
            self.client.set_model_version_tag(version.name, version.version, key, value)

    def log(
        self,
        run: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        at_ms: int,
        step: int,
    ) -> None:
        from mlflow.entities import Metric, Param  # noqa: PLC0415

        values = {_name(n): v for n, v in metrics.items() if math.isfinite(v)}  # others read badly
        told = [Metric(name, value, at_ms, step) for name, value in values.items()]
        said = [Param(_name(name), value[:_LONGEST_VALUE]) for name, value in params.items()]
        self.client.log_batch(run, metrics=told, params=said)

    def log_range(self, run: str, used: Range | None, context: str) -> None:
        """As MLflow's page shows a dataset that a run has used."""
        if used is None:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

        profile = json.dumps({"rows": used.rows, "from_ms": used.from_ms, "to_ms": used.to_ms})
        source = json.dumps({"uri": used.path})
        dataset = Dataset("log", used.digest, "log", source, profile=profile)
        tag = InputTag("mlflow.data.context", context)
        self.client.log_inputs(run, [DatasetInput(dataset, [tag])])

    def log_files(self, run: str, folder: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        with TemporaryDirectory() as place:
            for name, content in files.items():
                path = Path(place, _inside(name))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.client.log_artifacts(run, place, folder)


def _client(uri: str) -> MlflowClient:
    _check_sqlite(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # noqa: PLC0415

    for name in ("mlflow", "alembic"):  # they tell of each table that a new store gets
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # of each try
    # A page of traceback for each error, which is raised as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_sqlite(uri: str) -> None:
    """MLflow would try for two minutes to open a file that isn't a database."""
    if not uri.startswith(SQLITE):
        return
    path = Path(unquote(uri.removeprefix(SQLITE)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        start = path.open("ab+")
    except OSError as error:
        raise RuntimeError(f"MLflow at {uri}: {error.strerror}") from error
    with start:
        start.seek(0)
        found = start.read(len(_SQLITE_MAGIC))
    if found not in (b"", _SQLITE_MAGIC):
        raise RuntimeError(f"MLflow at {uri}: the file is no SQLite database")


def _artifacts(uri: str) -> str | None:
    """Beside the store's own file; None leaves it to a server."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).absolute().parent / "artifacts").as_uri()


def _name(name: str) -> str:
    """Of a metric or parameter: MLflow refuses most signs, and what isn't a plain path.

    >>> _name("task type a+b//../c/harm")
    'task type a_b/c/harm'
    """
    parts = (part for part in name.split("/") if part.strip(". "))
    return _NOT_IN_NAMES.sub("_", "/".join(parts))[:_LONGEST_NAME]


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"a file's name must be a path within its folder, got {name!r}")
    return path


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

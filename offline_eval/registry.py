"""MLflow: what was fitted and what the gate said of it, where a team looks for such things.

One run per version, so that MLflow's own page lists and compares versions; a later evaluation adds
to its version's run. Redis knows what serves, this is the record of what was evaluated: nothing
here decides. The only importer of mlflow, which takes a second to load and is loaded when used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from offline_eval.estimating.intervals import Interval
from offline_eval.gate.verdict import Verdict
from offline_eval.log.reading import Range

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIASES = ("champion", "challenger", "previous")
_ENVIRONMENT = {  # what is already set stays
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # what a command prints is the command's
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its seven, doubling the wait, take minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_SQLITE = "sqlite:///"
_SQLITE_MAGIC = b"SQLite format 3\0"
_NOT_IN_NAMES = re.compile(r"[^\w./ -]")  # of metrics and parameters
_LONGEST_NAME = 250
_LONGEST_VALUE = 6_000
_FOLDER = "version"  # of a run's artifacts, that holds what `load` reads


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """All that makes a version. `params` and `metrics` say how it was fitted."""

    policy: str
    version: str
    config: bytes  # JSON of its PolicyConfig
    encoder: bytes
    catalog: str  # JSON
    snapshot: bytes | None = None
    log: Range | None = None  # that it was fitted on
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Another configuration or encoder under the same number, as after Redis was emptied, is
        another version."""
        parts = (self.policy.encode(), self.version.encode(), self.config, self.encoder)
        return hashlib.blake2b(
            b"".join(hashlib.sha256(part).digest() for part in parts), digest_size=12
        ).hexdigest()


@dataclass(frozen=True, slots=True)
class Estimated:
    """What one estimator says of one version; `component` is reward, quality, latency_ms ..."""

    version: str
    component: str
    estimator: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found out about a version at one time. `verdict` is None where no gate was asked;
    `summary` is Markdown, shown with the version; `files` are artifacts by name: plots, reports."""

    at_ms: int
    champion: str
    verdict: str | None = None
    summary: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    log: Range | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoggedVersion:
    """A model version as MLflow lists it: `number` is MLflow's own, `version` ours."""

    version: str
    number: int
    run: str
    aliases: tuple[str, ...]
    verdict: str | None
    champion: str | None  # that it was judged against


def default_uri(data: Path) -> str:
    """MLFLOW_TRACKING_URI, else a SQLite store in the folder of the service's own files."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{data.absolute()}/mlflow/mlflow.db"


def gate_metrics(
    verdict: Verdict, challenger: str, estimates: Sequence[Estimated] = ()
) -> dict[str, float]:
    """A verdict's figures by name: `difference` with `_low` and `_high`, `CHECK/FIGURE`, and
    `ESTIMATOR/COMPONENT` (the champion's under `champion/`) with `_low` and `_high`."""
    named = {"estimate": "difference", "low": "difference_low", "high": "difference_high"}
    found = {named.get(name, f"difference/{name}"): v for name, v in verdict.figures.items()}
    for check in verdict.checks:
        group = check.name.replace("/", "_")  # of metrics, on MLflow's page
        found |= {f"{group}/{name}": value for name, value in check.figures.items()}
    for one in estimates:
        whose = "" if one.version == challenger else "champion/"
        name = f"{whose}{one.estimator}/{one.component}"
        found |= {
            name: one.interval.estimate,
            f"{name}_low": one.interval.low,
            f"{name}_high": one.interval.high,
        }
    for name in ("rounds_needed", "rounds_with_share"):
        if (needed := getattr(verdict, name)) is not None:
            found[f"difference/{name}"] = float(needed)
    return found


class Registry:
    """Versions and evaluations in the MLflow store at `uri`: sqlite:///PATH, or a server's address.

    Each call may be repeated: what is there already isn't written twice, and what a crash has left
    half done is done again. Calls raise RuntimeError, in one line, where the store can't be used.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._shown = _without_password(uri)
        with self._reaching():
            self._client = _client(uri)

    def log_version(self, version: VersionRecord) -> str:
        """The id of the version's run, after it is there and registered under the policy's name."""
        with self._reaching():
            mark = version.fingerprint()
            listed = [v for v in self._listed(version.policy) if v.tags.get("fingerprint") == mark]
            if listed:
                return str(listed[-1].run_id)
            run = self._run(version, mark)
            self._fill(run, version)
            self._register(run, version, mark)
            return run

    def log_evaluation(self, policy: str, version: str, evaluation: Evaluation) -> str:
        """Add what was found out to the version's run; its id.

        The page shows the newest metrics, and earlier ones as a line over the seconds since the
        version was logged. Files lie in a folder per evaluation.

        Raises
        ------
        LookupError
            If the version was not logged.
        """
        with self._reaching():
            listed = self._find(policy, version)
            run = self._client.get_run(listed.run_id)
            seconds = max(evaluation.at_ms - run.info.start_time, 0) // 1_000
            self._log(listed.run_id, {}, evaluation.metrics, evaluation.at_ms, seconds)
            self._log_range(listed.run_id, evaluation.log, "evaluation")
            kind = "evaluation" if evaluation.verdict is None else "gate"
            self._log_files(listed.run_id, f"{kind}/{_time(evaluation.at_ms)}", evaluation.files)
            if evaluation.verdict is not None:  # last: it says that all the rest is there
                self._tag(listed, evaluation)
            return str(listed.run_id)

    def alias(
        self,
        policy: str,
        *,
        champion: str | None,
        challenger: str | None,
        previous: str | None,
    ) -> None:
        """Say which versions have these roles. A version that was not logged can't be shown: its
        alias is taken away, so that none points at the wrong one."""
        with self._reaching():
            listed = {v.tags["pointsman_version"]: v for v in self._listed(policy)}
            if not listed:
                return
            name = _model_name(policy)
            for role, version in zip(ALIASES, (champion, challenger, previous), strict=True):
                if version in listed:
                    number = listed[version].version
                    self._client.set_registered_model_alias(name, role, str(number))
                else:
                    self._client.delete_registered_model_alias(name, role)

    def versions(self, policy: str) -> list[LoggedVersion]:
        """What is registered for a policy, in the order in which it was."""
        with self._reaching():
            listed = self._listed(policy)
            roles = self._roles(policy) if listed else {}
        return [
            LoggedVersion(
                version=v.tags["pointsman_version"],
                number=int(v.version),
                run=v.run_id,
                aliases=tuple(a for a in ALIASES if roles.get(a) == int(v.version)),
                verdict=v.tags.get("verdict"),
                champion=v.tags.get("champion"),
            )
            for v in listed
        ]

    def load(self, policy: str, version: str) -> VersionRecord:
        """A version, by its number or an alias, as it was logged.

        Raises
        ------
        LookupError
            If there is none.
        """
        with self._reaching(), TemporaryDirectory() as folder:
            listed = self._find(policy, version)
            run = self._client.get_run(listed.run_id)
            there = Path(self._client.download_artifacts(listed.run_id, _FOLDER, folder))
            config, snapshot, log = (there / n for n in ("config.json", "snapshot.bin", "log.json"))
            own = _flat(json.loads(config.read_bytes()))
            return VersionRecord(
                policy=policy,
                version=listed.tags["pointsman_version"],
                config=config.read_bytes(),
                encoder=(there / "encoder.bin").read_bytes(),
                catalog=(there / "catalog.json").read_text("utf-8"),
                snapshot=snapshot.read_bytes() if snapshot.exists() else None,
                log=Range(**json.loads(log.read_bytes())) if log.exists() else None,
                params={name: v for name, v in run.data.params.items() if name not in own},
                metrics=run.data.metrics,
            )

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        try:
            yield
        except (MlflowException, SQLAlchemyError) as error:
            told = str(error).strip().splitlines()[0].replace(self._uri, "")
            raise RuntimeError(f"MLflow at {self._shown}: {told}") from error

    def _listed(self, policy: str) -> list[Any]:
        """The policy's model versions, oldest first."""
        found = self._client.search_model_versions(f"name = '{_model_name(policy)}'")
        ours = (v for v in found if "pointsman_version" in v.tags)
        return sorted(ours, key=lambda v: int(v.version))

    def _roles(self, policy: str) -> dict[str, int]:
        aliases = self._client.get_registered_model(_model_name(policy)).aliases
        return {role: int(number) for role, number in aliases.items()}

    def _find(self, policy: str, version: str) -> Any:
        listed = self._listed(policy)
        if version in ALIASES and listed:
            number = self._roles(policy).get(version)
            found = [v for v in listed if int(v.version) == number]
        else:
            found = [v for v in listed if v.tags["pointsman_version"] == version]
        if not found:
            raise LookupError(
                f"policy {policy!r} has no version {version!r} in MLflow at {self._shown}"
            )
        return found[-1]

    def _run(self, version: VersionRecord, mark: str) -> str:
        """A run of this very version that was begun and not finished, or a new one."""
        experiment = self._experiment(version.policy)
        begun = self._client.search_runs([experiment], f"tags.fingerprint = '{mark}'")
        if begun:
            return str(begun[0].info.run_id)
        tags = _tags(version, mark)
        run = self._client.create_run(experiment, tags=tags, run_name=f"version {version.version}")
        return str(run.info.run_id)

    def _experiment(self, policy: str) -> str:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        name = f"pointsman/{_model_name(policy)}"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name, _artifacts(self._uri))
            except MlflowException:  # another process was first, or the name is one of a deleted
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _fill(self, run: str, version: VersionRecord) -> None:
        files = {
            "config.json": version.config,
            "encoder.bin": version.encoder,
            "catalog.json": version.catalog.encode(),
        }
        if version.snapshot is not None:
            files["snapshot.bin"] = version.snapshot
        if version.log is not None:
            files["log.json"] = json.dumps(asdict(version.log)).encode()
        self._log_files(run, _FOLDER, files)
        self._log_range(run, version.log, "training")
        params = {**_flat(json.loads(version.config)), **version.params}
        begun = self._client.get_run(run)
        there = begun.data.params  # of an attempt before; MLflow refuses to change them
        new = {name: value for name, value in params.items() if name not in there}
        self._log(run, new, version.metrics, begun.info.start_time, 0)
        self._client.set_terminated(run)

    def _register(self, run: str, version: VersionRecord, mark: str) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        name = _model_name(version.policy)
        try:
            self._client.create_registered_model(
                name, description=f"Versions of the Pointsman policy {version.policy}."
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(run).info.artifact_uri}/{_FOLDER}"
        self._client.create_model_version(name, source, run, tags=_tags(version, mark))

    def _tag(self, listed: Any, evaluation: Evaluation) -> None:
        note = evaluation.summary[:_LONGEST_VALUE]
        self._client.set_tag(listed.run_id, "mlflow.note.content", note)  # the run's description
        self._client.update_model_version(listed.name, listed.version, note)
        told = {"champion": evaluation.champion, "verdict": str(evaluation.verdict)}
        for key, value in told.items():
            self._client.set_tag(listed.run_id, key, value)
            self._client.set_model_version_tag(listed.name, listed.version, key, value)

    def _log(
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
        self._client.log_batch(run, metrics=told, params=said)

    def _log_range(self, run: str, used: Range | None, context: str) -> None:
        """As MLflow's page shows a dataset that a run has used."""
        if used is None:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

        profile = json.dumps({"rows": used.rows, "from_ms": used.from_ms, "to_ms": used.to_ms})
        source = json.dumps({"uri": used.path})
        dataset = Dataset("log", used.digest, "log", source, profile=profile)
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(run, [DatasetInput(dataset, [tag])])

    def _log_files(self, run: str, folder: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        with TemporaryDirectory() as place:
            for name, content in files.items():
                path = Path(place, _inside(name))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(run, place, folder)


def _client(uri: str) -> MlflowClient:
    _check_sqlite(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # noqa: PLC0415

    for name in ("mlflow", "alembic"):  # they tell of each table that a new store gets
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # of each try
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_sqlite(uri: str) -> None:
    """MLflow would try for two minutes to open a file that isn't a database."""
    if not uri.startswith(_SQLITE):
        return
    path = Path(unquote(uri.removeprefix(_SQLITE)))
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
    if not uri.startswith(_SQLITE):
        return None
    return (Path(uri.removeprefix(_SQLITE)).absolute().parent / "artifacts").as_uri()


def _model_name(policy: str) -> str:
    """MLflow refuses `/`, `:` and blanks in the name of a model; a log's policy may have them."""
    return quote(policy, safe="")


def _name(name: str) -> str:
    """Of a metric or parameter: MLflow refuses most signs, and what isn't a plain path.

    >>> _name("task type a+b//../c/harm")
    'task type a_b/c/harm'
    """
    parts = (part for part in name.split("/") if part.strip(". "))
    return _NOT_IN_NAMES.sub("_", "/".join(parts))[:_LONGEST_NAME]


def _tags(version: VersionRecord, mark: str) -> dict[str, str]:
    return {
        "policy": version.policy,
        "pointsman_version": version.version,
        "fingerprint": mark,
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow's parameters, without those that are not set.

    >>> _flat({"model": "linear", "objective": {"quality": 0.8}, "arm": None})
    {'model': 'linear', 'objective.quality': '0.8'}
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"a file's name must be a path within its folder, got {name!r}")
    return path


def _time(at_ms: int) -> str:
    """Sorts by time, and may be a file's name.

    >>> _time(1_700_000_000_123)
    '2023-11-14T221320.123Z'
    """
    at = datetime.fromtimestamp(at_ms / 1_000, UTC)
    return f"{at:%Y-%m-%dT%H%M%S}.{at_ms % 1_000:03d}Z"


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

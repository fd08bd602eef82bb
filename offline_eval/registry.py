"""MLflow: what was fitted and what the gate said of it, where a team looks for such things.

One run per version, so that MLflow's own page lists and compares versions; a later evaluation adds
to its version's run. Redis knows what serves, this is the record of what was evaluated: nothing
here decides.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from features.encoder import Encoder
from offline_eval.log.reading import Range
from offline_eval.mlflow_store import SQLITE, Store
from policy.arms.catalog import Catalog
from policy.config.versions import read_config
from policy.stored import opened, sealed
from policy.values.snapshot import unpack

if TYPE_CHECKING:
    from offline_eval.estimating.intervals import Interval
    from offline_eval.gate.verdict import Verdict

ALIASES = ("champion", "challenger", "previous")
_FOLDER = "version"  # of a run's artifacts, that holds what `load` reads
READ: Mapping[str, Callable[[bytes], object]] = {  # of the files there; each carries a checksum
    "config.json": read_config,
    "encoder.bin": Encoder.from_bytes,
    "catalog.json": Catalog.from_stored,
    "snapshot.bin": unpack,
    "log.json": partial(opened, "range"),
}


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """All that makes a version. `params` and `metrics` say how it was fitted."""

    policy: str
    version: str
    config: bytes
    encoder: bytes
    catalog: bytes
    snapshot: bytes | None = None
    log: Range | None = None  # that it was fitted on
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """What `Registry.load` makes a version of again, by the file's name."""
        files = {
            "config.json": self.config,
            "encoder.bin": self.encoder,
            "catalog.json": self.catalog,
        }
        if self.snapshot is not None:
            files["snapshot.bin"] = self.snapshot
        if self.log is not None:
            files["log.json"] = sealed("range", asdict(self.log))
        return files

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
    fingerprint: str  # of its configuration and encoder


def default_uri(data: Path) -> str:
    """MLFLOW_TRACKING_URI, else a SQLite store in the folder of the service's own files."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{data.absolute()}/mlflow/mlflow.db"


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
        self._store = Store(uri)
        self._client = self._store.client

    def log_version(self, version: VersionRecord) -> str:
        """The id of the version's run, after it is there and registered under the policy's name."""
        with self._store.reaching():
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
        with self._store.reaching():
            listed = self._find(policy, version)
            run = self._client.get_run(listed.run_id)
            seconds = max(evaluation.at_ms - run.info.start_time, 0) // 1_000
            self._store.log(listed.run_id, {}, evaluation.metrics, evaluation.at_ms, seconds)
            self._store.log_range(listed.run_id, evaluation.log, "evaluation")
            kind = "evaluation" if evaluation.verdict is None else "gate"
            folder = f"{kind}/{_time(evaluation.at_ms)}"
            self._store.log_files(listed.run_id, folder, evaluation.files)
            if evaluation.verdict is not None:  # last: it says that all the rest is there
                told = {"champion": evaluation.champion, "verdict": evaluation.verdict}
                self._store.describe(listed, evaluation.summary, told)
            return str(listed.run_id)

    def alias(
        self, policy: str, *, champion: str | None, challenger: str | None, previous: str | None
    ) -> None:
        """Say which versions have these roles. A version that was not logged can't be shown: its
        alias is taken away, so that none points at the wrong one."""
        with self._store.reaching():
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
        with self._store.reaching():
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
                fingerprint=v.tags.get("fingerprint", ""),
            )
            for v in listed
        ]

    def load(self, policy: str, version: str) -> VersionRecord:
        """A version, by its number or an alias, as it was logged.

        Raises
        ------
        LookupError
            If there is none.
        ValueError
            If one of its files is damaged, or of another format.
        """
        with self._store.reaching(), TemporaryDirectory() as folder:
            listed = self._find(policy, version)
            run = self._client.get_run(listed.run_id)
            there = Path(self._client.download_artifacts(listed.run_id, _FOLDER, folder))
            return _read(there, policy, listed.tags["pointsman_version"], run.data)

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
                f"policy {policy!r} has no version {version!r} in MLflow at {self._store.shown}"
            )
        return found[-1]

    def _run(self, version: VersionRecord, mark: str) -> str:
        """A run of this very version that was begun and not finished, or a new one."""
        experiment = self._store.experiment(f"pointsman/{_model_name(version.policy)}")
        begun = self._client.search_runs([experiment], f"tags.fingerprint = '{mark}'")
        if begun:
            return str(begun[0].info.run_id)
        tags = _tags(version, mark)
        run = self._client.create_run(experiment, tags=tags, run_name=f"version {version.version}")
        return str(run.info.run_id)

    def _fill(self, run: str, version: VersionRecord) -> None:
        self._store.log_files(run, _FOLDER, version.files())
        self._store.log_range(run, version.log, "training")
        params = {**_flat(opened("version", version.config)), **version.params}
        begun = self._client.get_run(run)
        there = begun.data.params  # of an attempt before; MLflow refuses to change them
        new = {name: value for name, value in params.items() if name not in there}
        self._store.log(run, new, version.metrics, begun.info.start_time, 0)
        self._client.set_terminated(run)

    def _register(self, run: str, version: VersionRecord, mark: str) -> None:
        name = _model_name(version.policy)
        self._store.create_model(name, f"Versions of the Pointsman policy {version.policy}.")
        source = f"{self._client.get_run(run).info.artifact_uri}/{_FOLDER}"
        self._client.create_model_version(name, source, run, tags=_tags(version, mark))


def _model_name(policy: str) -> str:
    """MLflow refuses `/`, `:` and blanks in the name of a model; a log's policy may have them."""
    return quote(policy, safe="")


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


def _time(at_ms: int) -> str:
    """Sorts by time, and may be a file's name.

    >>> _time(1_700_000_000_123)
    '2023-11-14T221320.123Z'
    """
    at = datetime.fromtimestamp(at_ms / 1_000, UTC)
    return f"{at:%Y-%m-%dT%H%M%S}.{at_ms % 1_000:03d}Z"


def _read(folder: Path, policy: str, version: str, logged: Any) -> VersionRecord:
    """The version whose files lie in a folder; parameters and metrics are what its run has
    `logged`."""
    files = {name: path.read_bytes() for name in READ if (path := folder / name).exists()}
    for name, read in READ.items():
        if name in files:
            try:
                read(files[name])
            except ValueError as error:
                raise ValueError(
                    f"{name} of version {version} of policy {policy!r} in MLflow: {error}"
                ) from error
    own = _flat(opened("version", files["config.json"]))
    log = files.get("log.json")
    return VersionRecord(
        policy=policy,
        version=version,
        config=files["config.json"],
        encoder=files["encoder.bin"],
        catalog=files["catalog.json"],
        snapshot=files.get("snapshot.bin"),
        log=None if log is None else Range(**opened("range", log)),
        params={name: v for name, v in logged.params.items() if name not in own},
        metrics=logged.metrics,
    )

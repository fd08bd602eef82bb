"""Asks the gate about a version of a running policy: on which part of the log, against whom, with
which settings. Judges nothing itself and prints nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from features.encoder import Encoder
from offline_eval.estimating import target
from offline_eval.gate import judging
from offline_eval.gate.judging import Case
from offline_eval.gate.rows import Window
from offline_eval.gate.verdict import Settings, Verdict
from offline_eval.log import archive
from offline_eval.log.data import LoggedData
from offline_eval.log.segments import START
from policy import policy as policies
from policy.arms.catalog import Catalog
from policy.config.schema import PolicyConfig, current
from policy.config.versions import read_config
from policy.policy import Policy
from policy.records import Vector
from policy.values import models
from policy.values.snapshot import unpack
from serving.store.operations import OperatorStore
from serving.store.registered import GateRecord, Refused, VersionFiles


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A verdict, with what it was made from."""

    policy: str
    case: Case
    settings: Settings
    verdict: Verdict
    window: str
    catalog: str

    @property
    def version(self) -> str:
        return self.case.challenger

    @property
    def champion(self) -> str:
        return self.case.champion

    @property
    def newest_ms(self) -> int | None:
        """When the newest row that was judged was decided."""
        found = (check.figures.get("newest_ms") for check in self.verdict.checks)
        return next((int(newest) for newest in found if newest is not None), None)

    def record(self, run: str | None = None) -> GateRecord:
        """What the store keeps; `run` is MLflow's."""
        return GateRecord(
            verdict=self.verdict.verdict,
            champion=self.champion,
            newest_ms=self.newest_ms,
            reasons=self.verdict.reasons,
            window="" if self.newest_ms is None else self.window,
            catalog=self.catalog,
            run=run,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """The rows that say something of a version, and what must fit."""

    data: LoggedData
    candidate: Vector | None
    fingerprints: Mapping[str, tuple[str, str]]
    name: str


def judge(
    store: OperatorStore,
    policy: str,
    wanted: PolicyConfig,
    version: str,
    path: str,
    now_ms: int,
    alpha: float | None = None,
    since_ms: int | None = None,
) -> Judged:
    """The gate's verdict on a registered version against the champion that serves now.

    `wanted` is the policy in the configuration file, `path` the log; `alpha` makes the gate
    stricter than `wanted` has it, and `since_ms` leaves out what was decided before.

    Raises
    ------
    LookupError
        If there is no such policy or version.
    ValueError
        If the log has nothing to judge it on, may not be evaluated, or `version` is champion.
    """
    state = store.state()
    champion = state["champion"]
    if version == champion:
        raise Refused(f"version {version} is the champion: name another to judge against it")
    settings = _settings(wanted, alpha)
    files = store.files(version)
    _expect_own(path, policy, state)
    window = Window.last(path, policy, since_ms)
    evidence = _evidence(store, wanted, window, version, files, state)
    case = _case(version, champion, evidence, files, store.files(champion))
    try:
        verdict = judging.judge(case, now_ms, settings)
    except ValueError as error:
        raise ValueError(
            f"the log at {path} can't be used: {error} (of the {len(case.data):,} rows that "
            f"version {champion} decided and version {version} is judged on, counted from 0)"
        ) from error
    judged = Judged(policy, case, settings, verdict, evidence.name, window.catalog)
    store.judged_on(version, judged.record().window)  # before anybody hears the verdict
    return judged


def _case(
    version: str, champion: str, evidence: _Evidence, files: VersionFiles, acting: VersionFiles
) -> Case:
    """As the configuration and the encoder of the `acting` champion have it."""
    data, encoder = evidence.data, Encoder.from_bytes(acting.encoder)
    known = data.encoder == encoder.fingerprint
    before = files.windows
    return Case(
        data,
        champion=champion,
        challenger=version,
        scales=read_config(acting.config).scales,
        tasks=tuple(encoder.task_types(data.contexts)) if known else None,
        fingerprints=evidence.fingerprints,
        windows_before=before.index(evidence.name) if evidence.name in before else len(before),
        candidate=evidence.candidate,
    )


def _expect_own(path: str, policy: str, state: Mapping[str, str]) -> None:
    """Versions are numbered alike in other services, whose logs say nothing of ours."""
    if not archive.is_archive(path):
        return
    origin = archive.position(path, policy).origin
    if origin and origin != state.get("origin"):
        raise ValueError(f"the log at {path} belongs to another service")


def _settings(wanted: PolicyConfig, alpha: float | None) -> Settings:
    settings = Settings(**wanted.gate.settings())  # type: ignore[arg-type]
    if alpha is None:
        return settings
    if alpha > settings.alpha:
        raise ValueError(
            f"alpha can only be made stricter here, got {alpha:g} where the policy has "
            f"{settings.alpha:g}: set gate.alpha in the configuration file"
        )
    return replace(settings, alpha=alpha)


def _evidence(
    store: OperatorStore,
    wanted: PolicyConfig,
    window: Window,
    version: str,
    files: VersionFiles,
    state: Mapping[str, str],
) -> _Evidence:
    """What it did in shadow; for a version that never ran there, what its snapshot would have."""
    champion = state["champion"]
    acted = window.of(champion, files.rolled_back_ms)
    name = f"{champion} on {window.catalog} from {max(window.from_ms, files.rolled_back_ms)}"
    own, catalogs = Encoder.from_bytes(files.encoder), (window.catalog, state.get("catalog", ""))
    rows = acted.beside(version)
    if rows is not None:
        encoders = (rows.challenger_encoder(), own.fingerprint)
        return _Evidence(rows.data(), None, {"encoder": encoders, "catalog": catalogs}, name)
    if state.get("challenger") == version:
        raise ValueError(
            f"version {version} is the challenger, but ran in the shadow of none of the "
            f"{len(acted):,} rows of version {champion} since arms or prices last changed, in the "
            f"log at {window.path}: wait for the archiver, or for more traffic"
        )
    candidate, after_ms = _frozen(store, wanted, window, version, files, own)
    rows = acted.of(champion, after_ms)
    data = rows.data()
    try:
        pmf = target.of_policy(data, candidate)
    except ValueError as error:
        raise ValueError(
            f"version {version} never ran in the shadow of version {champion}, and the log alone "
            f"can't tell what it would have done: {error}. Make it the challenger: "
            f"`pointsman challenge {window.policy} {version}`"
        ) from error
    fingerprints = {"encoder": (data.encoder, own.fingerprint), "catalog": catalogs}
    return _Evidence(data, pmf, fingerprints, f"{name}, frozen at {after_ms}")


def _frozen(
    store: OperatorStore,
    wanted: PolicyConfig,
    window: Window,
    version: str,
    files: VersionFiles,
    encoder: Encoder,
) -> tuple[Policy, int]:
    """A version as its newest snapshot has it, and when the last row was made that it may have
    learned from (ms; -1 where it has learned nothing)."""
    config = current(read_config(files.config), wanted)
    view, after_ms = models.prior_view(config, encoder), -1
    if files.snapshot is not None:
        state = unpack(files.snapshot)
        header = state.header
        if config.model not in models.NO_VALUES:
            view = models.read_view(header.kind, state.parts)
        if header.events:
            after_ms = int(header.position.split("-")[0])
        if header.events and (files.number > 1 or header.position == START):
            # Fed by the stream since, or fitted on what isn't this log: all that was known then.
            after_ms = max(after_ms, files.made_at_ms)
    built = policies.build(
        window.policy,
        version,
        files.number,
        config=config,
        encoder=encoder,
        catalog=Catalog.from_stored(store.catalog(window.catalog)),
        view=view,
    )
    return built, after_ms


def told(judged: Judged) -> Mapping[str, object]:
    """A verdict as JSON; figures that are not finite are null."""
    verdict = judged.verdict
    return {
        "policy": judged.policy,
        "version": judged.version,
        "champion": judged.champion,
        "verdict": verdict.verdict,
        "reasons": list(verdict.reasons),
        "checks": [
            {
                "name": check.name,
                "state": check.state,
                "text": check.text,
                "figures": _finite(check.figures),
            }
            for check in verdict.checks
        ],
        "figures": _finite(verdict.figures),
        "rounds_needed": verdict.rounds_needed,
        "share": verdict.share,
        "rounds_with_share": verdict.rounds_with_share,
        "in_shadow": judged.case.candidate is None,
        "rows": len(judged.case.data),
        "newest_ms": judged.newest_ms,
        "window": judged.window,
    }


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}

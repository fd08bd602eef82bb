"""What MLflow knows of a policy against what Redis does, and how the first is mended.

Redis is the truth about what serves: MLflow is told what it lacks, and never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from offline_eval.mlflow_store import SQLITE
from offline_eval.registry import ALIASES, Evaluation, LoggedVersion, Registry
from pointsman.doctor.finding import Finding, Told, named
from pointsman.promotion.roles import record_of
from serving.store.operations import OperatorStore
from serving.store.registered import VersionInfo

MEND = "`pointsman doctor --mend`"


@dataclass(frozen=True, slots=True)
class Both:
    """One policy as Redis and as MLflow know it, by version; `roles` are Redis', and `foreign` are
    MLflow's of another configuration or encoder than Redis has under that number."""

    policy: str
    roles: dict[str, str | None]
    redis: dict[str, VersionInfo]
    mlflow: dict[str, LoggedVersion]
    foreign: tuple[LoggedVersion, ...]

    def missing(self) -> list[str]:
        """What MLflow should have: versions that were judged and, with any of them, those that have
        a role."""
        some = bool(self.mlflow) or any(info.gate for info in self.redis.values())
        return [
            version
            for version, info in self.redis.items()
            if version not in self.mlflow
            and (info.gate or (some and version in self.roles.values()))
        ]

    def unjudged(self) -> list[str]:
        """Versions whose verdict MLflow lacks, or has otherwise."""
        return [
            version
            for version, info in self.redis.items()
            if info.gate is not None
            and (version not in self.mlflow or self.mlflow[version].verdict != info.gate.verdict)
        ]

    def misnamed(self) -> list[str]:
        """Roles whose alias in MLflow isn't on the version that has them."""
        shown = {a: v.version for v in (*self.foreign, *self.mlflow.values()) for a in v.aliases}
        known = {role: v if v in self.mlflow else None for role, v in self.roles.items()}
        return [role for role in ALIASES if known[role] != shown.get(role)]


def checked(store: OperatorStore, uri: str, policy: str, *, mend: bool) -> list[Finding]:
    """What differs, or what was mended of it."""
    if _unused(uri) and not any(info.gate for info in store.versions()):
        return [Finding("mlflow", "ok", f"{policy}: nothing was evaluated yet")]
    try:
        registry = Registry(uri)
        both = compared(store, registry, policy)
        told = list(_told(both))
        if mend and any(do == MEND for _, _, do in told):
            mended(store, registry, both)
            done: list[Told] = [("ok", f"mended: {what}", "") for _, what, do in told if do == MEND]
            told = [*done, *_told(compared(store, registry, policy))]
    except RuntimeError as error:
        return [Finding("mlflow", "warning", str(error), "serving goes on; gates aren't recorded")]
    except (ValueError, LookupError) as error:
        what = f"{policy}: what Redis knows can't be compared: {error}"
        return [Finding("mlflow", "warning", what, "mend what is stored first")]
    told = [(level, f"{policy}: {what}", do) for level, what, do in told]
    return named("mlflow", told, f"{policy}: MLflow knows what Redis does")


def compared(store: OperatorStore, registry: Registry, policy: str) -> Both:
    state = store.state()
    redis = {info.version: info for info in store.versions()}
    marks = {version: record_of(store, policy, version).fingerprint() for version in redis}
    listed = registry.versions(policy)
    ours = {one.version: one for one in listed if marks.get(one.version) == one.fingerprint}
    roles = {role: state.get(role) or None for role in ALIASES}
    return Both(
        policy, roles, redis, ours, tuple(one for one in listed if one not in ours.values())
    )


def mended(store: OperatorStore, registry: Registry, both: Both) -> None:
    """Tell MLflow what it lacks: versions, verdicts (of a report, only its reasons), roles."""
    for version in both.missing():
        registry.log_version(record_of(store, both.policy, version))
    for version in both.unjudged():
        gate = both.redis[version].gate
        assert gate is not None
        summary = f"Verdict: {gate.verdict}\n\n" + "\n".join(f"- {one}" for one in gate.reasons)
        registry.log_evaluation(
            both.policy, version, Evaluation(gate.at_ms, gate.champion, gate.verdict, summary)
        )
    registry.alias(both.policy, **both.roles)


def _told(both: Both) -> Iterator[Told]:
    for version in both.missing():
        yield "warning", f"MLflow doesn't know version {version}", MEND
    for version in both.unjudged():
        gate = both.redis[version].gate
        verdict = gate.verdict if gate else ""
        yield "warning", f"MLflow doesn't have the verdict on version {version} ({verdict})", MEND
    if roles := both.misnamed():
        yield "warning", f"MLflow's aliases aren't the roles: {', '.join(roles)}", MEND
    for version, logged in both.mlflow.items():
        if logged.verdict is not None and both.redis[version].gate is None:
            yield (
                "warning",
                f"MLflow has a verdict on version {version} ({logged.verdict}) that Redis lacks",
                f"`pointsman gate {both.policy} {version}` judges it anew",
            )
    if both.foreign:
        numbers = ", ".join(one.version for one in both.foreign)
        yield (
            "warning",
            f"MLflow has versions that Redis doesn't know: {numbers}",
            "of an earlier Redis? then nothing is lost: only the numbers begin again",
        )


def _unused(uri: str) -> bool:
    """Whether it is a file that isn't there: opening it would make it, with all its tables."""
    return uri.startswith(SQLITE) and not Path(unquote(uri.removeprefix(SQLITE))).exists()

"""What MLflow is told of versions, verdicts and roles. Redis decides what serves, so where MLflow
can't be told, that is a warning and no error."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from offline_eval.registry import ALIASES, Registry, VersionRecord
from pointsman.promotion.asking import Judged
from pointsman.promotion.report import Report
from serving.store.operations import OperatorStore

log = logging.getLogger(__name__)


def tell_verdict(uri: str, store: OperatorStore, judged: Judged, report: Report) -> str | None:
    """Log a version, the champion, and what the gate said; the id of the version's run, None where
    MLflow can't be told."""
    try:
        registry = Registry(uri)
        for version in (judged.champion, judged.version):
            registry.log_version(record_of(store, judged.policy, version))
        run = registry.log_evaluation(judged.policy, judged.version, report.evaluation())
        _alias(registry, judged.policy, store.state())
    except Exception as error:  # whatever it is, Redis has the truth
        log.warning("%s; the verdict is recorded without it", error)
        return None
    return run


def tell_roles(uri: str, policy: str, state: Mapping[str, str]) -> None:
    """Give the aliases to the versions that have these roles now."""
    try:
        _alias(Registry(uri), policy, state)
    except Exception as error:  # whatever it is, Redis has the truth
        log.warning("%s; its aliases are not those of the roles", error)


def _alias(registry: Registry, policy: str, state: Mapping[str, str]) -> None:
    champion, challenger, previous = (state.get(role) or None for role in ALIASES)
    registry.alias(policy, champion=champion, challenger=challenger, previous=previous)


def record_of(store: OperatorStore, policy: str, version: str) -> VersionRecord:
    """A version as MLflow is told of it; LookupError if there is none."""
    files = store.files(version)
    return VersionRecord(
        policy=policy,
        version=version,
        config=files.config,
        encoder=files.encoder,
        catalog=store.catalog(store.state()["catalog"]),
        snapshot=files.snapshot,
    )

"""`pointsman train`."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import closing
from functools import cache
from pathlib import Path

import click
import numpy as np

from features.encoder import Encoder
from offline_eval import registry
from offline_eval.log import archive
from offline_eval.log.data import outcome_batch
from offline_eval.log.reading import Range, range_of, read_log, read_times
from offline_eval.log.segments import START
from offline_eval.registry import Registry, VersionRecord
from pointsman.commands import settings
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import QUERIES, OutcomeSet
from pointsman.trying.simulate import corpus
from policy.arms.catalog import Catalog
from policy.config.schema import Config, PolicyConfig
from policy.config.versions import write_config
from policy.values import models
from policy.values.protocol import ValueModel
from policy.values.snapshot import Header, State
from policy.values.warm import AT_MOST, start_from_events, warm_start
from serving.learning.fold import Fold
from serving.processes.embedded import running_url
from serving.store.learning import LearnerStore


@click.command(epilog=settings.help_text())
@click.argument("path", required=False)
@click.option("--policy", default="default", show_default=True, help="Whose configuration to fit.")
@click.option(
    "--until",
    "until_ms",
    type=settings.Time(),
    metavar="TIME",
    help="Learn from what was known before this time only: 2026-01-31T12:00 (UTC), or ms.",
)
@click.option(
    "--first",
    "share",
    type=settings.Finite(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Likewise, before the time by which this share of the decisions was made.",
)
@click.option(
    "--at-most",
    type=settings.Finite(min=1),
    default=AT_MOST,
    show_default=True,
    metavar="N",
    help="What is learned of an arm counts as at most so many live outcomes.",
)
@settings.as_json
def command(
    path: str | None,
    policy: str,
    until_ms: int | None,
    share: float | None,
    at_most: float,
    as_json: bool,
) -> None:
    """Fit a version of a running policy on what is known, and register it to start from there.

    PATH is the log of this service (the default, POINTSMAN_LOG), a log as `pointsman import-log`
    writes it, or a folder of full-information outcomes (see `pointsman simulate --help`; categories
    are the task types). Arms that the configuration doesn't have are left out.

    From its own service's log a version learns each outcome as the live learner would have, all of
    them count (whatever --at-most says), and it goes on with the first one that isn't archived yet.
    With --until or --first, `pointsman gate` can judge it on the rest at once. The new version
    serves once it is promoted.

    It is logged in MLflow: at MLFLOW_TRACKING_URI, by default in DATA/mlflow (`make mlflow-ui`).
    """
    chosen = settings.read()
    config, wanted = settings.policy_of(chosen, policy)
    if wanted.model in models.NO_VALUES:
        raise click.ClickException(f"policy {policy!r} learns nothing: model {wanted.model!r}")
    path, position = path or chosen.log_path(), START
    folder = (Path(path) / QUERIES).exists()
    if folder and (until_ms, share) != (None, None):
        raise click.UsageError("--until and --first are for logs: a folder's outcomes have no time")
    if share is not None:
        until_ms = _until(path, policy, share)
    if folder:
        encoder, model = _from_outcomes(Path(path), config, wanted, at_most)
    elif archive.is_archive(path):
        encoder, model, position = _from_archive(path, policy, wanted, until_ms)
    else:
        encoder, model = _from_log(path, config, wanted, at_most, until_ms)
    url = chosen.redis_url or running_url(chosen.data)
    with closing(LearnerStore(url, policy)) as store:
        version = register(store, wanted, encoder, model, position)
        used = _used(path, policy, until_ms)
        uri = registry.default_uri(chosen.data)
        run = logged(store, policy, version, config.arms, path, used, uri)
    told = {"policy": policy, "version": version, "events": model.events, "run": run}
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(f"{policy}: version {version} is registered, fitted on {model.events:,} outcomes")
    click.echo(f"it is run {run} in MLflow")
    click.echo(f"it learns in shadow after: pointsman challenge {policy} {version} --share 0.1")
    click.echo(f"to judge it: pointsman gate {policy} {version}")


def register(
    store: LearnerStore,
    config: PolicyConfig,
    encoder: Encoder,
    model: ValueModel,
    position: str = START,
) -> str:
    """Register a fitted version with the checkpoint and the snapshot that it starts from; it goes
    on learning behind `position` in the stream."""
    parts = model.to_parts()
    known = "".join(part.digest for part in parts.values())
    fitted = hashlib.blake2b(known.encode(), digest_size=8).hexdigest()
    version = store.register(
        config.fingerprint(f"{encoder.fingerprint} {fitted}"),
        write_config(config),
        encoder.to_bytes(),
        time.time_ns() // 1_000_000,
    )
    header = Header(
        kind=config.model,
        version=version,
        encoder=encoder.fingerprint,
        position=position,
        events=model.events,
    )
    store.start(version, State(header, parts), State(header, model.view().to_parts()))
    return version


def _until(path: str, policy: str, share: float) -> int:
    """When this share of a log's decisions had been made, in ms."""
    of = policy if archive.is_archive(path) else None
    made = np.concatenate([np.zeros(0, dtype=np.int64), *read_times(path, of)])
    if not len(made):
        raise click.ClickException(f"{path}: no row to learn from")
    return int(made[int(share * len(made))])


def _used(path: str, policy: str, until_ms: int | None) -> Range | None:
    """The rows that were learned from, where they are rows of a log."""
    if (Path(path) / QUERIES).exists():
        return None
    return range_of(path, policy if archive.is_archive(path) else None, to_ms=until_ms)


def logged(
    store: LearnerStore,
    policy: str,
    version: str,
    arms: Catalog,
    path: str,
    used: Range | None,
    uri: str,
) -> str:
    """Log a version in MLflow as the store has it, fitted on what is at `path`; its run."""
    config, encoder = store.version(version)
    record = VersionRecord(
        policy=policy,
        version=version,
        config=config,
        encoder=encoder,
        catalog=arms.to_stored(),
        snapshot=store.snapshot(version),
        log=used,
        params={"fitted_on": path},
    )
    try:
        return Registry(uri).log_version(record)
    except RuntimeError as error:
        raise RuntimeError(
            f"version {version} is registered, but not logged in MLflow (to try again, train"
            f" again): {error}"
        ) from error


def _from_outcomes(
    path: Path, config: Config, wanted: PolicyConfig, at_most: float
) -> tuple[Encoder, ValueModel]:
    outcomes = _among(folders.load(path), config.arms)
    known = corpus(outcomes, np.arange(len(outcomes)), labels=True)
    encoder, model = warm_start(wanted, known, at_most)
    assert model is not None  # a policy that learns nothing was refused
    return encoder, model


def _among(outcomes: OutcomeSet, catalog: Catalog) -> OutcomeSet:
    """The outcomes of arms that the catalog has, at the prices of the catalog."""
    columns = [i for i, arm in enumerate(outcomes.catalog.ids) if arm in catalog]
    if not columns:
        raise click.ClickException(
            f"{outcomes.name}: none of its arms is configured: {', '.join(outcomes.catalog.ids)}"
        )
    left = [arm for arm in outcomes.catalog.ids if arm not in catalog]
    if left:
        click.echo(f"not configured, left out: {', '.join(left)}", err=True)
    return outcomes.of_arms(columns, catalog)


def _from_archive(
    path: str, policy: str, wanted: PolicyConfig, until_ms: int | None
) -> tuple[Encoder, ValueModel, str]:
    """With the position in the stream that has been learned."""
    encoder = models.default_encoder(wanted)
    catalog = cache(lambda revision: archive.catalog(path, policy, revision))
    fold = Fold("", wanted, encoder, models.new_model(wanted, encoder), catalog)
    for entries in archive.events(path, policy, before_ms=until_ms):
        fold.fold(entries)
    if not fold.events or fold.model is None:
        raise click.ClickException(
            f"{path}: no outcome of policy {policy!r} with a context of encoder "
            f"{encoder.fingerprint}, that of policies that aren't fitted on texts"
        )
    return encoder, fold.model, fold.position


def _from_log(
    path: str, config: Config, wanted: PolicyConfig, at_most: float, until_ms: int | None
) -> tuple[Encoder, ValueModel]:
    data = read_log(path, to_ms=until_ms)
    encoder = models.default_encoder(wanted)
    if data.encoder != encoder.fingerprint:
        raise click.ClickException(
            f"{path}: its contexts come from encoder {data.encoder}, those of policies that "
            f"aren't fitted on texts from {encoder.fingerprint}"
        )
    events = outcome_batch(data, config.arms)
    if not len(events):
        raise click.ClickException(f"{path}: no outcome of an arm that is configured")
    model = start_from_events(wanted, encoder, events, at_most)
    assert model is not None  # a policy that learns nothing was refused
    return encoder, model

"""`pointsman train`."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import closing
from pathlib import Path

import click
import numpy as np

from features.encoder import Encoder
from offline_eval import log
from pointsman import outcomes as folders
from pointsman.commands import settings
from pointsman.outcomes import QUERIES, OutcomeSet
from pointsman.simulate import corpus
from policy import models
from policy.catalog import Catalog
from policy.config import Config, PolicyConfig
from policy.snapshot import Header, pack
from policy.values import ValueModel
from policy.warm import AT_MOST, start_from_events, warm_start
from serving.embedded import running_url
from serving.store.learning import LearnerStore


@click.command(epilog=settings.help_text())
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--policy", default="default", show_default=True, help="Whose configuration to fit.")
@click.option(
    "--at-most",
    type=click.FloatRange(min=1),
    default=AT_MOST,
    show_default=True,
    metavar="N",
    help="What is learned of an arm counts as at most so many live outcomes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path, policy: str, at_most: float, as_json: bool) -> None:
    """Fit a version of a running policy on what is known, and register it to start from there.

    PATH is a folder of full-information outcomes (see `pointsman simulate --help`; categories are
    the task types) or a log, as `pointsman import-log` writes it. Arms that the configuration
    doesn't have are left out. The new version serves once it is promoted.
    """
    chosen = settings.read()
    config, wanted = settings.policy_of(chosen, policy)
    if wanted.model in models.NO_VALUES:
        raise click.ClickException(f"policy {policy!r} learns nothing: model {wanted.model!r}")
    fit = _from_outcomes if (path / QUERIES).exists() else _from_log
    encoder, model = fit(path, config, wanted, at_most)
    url = chosen.redis_url or running_url(chosen.data)
    with closing(LearnerStore(url, policy)) as store:
        version = register(store, wanted, encoder, model)
    told = {"policy": policy, "version": version, "events": model.events}
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(f"{policy}: version {version} is registered, fitted on {model.events:,} outcomes")
    click.echo(f"it learns in shadow after: pointsman challenge {policy} {version} --share 0.1")
    click.echo(f"to judge it: pointsman gate {policy} {version}")


def register(store: LearnerStore, config: PolicyConfig, encoder: Encoder, model: ValueModel) -> str:
    """Register a fitted version with the checkpoint and the snapshot that it starts from."""
    state, view = model.to_bytes(), model.view().to_bytes()
    fitted = hashlib.blake2b(state, digest_size=8).hexdigest()
    version = store.register(
        config.fingerprint(f"{encoder.fingerprint} {fitted}"),
        config.model_dump_json().encode(),
        encoder.to_bytes(),
        time.time_ns() // 1_000_000,
    )
    header = Header(
        kind=config.model,
        version=version,
        encoder=encoder.fingerprint,
        position="0-0",
        events=model.events,
    )
    store.start(version, pack(header, state), pack(header, view))
    return version


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


def _from_log(
    path: Path, config: Config, wanted: PolicyConfig, at_most: float
) -> tuple[Encoder, ValueModel]:
    data = log.read(str(path))
    encoder = models.default_encoder(wanted)
    if data.encoder != encoder.fingerprint:
        raise click.ClickException(
            f"{path}: its contexts come from encoder {data.encoder}, those of policies that "
            f"aren't fitted on texts from {encoder.fingerprint}"
        )
    events = log.events(data, config.arms)
    if not len(events):
        raise click.ClickException(f"{path}: no outcome of an arm that is configured")
    model = start_from_events(wanted, encoder, events, at_most)
    assert model is not None  # a policy that learns nothing was refused
    return encoder, model

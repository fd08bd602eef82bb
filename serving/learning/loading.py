"""Versions of the store, as what serving decides with. What is loaded is not read again."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from features.encoder import Encoder
from policy.choosing.incumbent import START, Standing
from policy.comparing import Scoreboard
from policy.config.schema import PolicyConfig
from policy.config.versions import read_config
from policy.plans.learned import NOTHING, PlanLearning, PlanValues
from policy.values import models
from policy.values.parts import Parts
from policy.values.protocol import ValuesView
from serving.store.keys import Roles, StoreUnavailable
from serving.store.versions import VersionStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What of a version came from the store."""

    version: str
    number: int
    config: PolicyConfig
    encoder: Encoder
    view: ValuesView | None
    scores: Scoreboard
    standing: Standing = START
    parts: Parts = field(default_factory=dict)
    plans: PlanValues = NOTHING


@dataclass(frozen=True, slots=True)
class Running:
    """The versions that make up a running policy, and the challenger's share of the draw."""

    champion: Loaded
    challenger: Loaded | None
    share: float

    def of(self, version: str | None) -> Loaded | None:
        """A version among these, whatever its role."""
        for loaded in (self.champion, self.challenger):
            if loaded is not None and loaded.version == version:
                return loaded
        return None


async def load_running(store: VersionStore, name: str, before: Running | None) -> Running:
    """The versions that have a role in a policy now, each with its newest snapshot."""
    roles = await store.roles(name)
    champion = await _newest(store, name, roles.champion, before)
    return Running(champion, await _challenger(store, name, roles, before), roles.share)


async def _challenger(
    store: VersionStore, name: str, roles: Roles, before: Running | None
) -> Loaded | None:
    """What learns in shadow; whatever is wrong with it must not keep the champion back."""
    if roles.challenger is None:
        return None
    try:
        return await _newest(store, name, roles.challenger, before)
    except StoreUnavailable:
        raise
    except Exception:
        log.exception("policy %s: can't load challenger %s", name, roles.challenger)
        return before.of(roles.challenger) if before is not None else None


async def _newest(store: VersionStore, name: str, version: str, running: Running | None) -> Loaded:
    """A version with its newest snapshot: what is loaded already, if it has that."""
    before = running.of(version) if running is not None else None
    number = await store.snapshot_number(name, version)
    if before is not None and before.number == number:
        return before
    return await _load(store, name, version, number, before)


async def _load(
    store: VersionStore, name: str, version: str, number: int, before: Loaded | None
) -> Loaded:
    if before is not None:
        config, encoder = before.config, before.encoder
    else:
        stored_config, stored_encoder = await store.version(name, version)
        config = read_config(stored_config)
        try:
            encoder = Encoder.from_bytes(stored_encoder)
        except ValueError as error:
            raise ValueError(
                f"policy {name!r}: version {version} can't be served: {error} (what another "
                "release of Pointsman stored can't be read; use a fresh POINTSMAN_DATA)"
            ) from error
    if number == 0:
        view = models.prior_view(config, encoder)
        return Loaded(version, 0, config, encoder, view, Scoreboard())
    have = {} if before is None else before.parts
    number, state = await store.snapshot(name, version, have)
    header, parts = state.header, state.parts
    if header.encoder != encoder.fingerprint:
        raise ValueError(f"snapshot {number} of version {version} has another encoder")
    view = None
    if config.model not in models.NO_VALUES:
        view = await asyncio.to_thread(models.read_view, header.kind, parts)
    scores = Scoreboard.from_record(header.scores)
    standing = Standing.of(header.standing)
    plans = NOTHING if header.plans is None else PlanLearning.of(header.plans).values()
    return Loaded(version, number, config, encoder, view, scores, standing, parts, plans)

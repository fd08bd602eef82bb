"""Keeps the running policies up to date: configuration file, champion, snapshots. Decides nothing.

A policy is replaced whole, so that a request sees one version, snapshot and catalog throughout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from features.encoder import Encoder
from policy import policy as policies
from policy.comparing import Scoreboard
from policy.config.problems import ConfigError
from policy.config.schema import Config, PolicyConfig, current
from policy.policy import Policy
from policy.values import models
from policy.values.protocol import ValuesView
from policy.values.snapshot import unpack
from serving.processes.config_file import ConfigFile
from serving.service import Service
from serving.store.keys import Roles, StoreUnavailable
from serving.store.traffic import Store

log = logging.getLogger(__name__)

POLL_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """What of a version came from the store."""

    version: str
    number: int
    config: PolicyConfig
    encoder: Encoder
    view: ValuesView | None
    scores: Scoreboard


@dataclass(frozen=True, slots=True)
class _Running:
    """The versions that make up a running policy, and the challenger's share of the draw."""

    champion: _Loaded
    challenger: _Loaded | None
    share: float

    def of(self, version: str | None) -> _Loaded | None:
        """A version among these, whatever its role."""
        for loaded in (self.champion, self.challenger):
            if loaded is not None and loaded.version == version:
                return loaded
        return None


class Follower:
    """Fills `service.policies` and keeps it current until `stop`."""

    def __init__(
        self, service: Service, store: Store, config_path: Path, clock_ms: Callable[[], int]
    ) -> None:
        self._service = service
        self._store = store
        self._file = ConfigFile(config_path)
        self._clock_ms = clock_ms
        self._config: Config | None = None
        self._running: dict[str, _Running] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load everything once, then follow in the background.

        Raises
        ------
        ConfigError
            If the configuration file can't be read or says something wrong.
        StoreUnavailable
            If the store can't be reached.
        """
        await self._adopt(self._file.read())
        self._tasks = [
            asyncio.create_task(self._follow_store()),
            asyncio.create_task(self._follow_file()),
        ]

    async def stop(self) -> None:
        running = set(self._tasks)
        while running:  # redis-py swallows a cancellation now and then: ask until it is heeded
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=0.5)

    async def _adopt(self, config: Config) -> None:
        """Put a configuration in force: arms and prices at once, policies as versions."""
        if undated := [arm.id for arm in config.arms.arms if arm.prices_checked is None]:
            log.warning(
                "nobody has said when these arms' prices were checked (prices_checked): %s",
                ", ".join(undated),
            )
        for name, wanted in config.policies.items():
            version = await self._registered(name, wanted)
            await self._store.put_catalog(
                name, config.arms.revision, config.arms.to_json(), self._clock_ms()
            )
            await self._challenge(name, version, config)
        self._config = config
        for name in set(self._running) - set(config.policies):
            del self._running[name]
            del self._service.policies[name]
        for name in config.policies:
            await self._refresh(name, config)
            self._swap(name, config)

    async def _registered(self, name: str, wanted: PolicyConfig) -> str:
        """The version of the file's policy: the champion where it is configured alike, so that one
        that was fitted (`pointsman train`) stays what the file says."""
        champion = (await self._store.state(name)).get("champion")
        if champion is not None:
            stored, _ = await self._store.version(name, champion)
            if PolicyConfig.model_validate_json(stored).fingerprint("") == wanted.fingerprint(""):
                return champion
        return await register(self._store, name, wanted, self._clock_ms())

    async def _challenge(self, name: str, version: str, config: Config) -> None:
        """Settle the roles that follow from the file, and say where it isn't what serves."""
        wanted, share = config.challengers.get(name), config.shares.get(name, 0.0)
        challenger = None
        if wanted is not None:
            challenger = await register(self._store, name, wanted, self._clock_ms())
        own = config.policies[name].fingerprint("")
        roles = await self._store.challenge(name, version, challenger, share, self._clock_ms(), own)
        if version != roles.champion:
            log.warning(
                "policy %s: the configuration file is version %s, champion is version %s and "
                "keeps serving; see `pointsman gate --help`",
                name,
                version,
                roles.champion,
            )
        if roles.challenger is not None:
            log.info(
                "policy %s: version %s learns in shadow, with a share of %g of the draw",
                name,
                roles.challenger,
                roles.share,
            )
        if challenger is not None and challenger == roles.challenger and share != roles.share:
            log.warning(
                "policy %s: the file's share of %g isn't in force since it was set to %g later on; "
                "it acts when it changes",
                name,
                share,
                roles.share,
            )

    async def _refresh(self, name: str, config: Config) -> None:
        """Load what is new of one policy and swap it in; does nothing when nothing is."""
        self._service.alarms[name] = await self._store.alarm(name)
        roles = await self._store.roles(name)
        before = self._running.get(name)
        champion = await self._newest(name, roles.champion, before)
        running = _Running(champion, await self._challenger(name, roles, before), roles.share)
        if running != before:
            self._running[name] = running
            if self._config is None or self._config is config:  # else a newer file swaps
                self._swap(name, config)

    def _swap(self, name: str, config: Config) -> None:
        running = self._running[name]
        challenger = running.challenger
        self._service.policies[name] = _built(name, running.champion, config).beside(
            None if challenger is None else _built(name, challenger, config), running.share
        )

    async def _challenger(self, name: str, roles: Roles, before: _Running | None) -> _Loaded | None:
        """What learns in shadow; whatever is wrong with it must not keep the champion back."""
        if roles.challenger is None:
            return None
        try:
            return await self._newest(name, roles.challenger, before)
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("policy %s: can't load challenger %s", name, roles.challenger)
            return before.of(roles.challenger) if before is not None else None

    async def _newest(self, name: str, version: str, running: _Running | None) -> _Loaded:
        """A version with its newest snapshot: what is loaded already, if it has that."""
        before = running.of(version) if running is not None else None
        number = await self._store.snapshot_number(name, version)
        if before is not None and before.number == number:
            return before
        return await self._load(name, version, number, before)

    async def _load(self, name: str, version: str, number: int, before: _Loaded | None) -> _Loaded:
        if before is not None:
            config, encoder = before.config, before.encoder
        else:
            stored_config, stored_encoder = await self._store.version(name, version)
            config = PolicyConfig.model_validate_json(stored_config)
            try:
                encoder = Encoder.from_bytes(stored_encoder)
            except ValueError as error:
                raise ValueError(
                    f"policy {name!r}: version {version} can't be served: {error} (what another "
                    "release of Pointsman stored can't be read; use a fresh POINTSMAN_DATA)"
                ) from error
        if number == 0:
            view = models.prior_view(config, encoder)
            return _Loaded(version, 0, config, encoder, view, Scoreboard())
        number, blob = await self._store.snapshot(name, version)
        header, body = unpack(blob)
        if header.encoder != encoder.fingerprint:
            raise ValueError(f"snapshot {number} of version {version} has another encoder")
        view = None if config.model in models.NO_VALUES else models.read_view(header.kind, body)
        scores = Scoreboard.from_record(header.scores)
        return _Loaded(version, number, config, encoder, view, scores)

    async def _follow_store(self) -> None:
        async for _ in self._store.hints(list(self._running), POLL_S):
            for name in list(self._running):
                await self._attempt(name)

    async def _attempt(self, name: str) -> None:
        """One refresh; whatever is wrong with it, the policy that runs goes on running."""
        config = self._config
        if config is None or name not in config.policies:
            return
        try:
            await self._refresh(name, config)
        except StoreUnavailable as error:
            log.warning("policy %s: %s; serving the last snapshot", name, error)
        except Exception:
            log.exception("policy %s: can't load the newest snapshot", name)

    async def _follow_file(self) -> None:
        pending: Config | None = None
        while True:
            await asyncio.sleep(POLL_S)
            try:
                if self._file.changed():
                    pending = self._file.read()
                if pending is not None:
                    await self._adopt(pending)
                    pending = None
                    log.info("configuration reloaded")
            except ConfigError as error:
                log.error("configuration not reloaded, the old one stays in force: %s", error)
            except StoreUnavailable as error:
                log.warning("configuration not reloaded yet: %s", error)
            except Exception:
                pending = None
                log.exception("configuration not reloaded, the old one stays in force")


async def register(store: Store, name: str, config: PolicyConfig, now_ms: int) -> str:
    """The version of a policy's configuration, registered if it is new."""
    encoder = models.default_encoder(config)
    return await store.register(
        name,
        config.fingerprint(encoder.fingerprint),
        config.model_dump_json().encode(),
        encoder.to_bytes(),
        now_ms,
    )


def _built(name: str, loaded: _Loaded, config: Config) -> Policy:
    return policies.build(
        name,
        loaded.version,
        loaded.number,
        config=current(loaded.config, config.policies[name]),
        encoder=loaded.encoder,
        catalog=config.arms,
        view=loaded.view,
        scores=loaded.scores,
    )

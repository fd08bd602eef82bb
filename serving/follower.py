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
from policy import models
from policy import policy as policies
from policy.config import Config, ConfigError, PolicyConfig, current
from policy.snapshot import unpack
from policy.values import ValuesView
from serving.config_file import ConfigFile
from serving.service import Service
from serving.store import Store, StoreUnavailable

log = logging.getLogger(__name__)

POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What of a running policy came from the store."""

    version: str
    number: int
    config: PolicyConfig
    encoder: Encoder
    view: ValuesView | None


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
        self._loaded: dict[str, _Loaded] = {}
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _adopt(self, config: Config) -> None:
        """Put a configuration in force: arms and prices at once, policies as versions."""
        for name, wanted in config.policies.items():
            version = await register(self._store, name, wanted, self._clock_ms())
            await self._store.put_catalog(
                name, config.arms.revision, config.arms.to_json(), self._clock_ms()
            )
            champion = (await self._store.state(name))["champion"]
            if version != champion:
                log.warning(
                    "policy %s: the configuration file is version %s, champion is version %s and "
                    "keeps serving; see `pointsman promote --help`",
                    name,
                    version,
                    champion,
                )
        self._config = config
        for name in set(self._loaded) - set(config.policies):
            del self._loaded[name]
            del self._service.policies[name]
        for name in config.policies:
            await self._refresh(name, config)
            self._swap(name, config)

    async def _refresh(self, name: str, config: Config) -> None:
        """Load what is new of one policy and swap it in; does nothing when nothing is."""
        champion = (await self._store.state(name))["champion"]
        number = await self._store.snapshot_number(name, champion)
        loaded = self._loaded.get(name)
        if loaded is None or (loaded.version, loaded.number) != (champion, number):
            self._loaded[name] = await self._load(name, champion, number, loaded)
            if self._config is None or self._config is config:  # else a newer file swaps
                self._swap(name, config)

    def _swap(self, name: str, config: Config) -> None:
        loaded = self._loaded[name]
        self._service.policies[name] = policies.build(
            name,
            loaded.version,
            loaded.number,
            config=current(loaded.config, config.policies[name]),
            encoder=loaded.encoder,
            catalog=config.arms,
            view=loaded.view,
        )

    async def _load(self, name: str, version: str, number: int, before: _Loaded | None) -> _Loaded:
        if before is not None and before.version == version:
            config, encoder = before.config, before.encoder
        else:
            stored_config, stored_encoder = await self._store.version(name, version)
            config = PolicyConfig.model_validate_json(stored_config)
            encoder = Encoder.from_bytes(stored_encoder)
        if number == 0:
            return _Loaded(version, 0, config, encoder, models.prior_view(config, encoder))
        number, blob = await self._store.snapshot(name, version)
        header, body = unpack(blob)
        if header.encoder != encoder.fingerprint:
            raise ValueError(f"snapshot {number} of version {version} has another encoder")
        return _Loaded(version, number, config, encoder, models.read_view(header.kind, body))

    async def _follow_store(self) -> None:
        async for _ in self._store.hints(list(self._loaded), POLL_S):
            for name in list(self._loaded):
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

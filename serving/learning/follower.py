"""Keeps the running policies up to date: configuration file, champion, snapshots. Decides nothing.

A policy is replaced whole, so that a request sees one version, snapshot and catalog throughout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from policy import policy as policies
from policy.config.problems import ConfigError
from policy.config.schema import Config, current
from policy.policy import Policy
from serving.learning.loading import Loaded, Running, load_running
from serving.learning.registering import register_policy
from serving.processes.config_file import ConfigFile
from serving.service import Service
from serving.store.keys import StoreUnavailable
from serving.store.versions import VersionStore

log = logging.getLogger(__name__)

POLL_S = 1.0


class Follower:
    """Fills `service.policies` and keeps it current until `stop`."""

    def __init__(
        self, service: Service, store: VersionStore, config_path: Path, clock_ms: Callable[[], int]
    ) -> None:
        self._service = service
        self._store = store
        self._file = ConfigFile(config_path)
        self._clock_ms = clock_ms
        self._config: Config | None = None
        self._running: dict[str, Running] = {}
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
        for name in config.policies:
            await register_policy(self._store, name, config, self._clock_ms())
        self._config = config
        self._service.fleet.configure(config)
        for name in set(self._running) - set(config.policies):
            del self._running[name]
            del self._service.policies[name]
        for name in config.policies:
            await self._refresh(name, config)
            self._swap(name, config)

    async def _refresh(self, name: str, config: Config) -> None:
        """Load what is new of one policy and swap it in; does nothing when nothing is."""
        self._service.alarms[name] = await self._store.alarm(name)
        before = self._running.get(name)
        running = await load_running(self._store, name, before)
        config = self._config or config  # a newer file may have been adopted meanwhile
        if running != before and name in config.policies:
            self._running[name] = running
            self._swap(name, config)

    def _swap(self, name: str, config: Config) -> None:
        running = self._running[name]
        challenger = running.challenger
        self._service.policies[name] = _built(name, running.champion, config).beside(
            None if challenger is None else _built(name, challenger, config), running.share
        )

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


def _built(name: str, loaded: Loaded, config: Config) -> Policy:
    policy = policies.build(
        name,
        loaded.version,
        loaded.number,
        config=current(loaded.config, config.policies[name]),
        encoder=loaded.encoder,
        catalog=config.arms,
        view=loaded.view,
        standing=loaded.standing,
        plans=loaded.plans,
    )
    return replace(policy, scores=loaded.scores)

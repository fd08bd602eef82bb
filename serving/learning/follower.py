"""Keeps the running policies up to date: configuration file, champion, snapshots. Decides nothing.

A policy is replaced whole, so that a request sees one version, snapshot and catalog throughout.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from policy import policy as policies
from policy.config.problems import ConfigError
from policy.config.schema import Config, current
from policy.policy import Policy
from policy.stored import Unreadable
from serving.learning.loading import Loaded, Running, load_running
from serving.learning.registering import register_policy
from serving.observing import metrics
from serving.observing.logs import about
from serving.processes.config_file import ConfigFile
from serving.service import Service
from serving.store.keys import StoreUnavailable
from serving.store.versions import VersionStore
from serving.store.waiting import end

log = logging.getLogger(__name__)

POLL_S = 1.0


class Follower:
    """Fills `service.policies` and keeps it current until `stop`."""

    def __init__(
        self,
        service: Service,
        store: VersionStore,
        config_path: Path,
        clock_ms: Callable[[], int],
        kept: Path | None = None,
    ) -> None:
        self._service = service
        self._store = store
        self._file = ConfigFile(config_path, kept=kept)
        self._clock_ms = clock_ms
        self._config: Config | None = None
        self._registered: dict[str, frozenset[str]] = {}  # the versions that policies need
        self._serving: dict[str, _Serving] = {}
        self._turn = asyncio.Lock()  # of whoever swaps a policy: the newest comes last
        self._registering = asyncio.Lock()  # so that no look brings back what a file replaces
        self._tasks: list[asyncio.Task[None]] = []
        self._troubles: dict[str, str] = {}  # of a policy: what was last said to be wrong

    async def start(self) -> None:
        """Load everything once, or as soon as the store can be reached, and each policy as soon as
        what is stored of it can be read; then follow in the background.

        Raises
        ------
        ConfigError
            If the configuration file can't be read or says something wrong.
        """
        config = self._file.latest()
        self._service.configured = tuple(config.policies)
        pending: Config | None = None
        try:
            await self._adopt(config)
        except StoreUnavailable as error:
            log.warning("%s: policies are loaded once it is back", error)
            pending = config
        self._tasks = [
            asyncio.create_task(self._follow_store(tuple(config.policies))),
            asyncio.create_task(self._follow_file(pending)),
        ]

    async def stop(self) -> None:
        await end(self._tasks)

    async def _adopt(self, config: Config) -> None:
        """Put a configuration in force: arms and prices at once, policies as versions."""
        async with self._registering:
            for name in config.policies:
                with about(policy=name):
                    try:
                        await self._register(name, config)
                    except (Unreadable, LookupError) as error:
                        self._cannot_read(name, error)
            if undated := [arm.id for arm in config.arms.arms if arm.prices_checked is None]:
                log.warning(
                    "nobody has said when these arms' prices were checked (prices_checked): %s",
                    ", ".join(undated),
                )
            self._config = config
        self._service.configured = tuple(config.policies)
        self._service.fleet.configure(config)
        for name, why in product(config.policies, ("all_out", "unlogged")):
            metrics.degraded(name, why)  # shown before the first
        self._service.unreadable &= set(config.policies)
        for name in set(self._serving) - set(config.policies):
            del self._serving[name]
            del self._service.policies[name]
            metrics.SNAPSHOT_CHECKED.labels(name).set(math.nan)  # nothing to be late with
        for name in config.policies:
            with about(policy=name):
                try:
                    await self._refresh(name)
                except StoreUnavailable:
                    raise
                except Exception as error:  # the others needn't wait for it
                    self._cannot_read(name, error)

    async def _register(self, name: str, config: Config) -> None:
        now_ms = self._clock_ms()
        self._registered.pop(name, None)
        self._registered[name] = await register_policy(self._store, name, config, now_ms)

    async def _refresh(self, name: str) -> None:
        """Load what is new of one policy, in store or file, and swap it in, if anything is.

        It is put together on a thread, and what it replaces is freed there, so that requests
        needn't wait for either.
        """
        async with self._turn:
            self._service.alarms[name] = await self._store.alarm(name)
            before = self._serving.get(name)
            running = await load_running(self._store, name, before.running if before else None)
            # A newer file may be adopted meanwhile, once or again.
            while (config := self._config) is not None and name in config.policies:
                if before is not None and before.running == running and before.config is config:
                    break
                put = await asyncio.to_thread(_put_together, name, running, config, before)
                if config is self._config:
                    old = [before, self._service.policies.get(name)]
                    before = self._serving[name] = put
                    self._service.policies[name] = put.policy
                    await asyncio.to_thread(old.clear)  # which frees what is large
        self._service.unreadable.discard(name)
        metrics.SNAPSHOT.labels(name).set(running.champion.number)
        metrics.SNAPSHOT_CHECKED.labels(name).set(self._clock_ms() / 1_000)

    async def _follow_store(self, names: Sequence[str]) -> None:
        due = 0.0
        async for _ in self._store.hints(names, POLL_S):
            whole = time.monotonic() >= due
            if whole:
                due = time.monotonic() + POLL_S
            for name in self._config.policies if self._config is not None else ():
                with about(policy=name):
                    await self._attempt(name, whole=whole)

    async def _attempt(self, name: str, *, whole: bool = True) -> None:
        """One refresh, and where it is to be `whole` a look at what was registered; whatever is
        wrong with it, the policy that runs goes on running."""
        try:
            async with self._registering:
                config = self._config
                if config is None or name not in config.policies:
                    return
                registered = self._registered.get(name)
                if registered is None:  # what was stored couldn't be read
                    await self._register(name, config)
                elif whole and not await self._store.holds(name, config.arms.revision, registered):
                    log.error(
                        "policy %s: what was registered is lost, or damaged; it is again", name
                    )
                    await self._register(name, config)
            await self._refresh(name)
            self._troubles.pop(name, None)
        except StoreUnavailable as error:
            self._tell(name, str(error))
        except Exception as error:
            self._cannot_read(name, error)

    def _cannot_read(self, name: str, error: Exception) -> None:
        """Say what is wrong with what is stored of a policy; a surprise, with its traceback."""
        if name not in self._serving:
            self._service.unreadable.add(name)
        if isinstance(error, ValueError | LookupError):
            self._tell(name, f"can't read what is stored: {error}")
        else:
            log.error("policy %s: can't load what is stored", name, exc_info=error)

    def _tell(self, name: str, trouble: str) -> None:
        """Once, until it is over or another one."""
        if self._troubles.get(name) != trouble:
            until = "serving the last snapshot" if name in self._serving else "it isn't served yet"
            log.warning("policy %s: %s; %s", name, trouble, until)
        self._troubles[name] = trouble

    async def _follow_file(self, pending: Config | None) -> None:
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


@dataclass(frozen=True, slots=True)
class _Serving:
    """A policy as it serves, and what it was put together from."""

    running: Running
    config: Config
    policy: Policy

    def of(self, loaded: Loaded, config: Config) -> Policy | None:
        """What of it needn't be put together again."""
        if config is not self.config:
            return None
        if loaded is self.running.champion:
            return self.policy.beside(None, 0.0)
        return self.policy.challenger if loaded is self.running.challenger else None


def _put_together(name: str, running: Running, config: Config, before: _Serving | None) -> _Serving:
    def built(loaded: Loaded) -> Policy:
        kept = None if before is None else before.of(loaded, config)
        return kept or _built(name, loaded, config)

    challenger = None if running.challenger is None else built(running.challenger)
    policy = built(running.champion).beside(challenger, running.share)
    return _Serving(running, config, policy)


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
    )
    return replace(policy.expecting(loaded.plans), scores=loaded.scores)

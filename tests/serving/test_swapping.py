"""What the follower does while it swaps a policy: nothing that a request has to wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from features.encoder import Encoder
from policy.arms.catalog import Catalog
from policy.config import toml
from policy.config.schema import Config
from policy.config.versions import read_config
from policy.policy import Policy
from serving.learning import follower
from serving.learning.fold import Fold
from serving.learning.follower import Follower
from serving.learning.loading import Loaded
from serving.service import Service
from serving.store.learning import LearnerStore
from serving.store.states import Change
from serving.store.traffic import Store
from tests.serving.challenging import config

SLOW_S = 0.3
BUILD = follower._built


@asynccontextmanager
async def following(redis_url: str, path: Path) -> AsyncIterator[tuple[Follower, Service]]:
    """A follower that looks at the store when it is told to."""
    store = Store(redis_url)
    service = Service(store, lambda: 0)
    made = Follower(service, store.versions, path, lambda: 0)
    await made.start()
    await made.stop()
    try:
        yield made, service
    finally:
        await store.close()


def written(folder: Path, text: str) -> Path:
    path = folder / "pointsman.toml"
    path.write_text(text)
    return path


def publish(redis_url: str, version: str) -> None:
    """A snapshot of a version that differs from the one before by its number."""
    with closing(LearnerStore(redis_url, "default")) as learner:
        stored, encoder = learner.version(version)
        wanted = read_config(stored)
        fold = Fold.resume(version, wanted, Encoder.from_bytes(encoder), None, nothing)
        token = learner.acquire()
        learner.commit(token, version, snapshot=Change(fold.snapshot()))
        learner.release(token)


def nothing(revision: str) -> Catalog:
    raise LookupError(revision)


def test_requests_are_answered_while_a_snapshot_is_put_together(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """However long that takes: the event loop goes on turning."""

    def slow(name: str, loaded: Loaded, config: Config) -> Policy:
        time.sleep(SLOW_S)
        return BUILD(name, loaded, config)

    async def turns() -> int:
        async with following(redis_url, written(tmp_path, config("", None))) as (made, service):
            monkeypatch.setattr(follower, "_built", slow)
            await asyncio.to_thread(publish, redis_url, "1")
            looking, count = asyncio.create_task(made._attempt("default")), 0
            while not looking.done():
                await asyncio.sleep(SLOW_S / 30)
                count += 1
            assert service.policies["default"].snapshot == 1
            return count

    assert asyncio.run(turns()) > 10


def test_what_is_not_new_is_not_put_together_again(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A challenger's snapshot leaves the champion as it is, and one that nobody follows nothing."""
    built: list[str] = []

    def counted(name: str, loaded: Loaded, config: Config) -> Policy:
        built.append(loaded.version)
        return BUILD(name, loaded, config)

    async def followed() -> Service:
        path = written(tmp_path, config("", "scale = 0.5"))
        async with following(redis_url, path) as (made, service):
            monkeypatch.setattr(follower, "_built", counted)
            await made._attempt("default")
            assert built == []
            for version in ("2", "1"):
                await asyncio.to_thread(publish, redis_url, version)
                await made._attempt("default")
            return service

    policy = asyncio.run(followed()).policies["default"]
    assert built == ["2", "1"]
    assert policy.challenger is not None
    assert (policy.snapshot, policy.challenger.snapshot) == (1, 1)
    assert policy.challenger.challenger is None


def test_a_file_that_is_adopted_while_a_policy_is_put_together_acts(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What was put together for the older one is never served."""
    newer = toml.parse(config("floor = 0.02", None), "a newer file")

    async def overtaken() -> float:
        async with following(redis_url, written(tmp_path, config("", None))) as (made, service):

            def slow(name: str, loaded: Loaded, config: Config) -> Policy:
                made._config = newer
                return BUILD(name, loaded, config)

            monkeypatch.setattr(follower, "_built", slow)
            await asyncio.to_thread(publish, redis_url, "1")
            await made._attempt("default")
            assert made._serving["default"].config is newer
            return service.policies["default"].snapshot

    assert asyncio.run(overtaken()) == 1

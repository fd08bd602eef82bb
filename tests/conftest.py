"""Fixtures that need a real Redis-protocol server: one per session, emptied before each test."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as examples

from offline_eval.registry import Registry
from serving.processes.embedded import Embedded
from serving.settings import Settings
from tests.servers import http_service, settings_for

# How long an example takes says how busy the machine is, and the same examples make a failure one
# that can be had again.
examples.register_profile(
    "pointsman", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
examples.load_profile("pointsman")


@pytest.fixture(scope="session", autouse=True)
def plain_children() -> Iterator[None]:
    """Processes that tests start can be interrupted, though a shell starts what runs in the
    background with SIGINT ignored; and they keep their bytecode, rather than compile all of it
    each time."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    server = Embedded(tmp_path_factory.mktemp("valkey"), fsync="everysec", max_memory_mb=256)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(embedded: Embedded) -> str:
    """The address of an empty store."""
    with redis.Redis.from_url(embedded.url) as client:
        client.flushall()
    return embedded.url


@pytest.fixture(scope="module")
def module_url(embedded: Embedded) -> str:
    """The address of a store that is empty when the module's tests begin: no keys of others."""
    with redis.Redis.from_url(embedded.url) as client:
        client.flushall()
    return embedded.url


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client, to look at what is really stored."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return settings_for(redis_url, tmp_path)


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a running service on an empty store."""
    with http_service(settings) as client:
        yield client


@pytest.fixture(scope="session")
def new_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty MLflow store: making its tables takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{path}").versions("default")
    return path


@pytest.fixture
def mlflow_uri(new_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow store of the test's own, and MLFLOW_TRACKING_URI names it."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    shutil.copy(new_mlflow, folder)
    uri = f"sqlite:///{folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri

"""A second server, to restore into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from serving.processes.embedded import Embedded


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    server = Embedded(tmp_path_factory.mktemp("other"), fsync="everysec", max_memory_mb=256)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def other_url(other_server: Embedded) -> str:
    """The address of another empty store."""
    with redis.Redis.from_url(other_server.url) as client:
        client.flushall()
    return other_server.url

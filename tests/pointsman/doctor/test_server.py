"""What `pointsman doctor` says of a Redis server, asked of a real one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from pointsman.doctor.finding import Finding
from pointsman.doctor.server import checked
from serving.processes.embedded import Embedded
from serving.store.keys import StoreUnavailable
from serving.store.operating.server import Server, look
from tests.servers import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One of these tests' own, whose settings they change."""
    server = Embedded(tmp_path_factory.mktemp("examined"), fsync="everysec", max_memory_mb=64)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: Embedded) -> Iterator[redis.Redis]:
    """All settings are again as they were afterwards."""
    with redis.Redis.from_url(server.url) as client:
        before = dict(client.config_get("*").items())
        yield client
        client.replicaof("NO", "ONE")
        for name, value in client.config_get("*").items():
            if before[name] != value:
                client.config_set(name, before[name])


def seen_on(server: Embedded) -> Server:
    (seen,) = look(server.url).values()
    return seen


def of(found: list[Finding], check: str) -> Finding:
    (one,) = (finding for finding in found if finding.check == check)
    return one


@pytest.mark.usefixtures("client")
def test_an_embedded_server_is_fine(server: Embedded):
    """As `pointsman up` starts it; and a clock agrees with itself."""
    found = checked(seen_on(server))
    assert {finding.level for finding in found} == {"ok"}
    assert [finding.check for finding in found] == ["redis", "persistence", "memory", "clock"]


@pytest.mark.parametrize(
    ("setting", "check", "level", "says"),
    [
        ({"appendonly": "no"}, "persistence", "fault", "a restart of Redis loses everything"),
        ({"appendonly": "no", "save": "60 1"}, "persistence", "warning", "snapshots only"),
        ({"appendfsync": "no"}, "persistence", "warning", "half a minute"),
        ({"maxmemory": "0"}, "memory", "warning", "there is no cap"),
        ({"maxmemory-policy": "allkeys-lru"}, "memory", "fault", "evicts keys"),
        ({"min-replicas-to-write": "1"}, "redis", "fault", "with fewer than 1"),
    ],
    ids=str,
)
def test_a_setting_that_loses_data_is_named(
    server: Embedded,
    client: redis.Redis,
    setting: dict[str, str],
    check: str,
    level: str,
    says: str,
):
    """With what it costs, and what to set instead."""
    for name, value in setting.items():
        client.config_set(name, value)
    finding = of(checked(seen_on(server)), check)
    assert finding.level == level
    assert says in finding.what
    assert finding.do


@pytest.mark.parametrize(("share", "level"), [(0.9, "warning"), (0.99, "fault")])
def test_memory_that_ends_is_told_before_it_does(
    server: Embedded, client: redis.Redis, share: float, level: str
):
    """Beyond the cap nothing is written any more."""
    client.set("ballast", bytes(8 * 2**20))
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] / share))
    finding = of(checked(seen_on(server)), "memory")
    client.config_set("maxmemory", "64mb")
    client.delete("ballast")
    assert (finding.level, "writes answer 503" in finding.what) == (level, True)


def test_a_replica_is_no_server_to_write_to(server: Embedded, client: redis.Redis):
    """It would refuse every decision."""
    client.replicaof("127.0.0.1", "1")
    assert of(checked(seen_on(server)), "redis").level == "fault"


@pytest.mark.usefixtures("client")
def test_replicas_that_decisions_wait_for_must_be_there(server: Embedded):
    """Else each of them is a 503."""
    finding = of(checked(seen_on(server), wait_replicas=1), "redis")
    assert (finding.level, "POINTSMAN_WAIT_REPLICAS" in finding.do) == ("fault", True)


def test_persistence_that_failed_is_named(server: Embedded, client: redis.Redis):
    """Though the server goes on answering."""
    in_its_place = Path(client.config_get("dir")["dir"], "dump.rdb", "in its place")
    in_its_place.mkdir(parents=True)
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "it has failed")
    finding = of(checked(seen_on(server)), "persistence")
    shutil.rmtree(in_its_place.parent)
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", "it is well again")
    assert finding.level == "fault"
    assert finding.what == "the last snapshot failed when it was last tried"


@pytest.mark.parametrize(
    ("skew_ms", "level"), [(400, "ok"), (-700, "warning"), (2_600, "fault"), (-9e5, "fault")]
)
@pytest.mark.usefixtures("client")
def test_clocks_that_differ_are_told(server: Embedded, skew_ms: float, level: str):
    """Beyond what the answer took, and as a fault where windows are judged wrongly."""
    seen = seen_on(server)
    assert abs(seen.skew_ms) <= seen.unsure_ms + 50
    skewed = replace(seen, skew_ms=skew_ms, unsure_ms=1.0)
    assert of(checked(skewed), "clock").level == level


def test_a_server_that_is_not_there_is_an_error():
    """For `examine` to tell."""
    with pytest.raises(StoreUnavailable, match="can't be reached"):
        look("redis://127.0.0.1:1")

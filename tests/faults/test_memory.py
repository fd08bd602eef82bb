"""Redis at its memory limit: callers are refused, and whoever frees memory can do so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import redis

from pointsman.archiver import Window, archive_burst
from serving.store.archiving import ArchiverStore
from tests.faults import places
from tests.faults.conftest import Recovered
from tests.faults.places import behind_proxy, frozen
from tests.servers import drive, learn_all, until

STREAMS = ("pm:{default}:decisions", "pm:{default}:outcomes")


@pytest.fixture
def full(raw: redis.Redis) -> Iterator[None]:
    """Writes are refused from when a test says so."""
    before = raw.config_get("maxmemory")["maxmemory"]
    yield
    raw.config_set("maxmemory", before)


@pytest.mark.usefixtures("full")
def test_what_is_learned_and_archived_leaves_a_full_server(
    http: httpx.Client, redis_url: str, raw: redis.Redis, tmp_path: Path
):
    """Learner and archiver take their leases and write what lets the streams be trimmed, what
    silence means among it."""
    drive(http, 20)
    silent = http.post("/route", json={"query": {"text": "never rewarded"}}).json()["decision_id"]
    raw.config_set("maxmemory", 1)
    refused = http.post("/route", json={"query": {"text": "?"}})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/store-unavailable")
    with closing(ArchiverStore(redis_url, "default")) as store:
        assert store.assume([silent], 0.0, "0-1", store.now_ms(), 1) == 1
        store.unsweep()
    assert learn_all(redis_url) == 21
    archive_burst(redis_url, str(tmp_path / "log"), {"default": Window(0)})
    assert [raw.xlen(stream) for stream in STREAMS] == [1, 1]


@pytest.mark.faults
def test_a_server_that_is_full_comes_back_by_itself(tmp_path: Path, recovered: Recovered):
    """The archiver hangs until Redis is full, under traffic; then it frees what it has archived."""
    with behind_proxy(tmp_path) as place:
        with place.traffic() as traffic, closing(place.server.client()) as client:
            traffic.reach(200)
            recovery = place.recovery(traffic)
            with frozen(places.found("archiver", place.process.pid)):
                traffic.reach(traffic.ledger.acknowledged + 400)
                limit = client.info("memory")["used_memory"] + 500_000
                client.config_set("maxmemory", limit)
                until(lambda: traffic.ledger.answers[503] > 20, "it is full", 30.0)
                time.sleep(2.0)
            recovery.restart()
            recovered(recovery.took())
            client.config_set("maxmemory", 0)
        place.verify(traffic)
    assert traffic.ledger.answers.keys() == {200, 503}

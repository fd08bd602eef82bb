"""What `pointsman doctor` says of learner and archiver, on a real store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from pointsman.archiver import Window, archive_burst
from pointsman.doctor.following import checked
from serving.settings import Settings
from serving.store.archiving import ArchiverStore
from serving.store.learning import LearnerStore
from serving.store.operating.standing import StandingStore
from tests.servers import drive, http_service, learn_all


@pytest.fixture
def store(settings: Settings) -> Iterator[StandingStore]:
    """Of a policy with some traffic, which nobody learns or archives."""
    with http_service(settings) as http:
        drive(http, 3)
    with closing(StandingStore(settings.redis_url or "", "default")) as store:
        yield store


def told(store: StandingStore, settings: Settings) -> list[tuple[str, str, str]]:
    return [(f.check, f.level, f.what) for f in checked(store, "default", settings)]


def test_what_nobody_follows_is_a_fault(store: StandingStore, settings: Settings):
    """Nothing would be learned, and Redis would fill."""
    assert told(store, settings) == [
        ("learner", "fault", "default: no learner runs: nothing is learned"),
        ("archiver", "fault", "default: no archiver runs: Redis keeps everything"),
    ]


@pytest.mark.parametrize(("age_s", "level"), [(90, "warning"), (3_600, "fault")])
def test_those_that_run_and_are_behind_are_told(
    store: StandingStore, settings: Settings, raw: redis.Redis, age_s: int, level: str
):
    """Each with how long the oldest entry has waited; and nothing once they have caught up."""
    url = settings.redis_url or ""
    for stream in ("decisions", "outcomes"):
        entries = raw.xrange(f"pm:{{default}}:{stream}")
        raw.delete(f"pm:{{default}}:{stream}")
        for i, (_, fields) in enumerate(entries):
            raw.xadd(f"pm:{{default}}:{stream}", fields, f"{int((time.time() - age_s) * 1000)}-{i}")
    with (
        closing(LearnerStore(url, "default")) as learner,
        closing(ArchiverStore(url, "default")) as archiver,
    ):
        tokens = learner.acquire(), archiver.acquire()
        found = told(store, settings)
        assert [(check, how) for check, how, _ in found] == [
            ("learner", level),
            ("archiver", level),
        ]
        assert f"version 1 has not learned for {age_s:,}" in found[0][2]
        assert f"not archived for {age_s:,}" in found[1][2]
        learner.release(tokens[0])
        archiver.release(tokens[1])
        learn_all(url)
        archive_burst(url, settings.log_path(), {"default": Window(3_600_000)})
        learner.acquire()
        archiver.acquire()
        assert told(store, settings) == [
            ("learner", "ok", "default: up to date"),
            ("archiver", "ok", "default: up to date"),
        ]


def test_a_log_of_another_service_is_a_fault(store: StandingStore, settings: Settings):
    """The archiver would refuse it; so does the doctor, before it is started."""
    url = settings.redis_url or ""
    archive_burst(url, settings.log_path(), {"default": Window(3_600_000)})
    with redis.Redis.from_url(url) as client:
        client.hset("pm:{default}:state", "origin", "another")
    assert any("belongs to another service" in what for _, _, what in told(store, settings))


def test_a_log_that_cannot_be_read_is_a_fault(store: StandingStore, settings: Settings):
    """With the file that is wrong."""
    folder = Path(settings.log_path()) / "policy=default"
    folder.mkdir(parents=True)
    (folder / "_position.json").write_text("{")
    assert any("_position.json" in what for _, _, what in told(store, settings))

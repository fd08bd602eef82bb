"""What `pointsman doctor` says of what is stored in a format that isn't this release's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from pointsman.archiver import Window, archive_burst
from pointsman.doctor.examining import examine
from pointsman.doctor.stored import REACH, checked
from serving.settings import Settings
from serving.store.operating.standing import StandingStore
from tests.servers import drive, http_service, learn_all

FORMATS = Path(__file__).parents[2] / "data" / "formats"
KEY = "pm:{default}:"


@pytest.fixture
def store(settings: Settings) -> Iterator[StandingStore]:
    """Of a policy that has decided, learned and archived."""
    with http_service(settings) as http:
        drive(http, 3)
        learn_all(settings.redis_url or "")
        archive_burst(settings.redis_url or "", settings.log_path(), {"default": Window(3_600_000)})
        drive(http, 1)
    with closing(StandingStore(settings.redis_url or "", "default")) as store:
        yield store


def test_what_this_release_has_written_it_can_read(store: StandingStore, settings: Settings):
    """Nothing to say."""
    assert [one.level for one in checked(store, "default", settings.log_path())] == ["ok"]


def _flip(raw: redis.Redis) -> None:
    head = bytearray(raw.hget(KEY + "checkpoint:1", "head") or b"")
    head[-1] ^= 1
    raw.hset(KEY + "checkpoint:1", "head", bytes(head))


def _lose_a_part(raw: redis.Redis) -> None:
    parts = [name for name in raw.hkeys(KEY + "snapshot:1") if name.startswith(b"part:")]
    raw.hdel(KEY + "snapshot:1", max(parts, key=lambda name: raw.hstrlen(KEY + "snapshot:1", name)))


def _decision(raw: redis.Redis) -> None:
    fields = raw.xrevrange(KEY + "decisions", count=1)[0][1]
    raw.xadd(KEY + "decisions", {**fields, b"record": (FORMATS / "decision-0.json").read_bytes()})


def test_what_it_cannot_read_is_a_fault(store: StandingStore, settings: Settings, raw: redis.Redis):
    """Each by name, before anybody stumbles over it."""
    _flip(raw)
    _lose_a_part(raw)
    _decision(raw)
    for field, name in (("config", "version-0.json"), ("encoder", "encoder-1.bin")):
        raw.hset(KEY + "version:1", field, (FORMATS / name).read_bytes())
    revision = (raw.hget(KEY + "state", "catalog") or b"").decode()
    raw.set(f"{KEY}catalog:{revision}", (FORMATS / "catalog-0.json").read_bytes())
    found = checked(store, "default", settings.log_path())
    assert {one.level for one in found} == {"fault"}
    assert [one.what.split(": ")[1] for one in found] == [
        "the catalog",
        "version 1's configuration",
        "version 1's encoder",
        "version 1's checkpoint",
        "version 1's snapshot",
        "the newest decision",
    ]
    assert "a catalog without a format number" in found[0].what
    assert "restart the learner" in found[4].do
    assert all("restore a backup" in one.do for one in found if one is not found[4])
    seen = {finding.check for finding in examine(settings)}
    assert {"stored", "learner", "archiver", "mlflow"} <= seen


def test_a_log_of_another_format_is_a_fault(store: StandingStore, settings: Settings):
    """By its newest file."""
    (newest,) = Path(settings.log_path()).glob("outcomes/**/*.parquet")
    newest.write_bytes((FORMATS / "log-outcomes-3.parquet").read_bytes())
    (fault,) = checked(store, "default", settings.log_path())
    assert fault.what.startswith("default: the log's outcomes: ")
    assert "copy of the log" in fault.do


def test_a_log_that_cannot_be_reached_is_a_fault(store: StandingStore, tmp_path: Path):
    """All else is looked at nevertheless."""
    (tmp_path / "file").touch()
    found = checked(store, "default", str(tmp_path / "file"))
    assert [one.what.split(": ")[1] for one in found] == [
        "the log's decisions",
        "the log's outcomes",
    ]
    assert {one.do for one in found} == {REACH}

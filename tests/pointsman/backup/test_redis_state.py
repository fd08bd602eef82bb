"""All that Redis holds, through a table into another server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis

from pointsman.backup.redis_state import load, save
from serving.store.keys import StoreUnavailable
from serving.store.operating import contents
from serving.store.operating.copying import copy
from tests.servers import until

NOW_MS = 1_700_000_000_000


@pytest.fixture
def other(other_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(other_url) as client:
        yield client


def carried(redis_url: str, other_url: str, folder: Path, now_ms: int = NOW_MS) -> tuple[int, int]:
    table = folder / "redis.parquet"
    saved = save(redis_url, table)
    with table.open("rb") as file:
        return saved.keys, load(file, other_url, now_ms)


@pytest.mark.parametrize("diskless", ["yes", "no"])
def test_every_kind_of_key_comes_over_whole(
    redis_url: str,
    raw: redis.Redis,
    other: redis.Redis,
    other_url: str,
    tmp_path: Path,
    diskless: str,
):
    """Bytes, scores, ids of entries, times to live; others' keys stay where they are. Whichever way
    the server sends its snapshot."""
    raw.config_set("repl-diskless-sync", diskless)
    raw.set("pm:{a}:swept", b"\x00\xff1-1")
    many = {f"f{i}": bytes([i % 256]) * 50 for i in range(3_000)}
    raw.hset("pm:{a}:checkpoint:1", mapping=many)
    raw.zadd("pm:{a}:under_way", {"one": 1.5, "two": 1e15})
    for i in range(1_200):
        raw.xadd("pm:{b}:outcomes", {"a": i, "b": b"\xfe"}, f"{NOW_MS}-{i}")
    raw.xtrim("pm:{b}:outcomes", minid=f"{NOW_MS}-10")
    raw.xdel("pm:{b}:outcomes", f"{NOW_MS}-1199")
    raw.xadd("pm:{b}:decisions", {"a": 1}, "7-7")
    raw.xdel("pm:{b}:decisions", "7-7")
    raw.hset("pm:{a}:decision:x", "record", "{}")
    raw.pexpireat("pm:{a}:decision:x", int(time.time() * 1000) + 3_600_000)
    raw.set("somebody else's", "1")
    assert carried(redis_url, other_url, tmp_path) == (6, 6)
    raw.config_set("repl-diskless-sync", "yes")
    assert other.get("pm:{a}:swept") == b"\x00\xff1-1"
    assert other.hgetall("pm:{a}:checkpoint:1") == {k.encode(): v for k, v in many.items()}
    assert other.zrange("pm:{a}:under_way", 0, -1, withscores=True) == [
        (b"one", 1.5),
        (b"two", 1e15),
    ]
    for stream in ("pm:{b}:outcomes", "pm:{b}:decisions"):
        assert other.xrange(stream) == raw.xrange(stream)
        assert other.xlen(stream) == raw.xlen(stream)
        last = "last-generated-id"
        assert other.xinfo_stream(stream)[last] == raw.xinfo_stream(stream)[last]
    assert other.pexpiretime("pm:{a}:decision:x") == raw.pexpiretime("pm:{a}:decision:x")
    assert other.ttl("pm:{a}:swept") == -1
    assert other.dbsize() == 6


def test_what_has_expired_meanwhile_stays_away(
    redis_url: str, raw: redis.Redis, other: redis.Redis, other_url: str, tmp_path: Path
):
    """A lease is nobody's any more, and an old decision is closed."""
    raw.set("pm:{a}:lease", 3, px=60_000)
    raw.set("pm:{a}:swept", "1-1")
    later_ms = int(time.time() * 1000) + 120_000
    assert carried(redis_url, other_url, tmp_path, later_ms) == (2, 1)
    assert other.keys() == [b"pm:{a}:swept"]


def test_fencing_tokens_go_on_behind_all_that_were_given_out(
    redis_url: str, raw: redis.Redis, other: redis.Redis, other_url: str, tmp_path: Path
):
    """Else a file of the old archiver would count for newer than one of the restored."""
    raw.set("pm:{a}:fence", 7)
    raw.set("pm:{a}:archive_fence", 9)
    carried(redis_url, other_url, tmp_path)
    tokens = [int(other.get(f"pm:{{a}}:{name}") or 0) for name in ("fence", "archive_fence")]
    assert tokens == [7 + contents.AHEAD, 9 + contents.AHEAD]


def test_a_kind_that_is_none_of_ours_stops_a_backup(
    redis_url: str, raw: redis.Redis, tmp_path: Path
):
    """Nothing is left out in silence."""
    raw.rpush("pm:{a}:list", 1)
    with pytest.raises(ValueError, match=r"pm:\{a\}:list is a list"):
        save(redis_url, tmp_path / "redis.parquet")


def test_a_server_that_gives_no_snapshot_says_so(redis_url: str, raw: redis.Redis, tmp_path: Path):
    """As hosted ones do, or one whose user may not."""
    raw.acl_setuser(
        "modest",
        enabled=True,
        passwords=["+x"],
        categories=["+@all"],
        commands=["-sync"],
        keys=["*"],
    )
    url = redis_url.replace("unix://", "unix://modest:x@")
    with pytest.raises(StoreUnavailable, match="gives no snapshot: -NOPERM"):
        save(url, tmp_path / "redis.parquet")
    raw.acl_deluser("modest")


def test_a_copy_is_of_one_moment(redis_url: str, raw: redis.Redis, tmp_path: Path):
    """Whatever is written meanwhile: of two keys that are written together, both are as new."""
    ended = threading.Event()

    def write() -> None:
        with redis.Redis.from_url(redis_url) as client:
            i = 0
            while not ended.is_set():
                i += 1
                client.mset({"pm:{a}:swept": i, "pm:{z}:swept": i})

    for i in range(2_000):
        raw.hset(f"pm:{{m}}:decision:{i}", "record", "x" * 200)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        until(lambda: raw.exists("pm:{z}:swept"), "it writes")
        save(redis_url, tmp_path / "redis.parquet")
    finally:
        ended.set()
        thread.join()
    rows = pq.read_table(tmp_path / "redis.parquet").to_pylist()
    both = [row["value"] for row in rows if row["key"].endswith(b":swept")]
    assert len(both) == 2
    assert both[0] == both[1]


def test_a_disk_that_is_full_is_said(raw: redis.Redis):
    """It isn't Redis that can't be reached."""
    raw.set("pm:{a}:swept", "1-1")
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        copy(raw, Path("/dev/full"))

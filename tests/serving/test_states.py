"""Checkpoints and snapshots in parts: what is written, what is read, what a crash leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis

from policy.values.parts import Part, Parts
from policy.values.snapshot import Header, State, read_head, unpack
from serving.store.learning import LearnerStore
from serving.store.states import Change
from serving.store.traffic import Store

CHECKPOINT, SNAPSHOT = "pm:{default}:checkpoint:1", "pm:{default}:snapshot:1"


@pytest.fixture
def store(redis_url: str) -> Iterator[LearnerStore]:
    opened = LearnerStore(redis_url, "default")
    yield opened
    opened.close()


def state(position: str, **parts: bytes) -> State:
    made = {name: Part.of(data) for name, data in parts.items()}
    return State(Header("linear", "1", "e", position, 1), made)


FIRST = state("1-0", values=b"one", a=b"arm a", b=b"arm b")
SECOND = state("2-0", values=b"two", a=b"arm a", b=b"arm b again")


def written(raw: redis.Redis, key: str) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = raw.hgetall(key)
    return fields


def test_only_what_changed_is_written(store: LearnerStore, raw: redis.Redis):
    """A part that is as it was is left alone; what is read is the whole all the same."""
    token = store.acquire()
    assert store.commit(token, "1", Change(FIRST), Change(FIRST)) == 1
    for key in (CHECKPOINT, SNAPSHOT):
        raw.hset(key, "part:a", b"not looked at")
    later = Change(SECOND, FIRST)
    words = later.arguments(whole=False)[2:]
    assert words[::2] == ["head", "part:values", "part:b"]
    assert store.commit(token, "1", later, later) == 2
    for key in (CHECKPOINT, SNAPSHOT):
        fields = written(raw, key)
        assert fields[b"part:a"] == b"not looked at"
        assert (fields[b"part:values"], fields[b"part:b"]) == (b"two", b"arm b again")
        raw.hset(key, "part:a", b"arm a")
    assert store.checkpoint("1") == store.snapshot("1") == SECOND.pack()


def test_a_server_that_lost_what_was_written_gets_all_of_it(store: LearnerStore, raw: redis.Redis):
    """A failover may go back in time without the learner's noticing: parts of two states never
    make one."""
    token = store.acquire()
    store.commit(token, "1", Change(FIRST), Change(FIRST))
    store.commit(token, "1", Change(state("0-9", values=b"older"), FIRST), Change())
    assert store.commit(token, "1", Change(SECOND, FIRST), Change(SECOND, FIRST)) == 2
    assert store.checkpoint("1") == store.snapshot("1") == SECOND.pack()
    raw.delete(CHECKPOINT)
    store.commit(token, "1", Change(SECOND, SECOND))
    assert store.checkpoint("1") == SECOND.pack()


def test_state_and_position_are_one_write(store: LearnerStore, raw: redis.Redis):
    """A stale learner's is not written, not even in part."""
    stale = store.acquire()
    store.commit(stale, "1", Change(FIRST))
    raw.delete("pm:{default}:lease")
    store.acquire()
    with pytest.raises(RuntimeError, match="no longer the newest"):
        store.commit(stale, "1", Change(SECOND, FIRST), Change(SECOND))
    assert store.checkpoint("1") == FIRST.pack()
    assert store.snapshot("1") is None


def test_a_start_is_written_once(store: LearnerStore, raw: redis.Redis):
    """A version that has begun to learn keeps what it has learned."""
    store.start("1", FIRST, FIRST)
    assert raw.hget(SNAPSHOT, "number") == b"1"
    store.commit(store.acquire(), "1", Change(SECOND), Change(SECOND))
    store.start("1", FIRST, FIRST)
    assert store.checkpoint("1") == store.snapshot("1") == SECOND.pack()
    assert raw.hget(SNAPSHOT, "number") == b"2"
    store.start("2", None, FIRST)
    assert store.checkpoint("2") is None


def test_a_reader_takes_what_it_lacks(redis_url: str, store: LearnerStore, raw: redis.Redis):
    """Of the parts that it has none is read again; a damaged one that it lacks is refused."""
    store.commit(store.acquire(), "1", Change(), Change(SECOND))

    async def read(have: Parts) -> tuple[int, State]:
        reader = Store(redis_url)
        try:
            return await reader.versions.snapshot("default", "1", have)
        finally:
            await reader.close()

    assert asyncio.run(read({})) == (1, SECOND)
    raw.hset(SNAPSHOT, "part:a", b"damaged")
    assert asyncio.run(read(FIRST.parts)) == (1, SECOND)
    with pytest.raises(ValueError, match="part 'a' of 5 bytes fails its checksum"):
        asyncio.run(read({}))
    raw.hdel(SNAPSHOT, "part:a")
    with pytest.raises(ValueError, match="checksum"):
        unpack(store.snapshot("1") or b"")


def test_a_reader_is_overtaken_by_a_writer(redis_url: str, store: LearnerStore):
    """Parts that a newer snapshot has replaced are not put under an older one's head: it takes the
    newer one."""
    token = store.acquire()
    store.commit(token, "1", Change(), Change(FIRST))

    async def overtaken() -> tuple[int, State]:
        reader = Store(redis_url)
        connection = reader.versions._redis
        ask, asked = connection.hmget, 0

        async def slow(*given: object) -> object:
            nonlocal asked
            reply = await ask(*given)
            asked += 1
            if asked == 1:
                store.commit(token, "1", Change(), Change(SECOND, FIRST))
            return reply

        connection.hmget = slow
        try:
            return await reader.versions.snapshot("default", "1")
        finally:
            await reader.close()

    assert asyncio.run(overtaken()) == (2, SECOND)


def test_a_head_tells_the_position_alone():
    """Without the parts, and of a packed state likewise."""
    assert read_head(FIRST.head()).header == read_head(FIRST.pack()).header == FIRST.header
    assert unpack(FIRST.pack()) == FIRST

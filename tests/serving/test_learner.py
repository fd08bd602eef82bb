"""Exactly-once learning: positions, leases, late and partial events, on a real stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
import redis

from policy.arms.catalog import Catalog
from policy.records import positions
from policy.values.snapshot import MAGIC, Header, State, read_head, unpack
from serving.learning.events import batch_of
from serving.learning.learner import Learner
from serving.store.keys import Keys, StaleLease, StoreUnavailable
from serving.store.learning import LearnerStore
from serving.store.states import Change
from tests.servers import assert_same_state, drive, fold_again, learn_all, until

CHECKPOINT, SNAPSHOT = "pm:{default}:checkpoint:1", "pm:{default}:snapshot:1"
OLD = Change(State(Header("linear", "1", "e", "1-0", 1), {}))


@pytest.fixture
def store(redis_url: str) -> Iterator[LearnerStore]:
    opened = LearnerStore(redis_url, "default")
    yield opened
    opened.close()


def learner(store: LearnerStore) -> Learner:
    return Learner(store, "default", publish_interval_s=0.01, checkpoint_interval_s=0.05)


def test_every_event_is_folded_once(http: httpx.Client, redis_url: str, store: LearnerStore):
    """Draining in three bursts leaves the state of one undisturbed fold."""
    for _ in range(3):
        drive(http, 7)
        assert learn_all(redis_url) == 7
    assert learn_all(redis_url) == 0
    header = unpack(store.checkpoint("1") or b"").header
    assert header.events == 21
    assert_same_state(store.checkpoint("1"), fold_again(store))


def test_a_killed_learner_repeats_nothing(http: httpx.Client, store: LearnerStore, redis_url: str):
    """What was folded after the last checkpoint is folded again, from that checkpoint."""
    drive(http, 5)
    assert learn_all(redis_url) == 5
    drive(http, 5)
    crashed = learner(store)
    crashed._token = store.acquire()
    crashed._follow_roles()
    assert crashed._read(block_ms=None) == {"1": 5}  # and dies here: nothing was saved
    store.release(crashed._token)
    assert learn_all(redis_url) == 5
    assert_same_state(store.checkpoint("1"), fold_again(store))


def test_a_second_learner_is_refused(http: httpx.Client, store: LearnerStore, redis_url: str):
    """Two learners never both write: the lease is held by one."""
    drive(http, 1)
    token = store.acquire()
    with pytest.raises(StaleLease, match="holds the lease"):
        learn_all(redis_url)
    store.release(token)
    assert learn_all(redis_url) == 1


def test_a_clock_that_went_back_keeps_no_lease_alive(store: LearnerStore, raw: redis.Redis):
    """Redis ends a lease at a time of its clock. A dead holder's that would last for an hour lasts
    for its time to live from when the next one asks."""
    assert store.acquire()
    raw.pexpire(Keys("default").lease, 3_600_000)
    assert store.acquire() == 0
    assert raw.pttl(Keys("default").lease) <= store.lease_ms


def test_a_learner_that_was_overtaken_writes_nothing(
    http: httpx.Client, store: LearnerStore, raw: redis.Redis
):
    """A stale fencing token is refused, even when the lease has meanwhile run out."""
    stale = store.acquire()
    raw.delete("pm:{default}:lease")  # it has run out
    fresh = store.acquire()
    assert fresh > stale
    with pytest.raises(StaleLease):
        store.commit(stale, "1", OLD, OLD)
    assert raw.exists(CHECKPOINT) == 0


def test_a_connection_that_was_lost_ends_the_lead(
    http: httpx.Client, store: LearnerStore, raw: redis.Redis
):
    """A server that answers again may not have what was read from it last: what was learned of that
    is not written, and a successor starts from the checkpoint."""
    drive(http, 5)
    leading = learner(store)
    leading._token = store.acquire()
    leading._follow_roles()
    assert leading._read(block_ms=None) == {"1": 5}
    raw.client_kill_filter(_type="normal", skipme=True)
    raw.delete(Keys("default").outcomes)  # and so the server has lost them
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="connection was lost"):
            leading._commit(save=True, publish=True)
    assert raw.exists(CHECKPOINT) == 0
    store.release(leading._token)
    assert store.acquire() > leading._token


def test_serving_takes_the_new_snapshot_without_a_restart(http: httpx.Client, redis_url: str):
    """Learn, and the next decisions name a later snapshot and expect better."""
    before = http.post("/route", json={"query": {"text": "hello"}}).json()
    drive(http, 40, quality=1.0)
    learn_all(redis_url)
    until(lambda: http.get("/policies/default").json()["snapshot"] > 0, "a snapshot is swapped in")
    after = http.post("/route", json={"query": {"text": "hello"}}).json()
    assert after["snapshot"] > before["snapshot"]
    assert after["predicted"]["quality"] > 0.8


def test_a_running_learner_publishes_within_a_second(
    http: httpx.Client, store: LearnerStore, redis_url: str
):
    """The loop needs nobody's help: reward in, snapshot out."""
    stop = threading.Event()
    thread = threading.Thread(target=learner(store).run, args=(stop,))
    thread.start()
    try:
        drive(http, 3)
        until(lambda: http.get("/policies/default").json()["events"] == 3, "three are learned", 2.0)
    finally:
        stop.set()
        thread.join(5.0)
    assert_same_state(store.checkpoint("1"), fold_again(store))


def test_a_withdrawn_decision_teaches_nothing(http: httpx.Client, redis_url: str, raw: redis.Redis):
    """Its event is in the log, and the learner passes over it."""
    made = http.post("/route", json={"query": {"text": "x"}}).json()
    http.post("/reward", json={"decision_id": made["decision_id"], "executed": False})
    learn_all(redis_url)
    header = read_head(raw.hget(CHECKPOINT, "head")).header
    assert header.events == 0
    assert header.position != "0-0"


def test_a_corrupt_checkpoint_stops_the_learner_loudly(
    http: httpx.Client, redis_url: str, raw: redis.Redis
):
    """Learning on from a broken state would be silent damage."""
    drive(http, 2)
    learn_all(redis_url)
    damaged = bytearray(raw.hget(CHECKPOINT, "part:arm:0"))
    damaged[-1] ^= 1
    raw.hset(CHECKPOINT, "part:arm:0", bytes(damaged))
    with pytest.raises(ValueError, match=r"can't go on with version 1: part 'arm:0' .*checksum"):
        learn_all(redis_url)


@pytest.mark.parametrize("lost", ["head", "part:values", "part:arm:0"])
def test_a_checkpoint_that_lacks_something_is_no_start(
    http: httpx.Client, redis_url: str, raw: redis.Redis, lost: str
):
    """To learn anew what was learned would be to forget it, and to say nothing."""
    drive(http, 2)
    learn_all(redis_url)
    raw.hdel(CHECKPOINT, lost)
    before = raw.hgetall(CHECKPOINT)
    with pytest.raises(ValueError, match="policy 'default': can't go on with version 1"):
        learn_all(redis_url)
    assert raw.hgetall(CHECKPOINT) == before


def test_a_checkpoint_of_another_format_stops_the_learner(
    http: httpx.Client, redis_url: str, raw: redis.Redis
):
    """As after an upgrade or a downgrade, with both numbers."""
    drive(http, 2)
    learn_all(redis_url)
    raw.hset(CHECKPOINT, "head", raw.hget(CHECKPOINT, "head").replace(MAGIC, b"PMSNAP99"))
    with pytest.raises(ValueError, match=r"a snapshot of format 99: .* reads format"):
        learn_all(redis_url)


def test_a_corrupt_snapshot_leaves_the_running_one(
    http: httpx.Client, redis_url: str, raw: redis.Redis, caplog: pytest.LogCaptureFixture
):
    """Serving goes on with what it has, and says why once; a good one is taken again."""

    def said() -> list[str]:
        return [r.message for r in caplog.records if "can't read what is stored" in r.message]

    drive(http, 2)
    learn_all(redis_url)
    until(lambda: http.get("/policies/default").json()["snapshot"] == 1, "snapshot 1 serves")
    good = raw.hget(SNAPSHOT, "head")
    raw.hset(SNAPSHOT, mapping={"head": good[:-1], "number": 2})
    raw.publish("pm:{default}:published", "1")
    until(said, "it was met")
    for _ in range(3):
        raw.publish("pm:{default}:published", "1")
        assert http.post("/route", json={"query": {"text": "x"}}).json()["snapshot"] == 1
    raw.hset(SNAPSHOT, mapping={"head": good, "number": 3})
    raw.publish("pm:{default}:published", "1")
    until(lambda: http.get("/policies/default").json()["snapshot"] == 3, "snapshot 3 serves")
    (told,) = said()
    assert "fails its checksum; serving the last snapshot" in told


def test_an_event_tells_how_its_arm_was_drawn_and_from_which(
    http: httpx.Client, store: LearnerStore
):
    """Propensity, catalog and action set travel with the outcome; another executed arm was not
    drawn, so it has no propensity."""
    for parts in ({}, {"executed_arm": "large"}):
        body = {"query": {"text": "x"}, "constraints": {"allow": ["small"]}}
        made = http.post("/route", json=body).json()
        http.post("/reward", json={"decision_id": made["decision_id"], "quality": 1.0, **parts})
    events = [fields for _, fields in store.outcomes("0-0", 10, None)]
    batch = batch_of(events, 64, lambda revision: Catalog.from_stored(store.catalog(revision)))
    assert batch.arms == ["small", "large"]
    assert batch.propensity.tolist() == pytest.approx([1.0, float("nan")], nan_ok=True)
    assert [positions(bits).tolist() for bits in batch.eligible] == [[0], [0]]
    assert batch.catalogs[0].ids == ("small", "large", "embedder")

"""A challenger learns beside the champion, each from where it is in the stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from features.encoder import Encoder
from policy.config.toml import parse
from policy.config.versions import write_config
from policy.values.snapshot import unpack
from serving.learning.learner import Learner
from serving.learning.registering import register
from serving.store.learning import LearnerStore
from serving.store.traffic import Store
from tests.servers import (
    assert_same_state,
    http_service,
    learn_all,
    override,
    settings_for,
    until,
)
from tests.serving.challenging import (
    UNIFORM,
    config,
    drive,
    logged,
    serving,
    shown,
)


@pytest.fixture
def store(redis_url: str) -> Iterator[LearnerStore]:
    with closing(LearnerStore(redis_url, "default")) as opened:
        yield opened


def learner(store: LearnerStore) -> Learner:
    return Learner(store, "default", publish_interval_s=0.01, checkpoint_interval_s=0.05)


def test_a_killed_learner_repeats_nothing_for_either(
    redis_url: str, tmp_path: Path, store: LearnerStore, raw: redis.Redis
):
    """Champion and challenger each go on from their own checkpoint, sums and scores alike."""
    with serving(redis_url, tmp_path, config("", "scale = 0.5")) as http:
        drive(http, range(10))
        assert learn_all(redis_url) == 10
        drive(http, range(10, 20))
        crashed = learner(store)
        crashed._token = store.acquire()
        crashed._follow_roles()
        assert crashed._read(block_ms=None) == {"1": 10, "2": 10}
        crashed._write(crashed._folds["2"], save=True, publish=False)  # the challenger's alone
        store.release(crashed._token)  # and dies here
        assert learn_all(redis_url) == 10
    once = {version: store.checkpoint(version) for version in ("1", "2")}
    for version in once:
        raw.delete(f"pm:{{default}}:checkpoint:{version}")
    assert learn_all(redis_url) == 20
    for version, checkpoint in once.items():
        assert_same_state(checkpoint, store.checkpoint(version))


def test_a_broken_challenger_keeps_nobody_from_learning(
    redis_url: str, tmp_path: Path, store: LearnerStore, raw: redis.Redis
):
    """Its checkpoint is damaged: it stands still, and the champion goes on."""
    with serving(redis_url, tmp_path, config("", "scale = 0.5")) as http:
        drive(http, range(5))
        assert learn_all(redis_url) == 5
        raw.hset("pm:{default}:checkpoint:2", "part:arm:0", b"damaged")
        damaged = store.checkpoint("2")
        drive(http, range(5, 10))
        assert learn_all(redis_url) == 5
    assert store.checkpoint("2") == damaged


def test_a_challenger_that_comes_late_catches_up(
    redis_url: str, tmp_path: Path, store: LearnerStore
):
    """It starts from the beginning of the stream, and doesn't hold the champion up."""
    settings = settings_for(redis_url, tmp_path, config("", None))
    with http_service(settings) as http:
        drive(http, range(30))
        assert learn_all(redis_url) == 30
        assert http.get("/policies/default").json()["challenger"] is None
        settings.config.write_text(config("", "scale = 0.5"))
        until(lambda: http.get("/policies/default").json()["challenger"], "it is there")
        drive(http, range(30, 35))
        late = learner(store)
        late._token = store.acquire()
        late._follow_roles()
        assert late._read(block_ms=None) == {"1": 5, "2": 35}
        store.release(late._token)
        assert learn_all(redis_url) == 35
        assert shown(http, 5)["events"] == 35
    first, second = (unpack(store.checkpoint(version) or b"").header for version in ("1", "2"))
    assert (first.position, first.events) == (second.position, second.events)


def test_who_catches_up_never_overtakes(
    redis_url: str, tmp_path: Path, store: LearnerStore, monkeypatch: pytest.MonkeyPatch
):
    """The champion's next events come first in each turn; they join where the other catches up."""
    settings = settings_for(redis_url, tmp_path, config("", None))
    with http_service(settings) as http:
        drive(http, range(10))
        learn_all(redis_url)
        settings.config.write_text(config("", "scale = 0.5"))
        until(lambda: http.get("/policies/default").json()["challenger"], "it is there")
        drive(http, range(10, 13))
        monkeypatch.setattr("serving.learning.reading.BATCH", 4)
        late = learner(store)
        late._token = store.acquire()
        late._follow_roles()
        turns = [late._read(block_ms=None) for _ in range(6)]
        store.release(late._token)
    assert turns == [{"1": 3, "2": 4}, {"2": 4}, {"2": 4}, {"2": 1}, {}, {}]
    assert late._folds["1"].fold.position == late._folds["2"].fold.position


def test_a_gap_in_the_stream_holds_nobody_up(
    redis_url: str, tmp_path: Path, store: LearnerStore, raw: redis.Redis
):
    """Where old events were trimmed, a late challenger starts with those that are still there."""
    settings = settings_for(redis_url, tmp_path, config("", None))
    with http_service(settings) as http:
        drive(http, range(10))
        learn_all(redis_url)
        raw.xtrim("pm:{default}:outcomes", maxlen=0)
        settings.config.write_text(config("", "scale = 0.5"))
        until(lambda: http.get("/policies/default").json()["challenger"], "it is there")
        late = learner(store)
        late._token = store.acquire()
        late._follow_roles()
        assert late._read(block_ms=None) == {}
        assert late._folds["1"].fold.position == late._folds["2"].fold.position
        drive(http, range(10, 12))
        assert late._read(block_ms=None) == {"1": 2, "2": 2}
        store.release(late._token)


def test_a_running_learner_teaches_both(redis_url: str, tmp_path: Path, store: LearnerStore):
    """Reward in, two snapshots out, and a change of roles while it runs."""
    stop = threading.Event()
    with serving(redis_url, tmp_path, config(UNIFORM)) as http:
        thread = threading.Thread(target=learner(store).run, args=(stop,))
        thread.start()
        try:
            drive(http, range(5))
            assert shown(http, 5)["events"] == 5
            override(redis_url, "2")
            until(lambda: http.get("/policies/default").json()["champion"] == "2", "it serves")
            drive(http, range(5, 8))
            until(lambda: http.get("/policies/default").json()["events"] == 8, "it learns on")
        finally:
            stop.set()
            thread.join(5.0)


def test_a_challenger_sees_the_context_of_its_own_encoder(
    redis_url: str, tmp_path: Path, store: LearnerStore, raw: redis.Redis
):
    """What it encodes travels with the decision and its outcome, and is what it learns from."""
    text = config("", "scale = 0.5")
    own = Encoder.default(d=56)

    async def register_both() -> None:
        """As the service will, but that the challenger gets an encoder of its own."""
        with_own = parse(text, "test")
        serving_store = Store(redis_url)
        await register(serving_store.versions, "default", with_own.policies["default"], 0)
        challenger = with_own.challengers["default"]
        fingerprint = challenger.fingerprint(Encoder.default().fingerprint)
        written = write_config(challenger)
        await serving_store.versions.register("default", fingerprint, written, own.to_bytes(), 0)
        await serving_store.close()

    asyncio.run(register_both())
    with serving(redis_url, tmp_path, text) as http:
        made = drive(http, range(12))
        again = http.post("/route", json={"decision_id": "d0", "hints": {"task_type": "code"}})
        assert again.json() == made[0]
        assert learn_all(redis_url) == 12
        assert shown(http, 12)["events"] == 12
    for decision in logged(raw):
        assert decision.challenger_encoder == own.fingerprint
        assert (len(decision.x), len(decision.challenger_x)) == (64, 56)
    header = unpack(store.checkpoint("2") or b"").header
    assert (header.encoder, header.events) == (own.fingerprint, 12)

"""What is stored of one policy is damaged: the others go on, and it does once that is mended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from offline_eval.log.reading import read_rows
from pointsman.archiver import Window, archive
from policy.stored import Unreadable
from serving.learning import threads
from serving.learning.learner import learn
from serving.learning.missing import sweep
from serving.store.archiving import ArchiverStore
from tests.servers import CONFIG, drive, http_service, learn_all, settings_for, until

TWO = CONFIG + "\n[policies.support]\n"
SNAPSHOT = "pm:{support}:snapshot:1"


def asked(http: httpx.Client, policy: str) -> httpx.Response:
    return http.post("/route", json={"query": {"text": "hello"}, "policy": policy})


def flip(raw: redis.Redis, key: str, field: str) -> None:
    """Change one bit of a field of a hash."""
    damaged = bytearray(raw.hget(key, field))
    damaged[-1] ^= 1
    raw.hset(key, field, bytes(damaged))


def reported(http: httpx.Client, policy: str) -> None:
    made = asked(http, policy).json()
    body = {"decision_id": made["decision_id"], "policy": policy, "quality": 1.0}
    assert http.post("/reward", json=body).status_code == 200


@pytest.mark.parametrize(
    ("key", "field"), [(SNAPSHOT, "part:values"), ("pm:{support}:version:1", "config")]
)
def test_a_process_that_starts_serves_the_policies_that_it_can_read(
    redis_url: str,
    tmp_path: Path,
    raw: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    key: str,
    field: str,
):
    """Who asks for the other one is told, without a stranger's learning its name; the log says it
    once; and it serves as soon as it can be read, without a restart."""
    settings = settings_for(redis_url, tmp_path, TWO)
    with http_service(settings) as http:
        drive(http, 2)
        reported(http, "support")
    assert (learn_all(redis_url), learn_all(redis_url, "support")) == (2, 1)
    flip(raw, key, field)
    with http_service(settings) as http:
        assert asked(http, "default").status_code == 200
        answer = asked(http, "support")
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/store-unavailable")
        assert "can't be read" in answer.json()["detail"]
        told = http.get("/readyz")
        assert told.status_code == 503
        assert "can't be read" in told.json()["detail"]
        assert "support" not in told.text
        for _ in range(3):
            raw.publish("pm:{default}:published", "1")
            assert asked(http, "support").status_code == 503
        flip(raw, key, field)
        until(lambda: asked(http, "support").status_code == 200, "it serves")
        assert http.get("/readyz").status_code == 200
    said = [r.getMessage() for r in caplog.records if "it isn't served yet" in r.getMessage()]
    assert [line.partition(":")[0] for line in said] == ["policy support"]
    assert "damaged" in said[0] or "checksum" in said[0]
    assert not any(record.exc_info for record in caplog.records)


def test_a_learner_that_starts_mends_a_damaged_snapshot(
    redis_url: str, tmp_path: Path, raw: redis.Redis
):
    """It publishes what its checkpoint holds, all of it, though no outcome is new."""
    with http_service(settings_for(redis_url, tmp_path, TWO)) as http:
        reported(http, "support")
        learn_all(redis_url, "support")
        whole = raw.hget(SNAPSHOT, "part:values")
        flip(raw, SNAPSHOT, "part:values")
        assert learn_all(redis_url, "support") == 0
        assert raw.hget(SNAPSHOT, "part:values") == whole


@contextmanager
def running(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """In a thread, until the end."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10.0)


def learning(redis_url: str) -> AbstractContextManager[None]:
    def run(stop: threading.Event) -> None:
        names = ["default", "support"]
        learn(redis_url, lambda: names, stop, publish_interval_s=0.01, checkpoint_interval_s=0.01)

    return running(run)


def critical(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "CRITICAL"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that stand still try again soon."""
    monkeypatch.setattr(threads, "RETRY_S", 0.2)


def events(http: httpx.Client, policy: str) -> int:
    return int(http.get(f"/policies/{policy}").json()["events"])


@pytest.mark.usefixtures("quick")
def test_a_damaged_checkpoint_stops_its_own_policy_alone(
    redis_url: str, tmp_path: Path, raw: redis.Redis, caplog: pytest.LogCaptureFixture
):
    """It is named, nothing of it is written, the other one learns; mended, it goes on."""
    checkpoint = "pm:{support}:checkpoint:1"
    with http_service(settings_for(redis_url, tmp_path, TWO)) as http:
        reported(http, "support")
        learn_all(redis_url, "support")
        flip(raw, checkpoint, "part:arm:0")
        before = raw.hgetall(checkpoint)
        with learning(redis_url):
            until(lambda: critical(caplog), "it is told")
            drive(http, 3)
            reported(http, "support")
            until(lambda: events(http, "default") == 3, "the other one learns")
            assert raw.hgetall(checkpoint) == before
            flip(raw, checkpoint, "part:arm:0")
            until(lambda: events(http, "support") == 2, "it goes on")
    assert all("policy support stands still" in line for line in critical(caplog))
    assert "checksum" in critical(caplog)[0]


@pytest.mark.usefixtures("quick")
def test_a_damaged_outcome_is_named_and_can_be_taken_out(
    redis_url: str, tmp_path: Path, raw: redis.Redis, caplog: pytest.LogCaptureFixture
):
    """The learner goes on without a restart, and has learned all others once."""
    outcomes = "pm:{support}:outcomes"
    with http_service(settings_for(redis_url, tmp_path, TWO)) as http:
        for _ in range(2):
            reported(http, "support")
        ((_, fields),) = raw.xrevrange(outcomes, count=1)
        entry = raw.xadd(outcomes, {**fields, "x": b"damaged"}).decode()
        reported(http, "support")
        with learning(redis_url):
            until(lambda: critical(caplog), "it is told")
            assert f"entry {entry} of the outcomes" in critical(caplog)[0]
            assert "policy support stands still" in critical(caplog)[0]
            assert raw.xdel(outcomes, entry) == 1
            until(lambda: events(http, "support") == 3, "it goes on")


@pytest.mark.usefixtures("quick")
def test_a_damaged_decision_is_named_and_can_be_taken_out(
    redis_url: str, tmp_path: Path, raw: redis.Redis, caplog: pytest.LogCaptureFixture
):
    """The archiver archives the other policy, and this one without the entry."""
    decisions, path = "pm:{support}:decisions", str(tmp_path / "log")
    windows = dict.fromkeys(["default", "support"], Window(3_600_000))
    with http_service(settings_for(redis_url, tmp_path, TWO)) as http:
        drive(http, 2)
        asked(http, "support")
        ((_, fields),) = raw.xrevrange(decisions, count=1)
        entry = raw.xadd(decisions, {**fields, "record": b"damaged"}).decode()
        last = asked(http, "support").json()["decision_id"]
    with running(lambda stop: archive(redis_url, path, lambda: windows, stop, 0.1)):
        until(lambda: critical(caplog), "it is told")
        assert f"entry {entry} of the decisions" in critical(caplog)[0]
        until(lambda: raw.hlen("pm:{default}:archived") == 2, "the other one is archived")
        assert raw.xdel(decisions, entry) == 1
        until(lambda: last in archived(path), "it goes on")
    assert len(archived(path)) == 2


def test_a_sweep_names_a_damaged_decision(redis_url: str, raw: redis.Redis):
    """And assumes nothing of those beside it."""
    with closing(ArchiverStore(redis_url, "support")) as store:
        entry = raw.xadd("pm:{support}:decisions", {"record": b"damaged"}).decode()
        before_ms = int(entry.partition("-")[0]) + 1
        with pytest.raises(Unreadable, match=f"entry {entry} of the decisions"):
            sweep(store, store.acquire(), 0.5, before_ms, 0, before_ms)
        assert store.swept() is None


def archived(path: str) -> list[str]:
    return [row.decision.decision_id for row in read_rows(path, policy="support")]


def test_a_damaged_catalog_in_force_is_written_again(
    redis_url: str, tmp_path: Path, raw: redis.Redis
):
    """By a serving process, which has what it says; so the learner goes on."""
    with http_service(settings_for(redis_url, tmp_path, TWO)) as http:
        reported(http, "support")
        key = f"pm:{{support}}:catalog:{http.get('/policies/support').json()['catalog']}"
        whole = raw.get(key)
        raw.set(key, whole.replace(b"small-8b", b"small-9b"))
        until(lambda: raw.get(key) == whole, "it is whole")
        assert learn_all(redis_url, "support") == 1

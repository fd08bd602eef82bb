"""`missing_quality`: silence becomes an answer once, is marked, and gives way to a report."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from offline_eval.log import archive
from offline_eval.log.archive import Archive
from offline_eval.log.checking import check_log
from offline_eval.log.data import outcome_batch
from offline_eval.log.reading import read_log, read_rows
from pointsman.archiver import IN_FLIGHT_MS, Archiver, Window
from policy.arms.catalog import Catalog
from policy.records import Outcome
from policy.values.linear.model import LinearModel
from policy.values.snapshot import State, unpack
from serving.learning.missing import sweep
from serving.store.archiving import ArchiverStore
from serving.store.keys import Keys
from serving.store.learning import LearnerStore
from tests.servers import (
    CONFIG,
    assert_same_state,
    fold_again,
    http_service,
    learn_all,
    running_up,
    settings_for,
    until,
)

KEYS = Keys("default")
WINDOW_MS = 1_000
SILENT = f"{CONFIG}reward_window_s = 1\nmissing_quality = 0.0\nforgetting = 0.9\n"
WHO = {"by": "ada", "reason": "read it"}


class Ahead(ArchiverStore):
    """A store whose clock goes ahead: every window has passed."""

    def now_ms(self) -> int:
        return super().now_ms() + 10_000


@pytest.fixture
def http(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    with http_service(settings_for(redis_url, tmp_path, SILENT)) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def store(redis_url: str) -> Iterator[Ahead]:
    with closing(Ahead(redis_url, "default")) as opened:
        yield opened


def archive_all(store: ArchiverStore, path: str, quality: float | None = 0.0) -> None:
    window = Window(WINDOW_MS, quality)
    Archiver(store, Archive(path, "default"), "default", lambda: window, 0.0).burst()


def made(http: httpx.Client, n: int = 1) -> list[str]:
    bodies = [{"query": {"text": f"question {i}"}} for i in range(n)]
    return [http.post("/route", json=body).json()["decision_id"] for body in bodies]


def report(http: httpx.Client, decision_id: str, **parts: Any) -> httpx.Response:
    return http.post("/reward", json={"decision_id": decision_id, **parts})


def shown(http: httpx.Client, decision_id: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/decisions/{decision_id}").json()["outcome"]
    return found


def rows(path: str) -> dict[str, Outcome]:
    return {row.decision.decision_id: row.outcome for row in read_rows(path, policy="default")}


def test_silence_is_marked_wherever_it_is_read(
    http: httpx.Client, store: Ahead, path: str, raw: redis.Redis
):
    """In the decision, its event, the log's rows and arrays: as a value, for learning as well."""
    silent, timed, good, failed, withdrawn = ids = made(http, 5)
    report(http, timed, latency_ms=100, cost_usd=0.001)
    report(http, good, quality=0.9)
    report(http, failed, error="timeout")
    report(http, withdrawn, executed=False)
    archive_all(store, path)

    assert (shown(http, silent)["quality"], shown(http, silent)["executed"]) == (0.0, True)
    marks = [shown(http, one).get("quality_assumed") for one in ids]
    assert marks == [True, True, None, None, None]
    last = [event for _, event in raw.xrange(KEYS.outcomes)][-2:]
    assert [event[b"decision_id"].decode() for event in last] == [silent, timed]
    assert [event[b"earlier"] for event in last] == [b"", b"latency_ms cost_usd "]
    assert all((event[b"quality_assumed"], event[b"late"]) == (b"1", b"0") for event in last)

    data = read_log(path)
    check_log(data)
    assert data.quality_assumed.tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(data.outcomes[:, 0], [0.0, 0.0, 0.9, np.nan, np.nan])
    assert data.frame()["quality_assumed"].tolist() == data.quality_assumed.tolist()
    catalog = Catalog.from_stored(store.catalog(data.catalogs[0]))
    assert outcome_batch(data, catalog).quality[:3].tolist() == [0.0, 0.0, 0.9]
    assert rows(path)[timed].latency_ms == 100.0
    assert [outcome.quality_assumed for outcome in rows(path).values()] == [True, True] + [
        False
    ] * 3


def test_without_the_key_silence_stays_silence(
    http: httpx.Client, store: Ahead, path: str, raw: redis.Redis
):
    """Nothing is assumed, and decisions leave their stream as soon as they are archived."""
    made(http, 3)
    archive_all(store, path, quality=None)
    assert (raw.xlen(KEYS.outcomes), raw.xlen(KEYS.decisions)) == (0, 1)
    assert raw.exists(KEYS.swept) == 0
    data = read_log(path)
    assert np.isnan(data.outcomes).all()
    assert not data.quality_assumed.any()


def test_it_is_assumed_once_by_however_many(http: httpx.Client, redis_url: str, raw: redis.Redis):
    """Sweepers at the same time, one that was overtaken, one that starts over from nothing."""
    ids = made(http, 40)
    assumed: list[int] = []

    def one() -> None:
        with closing(Ahead(redis_url, "default")) as own:
            assumed.append(own.assume(ids, 0.0, "1-0", own.now_ms(), WINDOW_MS))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert sorted(assumed) == [0, 0, 0, 40]
    made(http, 300)
    for expected in (300, 0, 0):
        raw.delete(KEYS.swept, KEYS.archive_lease)
        with closing(Ahead(redis_url, "default")) as own:
            token, now_ms = own.acquire(), own.now_ms()
            when = {"now_ms": now_ms, "window_ms": WINDOW_MS, "before_ms": now_ms - 5_000}
            assert sweep(own, token, 0.0, **when) == expected
            assert sweep(own, token, 0.0, **when) == 0
    assert raw.xlen(KEYS.outcomes) == 340
    assert raw.hvals(KEYS.learned) == [b"340"]


def test_an_open_window_is_waited_for(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """Nothing is assumed, and nothing trimmed that is still to be looked at; a row is closed only
    with what was assumed in it."""
    ids = made(http, 3)
    with closing(ArchiverStore(redis_url, "default")) as own:
        archive_all(own, path)
        assert len(read_log(path)) == raw.xlen(KEYS.decisions) == 3
        assert raw.xlen(KEYS.outcomes) == 0
        until(lambda: archive_all(own, path) or raw.xlen(KEYS.outcomes) == 3, "it is assumed")
        data = read_log(path)
        assert not np.isnan(data.outcomes[:, 0]).any()
        assert not data.closed.any()
        made_ms = min(data.made_at_ms)
        assert own.now_ms() - made_ms > WINDOW_MS + IN_FLIGHT_MS
        until(lambda: archive_all(own, path) or read_log(path).closed.all(), "they are closed")
    assert raw.xlen(KEYS.decisions) == 1
    assert list(read_log(path).decision_ids) == ids


@pytest.mark.parametrize("quality", [pytest.param(0.9, marks=pytest.mark.slow), 0.0])
def test_a_report_takes_its_place_as_a_correction_does(
    http: httpx.Client, redis_url: str, store: Ahead, path: str, raw: redis.Redis, quality: float
):
    """However late: in the decision and the log, by the learner exactly once; sent again it is
    unchanged, another one is a conflict, and a person may overrule it."""
    first, *others = made(http, 30)
    for i, one in enumerate(others[:20]):
        report(http, one, quality=(i % 5) / 4)
    archive_all(store, path)
    learn_all(redis_url)
    time.sleep(WINDOW_MS / 1_000 + 0.1)
    answer = report(http, first, quality=quality, latency_ms=50.0).json()
    assert (answer["accepted"], answer["late"]) == (["quality", "latency_ms"], True)
    assert answer["missing"] == ["cost_usd"]
    assert report(http, first, quality=quality).json()["unchanged"] == ["quality"]
    assert report(http, first, quality=0.5).status_code == 409
    assert shown(http, first)["quality"] == quality
    assert "quality_assumed" not in shown(http, first)

    archive_all(store, path)
    row = rows(path)[first]
    assert (row.quality, row.quality_assumed) == (quality, False)
    assert (row.reported_quality, row.corrected_by) == (None, None)
    assert row.latency_ms is None  # it was late, and nobody had assumed it
    assert http.post("/correction", json={"decision_id": first, "quality": 0.3, **WHO}).is_success
    archive_all(store, path)
    row = rows(path)[first]
    assert (row.quality, row.reported_quality, row.corrected_by) == (0.3, quality, "ada")

    learn_all(redis_url)
    with closing(LearnerStore(redis_url, "default")) as learner:
        learned = learner.checkpoint("1")
        batches = list(archive.events(path, "default"))
        assert_same_state(learned, fold_again(learner, batches))
        final = [entry for batch in batches for entry in batch if b"correction" not in entry[1]]
        of_first = [event for _, event in final if event[b"decision_id"].decode() == first]
        of_first[0][b"quality"] = b"0.3"
        right = fold_again(learner, [final])
    state = unpack(learned or b"")
    assert state.header.events == 31
    assert_same_sums(state, unpack(right))


def assert_same_sums(one: State, other: State) -> None:
    sums, others = (LinearModel.from_parts(state.parts).sums() for state in (one, other))
    for name, value in sums.items():
        np.testing.assert_allclose(value, others[name], rtol=1e-9, atol=1e-9)


def test_what_was_assumed_is_no_report(http: httpx.Client, store: Ahead, path: str):
    """A person can't overrule it, a report can; the decision can't be withdrawn any more, nor be
    another arm's: it counts as executed."""
    (one,) = made(http)
    archive_all(store, path)
    answer = http.post("/correction", json={"decision_id": one, "quality": 0.3, **WHO})
    assert answer.status_code == 409
    assert "report with /reward what it lacks: quality" in answer.json()["detail"]
    assert report(http, one, executed=False).status_code == 409
    arm = http.get(f"/decisions/{one}").json()["decision"]["arm"]
    other = "small" if arm == "large" else "large"
    assert report(http, one, latency_ms=5, executed_arm=other).status_code == 409
    assert report(http, one, latency_ms=5, executed_arm=arm).json()["missing"] == [
        "quality",
        "cost_usd",
    ]
    assert shown(http, one)["quality_assumed"]


def test_an_error_takes_its_place_as_well(
    http: httpx.Client, redis_url: str, store: Ahead, path: str
):
    """It means quality 0, whatever was assumed."""
    (one,) = made(http)
    archive_all(store, path, quality=0.5)
    assert shown(http, one)["quality"] == 0.5
    time.sleep(WINDOW_MS / 1_000 + 0.1)
    assert report(http, one, error="timeout").json()["accepted"] == ["error"]
    assert shown(http, one)["quality"] == 0.0
    archive_all(store, path)
    row = rows(path)[one]
    assert (row.quality, row.quality_assumed, row.error) == (0.0, False, "timeout")
    assert learn_all(redis_url) == 3
    with closing(LearnerStore(redis_url, "default")) as learner:
        assert_same_state(learner.checkpoint("1"), fold_again(learner))


def test_a_report_before_the_sweep_counts_as_after_it(
    http: httpx.Client, store: Ahead, path: str, raw: redis.Redis
):
    """The window has closed, and nobody has looked yet: the log has the value all the same."""
    good, failed = made(http, 2)
    time.sleep(WINDOW_MS / 1_000 + 0.1)
    assert report(http, good, quality=0.9, latency_ms=5).json()["late"]
    report(http, failed, error="timeout")
    archive_all(store, path)
    assert raw.xlen(KEYS.outcomes) == 2
    row = rows(path)[good]
    assert (row.quality, row.quality_assumed, row.latency_ms) == (0.9, False, None)
    assert rows(path)[failed].error == "timeout"


def test_turned_off_nothing_is_held(
    http: httpx.Client, store: Ahead, path: str, redis_url: str, raw: redis.Redis
):
    """What had been assumed stays; the next time the sweep begins with what the stream holds."""
    made(http, 3)
    with closing(ArchiverStore(redis_url, "default")) as own:
        archive_all(own, path)
        assert raw.xlen(KEYS.decisions) == 3
        archive_all(own, path, quality=None)
        assert raw.xlen(KEYS.decisions) == 1
    archive_all(store, path)
    assert raw.xlen(KEYS.outcomes) == 1
    assert read_log(path).quality_assumed.tolist() == [False, False, True]


def test_a_running_service_learns_from_silence(tmp_path: Path):
    """`pointsman up`, nothing but the key: the decision shows it, the model has learned it."""
    with running_up(tmp_path, SILENT, POINTSMAN_ARCHIVE_INTERVAL_S="0.2") as (_, http):
        (one,) = made(http)
        until(lambda: shown(http, one).get("quality_assumed"), "it is assumed", 20.0)
        until(lambda: http.get("/policies/default").json()["events"] == 1, "it is learned", 20.0)
        assert report(http, one, quality=1).json()["accepted"] == ["quality"]

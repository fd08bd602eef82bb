"""The archiver: every entry of both streams comes to the log once, whatever crashes when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from features.encoder import Encoder
from offline_eval import archive, log
from offline_eval.archive import Archive
from pointsman.archiver import Archiver, archive_burst
from policy.config import PolicyConfig
from serving.learner import BATCH, Fold
from serving.store.archiving import ArchiverStore
from serving.store.learning import LearnerStore
from tests.servers import learn_all

DECISIONS, OUTCOMES = "pm:{default}:decisions", "pm:{default}:outcomes"
WINDOW_MS = 3_600_000


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def store(redis_url: str) -> Iterator[ArchiverStore]:
    opened = ArchiverStore(redis_url, "default")
    yield opened
    opened.close()


def drive(http: httpx.Client, rounds: int, **parts: Any) -> list[str]:
    """Route and report `rounds` times; the decision ids."""
    ids = []
    for i in range(rounds):
        made = http.post("/route", json={"query": {"text": f"question {i}"}}).json()
        outcome = {"quality": (i % 5) / 4, "latency_ms": 100 + i, "cost_usd": 0.001, **parts}
        http.post("/reward", json={"decision_id": made["decision_id"], **outcome})
        ids.append(made["decision_id"])
    return ids


def archive_all(redis_url: str, path: str) -> tuple[int, int]:
    """Archive what is in the streams; how many decisions and outcome events."""
    archived = archive_burst(redis_url, path, {"default": WINDOW_MS})["default"]
    return archived["decisions"], archived["outcomes"]


def archiver(store: ArchiverStore, path: str, interval_s: float = 0.05) -> Archiver:
    return Archiver(store, Archive(path, "default"), "default", lambda: WINDOW_MS, interval_s)


def test_what_was_decided_and_told_comes_to_the_log(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """As rows of the log's schema, in the order they were made, and as the API shows them."""
    ids = drive(http, 7)
    events = dict(raw.xrange(OUTCOMES))
    assert archive_all(redis_url, path) == (7, 7)
    assert archive_all(redis_url, path) == (0, 0)
    data = log.read(path)
    assert list(data.decision_ids) == ids
    log.check(data)
    assert data.outcomes[:, 1].tolist() == [100.0 + i for i in range(7)]
    assert not data.closed.any()
    for row in log.rows(path, policy="default"):
        shown = http.get(f"/decisions/{row.decision.decision_id}").json()
        assert shown["decision"]["arm"] == row.decision.arm
        assert shown["decision"]["pmf"] == row.decision.pmf.tolist()
        assert shown["outcome"]["quality"] == row.outcome.quality
    (batch,) = archive.events(path, "default")
    assert {entry.encode(): event for entry, event in batch} == events


def test_a_fold_of_the_archive_is_the_learners_state(http: httpx.Client, redis_url: str, path: str):
    """Byte for byte: a learner that lost its checkpoint could start over from the log."""
    drive(http, 30)
    drive(http, 5, error="timeout", quality=0.0)
    archive_all(redis_url, path)
    learn_all(redis_url)
    store = LearnerStore(redis_url, "default")
    config, encoder = store.version("1")
    fold = Fold.resume(
        "1",
        PolicyConfig.model_validate_json(config),
        Encoder.from_bytes(encoder),
        None,
        lambda revision: archive.catalog(path, "default", revision),
    )
    entries = [entry for some in archive.events(path, "default") for entry in some]
    assert len(entries) <= BATCH  # as the learner read them
    fold.fold(entries)
    assert fold.checkpoint() == store.checkpoint("1")
    store.close()

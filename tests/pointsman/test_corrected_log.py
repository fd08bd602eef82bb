"""A correction in the archived log: both values, who and why, and the learner's state from it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx
import redis

from offline_eval.log import archive
from offline_eval.log.reading import read_rows
from pointsman.archiver import Window, archive_burst
from serving.store.learning import LearnerStore
from tests.servers import drive, fold_again, learn_all

COMPONENTS = ("quality", "latency_ms", "cost_usd")


def overrule(http: httpx.Client, decision_id: str, by: str, **values: float) -> None:
    body = {"decision_id": decision_id, "by": by, "reason": f"{by} has read it", **values}
    assert http.post("/correction", json=body).json()["corrected"] == list(values)


def test_the_log_shows_both_values(
    http: httpx.Client, redis_url: str, tmp_path: Path, raw: redis.Redis
):
    """What holds and what was reported, by whom and why it was corrected last, as the API shows
    it; and a fold of the log is the learner's state, byte for byte."""
    path = str(tmp_path / "log")
    first, second, third = drive(http, 3)
    overrule(http, first, "ada", quality=0.25)
    overrule(http, second, "ada", latency_ms=5.0, cost_usd=0.002)
    overrule(http, first, "grace", quality=0.75)
    archive_burst(redis_url, path, {"default": Window(3_600_000)})

    rows = {row.decision.decision_id: row.outcome for row in read_rows(path, policy="default")}
    one, two = rows[first], rows[second]
    assert (one.quality, one.reported_quality, one.corrected_by) == (0.75, 0.0, "grace")
    assert one.correction_reason == "grace has read it"
    assert (two.latency_ms, two.reported_latency_ms, two.reported_quality) == (5.0, 101.0, None)
    assert rows[third].corrected_by is None
    for decision_id, outcome in rows.items():
        shown = http.get(f"/decisions/{decision_id}").json()["outcome"]
        for name in (*COMPONENTS, *(f"reported_{name}" for name in COMPONENTS), "corrected_by"):
            assert shown.get(name) == getattr(outcome, name)

    events = [entry for some in archive.events(path, "default") for entry in some]
    assert {entry.encode(): event for entry, event in events} == dict(
        raw.xrange("pm:{default}:outcomes")
    )
    learn_all(redis_url)
    with closing(LearnerStore(redis_url, "default")) as store:
        assert fold_again(store, [events]) == store.checkpoint("1")

"""What /metrics shows is what docs/operating/metrics.md says, and what happened."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client import REGISTRY

from pointsman.archiver import Window, archive_burst
from serving.observing.gauges import GAUGES
from serving.store.operations import OperatorStore
from serving.store.registered import GateRecord
from tests.servers import CONFIG, drive, http_service, learn_all, settings_for, until
from tests.serving.observing.figures import Kind, documented, exposed, value, values

OUT = {"error": "rate_limited", "retry_after_s": 60.0}
EVERYTHING = (
    CONFIG.replace(
        'id = "small"', 'id = "small"\nendpoints = ["https://one.example/v1?key=secret"]'
    )
    + """
[policies.default.budget]
usd = 50.0
per = "day"

[policies.default.challenger]
model = "uniform"
share = 0.2
"""
)


def test_code_and_document_name_the_same_metrics():
    """In both directions, also of those that have no value yet."""
    counted = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric.type
        for metric in REGISTRY.collect()
        if metric.name.startswith("pointsman_")
    }
    documents = documented()
    read = {name: Kind("gauge", frozenset(labels)) for name, (_, labels) in GAUGES.items()}
    assert counted | dict.fromkeys(GAUGES, "gauge") == {n: k.type for n, k in documents.items()}
    assert read == {name: documents[name] for name in GAUGES}


def test_a_service_shows_every_metric_as_documented(redis_url: str, tmp_path: Path):
    """Each has a value where what it tells of is there, with the documented type and labels; and
    none tells a secret."""
    settings = settings_for(redis_url, tmp_path, EVERYTHING)
    with http_service(settings) as http:
        made = drive(http, 30)
        overruled = {"decision_id": made[0], "quality": 0.3, "by": "me", "reason": "so"}
        assert http.post("/correction", json=overruled).status_code == 200
        learn_all(redis_url)
        archive_burst(redis_url, str(tmp_path / "log"), {"default": Window(60_000)})
        with closing(OperatorStore(redis_url, "default")) as store:
            store.record_gate("2", GateRecord("undecided", "1", None, ("few rows",)), 1_000)
        for arm in ("small", "large"):
            one = http.post("/route", json={"constraints": {"allow": [arm]}}).json()
            http.post("/reward", json={"decision_id": one["decision_id"], **OUT})
        assert http.post("/route", json={}).json()["degraded"] == "all_out"
        http.post("/route", json={"nonsense": 1})
        until(lambda: value(http, "pointsman_snapshot", "default") > 0, "the snapshot serves")
        text = http.get("/metrics").text
    assert exposed(text) == documented()
    assert values(text, "pointsman_gate_verdict") == {("default", "undecided", "2"): 1.0}
    assert values(text, "pointsman_endpoint_in") == {
        ("small", "https://one.example/v1"): 0.0,
        ("large", ""): 0.0,
        ("embedder", ""): 1.0,
    }
    assert "secret" not in text


def test_traffic_is_counted(http: httpx.Client):
    """Decisions, components of rewards, problems by status and type, and how long each took."""
    before = http.get("/metrics").text
    drive(http, 3)
    http.post("/route", json={"policy": "nobody's"})
    http.post("/route", json={"policy": "none"})
    after = http.get("/metrics").text

    def more(name: str, *labels: str) -> float:
        return values(after, name).get(labels, 0.0) - values(before, name).get(labels, 0.0)

    arms = {arm for arm, *_ in values(after, "pointsman_decisions_total")}
    decided = sum(more("pointsman_decisions_total", arm, "true", "default") for arm in arms)
    assert decided == 3
    for component in ("quality", "latency_ms", "cost_usd"):
        assert more("pointsman_rewards_total", component, "default") == 3
    assert more("pointsman_problems_total", "404", "unknown-policy") == 1
    assert more("pointsman_problems_total", "422", "invalid-request") == 1
    assert more("pointsman_request_seconds_count", "/route") == 5
    assert more("pointsman_request_seconds_count", "/reward") == 3
    assert more("pointsman_store_seconds_count", "decide") == 3
    assert more("pointsman_store_seconds_count", "reward") == 3
    assert values(after, "pointsman_requests_in_flight") == {(): 1.0}  # this very one


def test_what_waits_for_learner_and_archiver_is_shown(
    http: httpx.Client, redis_url: str, tmp_path: Path
):
    """For how long; until each has taken it."""
    behind = ("pointsman_learner_behind_seconds", "default", "champion")
    kept = ("pointsman_archiver_behind_seconds", "default", "decisions")
    assert (value(http, *behind), value(http, *kept)) == (0.0, 0.0)
    drive(http, 5)
    until(lambda: value(http, *behind) > 0.05, "outcomes wait")
    assert value(http, *kept) > 0.05
    assert value(http, "pointsman_stream_entries", "default", "outcomes") == 5
    learn_all(redis_url)
    assert value(http, *behind) == 0.0
    assert value(http, "pointsman_learned_events", "default", "champion") == 5
    assert value(http, "pointsman_snapshot_age_seconds", "default", "champion") > 0
    assert value(http, *kept) > 0.05
    archive_burst(redis_url, str(tmp_path / "log"), {"default": Window(60_000)})
    assert value(http, *kept) == 0.0


def test_a_redis_that_lets_nobody_look_at_it_costs_only_those_figures(
    http: httpx.Client, raw: redis.Redis
):
    """As hosted ones do."""
    raw.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        text = http.get("/metrics").text
    finally:
        raw.execute_command("ACL", "SETUSER", "default", "+info")
    assert values(text, "pointsman_redis_up") == {(): 1.0}
    assert not values(text, "pointsman_redis_memory_bytes")
    assert values(text, "pointsman_stream_entries")


def test_the_snapshot_that_serves_is_known_to_be_the_newest(http: httpx.Client):
    """Its time moves on while nothing else happens."""
    checked = ("pointsman_snapshot_checked_timestamp_seconds", "default")
    first = value(http, *checked)
    assert first == pytest.approx(time.time(), abs=10.0)
    until(lambda: value(http, *checked) > first, "it is looked at again")

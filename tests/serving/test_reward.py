"""POST /reward: each component once, in any parts, late, conflicting, for another arm."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import redis

QUERY = {"query": {"text": "Write a function that reverses a list."}}
OUTCOMES = "pm:{default}:outcomes"


@pytest.fixture
def made(http: httpx.Client) -> dict[str, Any]:
    return http.post("/route", json=QUERY).json()


def report(http: httpx.Client, made: dict[str, Any], **parts: Any) -> httpx.Response:
    return http.post("/reward", json={"decision_id": made["decision_id"], **parts})


def test_parts_are_accepted_one_by_one(http: httpx.Client, made: dict[str, Any]):
    """A receipt says what was accepted and what is still missing."""
    first = report(http, made, latency_ms=812).json()
    assert (first["accepted"], first["missing"]) == (["latency_ms"], ["quality", "cost_usd"])
    second = report(http, made, quality=0.8, cost_usd=0.001).json()
    assert second["accepted"] == ["quality", "cost_usd"]
    assert second["missing"] == []


def test_the_same_value_again_changes_nothing(
    http: httpx.Client, made: dict[str, Any], raw: redis.Redis
):
    """A repeated report is a no-op that says so."""
    report(http, made, quality=0.8, latency_ms=812)
    again = report(http, made, quality=0.8, latency_ms=812.0).json()
    assert again["accepted"] == []
    assert again["unchanged"] == ["quality", "latency_ms"]
    assert raw.xlen(OUTCOMES) == 1


def test_zero_is_zero_whatever_its_sign(http: httpx.Client, made: dict[str, Any]):
    """-0.0 after 0 is the same value again."""
    report(http, made, quality=0)
    assert report(http, made, quality=-0.0).json()["unchanged"] == ["quality"]


def test_a_conflict_changes_nothing_at_all(
    http: httpx.Client, made: dict[str, Any], raw: redis.Redis
):
    """The new component of a contradicting request isn't accepted either."""
    report(http, made, quality=0.8)
    answer = report(http, made, quality=0.7, latency_ms=100)
    assert answer.status_code == 409
    assert "quality" in answer.json()["detail"]
    assert raw.xlen(OUTCOMES) == 1
    assert report(http, made, latency_ms=50).json()["accepted"] == ["latency_ms"]


def test_an_error_means_quality_zero(http: httpx.Client, made: dict[str, Any]):
    """After an error quality isn't missing, and a good one contradicts it."""
    receipt = report(http, made, error="timeout", latency_ms=30000).json()
    assert receipt["accepted"] == ["latency_ms", "error"]
    assert receipt["missing"] == ["cost_usd"]
    assert report(http, made, quality=0.9).status_code == 409


def test_a_long_error_is_cut(http: httpx.Client, made: dict[str, Any]):
    """Callers report what their provider said: 200 characters of it are kept, and none is lost."""
    assert report(http, made, error="e" * 5_000).json()["accepted"] == ["error"]
    assert report(http, made, error="e" * 6_000).json()["unchanged"] == ["error"]


@pytest.mark.parametrize(("tokens", "status"), [(12.0, 200), (12.5, 422), (True, 422), ("12", 422)])
def test_a_whole_number_may_be_written_as_one_with_a_point(
    http: httpx.Client, made: dict[str, Any], tokens: Any, status: int
):
    """Counts from a column with gaps are floats; what is no whole number stays refused."""
    assert report(http, made, input_tokens=tokens, output_tokens=3).status_code == status
    hints = {"hints": {"output_tokens": tokens}}
    assert http.post("/route", json=hints).status_code == status


def test_an_error_after_a_good_quality_is_a_conflict(http: httpx.Client, made: dict[str, Any]):
    """The two can't both be true."""
    report(http, made, quality=0.9)
    assert report(http, made, error="timeout").status_code == 409


def test_tokens_are_priced_at_the_decision(http: httpx.Client):
    """1000 tokens in and 200 out of `large` cost 1000 * 3 + 200 * 15 per million."""
    made = http.post("/route", json={**QUERY, "constraints": {"allow": ["large"]}}).json()
    report(http, made, input_tokens=1000, output_tokens=200)
    outcome = http.get(f"/decisions/{made['decision_id']}").json()["outcome"]
    assert outcome["cost_usd"] == pytest.approx(0.006)


def test_another_arm_that_ran_is_the_one_that_is_taught(http: httpx.Client, raw: redis.Redis):
    """`executed_arm` goes into the event; a later report must not name a third one."""
    made = http.post("/route", json={**QUERY, "constraints": {"allow": ["large"]}}).json()
    assert report(http, made, quality=0.4, executed_arm="small").status_code == 200
    ((_, event),) = raw.xrange(OUTCOMES)
    assert (event[b"arm"], event[b"decided_arm"]) == (b"small", b"large")
    assert report(http, made, latency_ms=10, executed_arm="large").status_code == 409
    assert report(http, made, latency_ms=10).json()["accepted"] == ["latency_ms"]
    assert raw.xrange(OUTCOMES)[1][1][b"arm"] == b"small"


def test_an_executed_arm_must_exist(http: httpx.Client, made: dict[str, Any]):
    """A name that the catalog doesn't know teaches nobody."""
    answer = report(http, made, quality=0.4, executed_arm="nobody")
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/unknown-arm"


def test_a_withdrawn_decision_takes_no_outcome(http: httpx.Client, made: dict[str, Any]):
    """`executed: false` says the decision was never used."""
    assert report(http, made, executed=False).json()["accepted"] == ["executed"]
    assert report(http, made, executed=False).json()["unchanged"] == ["executed"]
    assert report(http, made, quality=1.0).status_code == 409


def test_a_decision_with_an_outcome_cannot_be_withdrawn(http: httpx.Client, made: dict[str, Any]):
    """It was executed: an outcome says so."""
    report(http, made, quality=1.0)
    assert report(http, made, executed=False).status_code == 409


def test_an_unknown_decision_is_a_404(http: httpx.Client):
    """Nothing is learned about a decision that was never made."""
    answer = http.post("/reward", json={"decision_id": "nobody", "quality": 1.0})
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/unknown-decision"


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"quality": 1.2},
        {"quality": -0.1},
        {"latency_ms": -1},
        {"cost_usd": -1},
        {"input_tokens": 5},
        {"input_tokens": 5, "output_tokens": 5, "cost_usd": 1.0},
        {"executed": False, "quality": 1.0},
        {"error": "boom", "quality": 0.5},
        {"error": ""},
        {"quality": "NaN"},
        {"quality": "0.5"},
        {"latency_ms": True},
        {"executed": "no"},
        {"speed": 3},
    ],
)
def test_what_makes_no_sense_is_refused(
    http: httpx.Client, made: dict[str, Any], parts: dict[str, Any]
):
    """Ranges, absent components and contradictions are a 422 in problem+json."""
    answer = report(http, made, **parts)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_batch_answers_each_reward(http: httpx.Client, made: dict[str, Any]):
    """Results stand in the order of the rewards; each is a receipt or a problem."""
    decision_id = made["decision_id"]
    rewards = [
        {"decision_id": decision_id, "quality": 0.5},
        {"decision_id": "nobody", "quality": 0.5},
        {"decision_id": decision_id, "latency_ms": 5},
    ]
    results = http.post("/reward/batch", json={"rewards": rewards}).json()["results"]
    assert [r.get("status") for r in results] == [None, 404, None]
    assert results[2]["accepted"] == ["latency_ms"]

"""Arms that fail, over real HTTP and a real store, in real time."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
import orjson
import pytest
import redis

from serving.store.keys import HEALTH
from tests.servers import http_service, settings_for, until
from tests.serving.availability.traffic import (
    DOWN,
    GOOD,
    POOR,
    arms,
    counted,
    drive,
    learn,
    probability,
    report,
    route,
    share,
)


def test_a_failing_arm_gets_at_most_six_more_queries(redis_url: str, tmp_path: Path):
    """And is back at half of its former share within 20 rounds of its recovery: what it fails is no
    lesson on what it is worth."""
    with http_service(settings_for(redis_url, tmp_path, arms())) as http:
        drive(http, 100, good=GOOD)
        learn(http, redis_url)
        before = share(drive(http, 20, good=GOOD))
        assert before > 0.7
        failing = drive(http, 75, good=DOWN)
        assert 3 <= counted(failing)["good"] <= 6
        assert failing[-1]["excluded"][0]["arm"] == "good"
        assert "out until 2" in failing[-1]["excluded"][0]["reason"]
        learn(http, redis_url)
        until(lambda: share(drive(http, 1, good=GOOD)) > 0, "it may be tried again", 6.0)
        back = drive(http, 20, good=GOOD)
        assert share(back) >= before / 2
        assert back[-1]["excluded"] == []


def test_a_brown_out_loses_share_and_does_not_flap(redis_url: str, tmp_path: Path):
    """30% errors count as what they cost: less reward. The arm is seldom out, and its pmf says
    with which share of answers it was made."""
    rng = random.Random(3)
    with http_service(settings_for(redis_url, tmp_path, arms())) as http:
        drive(http, 60, good=GOOD, poor={**GOOD, "quality": 0.8})
        learn(http, redis_url)
        before = share(drive(http, 10, good=GOOD))
        browned = drive(
            http,
            250,
            good=lambda: {"error": "timeout"} if rng.random() < 0.3 else GOOD,
            poor={**GOOD, "quality": 0.8},
        )
        out = [bool(answer["excluded"]) for answer in browned]
        assert sum(b > a for a, b in pairwise(out)) <= 1
        assert counted(browned)["good"] > 10
        assert share(browned[-30:]) < before / 2
        record = http.get(f"/decisions/{browned[-1]['decision_id']}").json()["decision"]
        answered = dict(zip(record["arms"], record["answered"], strict=True))
        assert 0.5 < answered["good"] < 0.9
        assert answered["poor"] == 1.0


def test_one_bad_key_and_bad_queries_take_no_arm_out(redis_url: str, tmp_path: Path):
    """Of a query's own fault any number, of an arm's a single one."""
    only = {"constraints": {"allow": ["good"]}}
    with http_service(settings_for(redis_url, tmp_path, arms())) as http:
        report(http, route(http, **only), error="auth")
        for error in ["bad_request", "content_filter", "cancelled"] * 7:
            made = route(http, **only)
            assert made["degraded"] is None
            report(http, made, error=error)
        answer = route(http)
        assert {answer["arm"], *(a["arm"] for a in answer["alternatives"])} == {"good", "poor"}
        assert answer["excluded"] == []


def test_a_rate_limit_is_obeyed_to_the_second(redis_url: str, tmp_path: Path):
    """Nothing is sent there for as long as Retry-After says, and then at once."""
    with http_service(settings_for(redis_url, tmp_path, arms())) as http:
        made = route(http, constraints={"allow": ["good"]})
        report(http, made, error="rate_limited", retry_after_s=1.5)
        began = time.monotonic()
        while (at := time.monotonic() - began) < 1.45:
            assert probability(route(http), "good") == 0.0
        until(lambda: probability(route(http), "good") > 0.0, "it is called again", 1.0)
        assert at <= time.monotonic() - began < 2.0


def test_one_request_at_a_time_tries_an_arm(redis_url: str, tmp_path: Path):
    """However many come at once."""
    with http_service(settings_for(redis_url, tmp_path, arms())) as http:
        made = route(http, constraints={"allow": ["good"]})
        report(http, made, error="rate_limited", retry_after_s=0.2)
        time.sleep(0.3)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: route(http), range(64)))
        assert counted(answers)["good"] == 1
        tried = next(answer for answer in answers if answer["arm"] == "good")
        assert "being tried" in route(http)["excluded"][0]["reason"]
        report(http, tried, **GOOD)
        assert route(http)["excluded"] == []


def test_with_all_arms_out_the_first_to_come_back_serves(redis_url: str, tmp_path: Path):
    """Marked as what it is; the decision is drawn from that arm alone."""
    with http_service(settings_for(redis_url, tmp_path, arms())) as http:
        for arm, wait_s in (("good", 30), ("poor", 20)):
            made = route(http, constraints={"allow": [arm]})
            report(http, made, error="rate_limited", retry_after_s=wait_s)
        answer = route(http, decision_id="again")
        assert (answer["arm"], answer["degraded"]) == ("poor", "all_out")
        assert answer["propensity"] == 1.0
        assert answer["alternatives"] == []
        assert {one["arm"] for one in answer["excluded"]} == {"good", "poor"}
        assert route(http, decision_id="again") == answer
        denied = http.post("/route", json={"constraints": {"deny": ["good", "poor"]}})
        assert denied.status_code == 422
        report(http, answer, **POOR)
        assert route(http)["degraded"] is None  # it answered, so it is in


def test_a_policy_may_refuse_when_all_are_out(redis_url: str, tmp_path: Path):
    """With 503 and when to come back."""
    config = arms(policy='when_all_out = "refuse"')
    with http_service(settings_for(redis_url, tmp_path, config)) as http:
        for arm in ("good", "poor"):
            made = route(http, constraints={"allow": [arm]})
            report(http, made, error="rate_limited", retry_after_s=20)
        answer = http.post("/route", json={})
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/all-out"
        assert {one["arm"] for one in answer.json()["excluded"]} == {"good", "poor"}
        assert 18 <= int(answer.headers["retry-after"]) <= 20


@pytest.mark.parametrize("more", [{}, {"budget_usd": 1.0}])
@pytest.mark.parametrize("when_all_out", ["serve", "refuse"])
def test_a_batch_does_the_same_when_all_are_out(
    redis_url: str, tmp_path: Path, when_all_out: str, more: dict[str, float]
):
    """Request by request, under a budget too."""
    config = arms(policy=f'when_all_out = "{when_all_out}"')
    with http_service(settings_for(redis_url, tmp_path, config)) as http:
        for arm, wait_s in (("good", 30), ("poor", 20)):
            made = route(http, constraints={"allow": [arm]})
            report(http, made, error="rate_limited", retry_after_s=wait_s)
        requests = [
            {},
            {"constraints": {"allow": ["good"]}},
            {"constraints": {"deny": ["good", "poor"]}},
        ]
        results = http.post("/route/batch", json={"requests": requests, **more}).json()["results"]
        if when_all_out == "refuse":
            assert [one["status"] for one in results] == [503, 503, 422]
            assert {one["type"] for one in results[:2]} == {"/problems/all-out"}
        else:
            assert [one.get("arm") for one in results] == ["poor", "good", None]
            assert [one.get("degraded") for one in results] == ["all_out", "all_out", None]


def test_two_processes_know_the_same_within_a_second(redis_url: str, tmp_path: Path):
    """What one is told the other obeys, and so does one that is started later."""
    settings = settings_for(redis_url, tmp_path, arms())
    with http_service(settings) as one, http_service(settings) as other:
        drive(one, 40, good=DOWN)
        told_at = time.monotonic()
        until(lambda: probability(route(other), "good") == 0.0, "the other knows", 1.0)
        assert time.monotonic() - told_at < 1.0
        reason = route(one)["excluded"]
        assert route(other)["excluded"] == reason
        with http_service(settings) as later:
            assert route(later)["excluded"] == reason


def test_failures_told_to_two_processes_add_up(redis_url: str, tmp_path: Path):
    """Three in a row are three in a row, whoever hears of them."""
    settings = settings_for(redis_url, tmp_path, arms())
    with http_service(settings) as one, http_service(settings) as other:
        made = [route(one, constraints={"allow": ["good"]}) for _ in range(3)]
        for http, decision in zip((one, other, one), made, strict=True):
            report(http, decision, error="timeout")
        assert route(one)["excluded"]


def test_a_sound_fleet_leaves_nothing_in_the_store(http: httpx.Client, raw: redis.Redis):
    """Where nothing fails, nothing is written or read but now and then."""
    for _ in range(5):
        report(http, route(http), **GOOD)
    assert not raw.exists(HEALTH, "pm:{default}:used", "pm:{default}:under_way")


@pytest.mark.parametrize("error", ["timeout", "content_filter"])
def test_a_failure_earns_nothing_and_teaches_nothing(redis_url: str, tmp_path: Path, error: str):
    """The decision's quality is 0; what the model expects of the arm stays."""
    with http_service(settings_for(redis_url, tmp_path, arms())) as http:
        drive(http, 30, good=GOOD)
        learn(http, redis_url)
        answer = route(http, constraints={"allow": ["good"]})
        for _ in range(30):
            made = route(http, constraints={"allow": ["good"]})
            report(http, made, error=error, latency_ms=30_000.0)
        learn(http, redis_url)
        after = route(http, constraints={"allow": ["good"]})
        assert after["predicted"] == pytest.approx(answer["predicted"], rel=0.05)
        outcome = http.get(f"/decisions/{made['decision_id']}").json()["outcome"]
        assert outcome["error"] == error


def test_a_clock_that_goes_back_brings_an_arm_back_as_soon(
    redis_url: str, tmp_path: Path, raw: redis.Redis
):
    """What was written by a clock an hour ahead is written anew, once for all processes: the arm is
    out for as long as it was to be."""
    with http_service(settings_for(redis_url, tmp_path, arms())) as http:
        drive(http, 30, good=DOWN)
        ((key, known),) = raw.hgetall(HEALTH).items()
        health = orjson.loads(known)
        for name in ("since_ms", "until_ms", "seen_ms"):
            health[name] += 3_600_000
        raw.hset(HEALTH, key, orjson.dumps(health))

        def left_ms() -> float:
            return float(orjson.loads(raw.hget(HEALTH, key))["until_ms"]) - time.time() * 1_000

        assert left_ms() > 3_000_000
        until(lambda: left_ms() <= health["until_ms"] - health["since_ms"], "it is written anew")

"""Arms with several endpoints, over real HTTP and a real store."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from policy.arms.endpoints import least_outstanding
from policy.config.toml import parse
from serving.availability.health import TRIED_MS, Health, tried
from serving.availability.standing import Map, availability
from tests.servers import alive, http_service, offspring, running_up, settings_for, until
from tests.serving.availability.traffic import (
    DOWN,
    GOOD,
    arms,
    counted,
    drive,
    probability,
    report,
    route,
)

ONLY = {"constraints": {"allow": ["good"]}}
THREE = 'endpoints = ["http://1", "http://2", { url = "http://3", weight = 2.0 }]'
TWO = 'endpoints = ["http://a1", "http://a2"]'


@pytest.mark.parametrize(
    ("weights", "outstanding", "chosen"),
    [
        ([1, 1, 1], [2, 1, 3], {1}),
        ([1, 1, 2], [1, 1, 1], {2}),
        ([1, 2, 4], [1, 2, 4], {0, 1, 2}),
        ([1, 1, 1], [0, 1, 0], {0, 2}),
    ],
)
def test_the_least_loaded_by_weight_is_next(
    weights: list[float], outstanding: list[float], chosen: set[int]
):
    """Of equals each one, as u says, by weight."""
    us = [n / 100 for n in range(100)]
    assert {least_outstanding(weights, outstanding, u) for u in us} == chosen


def test_calls_spread_by_weight_over_processes(redis_url: str, tmp_path: Path):
    """What one process sends counts in the other at once; each outcome makes room."""
    settings = settings_for(redis_url, tmp_path, arms(THREE))
    with http_service(settings) as one, http_service(settings) as other:
        made = [route((one, other)[n % 2], **ONLY) for n in range(40)]
        by_endpoint = counted(made, "endpoint")
        assert by_endpoint["http://3"] == pytest.approx(20, abs=3)
        assert by_endpoint["http://1"] == pytest.approx(10, abs=2)
        for answer in made:
            if answer["endpoint"] == "http://1":
                report(one, answer, **GOOD)
        time.sleep(0.6)
        assert {route(other, **ONLY)["endpoint"] for _ in range(5)} == {"http://1"}


def test_one_dead_instance_takes_no_arm_out(redis_url: str, tmp_path: Path):
    """The others serve; the choice of instance is no part of the propensity."""
    with http_service(settings_for(redis_url, tmp_path, arms(THREE))) as http:
        seen = []
        for _ in range(60):
            made = route(http, **ONLY)
            seen.append(made["endpoint"])
            assert made["excluded"] == []
            assert made["propensity"] == 1.0
            if made["endpoint"] == "http://2":  # the others are slow
                report(http, made, **DOWN)
        assert seen.count("http://2") == 3
        states = places(http)
        assert states["http://1"]["state"] == "in"
        assert states["http://2"]["state"] == "out"
        assert states["http://2"]["why"] == "connection"


def test_a_failed_call_weighs_as_one_under_way(redis_url: str, tmp_path: Path):
    """So an instance that fails, and fast, isn't taken for the one with the most room."""
    with http_service(settings_for(redis_url, tmp_path, arms(THREE))) as http:
        seen = []
        for _ in range(30):
            made = route(http, **ONLY)
            seen.append(made["endpoint"])
            report(http, made, **(DOWN if made["endpoint"] == "http://2" else GOOD))
        assert seen.count("http://2") == 1


def test_an_arm_whose_instances_all_fail_is_out(redis_url: str, tmp_path: Path):
    """After six calls at most, however many instances it has; then one call tries for all."""
    with http_service(settings_for(redis_url, tmp_path, arms(THREE))) as http:
        failing = drive(http, 75, good=DOWN)
        assert counted(failing)["good"] <= 6
        until(lambda: probability(route(http), "good") > 0, "it may be tried", 7.0)


def places(http: httpx.Client) -> dict[str, dict[str, Any]]:
    """Those of the arm `good`, by endpoint."""
    told = next(arm for arm in http.get("/arms").json()["arms"] if arm["arm"] == "good")
    return {place["endpoint"]: place for place in told["places"]}


@pytest.mark.parametrize(("first_s", "other_s"), [(2.0, 2.0), (2.0, 100.0), (100.0, 2.0)])
def test_each_instance_is_left_alone_for_as_long_as_it_asks(
    redis_url: str, tmp_path: Path, first_s: float, other_s: float
):
    """To the second, whatever its arm's other instances ask for, and in each process."""
    settings = settings_for(redis_url, tmp_path, arms(TWO))
    with http_service(settings) as http, http_service(settings) as other:
        made = [route(http, **ONLY) for _ in range(2)]
        assert len(counted(made, "endpoint")) == 2
        until_ms = {}
        for one, wait_s in zip(made, (first_s, other_s), strict=True):
            until_ms[one["endpoint"]] = (time.time() + wait_s) * 1_000
            report(http, one, error="rate_limited", retry_after_s=wait_s)
        time.sleep(0.6)
        for process in (http, other):
            for endpoint, place in places(process).items():
                assert place["until_ms"] == pytest.approx(until_ms[endpoint], abs=500)
        until(lambda: probability(route(other), "good") > 0, "one may be tried", 3.0)


def test_an_arm_is_back_when_the_trial_of_one_instance_is_over():
    """One is tried for all: no other is said to be tried, or back, at a time that is past."""
    map_ = Map(parse(arms(TWO), "t.toml").arms, {})
    a1, a2 = map_.places["good"]
    out = Health(since_ms=1, outs=1, until_ms=5_000, why="timeout")
    healths = {a1.key: tried(out, 6_000), a2.key: out}
    found = availability(map_, healths, lambda _: 0.0, 7_000)
    assert found.back_ms == {"good": 6_000 + TRIED_MS}
    assert "1970-01-01T00:00:00Z" not in found.out["good"]
    assert found.out["good"].count("being tried until 1970-01-01T00:00:36Z") == 2
    asked = {**healths, a2.key: Health(until_ms=6_500, why="rate_limited", asked=True)}
    assert availability(map_, asked, lambda _: 0.0, 6_400).back_ms == {"good": 6_500}
    assert not availability(map_, asked, lambda _: 0.0, 6_500).out  # it is tried for itself


def test_each_call_of_a_plan_tells_of_its_place(redis_url: str, tmp_path: Path):
    """The answer says where each arm is to be called, and where one fails it isn't called again."""
    config = arms("").replace('id = "poor"', 'id = "poor"\nendpoints = ["http://1", "http://2"]')
    with http_service(settings_for(redis_url, tmp_path, config)) as http:
        seen = []
        for _ in range(30):
            made = route(http, plans=["fallback"])
            steps = {step["arm"]: step["endpoint"] for step in made["plan"]["steps"]}
            assert steps["good"] is None
            seen.append(steps["poor"])
            failed = steps["poor"] == "http://2"
            attempts = [
                {"arm": "poor", **({"error": "timeout"} if failed else {"quality": 1.0})},
                {"arm": "good", "quality": 1.0},
            ]
            body = {"attempts": attempts, "returned": "good"}
            report(http, made, **body)
        assert 1 <= seen.count("http://2") <= 3
        assert route(http, plans=["fallback"])["excluded"] == []


@pytest.mark.slow
def test_its_state_survives_the_kill_of_a_serving_process(tmp_path: Path):
    """Of two, either may die, and what takes its place knows what they knew."""
    (tmp_path / "pointsman.toml").write_text(arms(THREE))
    with running_up(tmp_path, arms(THREE), POINTSMAN_WORKERS="2") as (process, http):
        for _ in range(3):
            made = route(http, constraints={"allow": ["poor"]})
            report(http, made, error="rate_limited", retry_after_s=300.0)
        told = time.time()
        workers = [
            pid
            for pid in offspring(process.pid)
            if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        for pid in workers[:1]:
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not alive(pid), "it is dead")
        base = str(http.base_url)
        time.sleep(1.0)
        while time.time() < told + 4.0:  # connections of their own: whichever process answers
            with httpx.Client(base_url=base) as new:
                try:
                    answer = new.post("/route", json={}).json()
                except httpx.TransportError:
                    continue
            assert probability(answer, "poor") == 0.0
            assert answer["excluded"][0]["arm"] == "poor"
            time.sleep(0.1)

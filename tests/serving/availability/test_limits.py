"""What a call takes of limits, over real HTTP and a real store."""

from __future__ import annotations

import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from policy.arms.arm import Arm
from policy.arms.endpoints import Limits
from policy.config.problems import ConfigError
from policy.config.toml import parse
from serving.availability.limits import STEP_MS, Scope, moment, places
from serving.store.keys import Keys
from tests.servers import http_service, settings_for
from tests.serving.availability.traffic import GOOD, arms, counted, probability, report, route

DAY_MS = 86_400_000
ONLY = {"constraints": {"allow": ["good"]}}


def reason(answer: dict[str, object], arm: str = "good") -> str:
    return next(str(one["reason"]) for one in answer["excluded"] if one["arm"] == arm)  # type: ignore[attr-defined]


def tomorrow() -> str:
    return moment((time.time_ns() // 1_000_000 // DAY_MS + 1) * DAY_MS)


def test_a_minute_is_any_sixty_seconds():
    """What a call moves counts for 60 s at least, and for 70 at most."""
    scope = Scope("arm a", Limits(requests_per_minute=5))
    for at_ms in (0, 9_999, 1_234_567):
        (bound,) = scope.bounds(at_ms)
        used = defaultdict(float, {bound.fields[0]: 2.0}).__getitem__
        left = [
            scope.bounds(at_ms + later_ms)[0].left(used)
            for later_ms in (0, 60_000, 60_000 + STEP_MS)
        ]
        assert left == [3.0, 3.0, 5.0]
        assert bound.more_ms - at_ms <= STEP_MS


def test_a_day_is_a_utc_day():
    """It begins with nothing used."""
    scope = Scope("arm a", Limits(tokens_per_day=100))
    (late,), (early,) = scope.bounds(DAY_MS - 1), scope.bounds(DAY_MS)
    assert late.more_ms == DAY_MS
    assert late.fields != early.fields


def test_the_limits_of_all_that_an_arm_belongs_to_hold():
    """Those of the endpoint, the arm and the provider."""
    arm = Arm(
        id="a",
        provider="p",
        model="m",
        usd_per_mtok_in=0.0,
        usd_per_mtok_out=0.0,
        requests_per_day=10,
        endpoints=({"url": "http://1", "max_concurrency": 2}, "http://2"),
    )
    first, second = places(arm, Limits(credits_usd=1.0))
    assert [bound.name for bound in first.bounds(0)] == [
        "max_concurrency 2 of endpoint http://1 of a",
        "requests_per_day 10 of arm a",
        "credits_usd 1 of provider p",
    ]
    assert len(second.bounds(0)) == 2
    assert places(arm.model_copy(update={"endpoints": ()}), None)[0].key == "a"


def test_a_spent_free_tier_leaves_the_action_set(redis_url: str, tmp_path: Path):
    """Until the day turns, with the reason; a restart changes nothing."""
    settings = settings_for(redis_url, tmp_path, arms("requests_per_day = 5"))
    with http_service(settings) as http:
        for _ in range(5):
            report(http, route(http, **ONLY), **GOOD)
        answers = [route(http) for _ in range(20)]
        assert counted(answers)["good"] == 0
        expected = f"requests_per_day 5 of arm good is used up until {tomorrow()}"
        assert reason(answers[-1]) == expected
        refused = http.post("/route", json=ONLY)
        assert refused.status_code == 422
        assert {"arm": "good", "reason": expected} in refused.json()["excluded"]
    with http_service(settings) as http:
        assert reason(route(http)) == expected


def test_no_burst_goes_beyond_a_limit(redis_url: str, tmp_path: Path):
    """However many ask at once, in two processes: what is recorded is within it."""
    settings = settings_for(redis_url, tmp_path, arms("requests_per_minute = 10"))
    with http_service(settings) as one, http_service(settings) as other:
        with ThreadPoolExecutor(16) as pool:
            asked = pool.map(
                lambda i: (one, other)[i % 2].post("/route", json=ONLY).status_code, range(64)
            )
            assert sorted(asked) == [200] * 10 + [422] * 54
        answers = [route(http) for http in (one, other) for _ in range(10)]
        assert counted(answers) == {"poor": 20}


def test_tokens_count_as_expected_until_they_are_known(redis_url: str, tmp_path: Path):
    """Prompt and answer together; a call that doesn't fit goes elsewhere, a smaller one still
    fits."""
    settings = settings_for(redis_url, tmp_path, arms("tokens_per_day = 1000"))
    with http_service(settings) as http:
        hints = {"context_tokens": 100, "output_tokens": 400}
        made = route(http, hints=hints, **ONLY)
        assert http.post("/route", json={"hints": {**hints, "output_tokens": 500}, **ONLY}).is_error
        report(http, made, quality=1.0, input_tokens=100, output_tokens=50)
        route(http, hints={**hints, "output_tokens": 700}, **ONLY)
        refused = http.post("/route", json={"hints": hints, **ONLY}).json()["excluded"]
        assert {"arm": "good", "reason": "500 tokens > 50 left of its limits"} in refused
        withdrawn = route(http, hints={"context_tokens": 40, "output_tokens": 10}, **ONLY)
        assert "good" not in {route(http)["arm"] for _ in range(10)}
        report(http, withdrawn, executed=False)
        route(http, hints={"context_tokens": 40, "output_tokens": 10}, **ONLY)


def test_credits_are_spent_once(redis_url: str, tmp_path: Path):
    """By what calls really cost, over restarts and days."""
    settings = settings_for(redis_url, tmp_path, arms("credits_usd = 0.01"))
    with http_service(settings) as http:
        for cost_usd in (0.004, 0.0055):
            report(http, route(http, **ONLY), quality=1.0, cost_usd=cost_usd)
        report(http, route(http, **ONLY), error="timeout")
        report(http, route(http, **ONLY), quality=1.0, cost_usd=0.0005)
        assert reason(route(http)) == "credits_usd 0.01 of arm good is used up"


def test_a_providers_limit_is_over_all_of_its_arms(redis_url: str, tmp_path: Path):
    """And over all policies."""
    config = (
        arms(policy="[policies.other]\n").replace("poor-provider", "good-provider")
        + "[providers.good-provider]\nrequests_per_day = 3\n"
    )
    with http_service(settings_for(redis_url, tmp_path, config)) as http:
        route(http)
        route(http, policy="other")
        time.sleep(1.0)  # in which the one policy's counters are told to the other
        route(http, policy="other")
        time.sleep(1.0)
        for policy in ("default", "other"):
            refused = http.post("/route", json={"policy": policy})
            assert refused.status_code == 422
            for one in refused.json()["excluded"]:
                assert one["reason"].startswith("requests_per_day 3 of provider good-provider")


def test_concurrency_is_bounded(redis_url: str, tmp_path: Path):
    """By the outcomes that are awaited; each one that comes lets another call in."""
    config = arms('endpoints = [{ url = "http://1", max_concurrency = 2 }]')
    with http_service(settings_for(redis_url, tmp_path, config)) as http:
        made = [route(http, **ONLY) for _ in range(2)]
        assert http.post("/route", json=ONLY).status_code == 422
        assert "max_concurrency 2 of endpoint http://1" in reason(route(http))
        report(http, made[0], latency_ms=100.0)
        assert route(http, **ONLY)["endpoint"] == "http://1"
        report(http, made[1], error="timeout")
        assert probability(route(http), "good") > 0


def test_what_nobody_reports_is_over_in_time(raw: redis.Redis, redis_url: str, tmp_path: Path):
    """An outcome that never comes counts as under way for two minutes."""
    config = arms('endpoints = [{ url = "http://1", max_concurrency = 1 }]')
    with http_service(settings_for(redis_url, tmp_path, config)) as service:
        route(service, **ONLY)
        key = Keys("default").under_way
        ((member, until_ms),) = raw.zrange(key, 0, -1, withscores=True)
        assert 115_000 < until_ms - time.time() * 1_000 <= 120_000
        raw.zadd(key, {member: time.time() * 1_000 - 1})
        time.sleep(1.0)
        route(service, **ONLY)


def test_what_a_callers_own_router_chose_is_recorded(redis_url: str, tmp_path: Path):
    """It has happened: limits and health count it, and refuse nothing."""
    config = arms("requests_per_day = 2", policy='model = "caller"')
    with http_service(settings_for(redis_url, tmp_path, config)) as http:
        for _ in range(5):
            made = route(http, chosen={"arm": "good"})
            assert (made["arm"], made["excluded"]) == ("good", [])
            report(http, made, error="timeout")
        places = http.get("/arms").json()["arms"][0]["places"]
        assert places[0]["state"] == "out"
        assert places[0]["limits"][0]["left"] <= -1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("requests_per_day = 0", "requests_per_day: must be > 0, got 0"),
        ("tokens_per_minute = 1.5", "tokens_per_minute: must be a whole number, got 1.5"),
        ("credits_usd = -1.0", "credits_usd: must be > 0, got -1.0"),
        ("request_per_day = 5", "unknown key, did you mean 'requests_per_day'?"),
        ('endpoints = [{ url = "x", weight = 0.0 }]', "weight: must be > 0, got 0.0"),
        ('endpoints = [{ url = "x", max_concurency = 1 }]', "did you mean 'max_concurrency'?"),
        ('endpoints = ["x", { url = "x" }]', "must not repeat itself, got 'x' twice"),
    ],
)
def test_a_limit_that_makes_no_sense_is_one_line(line: str, fault: str):
    """When the configuration is read."""
    with pytest.raises(ConfigError) as error:
        parse(arms(line), "pointsman.toml")
    (told,) = error.value.faults
    assert fault in told


def test_a_provider_without_arms_is_a_slip():
    """Its limits would bound nothing."""
    with pytest.raises(ConfigError, match="no arm is of provider 'good-provder', did you mean"):
        parse(arms() + "[providers.good-provder]\nrequests_per_day = 3\n", "pointsman.toml")

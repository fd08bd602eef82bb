"""Plans over HTTP: what /route answers, what /reward takes of their calls, and what is learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis

from policy.plans.learned import PlanLearning
from policy.values.linear.model import LinearModel
from policy.values.snapshot import unpack
from serving.store.learning import LearnerStore
from tests.servers import (
    CONFIG,
    NEW_ARM,
    assert_same_state,
    fold_again,
    http_service,
    learn_all,
    settings_for,
    until,
)

PLANS = '\n[policies.default.plans]\nkinds = ["fallback", "hedge", "race", "cascade"]\n'
QUERY = {"query": {"text": "Write a function that reverses a list."}}
OUTCOMES = "pm:{default}:outcomes"


@pytest.fixture
def http(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    config = NEW_ARM + CONFIG + PLANS
    with http_service(settings_for(redis_url, tmp_path, config)) as client:
        yield client


@pytest.fixture
def store(redis_url: str) -> Iterator[LearnerStore]:
    opened = LearnerStore(redis_url, "default")
    yield opened
    opened.close()


def route(http: httpx.Client, *plans: str, **more: Any) -> dict[str, Any]:
    answer = http.post("/route", json={**QUERY, "plans": plans, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def drawn(http: httpx.Client, kind: str) -> dict[str, Any]:
    """A decision for which a plan of this kind was drawn."""
    for _ in range(200):
        answer = route(http, kind)
        if answer["plan"] is not None:
            assert answer["plan"]["kind"] == kind
            return answer
    raise AssertionError(f"no {kind} in 200 draws")


def reward(http: httpx.Client, made: dict[str, Any], **parts: Any) -> httpx.Response:
    return http.post("/reward", json={"decision_id": made["decision_id"], **parts})


def header(store: LearnerStore) -> Any:
    return unpack(store.checkpoint("1") or b"").header


def test_a_plan_is_answered_as_steps(http: httpx.Client):
    """The first step's arm is the answer's; all propensities sum to 1, plans' among them, and the
    same id gets the same answer."""
    made = drawn(http, "cascade")
    first, second = made["plan"]["steps"]
    assert (made["arm"], made["provider"]) == (first["arm"], first["provider"])
    assert first["begin"] == {"at_ms": 0}
    assert second["begin"] == {"quality_below": 0.7}
    assert second["model"]
    total = made["propensity"] + sum(other["propensity"] for other in made["alternatives"])
    assert total == pytest.approx(1.0, abs=1e-9)
    assert any(other["plan"] is None for other in made["alternatives"])
    again = route(http, "cascade", decision_id=made["decision_id"] + "x")
    assert route(http, "cascade", decision_id=made["decision_id"] + "x") == again


def test_what_isnt_allowed_is_said(redis_url: str, tmp_path: Path):
    """A policy without a table of plans allows fallbacks alone; an unknown kind is a 422."""
    with http_service(settings_for(redis_url, tmp_path)) as http:
        made = route(http, "race", "fallback")
        assert made["notes"] == ["plans: this policy allows no race"]
        assert made["plan"]["kind"] == "fallback"
        refused = http.post("/route", json={**QUERY, "plans": ["relay"]})
        assert refused.status_code == 422
        assert "plans" in refused.text
        assert route(http)["plan"] is None
        assert http.post("/route", json={**QUERY, "plans": None}).json()["plan"] is None


def test_the_calls_make_the_outcome(http: httpx.Client, raw: redis.Redis):
    """Quality of the returned answer, time of both calls one after the other, cost of both; the
    same report again is none, another one a conflict."""
    made = drawn(http, "cascade")
    first, second = (step["arm"] for step in made["plan"]["steps"])
    calls = [
        {"arm": first, "quality": 0.2, "latency_ms": 400, "cost_usd": 0.001},
        {"arm": second, "latency_ms": 900, "input_tokens": 1_000, "output_tokens": 0},
    ]
    receipt = reward(http, made, attempts=calls, returned=second, quality=0.9)
    assert receipt.json()["accepted"] == ["quality", "latency_ms", "cost_usd", "attempts"]
    assert receipt.json()["missing"] == []
    again = reward(http, made, attempts=calls, returned=second, quality=0.9).json()
    assert (again["accepted"], raw.xlen(OUTCOMES)) == ([], 1)
    assert reward(http, made, attempts=calls, returned=first).status_code == 409
    outcome = http.get(f"/decisions/{made['decision_id']}").json()["outcome"]
    assert (outcome["quality"], outcome["latency_ms"]) == (0.9, 1_300)
    price = {"small": 0.1, "medium": 0.5, "large": 3.0, "embedder": 0.02}[second]
    assert outcome["cost_usd"] == pytest.approx(0.001 + price / 1_000)
    assert outcome["returned"] == second
    assert [one["arm"] for one in outcome["attempts"]] == [first, second]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"attempts": []}, "attempts"),
        ({"returned": "small"}, "returned belongs to attempts"),
        ({"attempts": [{"arm": "smal"}]}, "attempts[0].arm"),
        ({"attempts": [{"arm": "small"}, {"arm": "large"}]}, "say whose answer was returned"),
        ({"attempts": [{"arm": "small"}], "returned": "large"}, "not among the attempts"),
        ({"attempts": [{"arm": "small", "error": "timeout", "cancelled": True}]}, "not both"),
        ({"attempts": [{"arm": "small", "error": "timeout"}], "quality": 0.9}, "no answer"),
        ({"attempts": [{"arm": "small"}], "error": "timeout"}, "of each of them"),
        ({"attempts": [{"arm": "small", "cost_usd": 1, "input_tokens": 1}]}, "together"),
        ({"attempts": [{"arm": "small", "qualty": 1}]}, "qualty"),
    ],
)
def test_calls_that_make_no_sense_are_refused(
    http: httpx.Client, raw: redis.Redis, parts: dict[str, Any], why: str
):
    """In one line of our fields, and nothing is accepted."""
    made = route(http)
    answer = reward(http, made, **parts)
    assert answer.status_code == 422
    assert why in answer.json()["detail"]
    assert raw.xlen(OUTCOMES) == 0


def test_a_fallback_that_ran_is_no_other_arm(http: httpx.Client, raw: redis.Redis):
    """The answer of a step of the plan is the plan's; one of an arm that nobody asked for counts as
    executed in its place."""
    made = route(http, "fallback")
    first, second, third = (step["arm"] for step in made["plan"]["steps"])
    failed = {"arm": first, "error": "timeout", "latency_ms": 100}
    reward(http, made, attempts=[failed, {"arm": second, "quality": 1}])
    ((_, event),) = raw.xrange(OUTCOMES)
    assert event[b"arm"] == event[b"decided_arm"] == first.encode()
    other = route(http)
    stranger = next(arm for arm in (first, second, third) if arm != other["arm"])
    reward(http, other, attempts=[{"arm": other["arm"], "error": "x"}, {"arm": stranger}])
    _, event = raw.xrange(OUTCOMES)[-1]
    assert event[b"arm"] == stranger.encode()


def test_a_cancelled_call_costs_its_prompt(http: httpx.Client):
    """Unless its cost is told; the receipt says so."""
    made = drawn(http, "hedge")
    first, second = (step["arm"] for step in made["plan"]["steps"])
    assert made["plan"]["steps"][1]["begin"]["after_ms"] > 0
    out = {"arm": first, "cancelled": True, "latency_ms": 5_000}
    won = {"arm": second, "latency_ms": 700, "cost_usd": 0.002}
    receipt = reward(http, made, attempts=[out, won], quality=1).json()
    assert "cost_usd" in receipt["accepted"]
    assert "a cancelled call counts as its prompt" in receipt["notes"][0]
    outcome = http.get(f"/decisions/{made['decision_id']}").json()["outcome"]
    assert 0.002 < outcome["cost_usd"] < 0.0021


def test_tokens_of_a_plan_belong_to_its_calls(http: httpx.Client):
    """Nobody can tell at whose prices they count."""
    made = drawn(http, "race")
    answer = reward(http, made, input_tokens=100, output_tokens=10)
    assert answer.status_code == 422
    assert "report its `attempts`" in answer.json()["detail"]


def test_each_call_is_learned_once(http: httpx.Client, redis_url: str, store: LearnerStore):
    """By its arm, and the whole by the plan; wherever the stream is cut, and after a restart."""
    made = [drawn(http, kind) for kind in ("cascade", "race", "hedge") for _ in range(4)]
    events = 0
    for i, one in enumerate(made):
        alone = route(http)
        assert reward(http, alone, quality=0.5, latency_ms=700).status_code == 200
        first, second = (step["arm"] for step in one["plan"]["steps"])
        calls = [
            {"arm": first, "quality": 0.1 * (i % 3), "latency_ms": 500 + i, "cost_usd": 0.001},
            {"arm": second, "latency_ms": 900, "cost_usd": 0.004},
        ]
        if one["plan"]["kind"] == "hedge":
            calls[0] = {"arm": first, "cancelled": True, "latency_ms": 2_000}
        answer = reward(http, one, attempts=calls, returned=second)
        assert answer.status_code == 200, answer.text
        later = reward(http, one, quality=0.8)
        assert later.json()["accepted"] == ["quality"]
        events += 1 + 2 + 1
        if i % 5 == 4:
            learn_all(redis_url)
    learn_all(redis_url)
    found = header(store)
    assert found.events == events
    cells = PlanLearning.of(found.plans).values()
    for one in made:
        assert cells.beyond(one["plan"]["id"], 1).unknown < 1.0
    assert cells.spreads.keys() >= {made[0]["arm"]}
    checkpoint = store.checkpoint("1")
    assert_same_state(checkpoint, fold_again(store))
    assert checkpoint is not None
    model = LinearModel.from_parts(unpack(checkpoint).parts)
    assert 0.0 < model.compared.pairs[1, 1] <= 4.0  # the races' latencies, of arms known by then


def test_what_plans_taught_serves(http: httpx.Client, redis_url: str):
    """A cascade that always disappoints is drawn less, though its arms are expected to do well."""
    before = mean_share(http)
    for _ in range(60):
        made = drawn(http, "cascade")
        first, second = (step["arm"] for step in made["plan"]["steps"])
        calls = [{"arm": first, "quality": 0.3}, {"arm": second}]
        reward(http, made, attempts=calls, returned=second, quality=0.0, latency_ms=1, cost_usd=0)
    learn_all(redis_url)
    until(lambda: http.get("/policies/default").json()["snapshot"] > 0, "the snapshot serves")
    assert mean_share(http) < before / 2


def mean_share(http: httpx.Client) -> float:
    """Of cascades in the draw."""
    made = [route(http, "cascade") for _ in range(5)]
    shares = [
        sum(one["propensity"] for one in (*answer["alternatives"],) if one["plan"])
        + (answer["propensity"] if answer["plan"] else 0.0)
        for answer in made
    ]
    return sum(shares) / len(shares)


def test_a_correction_of_a_plan_is_logged_and_not_learned(
    http: httpx.Client, redis_url: str, store: LearnerStore
):
    """What several calls taught stays."""
    made = drawn(http, "race")
    first, second = (step["arm"] for step in made["plan"]["steps"])
    calls = [{"arm": first, "quality": 0.1}, {"arm": second, "quality": 0.9}]
    reward(http, made, attempts=calls, returned=second)
    learn_all(redis_url)
    before = header(store).plans
    body = {"decision_id": made["decision_id"], "quality": 0.2, "by": "ada", "reason": "wrong"}
    assert http.post("/correction", json=body).json()["corrected"] == ["quality"]
    learn_all(redis_url)
    assert header(store).plans == before
    record = orjson.loads(http.get(f"/decisions/{made['decision_id']}").content)
    assert record["outcome"]["reported_quality"] == 0.9
    assert record["decision"]["plan"]["id"] == made["plan"]["id"]


def test_each_call_tells_how_its_arm_is(http: httpx.Client):
    """The arm that failed in three fallbacks is out, the one that answered isn't."""
    first = ""
    for _ in range(40):
        made = route(http, "fallback")
        steps = [step["arm"] for step in made["plan"]["steps"]]
        first = first or steps[0]
        if steps[0] == first:
            failed = {"arm": first, "error": "timeout", "latency_ms": 100}
            answer = reward(http, made, attempts=[failed, {"arm": steps[1], "quality": 1}])
            assert answer.status_code == 200
    assert [out["arm"] for out in route(http)["excluded"]] == [first]

"""A batch over HTTP: each request by itself, a budget over all of them, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from tests.servers import http_service, settings_for
from tests.serving.test_bad_input import assert_problem

# Arms for which somebody has said what they are good at, by the price of a call: the rules take
# the cheapest that is good enough, so that what a batch costs can be told beforehand.
PRICES = {
    "classifier": ("extraction", 0.00001),
    "analyst": ("analysis", 0.00005),
    "mathematician": ("math", 0.00008),
    "coder": ("code", 0.0001),
    "writer": ("creative", 0.00015),
}
ALL = "code = 0.97, math = 0.97, creative = 0.97, analysis = 0.97, extraction = 0.97"


def arm(name: str, usd: float, priors: str, more: str = "") -> str:
    return f"""[[arms]]
id = "{name}"
provider = "p"
model = "{name}"
usd_per_mtok_in = 0.0
usd_per_mtok_out = 0.0
usd_per_request = {usd}
tokens_per_second = 100.0
priors = {{ {priors} }}
{more}
"""


SWARM = "".join(arm(name, usd, f"{task} = 0.9") for name, (task, usd) in PRICES.items())
SWARM += arm("frontier", 0.0005, ALL, 'capabilities = ["chat", "vision"]')
SWARM += '[policies.default]\nmodel = "rules"\nfloor = 0.0\nrules = { min_quality = 0.8 }\n'


@pytest.fixture
def swarm(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    with http_service(settings_for(redis_url, tmp_path, SWARM)) as client:
        yield client


def agents(n: int, task: str, **more: Any) -> list[dict[str, Any]]:
    return [{"hints": {"task_type": task}, **more} for _ in range(n)]


def routed(http: httpx.Client, requests: list[Any], **more: Any) -> dict[str, Any]:
    answer = http.post("/route/batch", json={"requests": requests, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


TWENTY_EIGHT = [
    *agents(10, "classification"),
    *agents(8, "analysis"),
    *agents(5, "code"),
    *agents(3, "maths"),
    *agents(2, "creative"),
]


def test_a_swarm_of_28(swarm: httpx.Client):
    """All on one arm of 0.0001 USD a call cost 0.0028; each on its own kind's 0.00154: 45% less."""
    totals = routed(swarm, TWENTY_EIGHT, baseline="coder")["totals"]
    assert totals["baseline_cost_usd"] == pytest.approx(0.0028)
    assert totals["predicted_cost_usd"] == pytest.approx(0.00154)
    assert totals["saving"] == pytest.approx(0.45)


def test_a_swarm_of_180(swarm: httpx.Client):
    """Ten of them need eyes, which one arm has. On it alone all would cost 0.09 USD. Called at
    once, they take as long as the longest: 200 tokens at 100 a second."""
    requests = [
        *agents(30, "classification"),
        *agents(50, "code"),
        *agents(40, "analysis"),
        *agents(30, "creative"),
        *agents(20, "maths"),
        *agents(10, "analysis", constraints={"capabilities": ["vision"]}),
    ]
    body = routed(swarm, requests, baseline="frontier", defaults={"hints": {"output_tokens": 200}})
    assert {result["arm"] for result in body["results"][-10:]} == {"frontier"}
    by_hand = 30 * 0.00001 + 50 * 0.0001 + 40 * 0.00005 + 30 * 0.00015 + 20 * 0.00008 + 10 * 0.0005
    assert body["totals"] == {
        "predicted_cost_usd": pytest.approx(by_hand),
        "baseline_cost_usd": pytest.approx(0.09),
        "saving": pytest.approx(1 - by_hand / 0.09),
        "predicted_wall_ms": pytest.approx(2_000.0),
    }


def test_a_swarm_of_150(swarm: httpx.Client):
    """Twenty are critical: only the best arm will do for them."""
    requests = [
        *agents(50, "classification"),
        *agents(30, "code"),
        *agents(20, "maths"),
        *agents(20, "creative"),
        *agents(20, "analysis", constraints={"min_quality": 0.95}),
        *agents(10, "analysis", constraints={"capabilities": ["vision"]}),
    ]
    body = routed(swarm, requests, baseline="frontier")
    assert {result["arm"] for result in body["results"][-30:]} == {"frontier"}
    by_hand = 50 * 0.00001 + 30 * 0.0001 + 20 * 0.00008 + 20 * 0.00015 + 30 * 0.0005
    assert body["totals"]["predicted_cost_usd"] == pytest.approx(by_hand)
    assert body["totals"]["saving"] == pytest.approx(1 - by_hand / 0.075)


def test_wrong_ones_hurt_nobody_and_count_for_nothing(swarm: httpx.Client):
    """Unknown fields, what is no object, an arm for nobody: problems in their places, under a
    budget too."""
    wrong = [{"nonsense": 1}, 7, {"constraints": {"allow": []}}, {"policy": "nobody"}]
    for more in ({}, {"budget_usd": 1.0}):
        requests = [part for pair in zip(TWENTY_EIGHT, wrong, strict=False) for part in pair]
        body = routed(swarm, [*requests, *TWENTY_EIGHT[4:]], baseline="coder", **more)
        results = body["results"]
        assert [r.get("status") for r in results[:8:2]] == [None] * 4
        assert [r["status"] for r in results[1:8:2]] == [422, 422, 422, 404]
        assert body["totals"]["predicted_cost_usd"] == pytest.approx(0.00154)
        assert body["totals"]["baseline_cost_usd"] == pytest.approx(0.0028)


def test_defaults_stand_where_a_request_says_nothing(swarm: httpx.Client):
    """Of hints and constraints key by key, null being nothing; a request's own go first."""
    defaults = {"hints": {"task_type": "code"}, "constraints": {"deny": ["coder"]}}
    requests: list[Any] = [
        {},
        {"hints": {"task_type": "analysis"}, "constraints": None},
        {"hints": {"output_tokens": 5, "task_type": None}, "constraints": {"deny": []}},
    ]
    results = routed(swarm, requests, defaults=defaults)["results"]
    assert [result["arm"] for result in results] == ["frontier", "analyst", "coder"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"defaults": {"nonsense": 1}}, "defaults.nonsense"),
        ({"defaults": {"decision_id": "x"}}, "defaults.decision_id"),
        ({"defaults": {"session": "s", "plans": ["race"]}}, "defaults"),
        ({"baseline": "nobody"}, "baseline"),
        ({"budget_usd": 0}, "budget_usd"),
        ({"budget_usd": 0.00027}, "budget_usd"),  # 28 times the cheapest are 0.00028
    ],
)
def test_what_is_wrong_with_all_is_said_once(swarm: httpx.Client, body: dict[str, Any], field: str):
    answer = swarm.post("/route/batch", json={"requests": TWENTY_EIGHT, **body})
    assert_problem(answer, 422)
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_batch_of_decided_ids_gets_the_stored_answers(swarm: httpx.Client, raw: redis.Redis):
    """Under a budget as well, though its ceilings may be others by now."""
    requests = [{**one, "decision_id": f"d-{i}"} for i, one in enumerate(TWENTY_EIGHT)]
    first = routed(swarm, requests, budget_usd=0.002)["results"]
    again = routed(swarm, requests, budget_usd=0.001)["results"]
    assert first == again
    assert raw.xlen("pm:{default}:decisions") == 28


LEARNS = "".join(arm(f"arm-{i}", 0.0001 * 4**i, "") for i in range(3)) + "[policies.default]\n"


@pytest.mark.parametrize("share", [1.05, 3.0, 12.0])
def test_a_budget_is_kept_whatever_is_drawn(redis_url: str, tmp_path: Path, share: float):
    """An arm's draws are its own, and what all may cost together holds each time; each logged pmf
    is over the arms within that request's ceiling."""
    with http_service(settings_for(redis_url, tmp_path, LEARNS)) as http:
        for i in range(3):
            budget = share * 40 * 0.0001
            requests = [{"query": {"text": f"question {i} {j}"}} for j in range(40)]
            body = routed(http, requests, budget_usd=budget)
            assert body["totals"]["predicted_cost_usd"] <= budget
            sums = [
                r["propensity"] + sum(a["propensity"] for a in r["alternatives"])
                for r in body["results"]
            ]
            np.testing.assert_allclose(sums, 1.0, atol=1e-9)
            arms = {result["arm"] for result in body["results"]}
            assert (arms == {"arm-0"}) == (share < 2.0)

"""A policy's budget, over real HTTP and a real store."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from pointsman.commands import status
from policy.choosing.pacing import Budget, Pace, Purse, spent
from policy.objective import Weights
from tests.servers import http_service, settings_for
from tests.serving.availability.traffic import arms, learn, report, route

DEAR = "usd_per_mtok_in = 0.1\nusd_per_mtok_out = 0.1"


def priced(good: float, poor: float, budget: str) -> str:
    """The two arms at list prices a call of about 0.0001 USD times these."""
    text = arms(policy=f"budget = {{ {budget} }}")
    first, second = text.split(DEAR)[0], text.split(DEAR)[1:]
    prices = (f"usd_per_mtok_in = {p}\nusd_per_mtok_out = {p}" for p in (good, poor))
    return first + "".join(price + rest for price, rest in zip(prices, second, strict=True))


def budget_of(http: httpx.Client) -> dict[str, Any]:
    return dict(http.get("/policies/default").json()["budget"])


def test_a_spent_budget_leaves_free_arms(redis_url: str, tmp_path: Path):
    """And says what it has spent; a real cost takes the place of a predicted one, once."""
    settings = settings_for(redis_url, tmp_path, priced(1.0, 0.0, "usd = 0.01"))
    with http_service(settings) as http:
        made = route(http, constraints={"allow": ["good"]})
        assert budget_of(http)["spent_usd"] > 0.0
        report(http, made, quality=0.9, cost_usd=0.01)
        report(http, made, quality=0.9, cost_usd=0.01)
        told = budget_of(http)
        assert told["spent_usd"] == pytest.approx(0.01)
        assert told["left_usd"] == pytest.approx(0.0)
        answers = [route(http) for _ in range(20)]
        assert {one["arm"] for one in answers} == {"poor"}
        (out,) = answers[0]["excluded"]
        assert out["arm"] == "good"
        assert "that the budget has for a call until" in out["reason"]
    with http_service(settings) as http:  # a restart changes nothing
        assert budget_of(http)["spent_usd"] == pytest.approx(0.01)
        assert {route(http)["arm"] for _ in range(5)} == {"poor"}


def test_without_free_arms_a_spent_budget_refuses(redis_url: str, tmp_path: Path):
    """With the reason, and when there is more; a correction gives back what wasn't spent."""
    settings = settings_for(redis_url, tmp_path, priced(1.0, 1.0, "usd = 0.01"))
    with http_service(settings) as http:
        made = route(http)
        report(http, made, cost_usd=0.02)
        answer = http.post("/route", json={"query": {"text": "Sort a list."}})
        assert answer.status_code == 422
        assert "T00:00:00Z" in answer.text
        corrected = http.post(
            "/correction",
            json={
                "decision_id": made["decision_id"],
                "cost_usd": 0.001,
                "by": "me",
                "reason": "a slip",
            },
        )
        assert corrected.status_code == 200, corrected.text
        deadline = time.monotonic() + 5.0
        while http.post("/route", json={"query": {"text": "Sort."}}).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_what_was_never_used_costs_nothing(redis_url: str, tmp_path: Path):
    settings = settings_for(redis_url, tmp_path, priced(1.0, 1.0, "usd = 1.0"))
    with http_service(settings) as http:
        made = route(http)
        assert budget_of(http)["spent_usd"] > 0.0
        report(http, made, executed=False)
        assert budget_of(http)["spent_usd"] == pytest.approx(0.0)


def test_many_at_once_do_not_pass_it(redis_url: str, tmp_path: Path):
    """Two processes, many requests under way: the store itself refuses what would be too much."""
    settings = settings_for(redis_url, tmp_path, priced(1.0, 1.0, "usd = 0.005"))
    with http_service(settings) as http, http_service(settings) as other:
        body = {"query": {"text": "Sort a list."}, "hints": {"output_tokens": 990}}

        def ask(i: int) -> int:
            return (http, other)[i % 2].post("/route", json=body).status_code

        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(ask, range(24)))
        assert 200 in codes
        assert 422 in codes
        time.sleep(1.0)
        assert budget_of(http)["spent_usd"] <= 0.005
        assert budget_of(other)["spent_usd"] == pytest.approx(budget_of(http)["spent_usd"])


def test_the_price_is_in_the_weights(redis_url: str, tmp_path: Path):
    """That are logged with a decision; the status tells of it."""
    settings = settings_for(redis_url, tmp_path, priced(10.0, 0.1, "usd = 0.5"))
    with http_service(settings) as http:
        for _ in range(60):
            made = route(http)
            good = made["arm"] == "good"
            report(http, made, quality=0.9 if good else 0.6, cost_usd=0.001 if good else 0.00001)
        learn(http, redis_url)
        for _ in range(100):
            made = route(http)
        assert budget_of(http)["price"] > 0.0
        record = http.get(f"/decisions/{made['decision_id']}").json()["decision"]
        assert Weights(*record["weights"]).cost > 0.15  # which is the objective's own
        assert "budget of 0.5 USD" in _status(http)


def _status(http: httpx.Client) -> str:
    return status.text(http.get("/policies/default").json())


def test_a_budget_too_small_for_the_traffic_says_so(redis_url: str, tmp_path: Path):
    settings = settings_for(redis_url, tmp_path, priced(1.0, 1.0, "usd = 0.002, hard = false"))
    with http_service(settings) as http:
        for _ in range(40):
            route(http)
        told = budget_of(http)
        assert not told["can_be_kept"]
        assert "even with the cheapest arm" in told["why"]
        assert "it can't be kept" in _status(http)


def test_a_local_decider_is_told_that_a_budget_is_not_for_it(redis_url: str, tmp_path: Path):
    settings = settings_for(redis_url, tmp_path, priced(1.0, 1.0, "usd = 1.0"))
    with http_service(settings) as http:
        answer = http.get("/policies/default/state")
        assert answer.status_code == 409
        assert "which only the service keeps" in answer.text


def test_script_and_process_follow_the_same_price(redis_url: str, tmp_path: Path):
    """The store's counters say what `spent` says of the same decisions."""
    text = priced(1.0, 0.5, "usd = 0.5")
    settings = settings_for(redis_url, tmp_path, text)
    with http_service(settings) as http:
        made = [route(http) for _ in range(30)]
        told = budget_of(http)
        records = [http.get(f"/decisions/{one['decision_id']}").json()["decision"] for one in made]
    budget, purse = Budget(usd=0.5), Purse()
    for one in records:
        now_ms = one["made_at_ms"]
        pace = Pace.of(budget, purse, now_ms)
        tokens = one["prompt_tokens"] + one["output_tokens"]
        costs = tokens * np.array([{"good": 1.0, "poor": 0.5}[arm] for arm in one["arms"]]) / 1e6
        at = one["arms"].index(one["arm"])
        purse = spent(pace, now_ms, float(costs @ one["pmf"]), float(costs[at]), float(costs.min()))
    assert told["spent_usd"] == pytest.approx(purse.spent_usd, rel=1e-6)
    assert told["price"] == pytest.approx(Pace.of(budget, purse, now_ms).price, rel=1e-6)


def test_a_batch_that_runs_out_says_so_of_each(redis_url: str, tmp_path: Path):
    """The store stays within reach, however many are refused at once."""
    settings = settings_for(redis_url, tmp_path, priced(1.0, 1.0, "usd = 1.0"))
    hints = {"context_tokens": 5_000, "output_tokens": 5_000}
    body = {"defaults": {"hints": hints}, "requests": [{}] * 300}
    with http_service(settings) as http:
        results = http.post("/route/batch", json=body, timeout=60.0).json()["results"]
        told = budget_of(http)
    kinds = {one.get("status", 200) for one in results}
    assert kinds == {200, 422}, results[-1]
    assert told["spent_usd"] <= 1.0


@pytest.mark.parametrize("together", [{}, {"budget_usd": 10.0}])
def test_a_batch_is_paced_as_single_requests_are(
    redis_url: str, tmp_path: Path, together: dict[str, float]
):
    """The price and what a call may cost follow what those before in the batch will cost, and count
    as traffic; each decision logs the weights that it was made with."""
    settings = settings_for(redis_url, tmp_path, priced(2.0, 0.1, "usd = 1.0"))
    hints = {"context_tokens": 1_000, "output_tokens": 1_000}
    with http_service(settings) as http:
        for _ in range(200):
            route(http, hints=hints)
        by_one = budget_of(http)
    redis.Redis.from_url(redis_url).flushall()
    body = {"defaults": {"hints": hints}, "requests": [{}] * 200, **together}
    with http_service(settings) as http:
        made = http.post("/route/batch", json=body, timeout=60.0).json()["results"]
        at_once = budget_of(http)
        records = [
            http.get(f"/decisions/{one['decision_id']}").json()["decision"] for one in made[::20]
        ]
    assert len({tuple(one["weights"]) for one in records}) > 5
    assert at_once["spent_usd"] < 2.0 * by_one["spent_usd"]
    assert at_once["price"] > 0.25 * by_one["price"] > 0.0

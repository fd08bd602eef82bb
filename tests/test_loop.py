"""The loop: route, reward, learn, and route better. Real processes, real HTTP."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import redis

from tests.servers import CONFIG, learn_all, running_up, until

QUALITY = {("code", "small"): 0.9, ("code", "large"): 0.4, ("chat", "small"): 0.3}


def quality(task: str, arm: str) -> float:
    return QUALITY.get((task, arm), 0.8)


def share_of_best(http: httpx.Client, rounds: int, report: Callable[[dict, str], None]) -> float:
    """Drive alternating tasks; how often the better arm of each was chosen."""
    best = 0
    for i in range(rounds):
        task = ("code", "chat")[i % 2]
        made = http.post("/route", json={"hints": {"task_type": task}}).json()
        report(made, task)
        best += made["arm"] == {"code": "small", "chat": "large"}[task]
    return best / rounds


def test_it_routes_better_as_rewards_arrive(tmp_path: Path):
    """From a coin toss to the right arm for each task, within a few hundred rewards."""
    with running_up(tmp_path, CONFIG) as (_, http):

        def report(made: dict, task: str) -> None:
            body = {"decision_id": made["decision_id"], "quality": quality(task, made["arm"])}
            assert http.post("/reward", json=body).status_code == 200

        share_of_best(http, 300, report)
        until(lambda: http.get("/policies/default").json()["events"] >= 290, "rewards are learned")
        assert share_of_best(http, 100, report) > 0.9


def test_logged_propensities_are_the_ones_drawn_with(
    http: httpx.Client, redis_url: str, raw: redis.Redis
):
    """Promise 2: over a log, chosen arms match their logged probabilities.

    sum(chosen - p) has mean 0 and variance sum p (1 - p) under the promise; four standard errors.
    """
    gap, variance = 0.0, 0.0
    rng = np.random.default_rng(7)
    for i in range(400):
        made = http.post("/route", json={"query": {"text": f"question {i % 37}"}}).json()
        body = {"decision_id": made["decision_id"], "quality": float(rng.random())}
        http.post("/reward", json=body)
        if i % 50 == 49:
            learn_all(redis_url)
        pmf = {a["arm"]: a["propensity"] for a in made["alternatives"]}
        p = pmf.get("small", made["propensity"])
        gap += (made["arm"] == "small") - p
        variance += p * (1 - p)
    assert variance > 5  # the test can fail
    assert abs(gap) < 4 * math.sqrt(variance)

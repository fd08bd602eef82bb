"""Traffic over HTTP against arms whose behaviour a test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from tests.servers import learn_all, until

Outcome = dict[str, Any]

GOOD = {"quality": 0.9, "latency_ms": 500.0, "cost_usd": 0.0001}
POOR = {"quality": 0.6, "latency_ms": 500.0, "cost_usd": 0.0001}
DOWN = {"error": "connection"}


def arms(*more: str, policy: str = "") -> str:
    """A configuration of the arms `good` and `poor`; `more` are lines of the first one's table."""
    tables = [
        f"""[[arms]]
id = "{name}"
provider = "{name}-provider"
model = "{name}"
usd_per_mtok_in = 0.1
usd_per_mtok_out = 0.1
prices_checked = 2026-01-01
{chr(10).join(lines)}
"""
        for name, lines in (("good", more), ("poor", ()))
    ]
    return "".join(tables) + f"[policies.default]\n{policy}\n"


def route(http: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = http.post("/route", json={"query": {"text": "Sort a list."}, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def report(http: httpx.Client, made: dict[str, Any], **outcome: Any) -> None:
    answer = http.post("/reward", json={"decision_id": made["decision_id"], **outcome})
    assert answer.status_code == 200, answer.text


def drive(
    http: httpx.Client, rounds: int, good: Outcome | Callable[[], Outcome], poor: Outcome = POOR
) -> list[dict[str, Any]]:
    """One query after the other, each outcome reported; the answers."""
    answers = []
    for _ in range(rounds):
        made = route(http)
        answers.append(made)
        of_good = good() if callable(good) else good
        report(http, made, **(of_good if made["arm"] == "good" else poor))
    return answers


def counted(answers: list[dict[str, Any]], name: str = "arm") -> Counter[str]:
    return Counter(answer[name] for answer in answers)


def share(answers: list[dict[str, Any]], arm: str = "good") -> float:
    """The mean probability of an arm; 0 where it isn't eligible."""
    return sum(probability(answer, arm) for answer in answers) / len(answers)


def probability(answer: dict[str, Any], arm: str) -> float:
    rows = [answer, *answer["alternatives"]]
    return float(next((row["propensity"] for row in rows if row["arm"] == arm), 0.0))


def learn(http: httpx.Client, redis_url: str) -> None:
    """Fold what was reported, until the service decides with it."""
    learn_all(redis_url)
    before = http.get("/policies/default").json()["snapshot"]
    until(
        lambda: http.get("/policies/default").json()["snapshot"] > before or before > 0,
        "the snapshot is served",
    )

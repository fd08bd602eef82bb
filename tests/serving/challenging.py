"""A policy with a challenger in its shadow, driven over HTTP: what several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from policy.records import from_stored
from tests.servers import (
    CONFIG,
    http_service,
    settings_for,
    until,
)

ARMS = CONFIG[: CONFIG.index("[policies.default]")]
OBJECTIVE = "objective = { quality = 0.8, cost = 0.2, cost_ref_usd = 0.01 }\n"
QUALITY = {("code", "small"): 0.9, ("code", "large"): 0.3, ("chat", "small"): 0.3}
COST_USD = {"small": 0.001, "large": 0.004}


def config(policy: str, challenger: str | None = 'model = "linear"\n') -> str:
    """The tests' arms, a policy, and its challenger."""
    text = f"{ARMS}\n[policies.default]\n{policy}\n{OBJECTIVE}"
    return text if challenger is None else f"{text}\n[policies.default.challenger]\n{challenger}"


UNIFORM = 'model = "uniform"\n'
FIXED = 'model = "fixed"\narm = "large"\nfloor = 0.0\n'
CALLER = 'model = "caller"\n'


@contextmanager
def serving(redis_url: str, folder: Path, text: str) -> Iterator[httpx.Client]:
    with http_service(settings_for(redis_url, folder, text)) as client:
        yield client


def quality(task: str, arm: str) -> float:
    return QUALITY.get((task, arm), 0.8)


def task_of(i: int) -> str:
    return ("code", "chat")[i % 2]


def outcome(i: int, arm: str) -> dict[str, float]:
    return {"quality": quality(task_of(i), arm), "cost_usd": COST_USD[arm]}


def drive(http: httpx.Client, rounds: range, **more: Any) -> list[dict[str, Any]]:
    """Route and report; the answers."""
    made = []
    for i in rounds:
        body = {"decision_id": f"d{i}", "hints": {"task_type": task_of(i)}, **more}
        answer = http.post("/route", json=body)
        assert answer.status_code == 200, answer.text
        made.append(answer.json())
        report = {"decision_id": f"d{i}", **outcome(i, made[-1]["arm"])}
        assert http.post("/reward", json=report).status_code == 200
    return made


def share_of_best(made: list[dict[str, Any]]) -> float:
    """How often the better arm of each task was chosen, from an even round on."""
    better = {"code": "small", "chat": "large"}
    return sum(m["arm"] == better[task_of(i)] for i, m in enumerate(made)) / len(made)


def shown(http: httpx.Client, decisions: int) -> dict[str, Any]:
    """The challenger as /policies/default shows it once these many decisions count."""

    def there() -> bool:
        challenger = http.get("/policies/default").json()["challenger"]
        return challenger is not None and challenger["decisions"] >= decisions

    until(there, f"{decisions} decisions are compared")
    found: dict[str, Any] = http.get("/policies/default").json()["challenger"]
    return found


def logged(raw: redis.Redis) -> list[Any]:
    return [
        from_stored(entry[b"record"], entry[b"x"], entry.get(b"challenger_x"))
        for _, entry in raw.xrange("pm:{default}:decisions")
    ]

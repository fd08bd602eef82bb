"""Waiting times of an arm with three instances, one three times slower, under Poisson load:
`python -m benchmarks.instances [--calls 5000] [--load 0.8] [--json FILE]`.

Each way of choosing an instance has three of its own, which answer one call after the other, and
all ways get the same arrivals with the same amounts of work. Time is simulated, so a busy machine
changes nothing; /route and /reward of a running `pointsman up` are really called, over HTTP, in the
order in which calls arrive and end. Random and round robin send as many calls to the slow instance
as to the others, which at 80% of the capacity is more than it can answer; "by weight" is told how
fast each one is. Target: a p99 at most half of random's.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

import httpx
import numpy as np

from benchmarks.serving.running import service

MEAN_S = 1.0  # of a call, on the fast instances
SLOWNESS = (1.0, 1.0, 3.0)
CONFIG = """[[arms]]
id = "arm"
provider = "local"
model = "model"
usd_per_mtok_in = 0.0
usd_per_mtok_out = 0.0
prices_checked = 2026-01-01
endpoints = [{endpoints}]

[policies.default]
"""

Waits = Mapping[str, Sequence[float]]
Choose = Callable[[int], int]


class Routed:
    """/route chooses, and hears how long each call took."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._made: dict[int, str] = {}

    def choose(self, call: int) -> int:
        answer = self._http.post("/route", json={}).raise_for_status().json()
        self._made[call] = answer["decision_id"]
        return int(answer["endpoint"])

    def over(self, call: int, wait_s: float) -> None:
        body = {"decision_id": self._made.pop(call), "quality": 1.0, "latency_ms": wait_s * 1e3}
        self._http.post("/reward", json=body).raise_for_status()


def ways(routed: Routed) -> dict[str, Choose]:
    """How an instance is chosen for a call."""
    rng, turn, capacity = random.Random(2), count(), [1.0 / slow for slow in SLOWNESS]
    everyone = range(len(SLOWNESS))
    return {
        "/route": routed.choose,
        "random": lambda _: rng.choice(everyone),
        "round robin": lambda _: next(turn) % len(SLOWNESS),
        "random by weight": lambda _: rng.choices(everyone, capacity)[0],
    }


def drive(http: httpx.Client, calls: int, load: float) -> Waits:
    """How long each call takes in s, by each way; the first tenth of them, before the queues have
    their length, is left out."""
    rng, routed = random.Random(1), Routed(http)
    choices = ways(routed)
    waits: dict[str, list[float]] = {name: [] for name in choices}
    free_at = {name: [0.0] * len(SLOWNESS) for name in choices}
    per_s = load * sum(1.0 / slow for slow in SLOWNESS) / MEAN_S
    under_way: list[tuple[float, int]] = []  # of /route's, by when they end
    now = 0.0
    for call in range(calls):
        now += rng.expovariate(per_s)
        work_s = rng.expovariate(1.0 / MEAN_S)
        while under_way and under_way[0][0] <= now:
            _, over = heapq.heappop(under_way)
            routed.over(over, waits["/route"][over])
        for name, choose in choices.items():
            chosen, free = choose(call), free_at[name]
            free[chosen] = max(free[chosen], now) + work_s * SLOWNESS[chosen]
            waits[name].append(free[chosen] - now)
        heapq.heappush(under_way, (now + waits["/route"][call], call))
    return {name: some[calls // 10 :] for name, some in waits.items()}


def figures(waits: Waits) -> dict[str, dict[str, float]]:
    """Percentiles in s, and how many times that of /route each p99 is."""
    ours = float(np.percentile(waits["/route"], 99))
    return {
        name: {
            **{f"p{q}_s": round(float(np.percentile(some, q)), 3) for q in (50, 95, 99)},
            "p99_ratio": round(float(np.percentile(some, 99)) / ours, 2),
        }
        for name, some in waits.items()
    }


def benchmark(calls: int, load: float) -> dict[str, dict[str, float]]:
    """Figures of all ways, against a service of their own."""
    endpoints = ", ".join(f'"{i}"' for i in range(len(SLOWNESS)))
    text = CONFIG.format(endpoints=endpoints)
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), "everysec", text) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as http,
    ):
        return figures(drive(http, calls, load))


def table(rows: Mapping[str, Mapping[str, float]], load: float) -> str:
    """Times in units of a call's mean on a fast instance."""
    lines = [f"at {load:.0%} of the capacity", f"{'':18}     p50     p95     p99  p99 / ours"]
    for name, row in rows.items():
        times = " ".join(f"{row[f'p{q}_s']:7.1f}" for q in (50, 95, 99))
        lines.append(f"{name:18} {times} {row['p99_ratio']:11.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--load", type=float, default=0.8, help="of the capacity")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = benchmark(asked.calls, asked.load)
    print(table(rows, asked.load))
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

"""Cost of /route over HTTP: `python -m benchmarks.serving [--fsync everysec|always] [--json FILE]`.

With `--local`, what a caller waits for instead: /route at one connection, the client's `route`, and
the local decider's, as fast as can be and at a pace, with its deliveries going on behind it. With
`--batch`, a thousand queries in one request beside a thousand requests on one connection: a batch
should be at least 5 times faster.

A real `pointsman up` with one worker, 10 arms and a learned snapshot stands beside a FastAPI
endpoint that parses and returns the same bodies and does nothing else, under the same server
settings. Short rounds alternate between the two, so that both meet the same machine; the figures
are medians over the rounds. A decision is in Redis before its answer. Targets at 16 keep-alive
connections: at least 0.5 of the throughput and at most 3 times the p99; at one connection at most
3 times the p50.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from benchmarks.common.load import Load, Run, cpu_s, post
from benchmarks.serving.baseline import baseline
from benchmarks.serving.running import one_answer, queries, service, teach
from pointsman_client import Client
from pointsman_client.answers import Decision
from pointsman_client.local import Decider

LEARNED = 4_000  # rewarded decisions before the measurement
ROUNDS = 4

Figures = dict[str, dict[str, float]]


def compare(
    load: Load, sides: Sequence[tuple[int, int]], connections: int, seconds: float, rounds: int
) -> Figures:
    """Medians over the rounds of each side (service, baseline) and of their ratio.

    One more round before these only warms up.
    """
    requests = [post("/route", json.dumps(query).encode()) for query in queries(2_000)]
    taken = [
        [measure(load, side, requests, connections, seconds) for side in sides]
        for _ in range(1 + rounds)
    ][1:]
    return {
        name: {
            "route": round(median(ours[name] for ours, _ in taken), 3),
            "baseline": round(median(base[name] for _, base in taken), 3),
            "ratio": round(median(ours[name] / base[name] for ours, base in taken), 3),
        }
        for name in taken[0][0]
    }


def measure(
    load: Load, side: tuple[int, int], requests: Sequence[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """One round of one side; `cpu_us` is the serving process's own time for a request."""
    port, pid = side
    before = cpu_s(pid)
    run: Run = load.run(port, requests, connections, seconds)
    used = cpu_s(pid) - before
    return {
        "per_s": run.per_s,
        "p50_ms": run.percentile_ms(50),
        "p99_ms": run.percentile_ms(99),
        "cpu_us": used / len(run.latency_ms) * 1e6,
    }


def benchmark(
    fsync: str, connections: int, seconds: float, rounds: int = ROUNDS, learned: int = LEARNED
) -> dict[str, Figures]:
    """Figures at many connections and at one."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), fsync) as ours:
        teach(ours[0], learned)
        with baseline(one_answer(ours[0])) as theirs, Load() as load:
            return {
                str(n): compare(load, (ours, theirs), n, seconds, rounds) for n in (connections, 1)
            }


def beside(
    seconds: float, learned: int = LEARNED, pace_s: float = 0.005
) -> dict[str, dict[str, float]]:
    """What one caller waits for, by the way it asks; `cpu_us` is the serving process's own time for
    a decision, `unlogged` how many were never acknowledged."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), "everysec") as ours:
        port, pid = ours
        url = f"http://127.0.0.1:{port}"
        teach(port, learned)
        asked = [query["query"]["text"] for query in queries(2_000)]
        bodies = [post("/route", json.dumps(query).encode()) for query in queries(2_000)]
        with Load() as load:
            measure(load, ours, bodies, 1, 0.5)  # warms up
            rows = {"/route, bare": measure(load, ours, bodies, 1, seconds)}
        with Client(url) as client:
            rows["Client.route"] = _waits(client.route, asked, seconds, 0.0)
        for name, pause_s in (("Decider.route", 0.0), ("Decider.route, paced", pace_s)):
            with Decider(url) as decider:
                made: list[Decision] = []
                before = cpu_s(pid)
                row = _waits(lambda text: made.append(decider.route(text)), asked, seconds, pause_s)  # noqa: B023
                decider.flush(60.0)
                row["cpu_us"] = (cpu_s(pid) - before) / len(made) * 1e6
                row["unlogged"] = sum(not decision.logged for decision in made)
            rows[name] = row
        return rows


def _waits(
    ask: Callable[[str], object], asked: Sequence[str], seconds: float, pause_s: float
) -> dict[str, float]:
    """One caller, one question after the other."""
    taken_ms, end = [], time.perf_counter() + seconds
    for text in cycle(asked):
        start = time.perf_counter()
        if start > end:
            break
        ask(text)
        taken_ms.append((time.perf_counter() - start) * 1e3)
        time.sleep(pause_s)
    return {
        "per_s": len(taken_ms) / seconds,
        "p50_ms": float(np.percentile(taken_ms, 50)),
        "p99_ms": float(np.percentile(taken_ms, 99)),
    }


def batches(
    seconds: float, size: int = 1_000, rounds: int = ROUNDS, learned: int = LEARNED
) -> dict[str, float]:
    """Medians over the rounds of the time for a query, in a batch of `size` and alone on one
    connection, and of their ratio; and the same of the serving process's own time."""
    taken = []
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), "everysec") as ours:
        (port, pid), asked = ours, queries(size)
        teach(port, learned)
        alone = [post("/route", json.dumps(query).encode()) for query in asked]
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as http,
            Load() as load,
        ):
            for _ in range(rounds):
                before, start = cpu_s(pid), time.perf_counter()
                http.post("/route/batch", json={"requests": asked}).raise_for_status()
                batch = {"us": (time.perf_counter() - start) / size * 1e6}
                batch["cpu_us"] = (cpu_s(pid) - before) / size * 1e6
                single = measure(load, ours, alone, 1, seconds)
                single["us"] = 1e6 / single["per_s"]
                taken.append((batch, single))
    figures = {}
    for name in ("us", "cpu_us"):
        figures[f"batch_{name}"] = median(batch[name] for batch, _ in taken)
        figures[f"single_{name}"] = median(single[name] for _, single in taken)
        figures[f"ratio_{name}"] = median(single[name] / batch[name] for batch, single in taken)
    return figures


def table_beside(rows: dict[str, dict[str, float]]) -> str:
    heads = ("p50, ms", "p99, ms", "per s", "unlogged", "CPU, us")
    lines = [f"{'one caller':<22}" + "".join(f"{head:>10}" for head in heads)]
    for name, row in rows.items():
        waits = f"{row['p50_ms']:10.3f}{row['p99_ms']:10.3f}{row['per_s']:10,.0f}"
        others = (
            f"{row[key]:10,.0f}" if key in row else " " * 10 for key in ("unlogged", "cpu_us")
        )
        lines.append(f"{name:<22}{waits}{''.join(others)}")
    return "\n".join(lines)


def table(fsync: str, figures: dict[str, Figures]) -> str:
    names = {
        "per_s": "requests a second",
        "p50_ms": "p50, ms",
        "p99_ms": "p99, ms",
        "cpu_us": "CPU of the process, us",
    }
    targets = {("16", "per_s"): ">= 0.5", ("16", "p99_ms"): "<= 3", ("1", "p50_ms"): "<= 3"}
    lines = []
    for connections, rows in figures.items():
        lines.append(
            f"fsync {fsync}, {connections:>2} connections     /route  baseline   ratio  target"
        )
        for name, row in rows.items():
            target = targets.get((connections, name), "")
            lines.append(
                f"  {names[name]:<26} {row['route']:9,.2f} {row['baseline']:9,.2f} "
                f"{row['ratio']:7.2f}  {target}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--fsync", choices=("everysec", "always"), help="default: one, then other")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round of one side")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--local", action="store_true", help="the local decider beside /route")
    parser.add_argument("--batch", action="store_true", help="1,000 queries in one, and alone")
    given = parser.parse_args()
    if given.batch:
        ratios = batches(given.seconds)
        print("  ".join(f"{name} {value:,.1f}" for name, value in ratios.items()), flush=True)
        if given.json:
            given.json.write_text(json.dumps(ratios, indent=2) + "\n")
        return
    if given.local:
        rows = beside(given.seconds)
        print(table_beside(rows), flush=True)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=2) + "\n")
        return
    modes = [given.fsync] if given.fsync else ["everysec", "always"]
    figures = {}
    for fsync in modes:
        figures[fsync] = benchmark(fsync, given.connections, given.seconds)
        print(table(fsync, figures[fsync]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

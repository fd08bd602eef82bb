"""What a service does when more comes than it can do: `python -m benchmarks.serving.overload
[--times 3] [--seconds 60] [--json FILE]`.

A real `pointsman up` with one worker, 10 arms and a learned snapshot. First the load it sustains is
sought: the highest rate of `/route`, of 16 connections' closed-loop throughput and parts of it, at
which nothing is refused and the p99 stays below 100 ms. Then `--times` that rate, evenly, on 1,000
connections. Targets: throughput within 20% of the sustainable, p99 of what is accepted within 3
times, memory of each process within 1.5 times, the rest refused with 429 within 50 ms. `cores` is
what the serving process got: on a machine that does something else as well, less than it could use.

With `--decisions N`, instead, N decisions as fast as 32 connections go (or as many as `--limit`
seconds allow), rewards of some among them, and the memory of every process: records are kept for a
minute, so that Redis too has a level to come to.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common.arrivals import Answers, Arrivals
from benchmarks.common.load import Load, cpu_s, post
from benchmarks.serving.running import ARMS, configuration, queries, service, teach

CONNECTIONS = 1_000
PARTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
MOST_P99_MS = 100.0
TAUGHT = 4_000
REST_S = 2.0  # between two measurements: what was queued in the client is gone by then
KEPT = "reward_window_s = 20\nretention_s = 60\n"

Memory = dict[str, float]  # MB by process


@dataclass
class Watching:
    """The memory of a service's processes, looked at twice a second."""

    parent: int
    highest: Memory = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            try:
                now = memory(self.parent)
            except OSError:  # it is over
                return
            self.highest = {name: max(mb, self.highest.get(name, 0.0)) for name, mb in now.items()}

    def stop(self) -> Memory:
        self._over.set()
        self._thread.join()
        return self.highest


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def memory(parent: int) -> Memory:
    """The resident memory of a process and its children, in MB, by what they are."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found: Memory = {}
    for pid in (str(parent), *children):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it has just ended
            continue
        if "VmRSS" in status:
            name = Path(words[0].decode()).name if b"-m" not in words else words[3].decode()
            mb = int(status.partition("VmRSS:")[2].split()[0]) / 1024
            found[name] = found.get(name, 0.0) + mb
    return found


def sustained(arrivals: Arrivals, port: int, requests: Sequence[bytes], seconds: float) -> float:
    """The highest rate, per s, that is borne."""
    with Load() as load:
        load.run(port, requests, 16, 1.0)
        most = load.run(port, requests, 16, seconds).per_s
    for part in PARTS:
        time.sleep(REST_S)
        run = arrivals.run(port, requests, CONNECTIONS // 4, part * most, seconds)
        borne = run.per_s(200) > 0.98 * part * most
        if borne and not run.per_s(429) and run.percentile_ms(200, 99) < MOST_P99_MS:
            break
    return part * most


def overload(times: float, seconds: float, search_s: float = 4.0) -> dict[str, Any]:
    """Figures at the sustainable load, beyond it, and after it."""
    requests = [post("/route", json.dumps(query).encode()) for query in queries(2_000)]
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), "everysec", configuration(ARMS) + KEPT) as (port, pid),
        Arrivals() as arrivals,
    ):
        teach(port, TAUGHT)
        rate = sustained(arrivals, port, requests, search_s)
        figures: dict[str, Any] = {"sustainable_per_s": rate}
        for name, load, length in (
            ("sustained", 1.0, min(seconds, 4 * search_s)),
            ("overload", times, seconds),
            ("after", 1.0, search_s),
        ):
            time.sleep(REST_S)
            watching, before = Watching(parent_of(pid)), cpu_s(pid)
            run = arrivals.run(port, requests, CONNECTIONS, load * rate, length)
            own = {"cores": (cpu_s(pid) - before) / run.seconds, "memory_mb": watching.stop()}
            figures[name] = told(run) | own
    return figures


def told(run: Answers) -> dict[str, Any]:
    return {
        "accepted_per_s": run.per_s(200),
        "accepted_p50_ms": run.percentile_ms(200, 50),
        "accepted_p99_ms": run.percentile_ms(200, 99),
        "refused_per_s": run.per_s(429),
        "refused_p50_ms": run.percentile_ms(429, 50),
        "refused_p99_ms": run.percentile_ms(429, 99),
        "refused_within_50_ms": float((run.of(429) <= 50.0).mean()) if run.per_s(429) else None,
        "others": {code: len(run.of(code)) for code in run.latency_ms.keys() - {200, 429}},
        "unsent": run.unsent,
        "cut": run.cut,
    }


@contextmanager
def rewarding(port: int) -> Iterator[None]:
    """Some decisions that are rewarded, so that learner and archiver have something to do."""
    over = threading.Event()

    def run() -> None:
        asked = {"requests": queries(50)}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as http:
            while not over.wait(0.5):
                made = http.post("/route/batch", json=asked).json()["results"]
                ids = [decision["decision_id"] for decision in made]
                told = {"quality": 0.5, "latency_ms": 900, "cost_usd": 0.001}
                rewards = [{"decision_id": one, **told} for one in ids]
                http.post("/reward/batch", json={"rewards": rewards}).raise_for_status()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def decisions(many: int, limit_s: float, chunk_s: float = 10.0) -> dict[str, Any]:
    """The memory of each process at every tenth of the way, from the first on."""
    requests = [post("/route", json.dumps(query).encode()) for query in queries(2_000)]
    levels: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), "everysec", configuration(ARMS) + KEPT) as (port, pid),
        Load() as load,
    ):
        teach(port, TAUGHT)
        made, start, next_at = 0, time.monotonic(), 0.0
        with rewarding(port):
            while made < many and time.monotonic() - start < limit_s:
                made += len(load.run(port, requests, 32, chunk_s).latency_ms)
                share = max(made / many, (time.monotonic() - start) / limit_s)
                if share >= next_at:
                    next_at = share + 0.1
                    level = {"decisions": made, "seconds": time.monotonic() - start}
                    levels.append({**level, "memory_mb": memory(parent_of(pid))})
                    print(json.dumps(levels[-1]), flush=True)
    return {"decisions": made, "levels": levels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--times", type=float, default=3.0, help="the sustainable load")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the overload")
    parser.add_argument("--decisions", type=int, help="instead: so many, as fast as they go")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds that these may take")
    given = parser.parse_args()
    if given.decisions:
        figures = decisions(given.decisions, given.limit)
    else:
        figures = overload(given.times, given.seconds)
    text = json.dumps(figures, indent=2)
    print(text, flush=True)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()

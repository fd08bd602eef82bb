"""What each part of a service uses for a decision and its reward over HTTP, on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from benchmarks.common.load import Load, cpu_s, post
from benchmarks.encoder import texts
from benchmarks.serving.running import ARMS, CHARACTERS, configuration, free_port, ready, wait
from benchmarks.shards.valkeys import Node

CONNECTIONS = 16
WORKERS = 2
MOST_PER_S = 2_000  # decisions, that ids are made for
SETTLED_S = 8.0  # until learner and archiver have come to the end
PARTS = {"serve": "serving", "learn": "learner", "archive": "archiver"}


def measure(
    folder: Path, url: str, nodes: Sequence[Node], policies: Sequence[str], seconds: float
) -> dict[str, float]:
    """CPU of each part for one decision with its reward (us), less what it uses idle; and how many
    a second (`per_s`), on as many cores as this machine has for all of it and the load."""
    with up(folder, url, policies) as (port, pids), Load() as load:
        asked = requests(policies, round(seconds * MOST_PER_S))
        load.run(port, asked[: 100 * CONNECTIONS], CONNECTIONS, 1.0)
        time.sleep(SETTLED_S)
        idle = _spent(pids, nodes)
        time.sleep(SETTLED_S)
        before = _spent(pids, nodes)
        idle_s = {name: before[name] - idle[name] for name in before}
        ran = load.run(port, asked[100 * CONNECTIONS :], CONNECTIONS, seconds)
        time.sleep(SETTLED_S)
        after = _spent(pids, nodes)
    count, ratio = len(ran.latency_ms) / 2, (seconds + SETTLED_S) / SETTLED_S
    told = {
        name: 1e6 * (after[name] - before[name] - ratio * idle_s[name]) / count for name in after
    }
    return told | {"per_s": count / ran.seconds, "p50_ms": ran.percentile_ms(50)}


@contextmanager
def up(folder: Path, url: str, policies: Sequence[str]) -> Iterator[tuple[int, dict[int, str]]]:
    """A whole service on a Redis: its port, and its processes with the part that each is."""
    config, port = folder / "pointsman.toml", free_port()
    more = (f"[policies.{name}]\n" for name in policies if name != "default")
    config.write_text(configuration(ARMS) + "".join(more))
    environment = {
        "POINTSMAN_PORT": str(port),
        "POINTSMAN_DATA": str(folder / "data"),
        "POINTSMAN_CONFIG": str(config),
        "POINTSMAN_REDIS_URL": url,
        "POINTSMAN_WORKERS": str(WORKERS),
        "POINTSMAN_ARCHIVE_INTERVAL_S": "1",
        "POINTSMAN_STORE_TIMEOUT_MS": "10000",
    }
    command = [sys.executable, "-m", "pointsman", "up"]
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: ready(port), "the service is ready")
        yield port, _parts(process.pid)
    finally:
        process.terminate()
        process.wait()


def _parts(parent: int) -> dict[int, str]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found: dict[int, str] = {}
    for pid in children:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        found |= {int(pid): part for word, part in PARTS.items() if word in words}
    return found


def requests(policies: Sequence[str], count: int) -> list[bytes]:
    """So many decisions, each connection's followed by its reward: connection i of a load takes
    every CONNECTIONS-th request from the i-th on."""
    asked, run = list(islice(texts(CHARACTERS), 500)), time.time_ns()
    found = []
    for first in range(0, count, CONNECTIONS):
        ids = range(first, first + CONNECTIONS)
        common = [{"policy": policies[i % len(policies)], "decision_id": f"{run}-{i}"} for i in ids]
        outcome: dict[str, object] = {"quality": 0.7, "latency_ms": 800, "cost_usd": 0.001}
        queries: list[dict[str, object]] = [{"query": {"text": asked[i % len(asked)]}} for i in ids]
        for path, bodies in (("/route", queries), ("/reward", [outcome] * CONNECTIONS)):
            found += [
                post(path, json.dumps(one | body).encode())
                for one, body in zip(common, bodies, strict=True)
            ]
    return found


def _spent(pids: dict[int, str], nodes: Sequence[Node]) -> dict[str, float]:
    """CPU in s so far, of each part."""
    servers = [node.process.pid for node in nodes if node.process is not None]
    told = dict.fromkeys([*PARTS.values(), "valkey"], 0.0)
    for pid, part in [*pids.items(), *((pid, "valkey") for pid in servers)]:
        told[part] += cpu_s(pid)
    return told

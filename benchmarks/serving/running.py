"""A real service to measure: started on a configuration, asked and taught."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx

from benchmarks.encoder import texts

CHARACTERS = 180
ARMS = 10
BATCH = 250
START_S = 30.0


def configuration(arms: int) -> str:
    """A pointsman.toml; the arms differ in price."""
    return "\n".join(
        f"""[[arms]]
id = "arm-{i}"
provider = "provider-{i % 3}"
model = "model-{i}"
context_window_tokens = 128000
usd_per_mtok_in = {0.1 * 1.5 ** (i % 10):.4f}
usd_per_mtok_out = {0.4 * 1.5 ** (i % 10):.4f}
prices_checked = 2026-01-01
prices_source = "made up for this benchmark"
"""
        for i in range(arms)
    ) + ("[policies.default]\nobjective = { quality = 0.9, cost = 0.1 }\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def service(folder: Path, fsync: str, text: str = "") -> Iterator[tuple[int, int]]:
    """`pointsman up` with one worker, on this configuration or that of `ARMS` arms: its port, and
    the process id of the worker."""
    config, port = folder / "pointsman.toml", free_port()
    config.write_text(text or configuration(ARMS))
    environment = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DATA": str(folder / "data"),
        "CONFIG": str(config),
        "FSYNC": fsync,
        "MAX_MEMORY_MB": "4096",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "pointsman", "up"],
        # A machine that does something else as well must not make of waits refusals.
        env={"POINTSMAN_STORE_TIMEOUT_MS": "5000", **os.environ}
        | {f"POINTSMAN_{name}": value for name, value in environment.items()},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: ready(port), "the service is ready")
        yield port, worker(process.pid)
    finally:
        process.terminate()
        process.wait()


def worker(parent: int) -> int:
    """The serving process among the children of `pointsman up`."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    commands = {int(p): Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0") for p in children}
    return next(pid for pid, words in commands.items() if b"serve" in words)


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {START_S:.0f} s in vain: {what}")
        time.sleep(0.05)


def queries(n: int) -> list[dict[str, dict[str, str]]]:
    return [{"query": {"text": text}} for text in islice(texts(CHARACTERS), n)]


def teach(port: int, events: int) -> None:
    """Reward decisions, dearer arms a little better, until the worker serves what was learned."""
    rng = random.Random(1)
    asked = queries(events)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as http:
        for start in range(0, events, BATCH):
            requests = {"requests": asked[start : start + BATCH]}
            made = http.post("/route/batch", json=requests).raise_for_status().json()["results"]
            rewards = [
                {
                    "decision_id": decision["decision_id"],
                    "quality": min(1.0, rng.random() * (0.8 + 0.02 * int(decision["arm"][4:]))),
                    "latency_ms": rng.uniform(200, 4_000),
                    "cost_usd": rng.uniform(0, 0.005),
                }
                for decision in made
            ]
            http.post("/reward/batch", json={"rewards": rewards}).raise_for_status()
        wait(
            lambda: http.get("/policies/default").json()["events"] == events,
            "what was learned serves",
        )


def one_answer(port: int) -> bytes:
    body = queries(1)[0]
    return httpx.post(f"http://127.0.0.1:{port}/route", json=body).raise_for_status().content

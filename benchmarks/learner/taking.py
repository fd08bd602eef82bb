"""For how long serving's event loop stands still while a snapshot is taken in.

A service in this process follows a real embedded server, in which a snapshot is written that was
learned beforehand; then one in which one arm has learned since. A task that sleeps again and again
measures the loop.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.learner.stream import POLICY, VERSION
from benchmarks.serving.running import configuration
from policy.arms.catalog import Catalog
from policy.config.schema import PolicyConfig
from policy.config.toml import parse
from policy.records import OutcomeBatch
from policy.values import models
from policy.values.protocol import ValueModel
from policy.values.snapshot import Header, State
from serving.app import SWITCH_S, clock_ms
from serving.learning.follower import Follower
from serving.processes.embedded import Embedded
from serving.service import Service
from serving.store.learning import LearnerStore
from serving.store.states import Change
from serving.store.traffic import Store

MODELS = ("linear", "vw")
TIMES = 7  # the figures are medians of these
TICK_S = 0.0005
OUTCOMES = 4_000  # 20 of each arm at 200 of them


def outcomes(n: int, catalog: Catalog, d: int, arms: Sequence[str], seed: int) -> OutcomeBatch:
    """n outcomes of these arms, in which there is nothing to learn."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, d)) / 4).astype(np.float32)
    x[:, 0] = 1.0
    index = np.packbits(np.ones(len(catalog), dtype=bool)).tobytes()
    return OutcomeBatch(
        arms=[arms[i] for i in rng.integers(len(arms), size=n)],
        x=x,
        quality=rng.random(n),
        latency_ms=rng.uniform(200.0, 4_000.0, n),
        cost_usd=rng.uniform(0.0, 0.005, n),
        error=np.zeros(n, dtype=bool),
        settled=np.zeros((n, 3), dtype=bool),
        list_cost_usd=np.full(n, 0.002),
        propensity=np.full(n, 1.0 / len(catalog)),
        catalogs=[catalog] * n,
        eligible=[index] * n,
    )


async def taken(follower: Follower, service: Service, number: int) -> tuple[float, float, float]:
    """Take the newest snapshot in: how long that took, the loop's longest standstill, and the most
    that this process, all its threads, computed between two turns of the loop, in ms.

    The last is an upper bound of the standstill on a machine that has nothing else to do, and
    doesn't grow where it has.
    """
    longest, most, done = 0.0, 0.0, False

    async def watch() -> None:
        nonlocal longest, most
        while not done:
            start, computed = time.perf_counter(), time.process_time()
            await asyncio.sleep(TICK_S)
            longest = max(longest, time.perf_counter() - start - TICK_S)
            most = max(most, time.process_time() - computed)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    longest = most = 0.0
    start = time.perf_counter()
    await follower._attempt(POLICY)
    whole = time.perf_counter() - start
    done = True
    await watching
    if service.policies[POLICY].snapshot != number:
        raise RuntimeError(f"snapshot {number} doesn't serve")
    return 1e3 * whole, 1e3 * longest, 1e3 * most


async def measure(url: str, config: Path, model: str) -> dict[str, float]:
    store = Store(url)
    service = Service(store, clock_ms)
    follower = Follower(service, store.versions, config, clock_ms)
    await follower.start()
    await follower.stop()  # from here on it follows when it is told to
    file = parse(config.read_text(), config.name)
    wanted, catalog = file.policies[POLICY], file.arms
    encoder = models.default_encoder(wanted)
    times: dict[str, list[tuple[float, float, float]]] = {"": [], "next_": []}
    with closing(LearnerStore(url, POLICY)) as learner:
        token, before = learner.acquire(), None
        for again in range(TIMES):
            learned = models.new_model(wanted, encoder)
            assert learned is not None
            for of, n, arms in (("", OUTCOMES, catalog.ids), ("next_", 1, catalog.ids[:1])):
                learned.learn(outcomes(n, catalog, encoder.d, arms, again))
                state = _snapshot(learned, wanted, encoder.fingerprint)
                number = learner.commit(token, VERSION, snapshot=Change(state, before))
                before = state
                times[of].append(await taken(follower, service, number))
    await store.close()
    assert before is not None
    names = ("whole_ms", "stall_ms", "computed_ms")
    medians = {
        f"{of}{name}": round(statistics.median(values), 1)
        for of, taking in times.items()
        for name, values in zip(names, zip(*taking, strict=True), strict=True)
    }
    kb = round(sum(len(part.data) for part in before.parts.values()) / 1e3)
    return {"model": model, "arms": len(catalog), "kb": kb, **medians}


def _snapshot(model: ValueModel, config: PolicyConfig, encoder: str) -> State:
    header = Header(config.model, VERSION, encoder, "1-0", model.events)
    return State(header, model.view().to_parts())


def benchmark(model: str, arms: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pointsman.toml"
        rule = 'model = "vw"\nexploration = "square_cb"\n' if model == "vw" else ""
        config.write_text(configuration(arms) + rule)
        server = Embedded(Path(folder) / "valkey", fsync="everysec", max_memory_mb=1024)
        server.start()
        sys.setswitchinterval(SWITCH_S)  # as where it serves
        try:
            return asyncio.run(measure(server.url, config, model))
        finally:
            server.stop()

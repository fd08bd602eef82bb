"""Outcome events a second, from Redis to sums: `python -m benchmarks.learner [--json FILE]`.

The stream of a real embedded server holds events for 10 arms at d = 64: some that the service and
its scripts have made, and copies of these. One core reads and folds them as the learner does. The
target is 20,000 a second.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: what the learner runs with

import argparse
import asyncio
import json
import random
import tempfile
import time
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path

import redis

from benchmarks.encoder import texts
from benchmarks.serving import ARMS, CHARACTERS, configuration
from features.encoder import Encoder
from features.query import Query
from policy.arms.catalog import Catalog
from policy.config.schema import PolicyConfig
from serving.app import clock_ms
from serving.learning.events import batch_of
from serving.learning.fold import Fold
from serving.learning.follower import Follower
from serving.learning.reading import BATCH
from serving.processes.embedded import Embedded
from serving.routes.requests import RewardRequest, RouteRequest
from serving.service import Service
from serving.store.keys import Keys
from serving.store.learning import LearnerStore
from serving.store.traffic import Store

EVENTS = 200_000
MADE = 4_000  # by the service; the others are copies
GROUP = 100
DIMENSIONS = 64
POLICY, VERSION = "default", "1"


async def make(url: str, config: Path, events: int) -> None:
    """Route and reward, in one process, so that the scripts write events of the true form."""
    store = Store(url)
    service = Service(store, clock_ms)
    follower = Follower(service, store.versions, config, clock_ms)
    await follower.start()
    rng = random.Random(1)

    async def one(text: str) -> None:
        decision, _, _ = await service.route(RouteRequest(query=Query(text=text)))
        outcome = RewardRequest(
            decision_id=decision.decision_id,
            quality=rng.random(),
            latency_ms=rng.uniform(200, 4_000),
            cost_usd=rng.uniform(0, 0.005),
        )
        await service.reward(outcome)

    try:
        asked = list(islice(texts(CHARACTERS), events))
        for start in range(0, events, GROUP):
            await asyncio.gather(*map(one, asked[start : start + GROUP]))
    finally:
        await follower.stop()
        await store.close()


def copy(url: str, events: int) -> None:
    """Append copies of what is in the stream until it holds this many events."""
    name = Keys(POLICY).outcomes
    with redis.Redis.from_url(url) as raw:
        originals = [fields for _, fields in raw.xrange(name)]
        missing = events - len(originals)
        for start in range(0, missing, GROUP):
            pipeline = raw.pipeline(transaction=False)
            for i in range(start, min(start + GROUP, missing)):
                pipeline.xadd(name, originals[i % len(originals)])
            pipeline.execute()


def measure(store: LearnerStore) -> dict[str, float]:
    """Fold the whole stream; microseconds an event of each part, and events a second of all."""
    config, encoder = store.version(VERSION)
    catalog = cache(lambda revision: Catalog.from_json(store.catalog(revision)))
    fold = Fold.resume(
        VERSION,
        PolicyConfig.model_validate_json(config),
        Encoder.from_bytes(encoder),
        None,
        catalog,
    )
    read_s = fold_s = decode_s = 0.0
    events = 0
    while True:
        start = time.perf_counter()
        entries = store.outcomes(fold.position, BATCH, None)
        read_s += time.perf_counter() - start
        if not entries:
            break
        start = time.perf_counter()
        fold.fold(entries)
        fold_s += time.perf_counter() - start
        start = time.perf_counter()
        batch_of([fields for _, fields in entries], DIMENSIONS, catalog)
        decode_s += time.perf_counter() - start
        events += len(entries)
    if fold.events != events:
        raise RuntimeError(f"{events} events read, {fold.events} learned")
    us = 1e6 / events
    return {
        "events": events,
        "per_s": round(events / (read_s + fold_s)),
        "read_us": round(read_s * us, 2),
        "decode_us": round(decode_s * us, 2),
        "learn_us": round((fold_s - decode_s) * us, 2),
    }


def benchmark(events: int, made: int = MADE) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pointsman.toml"
        config.write_text(configuration(ARMS))
        server = Embedded(Path(folder) / "valkey", fsync="everysec", max_memory_mb=4096)
        server.start()
        try:
            asyncio.run(make(server.url, config, min(made, events)))
            copy(server.url, events)
            with closing(LearnerStore(server.url, POLICY)) as store:
                return measure(store)
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--events", type=int, default=EVENTS)
    given = parser.parse_args()
    figures = benchmark(given.events)
    print(f"{figures['events']:,.0f} events: {figures['per_s']:,.0f} a second (target 20,000)")
    print("us an event: read {read_us}, decode {decode_us}, learn {learn_us}".format(**figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

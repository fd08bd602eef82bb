"""Outcome events a second, from Redis to sums, and what is written of them.

The stream of a real embedded server holds events at d = 64: some that the service and its scripts
have made, and copies of these, each of an arm drawn at random. One core reads and folds them as
the learner does.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path

import redis

from benchmarks.encoder import texts
from benchmarks.serving.running import CHARACTERS, configuration
from features.encoder import Encoder
from features.query import Query
from policy.arms.catalog import Catalog
from policy.config.versions import read_config
from policy.values.snapshot import read_head
from serving.app import clock_ms
from serving.learning.events import batch_of
from serving.learning.fold import Fold
from serving.learning.follower import Follower
from serving.learning.learner import Learner
from serving.learning.reading import BATCH
from serving.processes.embedded import Embedded
from serving.routes.requests import RewardRequest, RouteRequest
from serving.service import Service
from serving.store.keys import Entry, Keys
from serving.store.learning import LearnerStore
from serving.store.states import Change
from serving.store.traffic import Store

MADE = 1_000  # by the service; the others are copies
GROUP = 100
DIMENSIONS = 64
POLICY, VERSION = "default", "1"
PUBLISH_S, CHECKPOINT_S = 0.1, 2.0  # as configured by default
LATER = 10  # events


async def make(url: str, config: Path, events: int) -> None:
    """Route and reward, in one process, so that the scripts write events of the true form."""
    store = Store(url)
    service = Service(store, clock_ms)
    follower = Follower(service, store.versions, config, clock_ms)
    await follower.start()
    rng = random.Random(1)

    async def one(text: str) -> None:
        decision = (await service.route(RouteRequest(query=Query(text=text)))).decision
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


def copy(url: str, events: int, arms: int) -> None:
    """Append copies of what is in the stream, of other arms, until it holds this many events."""
    name, rng = Keys(POLICY).outcomes, random.Random(2)
    with redis.Redis.from_url(url) as raw:
        originals = [fields for _, fields in raw.xrange(name)]
        missing = events - len(originals)
        for start in range(0, missing, GROUP):
            pipeline = raw.pipeline(transaction=False)
            for i in range(start, min(start + GROUP, missing)):
                arm = f"arm-{rng.randrange(arms)}"
                fields = originals[i % len(originals)]
                pipeline.xadd(name, {**fields, b"arm": arm, b"decided_arm": arm})
            pipeline.execute()


def resumed(store: LearnerStore) -> Fold:
    config, encoder = store.version(VERSION)
    return Fold.resume(
        VERSION,
        read_config(config),
        Encoder.from_bytes(encoder),
        None,
        cache(lambda revision: Catalog.from_stored(store.catalog(revision))),
    )


def measure(store: LearnerStore, fold: Fold) -> dict[str, float]:
    """Fold the whole stream; microseconds of CPU an event of each part, and events a second of
    all."""
    read_s = fold_s = decode_s = 0.0
    events = 0
    while True:
        start = time.process_time()
        entries = store.outcomes(fold.position, BATCH, None)
        read_s += time.process_time() - start
        if not entries:
            break
        start = time.process_time()
        fold.fold(entries)
        fold_s += time.process_time() - start
        start = time.process_time()
        batch_of([fields for _, fields in entries], DIMENSIONS, fold._catalog)
        decode_s += time.process_time() - start
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


def sizes(store: LearnerStore, fold: Fold, url: str, arms: int) -> dict[str, float]:
    """What is written of a snapshot and a checkpoint: all of it, and after LATER events more; and
    the CPU that making them takes."""
    figures = {}
    before = {"snapshot": fold.snapshot(), "checkpoint": fold.checkpoint()}
    copy(url, fold.events + LATER, arms)
    fold.fold(store.outcomes(fold.position, LATER, None))
    for name, made in (("snapshot", fold.snapshot), ("checkpoint", fold.checkpoint)):
        start = time.process_time()
        later = made()
        figures[f"{name}_ms"] = round(1e3 * (time.process_time() - start), 1)
        for words, change in (
            (f"{name}_kb", Change(later)),
            (f"{name}_later_kb", Change(later, before[name])),
        ):
            figures[words] = round(sum(map(len, change.arguments(whole=False)[2:])) / 1e3)
    return figures


class Watched(LearnerStore):
    """A store that notes when the stream has nothing more."""

    def __init__(self, url: str, policy: str) -> None:
        super().__init__(url, policy)
        self.drained = threading.Event()

    def outcomes(self, after: str, count: int, block_ms: int | None) -> list[Entry]:
        entries = super().outcomes(after, count, block_ms)
        if not entries:
            self.drained.set()
        return entries


def run(url: str) -> float:
    """Events a second of CPU of the learner itself, snapshots and checkpoints written."""
    with closing(Watched(url, POLICY)) as store:
        learner = Learner(
            store, POLICY, publish_interval_s=PUBLISH_S, checkpoint_interval_s=CHECKPOINT_S
        )
        start = time.process_time()
        learner.run(store.drained)
        took = time.process_time() - start
        head = store.checkpoint_head(VERSION)
    assert head is not None
    return read_head(head).header.events / took


def benchmark(arms: int, events: int, made: int = MADE) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pointsman.toml"
        config.write_text(configuration(arms))
        server = Embedded(Path(folder) / "valkey", fsync="everysec", max_memory_mb=4096)
        server.start()
        try:
            asyncio.run(make(server.url, config, min(made, events)))
            copy(server.url, events, arms)
            whole = {"arms": arms, "whole_per_s": round(run(server.url))}
            with closing(LearnerStore(server.url, POLICY)) as store:
                fold = resumed(store)
                folded = measure(store, fold)
                return {**whole, **folded, **sizes(store, fold, server.url, arms)}
        finally:
            server.stop()

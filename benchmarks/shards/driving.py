"""Decisions and rewards as fast as the store's scripts take them, on servers without a service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.load import cpu_s
from benchmarks.encoder import texts
from benchmarks.shards.valkeys import Node
from features.query import Query
from serving.app import clock_ms
from serving.learning.follower import Follower
from serving.learning.reading import BATCH
from serving.routes.requests import RouteRequest
from serving.service import Service
from serving.store.archiving import CHUNK, ArchiverStore
from serving.store.learning import LearnerStore
from serving.store.traffic import NewDecision, Report, Store

CHARACTERS = 180
ORIGINALS = 50
HOUR_MS = 3_600_000
STREAMS = ("decisions", "outcomes")
TIMEOUT_S = 5.0  # the machine may be busy

Figures = dict[str, float]


def originals(url: str, config: Path) -> list[NewDecision]:
    """What a service gives its store of some decisions of the policy `default`."""
    return asyncio.run(_originals(url, config))


async def _originals(url: str, config: Path) -> list[NewDecision]:
    store, kept = Store(url), []
    record = store.record

    async def keep(policy: str, decision: NewDecision, retention_ms: int) -> Any:
        kept.append(decision)
        return await record(policy, decision, retention_ms)

    store.record = keep  # type: ignore[method-assign]
    service = Service(store, clock_ms)
    follower = Follower(service, store.versions, config, clock_ms)
    await follower.start()
    try:
        for text in islice(texts(CHARACTERS), ORIGINALS):
            await service.route(RouteRequest(query=Query(text=text)))
    finally:
        await follower.stop()
        await store.close()
    return kept


def drive(
    url: str,
    policies: Sequence[str],
    made: Sequence[NewDecision],
    count: int,
    concurrency: int,
    replicas: int = 0,
) -> Figures:
    """Record copies of these decisions and report on each, over all policies, so many at a time:
    how many a second, the client's CPU for each, and how long a call took (ms)."""
    run = _drive(url, policies, made, count, concurrency, replicas)
    before, began = time.process_time(), time.monotonic()
    took_ms = 1_000 * np.array(asyncio.run(run))
    return {
        "per_s": count / (time.monotonic() - began),
        "client_us": 1e6 * (time.process_time() - before) / count,
        "p50_ms": float(np.percentile(took_ms, 50)),
        "p99_ms": float(np.percentile(took_ms, 99)),
    }


async def _drive(
    url: str,
    policies: Sequence[str],
    made: Sequence[NewDecision],
    count: int,
    concurrency: int,
    replicas: int,
) -> list[float]:
    store, took = Store(url, TIMEOUT_S, replicas), []
    run = time.time_ns()

    async def client(first: int) -> None:
        for i in range(first, count, concurrency):
            policy = policies[i % len(policies)]
            name, now_ms = f"{run}-{i}", clock_ms()
            one = replace(made[i % len(made)], decision_id=name, made_at_ms=now_ms)
            began = time.monotonic()
            await store.record(policy, one, HOUR_MS)
            took.append(time.monotonic() - began)
            began = time.monotonic()
            report = Report(name, quality=0.5, latency_ms=800.0, cost_usd=0.001)
            await store.report(policy, report, now_ms, HOUR_MS)
            took.append(time.monotonic() - began)

    try:
        await asyncio.gather(*map(client, range(concurrency)))
    finally:
        await store.close()
    return took


def follow(url: str, policies: Sequence[str]) -> None:
    """Read both streams as learner and archiver do, and drop what they hold."""
    for policy in policies:
        with closing(LearnerStore(url, policy)) as learner:
            at = "0-0"
            while events := learner.outcomes(at, BATCH, None):
                at = events[-1][0]
        with closing(ArchiverStore(url, policy)) as store:
            ends = dict.fromkeys(STREAMS, "0-0")
            for name in STREAMS:
                while entries := store.entries(name, ends[name], CHUNK):
                    ends[name] = entries[-1][0]
            token = store.acquire()
            store.keep(token, roles=store.roles(), **ends)
            store.release(token)


def spent(nodes: Sequence[Node]) -> list[Figures]:
    """What each server has used so far."""
    found = []
    for node in nodes:
        assert node.process is not None
        with node.client() as client:
            told = client.info()
        found.append(
            {
                "cpu_s": cpu_s(node.process.pid),
                "memory_bytes": told["used_memory"],
                "file_bytes": told.get("aof_current_size", 0),
                "in_bytes": told["total_net_input_bytes"],
                "replicated_bytes": told["total_net_repl_output_bytes"],
            }
        )
    return found

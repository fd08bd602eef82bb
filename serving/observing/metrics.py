"""What /metrics shows. Where PROMETHEUS_MULTIPROC_DIR is set, all serving processes add up."""

from __future__ import annotations

import os
from functools import cache

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

DECISIONS = Counter("pointsman_decisions", "Decisions by chosen arm.", ["policy", "arm", "logged"])
REWARDS = Counter("pointsman_rewards", "Accepted components of outcomes.", ["policy", "component"])
CORRECTIONS = Counter("pointsman_corrections", "Overruled components.", ["policy", "component"])
PROBLEMS = Counter("pointsman_problems", "Answers that were problems.", ["status"])
SECONDS = Histogram(
    "pointsman_request_seconds", "Time to an answer.", ["endpoint"], buckets=BUCKETS_S
)
SNAPSHOT = Gauge(
    "pointsman_snapshot",
    "Number of the snapshot that serves.",
    ["policy"],
    multiprocess_mode="min",
)


@cache
def decisions(policy: str, arm: str, logged: bool) -> Counter:
    """The counter of one arm; finding it anew costs more than counting."""
    return DECISIONS.labels(policy, arm, str(logged).lower())


@cache
def seconds(endpoint: str) -> Histogram:
    return SECONDS.labels(endpoint)


def exposition() -> bytes:
    """All figures in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)

"""What a serving process counts and times; docs/operating/metrics.md says what each figure means.

Where PROMETHEUS_MULTIPROC_DIR is set, whichever serving process is asked answers for all: counters
and histograms add up, over those that have ended too, and gauges are of those that run.
"""

from __future__ import annotations

import os
from functools import cache

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.registry import Collector

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

# A second series for each, which several processes wouldn't show either.
disable_created_metrics()  # type: ignore[no-untyped-call]

_DECISIONS = Counter("pointsman_decisions", "Decisions by chosen arm.", ["policy", "arm", "logged"])
_DEGRADED = Counter(
    "pointsman_degraded_decisions", "Decisions made without all that they need.", ["policy", "why"]
)
_REWARDS = Counter("pointsman_rewards", "Accepted components of outcomes.", ["policy", "component"])
_CORRECTIONS = Counter("pointsman_corrections", "Overruled components.", ["policy", "component"])
_PROBLEMS = Counter("pointsman_problems", "Answers that were problems.", ["status", "type"])
_REQUEST_SECONDS = Histogram(
    "pointsman_request_seconds", "Time to an answer.", ["path"], buckets=BUCKETS_S
)
_STORE_SECONDS = Histogram(
    "pointsman_store_seconds", "Time that Redis took.", ["operation"], buckets=BUCKETS_S
)
IN_FLIGHT = Gauge(
    "pointsman_requests_in_flight", "Requests under way.", multiprocess_mode="livesum"
)
SNAPSHOT = Gauge(
    "pointsman_snapshot",
    "Number of the snapshot that serves.",
    ["policy"],
    multiprocess_mode="livemin",
)
SNAPSHOT_CHECKED = Gauge(
    "pointsman_snapshot_checked_timestamp_seconds",
    "When the snapshot that serves was last known to be the newest.",
    ["policy"],
    multiprocess_mode="livemin",
)


# Finding a labelled figure anew costs more than counting.


@cache
def decisions(policy: str, arm: str, logged: bool) -> Counter:
    return _DECISIONS.labels(policy, arm, str(logged).lower())


@cache
def degraded(policy: str, why: str) -> Counter:
    return _DEGRADED.labels(policy, why)


@cache
def rewards(policy: str, component: str) -> Counter:
    return _REWARDS.labels(policy, component)


@cache
def corrections(policy: str, component: str) -> Counter:
    return _CORRECTIONS.labels(policy, component)


@cache
def problems(status: int, kind: str) -> Counter:
    """Refusals and failures; `kind` is the last part of a problem's type, such as
    `store-unavailable`: one of a few, never a caller's words."""
    return _PROBLEMS.labels(str(status), kind)


@cache
def request_seconds(path: str) -> Histogram:
    return _REQUEST_SECONDS.labels(path)


@cache
def store_seconds(operation: str) -> Histogram:
    return _STORE_SECONDS.labels(operation)


def exposition(read: Collector) -> bytes:
    """All figures in Prometheus' text format, with those that were `read` just now."""
    registry = CollectorRegistry()
    registry.register(read)
    counted = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        counted = CollectorRegistry()
        multiprocess.MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    return generate_latest(counted) + generate_latest(registry)

"""Figures that are read when /metrics is asked, rather than counted as things happen: which there
are, and a place to put them. docs/operating/metrics.md says what each means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

POLICY = ("policy",)
ROLE = ("policy", "role")
STREAM = ("policy", "stream")
VERSION = ("policy", "version")
SERVER = ("server",)
PLACE = ("arm", "endpoint")

GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pointsman_redis_up": ("Whether Redis answers.", ()),
    "pointsman_redis_memory_bytes": ("What a server uses.", SERVER),
    "pointsman_redis_memory_limit_bytes": ("What it may use.", SERVER),
    "pointsman_redis_durable": ("Whether it keeps what it is given.", SERVER),
    "pointsman_stream_entries": ("Entries that a stream holds.", STREAM),
    "pointsman_published_snapshot": ("Number of the newest snapshot.", ROLE),
    "pointsman_snapshot_age_seconds": ("Age of the newest outcome in it.", ROLE),
    "pointsman_learned_events": ("Outcome events that it has learned.", ROLE),
    "pointsman_learner_running": ("Whether a learner holds the lease.", POLICY),
    "pointsman_learner_behind_seconds": ("How long an outcome has not been learned.", ROLE),
    "pointsman_archiver_running": ("Whether an archiver holds the lease.", POLICY),
    "pointsman_archiver_behind_seconds": ("How long an entry has not been archived.", STREAM),
    "pointsman_endpoint_in": ("Whether an endpoint can be called.", PLACE),
    "pointsman_endpoint_failing": ("Share of its last calls that failed.", PLACE),
    "pointsman_budget_limit_usd": ("What a policy may spend in a period.", POLICY),
    "pointsman_budget_spent_usd": ("What it has spent in this one.", POLICY),
    "pointsman_budget_can_be_kept": ("Whether that is enough for the traffic.", POLICY),
    "pointsman_challenger_share": ("Share of the draw that a challenger has.", VERSION),
    "pointsman_challenger_decisions": ("Decisions that tell of a challenger.", VERSION),
    "pointsman_challenger_difference": ("Its reward less the champion's.", VERSION),
    "pointsman_challenger_difference_error": ("Standard error of that.", VERSION),
    "pointsman_gate_verdict": ("What the gate said last of a challenger.", (*VERSION, "verdict")),
    "pointsman_gate_timestamp_seconds": ("When it said so.", VERSION),
    "pointsman_champion_worse": ("Whether the watch has found the champion worse.", POLICY),
}


class Figures(Collector):
    """Values of these gauges."""

    def __init__(self) -> None:
        self._values: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)

    def set(self, name: str, value: float | None, *labels: str) -> None:
        """`labels` in the order of `GAUGES`; None is a figure that isn't there."""
        if value is not None:
            self._values[name][labels] = float(value)

    def update(self, others: Figures) -> None:
        self._values.update(others._values)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As Prometheus' client collects them."""
        for name, (meaning, labels) in GAUGES.items():
            family = GaugeMetricFamily(name, meaning, labels=labels)
            for values, value in self._values[name].items():
                family.add_metric(values, value)
            yield family

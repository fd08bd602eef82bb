"""What /metrics shows is what docs/metrics.md says, and what happened."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import drive, until

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(pointsman_\w+)` \| (\w+) \|([\w, ]*)\|", re.MULTILINE)


class Kind(NamedTuple):
    """A metric's type and labels."""

    type: str
    labels: frozenset[str]


def documented() -> dict[str, Kind]:
    rows = ROW.findall(DOCUMENT.read_text("utf-8"))
    return {name: Kind(kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in rows}


def exposed(text: str) -> dict[str, Kind]:
    """Of our own metrics that have a value."""
    kinds = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("pointsman_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        kinds[name] = Kind(family.type, frozenset(labels))
    return kinds


def values(text: str, name: str) -> Mapping[tuple[str, ...], float]:
    """The samples of a name, by their labels' values in alphabetical order of the labels."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_the_registry_and_the_document_name_the_same_metrics():
    """In both directions, also of those that have no value yet."""
    of_registry = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric.type
        for metric in REGISTRY.collect()
        if metric.name.startswith("pointsman_")
    }
    assert of_registry == {name: kind.type for name, kind in documented().items()}


def test_what_is_shown_has_the_documented_type_and_labels(http: httpx.Client):
    """Of each metric that has a value after some traffic."""
    drive(http, 3)
    http.post("/route", json={"nonsense": 1})
    shown = exposed(http.get("/metrics").text)
    documents = documented()
    valued = {
        name: kind for name, kind in shown.items() if kind.labels or not documents[name].labels
    }
    assert valued == {name: documents[name] for name in valued}
    assert {"pointsman_decisions_total", "pointsman_rewards_total", "pointsman_problems_total"} <= (
        valued.keys()
    )


def test_traffic_is_counted(http: httpx.Client):
    """Decisions, components of rewards, problems by status and type, and how long each took."""
    before = http.get("/metrics").text
    drive(http, 3)
    http.post("/route", json={"policy": "nobody's"})
    http.post("/route", json={"policy": "none"})
    after = http.get("/metrics").text

    def more(name: str, *labels: str) -> float:
        return values(after, name).get(labels, 0.0) - values(before, name).get(labels, 0.0)

    arms = {arm for arm, *_ in values(after, "pointsman_decisions_total")}
    decided = sum(more("pointsman_decisions_total", arm, "true", "default") for arm in arms)
    assert decided == 3
    for component in ("quality", "latency_ms", "cost_usd"):
        assert more("pointsman_rewards_total", component, "default") == 3
    assert more("pointsman_problems_total", "404", "unknown-policy") == 1
    assert more("pointsman_problems_total", "422", "invalid-request") == 1
    assert more("pointsman_request_seconds_count", "/route") == 5
    assert more("pointsman_request_seconds_count", "/reward") == 3
    assert more("pointsman_store_seconds_count", "decide") == 3
    assert more("pointsman_store_seconds_count", "reward") == 3
    assert values(after, "pointsman_requests_in_flight") == {(): 1.0}  # this very one


def test_the_snapshot_that_serves_is_known_to_be_the_newest(http: httpx.Client):
    """Its time moves on while nothing else happens."""

    def checked() -> float:
        name = "pointsman_snapshot_checked_timestamp_seconds"
        return values(http.get("/metrics").text, name)["default",]

    first = checked()
    assert abs(first - time.time()) < 10.0
    until(lambda: checked() > first, "it is looked at again")

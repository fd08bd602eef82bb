"""What docs/operating/metrics.md says, and what a service shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

DOCUMENT = Path(__file__).parents[3] / "docs" / "operating" / "metrics.md"
ROW = re.compile(r"^\| `(pointsman_\w+)` \| (\w+) \|([\w, ]*)\|", re.MULTILINE)


class Kind(NamedTuple):
    """A metric's type and labels."""

    type: str
    labels: frozenset[str]


def documented() -> dict[str, Kind]:
    rows = ROW.findall(DOCUMENT.read_text("utf-8"))
    return {name: Kind(kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in rows}


def exposed(text: str) -> dict[str, Kind]:
    """Our own metrics that have a value."""
    kinds = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("pointsman_") and family.samples:
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


def value(http: httpx.Client, name: str, *labels: str) -> float:
    return values(http.get("/metrics").text, name)[labels]

"""What a fault cost is printed at the end of a run: `recovered` takes it, in s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Recovered = Callable[[dict[str, float]], None]


@pytest.fixture
def recovered(record_property: Callable[[str, object], None]) -> Recovered:
    return lambda took: record_property("recovered", took)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line per scenario: how long after the fault, or its end, each part went on."""
    lines = [
        f"  {report.nodeid.rpartition('::')[2]}: "
        + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items())
        for report in terminalreporter.stats.get("passed", [])
        for name, took in report.user_properties
        if name == "recovered"
    ]
    if lines:
        terminalreporter.section("recovery after faults")
        terminalreporter.write_line("\n".join(lines))

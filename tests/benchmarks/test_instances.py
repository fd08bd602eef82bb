"""The benchmark of instances runs and measures what it says; its figures are not judged here."""

from __future__ import annotations

import sys

import pytest

from benchmarks.instances.__main__ import benchmark, table


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_way_has_its_waiting_times():
    """Of the same calls, and random is no better than /route even in short queues."""
    rows = benchmark(calls=200, load=0.8)
    assert rows.keys() == {"/route", "random", "round robin", "random by weight"}
    assert rows["/route"]["p99_ratio"] == 1.0
    assert rows["random"]["p99_ratio"] > 1.0
    assert "80% of the capacity" in table(rows, 0.8)

"""The benchmark of /route runs and measures what it says; its figures are not judged here."""

from __future__ import annotations

import sys

import pytest

from benchmarks.common.load import Load, post
from benchmarks.serving import __main__ as serving
from benchmarks.serving.running import BATCH
from tests.servers import http_service


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_both_sides_are_measured_at_many_connections_and_at_one():
    """Every figure is there for the service and the baseline, and the table shows them."""
    figures = serving.benchmark("everysec", connections=2, seconds=0.2, rounds=1, learned=BATCH)
    assert figures.keys() == {"2", "1"}
    for rows in figures.values():
        assert rows.keys() == {"per_s", "p50_ms", "p99_ms", "cpu_us"}
        assert rows["per_s"]["route"] > 0
        assert rows["per_s"]["baseline"] > 0
    assert "2 connections" in serving.table("everysec", figures)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_local_decider_is_measured_beside_route():
    """Each way to ask has its figures, and what was decided here was logged in the end."""
    rows = serving.beside(0.2, learned=BATCH)
    assert len(rows) == 4
    assert all(row["p50_ms"] > 0 for row in rows.values())
    assert rows["Decider.route"]["unlogged"] == rows["Decider.route, paced"]["unlogged"] == 0
    assert "Decider.route, paced" in serving.table_beside(rows)


def test_an_answer_other_than_200_stops_the_load(settings):
    """A refused request is fast: it must not pass for a good figure."""
    with http_service(settings) as http, Load() as load:
        port = http.base_url.port
        assert port is not None
        good = post("/route", b'{"query": {"text": "hello"}}')
        assert len(load.run(port, [good], connections=2, seconds=0.05).latency_ms) > 2
        with pytest.raises(RuntimeError, match="422"):
            load.run(port, [post("/route", b'{"colour": 1}')], connections=1, seconds=0.05)
        with pytest.raises(RuntimeError, match="load:"):
            load.run(1, [good], connections=1, seconds=0.05)

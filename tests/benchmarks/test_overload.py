"""What a service bears, and the load that shows it."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks.common.arrivals import Arrivals
from benchmarks.common.load import post
from benchmarks.serving.overload import decisions, overload
from serving.settings import Settings
from tests.servers import http_service

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_requests_arrive_at_a_rate_whatever_becomes_of_them(settings: Settings):
    """Every one that is due is sent and answered, or had no connection; each status has its
    times."""
    good, wrong = b'{"query": {"text": "hello"}}', b'{"colour": 1}'
    with http_service(settings) as http, Arrivals() as arrivals:
        port = http.base_url.port
        assert port is not None
        run = arrivals.run(port, [post("/route", good), post("/route", wrong)], 20, 100.0, 0.5)
        sent = len(run.of(200)) + len(run.of(422))
        assert 40 <= sent + run.unsent <= 60 + 100 * (run.seconds - 0.5)
        assert run.latency_ms.keys() == {200, 422}
        assert run.percentile_ms(200, 0) > 0.0
        none = arrivals.run(port, [post("/route", good)], 1, 1e5, 0.05)
        assert none.unsent > 0
        with pytest.raises(RuntimeError, match="arrivals:"):
            arrivals.run(1, [post("/route", good)], 1, 1.0, 0.05)


@pytest.mark.slow
def test_overload_is_borne():
    """Three times what it sustains: what is accepted is no less than half of that, what isn't gets
    429, and nothing else; memory stays (the figures of a quiet machine are in the journal)."""
    figures = overload(3.0, 10.0, search_s=2.0)
    usual, much = figures["sustained"], figures["overload"]
    assert much["others"] == {}
    assert much["accepted_per_s"] > 0.5 * usual["accepted_per_s"]
    assert much["refused_per_s"] > 0.0
    for name, mb in much["memory_mb"].items():
        if name in usual["memory_mb"]:
            assert mb < 1.5 * usual["memory_mb"][name] + 10.0
    json.dumps(figures)


@pytest.mark.slow
def test_memory_is_told_of_every_process():
    """At the first look and at the last."""
    figures = decisions(1_000, 20.0, chunk_s=0.5)
    assert figures["decisions"] >= 1_000
    levels = figures["levels"]
    assert {"up", "serve", "learn", "archive", "watch"} <= levels[-1]["memory_mb"].keys()

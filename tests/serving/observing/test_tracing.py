"""Traces: a span per request, sent to an OTLP receiver; nothing where none is named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.observing.tracing import ENDPOINTS, traced
from serving.settings import Settings
from tests.servers import http_service
from tests.serving.observing.receiver import EXPORTER, Receiver, receiving
from tests.test_layers import loaded_by

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CANARY = "a question that nobody may read"


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip(EXPORTER, reason="pointsman[tracing] is not installed")


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield receiver


def routed(http: httpx.Client, **headers: str) -> dict[str, Any]:
    answer = http.post("/route", json={"query": {"text": CANARY}}, headers=headers)
    return dict(answer.json())


def test_a_request_is_a_span_of_its_callers_trace(settings: Settings, receiver: Receiver):
    """With what was decided, in the conventions' words, and no text."""
    with http_service(settings) as http:
        made = routed(http, traceparent=f"00-{TRACE}-{PARENT}-01")
        usage = {"prompt_tokens": 50, "completion_tokens": 9}
        outcome = {"decision_id": made["decision_id"], "error": CANARY, "usage": usage}
        assert http.post("/reward", json=outcome).status_code == 200
        http.get(f"/decisions/{made['decision_id']}")
        http.get("/readyz")
        route = receiver.named("POST /route")
        reward = receiver.named("POST /reward")
        receiver.named("GET /decisions/{decision_id}")
    assert (route.trace_id.hex(), route.parent_span_id.hex()) == (TRACE, PARENT)
    assert route.end_time_unix_nano > route.start_time_unix_nano
    assert attributes(route) == {
        "http.request.method": "POST",
        "url.path": "/route",
        "http.route": "/route",
        "http.response.status_code": 200,
        "pointsman.policy": "default",
        "pointsman.decision_id": made["decision_id"],
        "pointsman.arm": made["arm"],
        "gen_ai.provider.name": made["provider"],
        "gen_ai.request.model": made["model"],
    }
    told = attributes(reward)
    assert told["gen_ai.usage.input_tokens"] == 50
    assert told["gen_ai.usage.output_tokens"] == 9
    assert told["error.type"] == "_OTHER"
    assert {attributes(one.resource)["service.name"] for one in receiver.resources()} == {
        "pointsman"
    }
    assert not any("readyz" in span.name for span in receiver.spans())
    assert not any(CANARY in str(span) for span in receiver.spans())


def test_spans_that_wait_are_sent_when_the_service_ends(
    settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """None is lost by a stop in order."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with http_service(settings) as http:
        routed(http)
        assert not receiver.spans()
    assert [span.name for span in receiver.spans()] == ["POST /route"]


def test_a_failure_is_marked(settings: Settings, receiver: Receiver):
    """By its status; a caller's mistake is none of ours."""
    with http_service(settings) as http:
        http.post("/route", json={"nonsense": 1})
        http.get("/nowhere")
        refused = receiver.named("POST /route")
        nowhere = receiver.named("GET")
    assert attributes(refused)["http.response.status_code"] == 422
    assert attributes(nowhere)["http.response.status_code"] == 404
    assert not refused.status.code


def test_a_collector_that_is_away_holds_nothing_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    """Requests are answered, and the service ends within its bound."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with http_service(settings) as http:
        assert routed(http)["arm"]
        ending = time.monotonic()
    assert time.monotonic() - ending < 8.0


def test_without_an_address_the_application_is_as_it_is(monkeypatch: pytest.MonkeyPatch):
    """Nothing stands before it, and nothing is imported."""
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    app: Any = object()
    assert traced(app) is app
    loaded = loaded_by("from serving.observing.tracing import traced; traced(None)")
    assert "opentelemetry" not in loaded


def test_without_the_library_there_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """And the service serves."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("serving.observing.tracing.EXPORTER", "opentelemetry.nothing.here")
    app: Any = object()
    assert traced(app) is app
    assert "pointsman[tracing]" in caplog.text

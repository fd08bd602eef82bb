"""Each kind of bad input gets a clear problem+json, and the service goes on."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

GOOD = {"query": {"text": "hello"}}


@pytest.fixture(autouse=True)
def _goes_on(http: httpx.Client):
    """After whatever was sent, the next good request is answered."""
    yield
    assert http.post("/route", json=GOOD).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"query": {"text": "a"}', 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"query": {"text": 3}}', 422),
        (b'{"query": {"text": "a"}, "colour": "red"}', 422),
        (b'{"query": {"text": "a", "messages": []}}', 422),
        (b'{"query": {}}', 422),
        (b'{"query": {"text": "a"}, "decision_id": "a b"}', 422),
        (b'{"query": {"text": "a"}, "decision_id": ""}', 422),
        (b'{"query": {"text": "a"}, "objective": {"quality": NaN}}', 422),
        (b'{"query": {"text": "a"}, "objective": {"quality": Infinity}}', 422),
        (b'{"query": {"text": "a"}, "objective": {"quality": -1}}', 422),
        (b'{"query": {"text": "a"}, "objective": {"quality": 0}}', 422),
        (b'{"query": {"text": "a"}, "objective": "fastest"}', 422),
        (b'{"query": {"text": "a"}, "hints": {"context_tokens": -1}}', 422),
        (b'{"query": {"text": "a"}, "hints": {"context_tokens": 1e400}}', 422),
        (b'{"query": {"text": "a"}, "constraints": {"max_price": 1}}', 422),
        (b'{"query": {"text": "a"}, "constraints": {"max_cost_usd": 0}}', 422),
        (b'{"query": {"text": "a"}, "constraints": {"max_latency_ms": NaN}}', 422),
        (b'{"query": {"text": "a"}, "constraints": {"min_quality": 2}}', 422),
        (b'{"query": {"text": "a"}, "constraints": {"speed": "balanced"}}', 422),
        (b'{"query": {"text": "a"}, "constraints": {"context_tokens": 999999999}}', 422),
        (b'{"query": {"text": "a"}, "policy": "nobody"}', 404),
    ],
)
def test_route_refuses(http: httpx.Client, body: bytes, status: int):
    """Malformed JSON is 400, what is wrong inside it 422, an unknown policy 404."""
    assert_problem(http.post("/route", content=body), status)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"nan"'])
def test_reward_refuses_what_is_no_finite_number(http: httpx.Client, number: bytes):
    """One NaN in the sums would spoil an arm for good."""
    body = b'{"decision_id": "a", "quality": %s}' % number
    assert_problem(http.post("/reward", content=body), 422)


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/route", 1 << 24),
        ("/reward", 1 << 20),
        ("/route/batch", 1 << 24),
        ("/reward/batch", 1 << 20),
    ],
)
def test_an_oversized_body_is_refused(http: httpx.Client, path: str, limit: int):
    """With and without a declared length."""
    large = b'{"query": {"text": "' + b"a" * limit + b'"}}'
    assert_problem(http.post(path, content=large), 413)
    assert_problem(http.post(path, content=iter([large[:600_000], large[600_000:]])), 413)


@pytest.mark.parametrize(
    ("path", "name"), [("/route/batch", "requests"), ("/reward/batch", "rewards")]
)
def test_an_oversized_batch_is_refused(http: httpx.Client, path: str, name: str):
    """And so is an empty one."""
    assert_problem(http.post(path, json={name: [{}] * 1_025}), 413)
    assert_problem(http.post(path, json={name: []}), 422)


@pytest.mark.parametrize(
    ("keys", "twice", "status"), [(7_000, True, 400), (700_000, True, 400), (700_000, False, 400)]
)
def test_an_object_of_very_many_keys_keeps_nobody_waiting(
    http: httpx.Client, keys: int, twice: bool, status: int
):
    """Finding the key that stands twice takes a look at each, not at each pair of them: 60,000
    took 52 s, and 700,000 unknown fields kept others waiting for 4 s."""
    last = f',"{keys - 1}":1' if twice else ""
    body = "{" + ",".join(f'"{i}":1' for i in range(keys)) + last + "}"
    started = time.monotonic()
    assert_problem(http.post("/route", content=body.encode()), status)
    assert time.monotonic() - started < 10.0


def test_unknown_paths_and_methods_are_problems(http: httpx.Client):
    """Not only our own errors have the one form."""
    assert_problem(http.get("/nowhere"), 404)
    assert_problem(http.get("/route"), 405)
    assert_problem(http.get("/policies/nobody"), 404)
    assert_problem(http.get("/decisions/nobody"), 404)
    assert_problem(http.get("/decisions/a b"), 422)


def assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]


def test_the_openapi_document_shows_examples(http: httpx.Client):
    """/docs has something to try."""
    document = http.get("/openapi.json").json()
    assert document["components"]["schemas"]["RouteRequest"]["examples"]
    assert http.get("/docs").status_code == 200

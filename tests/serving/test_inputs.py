"""What real callers send to /route, each with its right answer."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import pytest

TEXT = {"query": {"text": "hello"}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
COMPLETION: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "What is the weather?", "name": "ada"}],
    "temperature": 0.2,
    "top_p": 1,
    "n": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "stop": ["\n"],
    "seed": 7,
    "user": "u-1",
    "metadata": {"run": "a"},
    "logit_bias": None,
}
FIELDS = ("policy", "decision_id", "query", "hints", "constraints", "objective", "chosen")
HINTS = ("task_type", "context_tokens", "output_tokens", "language", "capabilities", "labels")
CONSTRAINTS = (
    *("context_tokens", "capabilities", "allow", "deny", "providers", "cost_tier"),
    *("max_cost_usd", "max_latency_ms", "speed", "min_quality", "context_tier"),
)


def ask(http: httpx.Client, body: Any, **more: Any) -> httpx.Response:
    if isinstance(body, bytes):
        return http.post("/route", content=body, **more)
    return http.post("/route", json=body, **more)


def arm_of(http: httpx.Client, body: dict[str, Any]) -> str:
    answer = ask(http, body)
    assert answer.status_code == 200, answer.text
    arm: str = answer.json()["arm"]
    return arm


def eligible(http: httpx.Client, body: dict[str, Any]) -> set[str]:
    answer = ask(http, body)
    assert answer.status_code == 200, answer.text
    return {answer.json()["arm"], *(other["arm"] for other in answer.json()["alternatives"])}


@pytest.mark.parametrize(
    "body",
    [
        {},
        dict.fromkeys(FIELDS),
        {**TEXT, "hints": dict.fromkeys(HINTS)},
        {**TEXT, "constraints": dict.fromkeys(CONSTRAINTS)},
        {**TEXT, "objective": {"quality": 1, "latency": None, "cost": None}},
        {"query": {"text": "a", "messages": None, "tools": None, "max_tokens": None}},
        {"query": {"messages": [{"role": "assistant", "content": None}]}},
    ],
)
def test_null_means_absent(http: httpx.Client, body: dict[str, Any]):
    """At every optional field; a request may leave out all of them."""
    assert eligible(http, body) == {"small", "large"}


@pytest.mark.parametrize("value", [123, 1.5, True, None, "x" * 100, "x" * 10_000, "", "ü"])
def test_any_scalar_of_any_length_is_a_label(http: httpx.Client, value: Any):
    """As a label, as a label's name where that is a string, and as a task type."""
    hints: dict[str, Any] = {"task_type": value, "labels": {"tenant": value}}
    if isinstance(value, str):
        hints["labels"][value] = "a"
    assert ask(http, {**TEXT, "hints": hints}).status_code == 200


def test_a_chat_completions_own_body_is_a_query(http: httpx.Client):
    """What routing has no use for is passed over; an unknown field elsewhere stays an error."""
    assert eligible(http, {"query": COMPLETION}) == {"small", "large"}
    assert ask(http, {"query": COMPLETION, "temperature": 0.2}).status_code == 422
    assert ask(http, {**TEXT, "hints": {"temperature": 0.2}}).status_code == 422


@pytest.mark.parametrize(
    ("more", "arms"),
    [
        ({"tools": [TOOL]}, {"large"}),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"large"}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"small", "large"}),
        ({"tools": []}, {"small", "large"}),
        ({"response_format": {"type": "text"}}, {"small", "large"}),
        ({"reasoning_effort": "none"}, {"small", "large"}),
        ({"max_tokens": 9_000}, {"large"}),
        ({"max_completion_tokens": 9_000, "max_tokens": 10}, {"large"}),
        ({"max_tokens": 300}, {"small", "large"}),
    ],
)
def test_what_a_chat_completion_says_of_its_arm_is_read(
    http: httpx.Client, more: dict[str, Any], arms: set[str]
):
    """Tools need an arm that has them, and the answer's limit fits the window of 8,192."""
    assert eligible(http, {"query": {**COMPLETION, **more}}) == arms


@pytest.mark.parametrize(
    ("more", "lacks"),
    [
        ({"response_format": {"type": "json_object"}}, "json"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json"),
        ({"reasoning_effort": "high"}, "reasoning"),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "audio"),
    ],
)
def test_what_no_arm_can_do_is_named(http: httpx.Client, more: dict[str, Any], lacks: str):
    """No arm of this catalog has these."""
    answer = ask(http, {"query": {**COMPLETION, **more}})
    assert answer.status_code == 422
    reasons = {entry["arm"]: entry["reason"] for entry in answer.json()["excluded"]}
    assert reasons["small"] == reasons["large"] == f"lacks {lacks}"


@pytest.mark.parametrize(
    "body",
    [
        {**TEXT, "hints": {"capabilities": ["embedding"]}},
        {**TEXT, "hints": {"capabilities": ["embeddings"]}},
        {**TEXT, "hints": {"task_type": "embedding"}},
        {**TEXT, "constraints": {"capabilities": ["embedding"]}},
    ],
)
def test_an_embedding_needs_no_chat(http: httpx.Client, body: dict[str, Any]):
    """However it is said, and in either spelling."""
    assert arm_of(http, body) == "embedder"


def test_a_capability_that_no_word_is_for_is_refused(http: httpx.Client):
    """It names those that there are."""
    answer = ask(http, {**TEXT, "constraints": {"capabilities": ["telepathy"]}})
    assert answer.status_code == 422
    assert "'embeddings'" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        rb'{"query": {"text": "half \ud83d of a pair"}}',
        rb'{"query": {"text": "half \uDE00"}, "hints": {"labels": {"\ud83d": "\ud83d"}}}',
        rb'{"query": {"messages": [{"role": "user", "content": "\ud83d\ud83d\ude00"}]}}',
        b'{"query": {"text": "half \xed\xa0\xbd of a pair"}}',
        b'{"query": {"text": "caf\xe9"}}',
        b'\xef\xbb\xbf{"query": {"text": "after a byte order mark"}}',
    ],
)
def test_text_that_is_no_unicode_is_repaired(http: httpx.Client, body: bytes):
    """Half a surrogate pair, as bytes or as an escape, is what a cut through an emoji leaves."""
    assert ask(http, body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"query": {"text": "a"}, "query": {"text": "b"}}',
        b'{"query": {"text": "a", "text": "a"}}',
        b'{"query": {"text": "a:b", "\\u0074ext": "a"}}',
        b'{"query": {"text": "a"}, "hints": {"labels": {"a": "\\u003a", "a": 1}}}',
    ],
)
def test_a_key_that_stands_twice_is_refused(http: httpx.Client, body: bytes):
    """Which of the two is meant nobody knows."""
    answer = ask(http, body)
    assert answer.status_code == 400
    assert "stands twice" in answer.json()["detail"]


def test_a_body_may_be_packed(http: httpx.Client):
    """By gzip; what is damaged is 400, what is too large when unpacked 413, another coding 415."""
    packed = gzip.compress(b'{"query": {"text": "hello"}}')
    gz = {"headers": {"content-encoding": "gzip"}}
    assert ask(http, packed, **gz).status_code == 200
    large = b'{"query": {"text": "' + b"a" * 9_000_000 + b'"}, "hints": {"context_tokens": 9}}'
    assert ask(http, gzip.compress(large), **gz).status_code == 200
    assert ask(http, packed[:-9], **gz).status_code == 400
    assert ask(http, b"{}", **gz).status_code == 400
    assert ask(http, gzip.compress(b" " * 17_000_000), **gz).status_code == 413
    answer = ask(http, b"{}", headers={"content-encoding": "br"})
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "part",
    [
        f'"query": {{"text": "a", "tools": [{"[" * 300 + "]" * 300}]}}',
        f'"query": {{"text": "a", "\\u003a": 1, "tools": [1{"0" * 30}]}}',
        f'"query": {{"text": "{"a" * 70_000}", "tools": [1{"0" * 30}]}}',
        f'"objective": {{"quality": 1{"0" * 400}}}',
        f'"hints": {{"context_tokens": 1{"0" * 30}}}',
    ],
)
def test_depth_and_size_have_bounds(http: httpx.Client, part: str):
    """What can't be stored is refused at the door, whichever way a body is read."""
    answer = ask(http, f'{{"decision_id": "a", {part}}}'.encode())
    assert answer.status_code == 422
    assert answer.json()["errors"]


@pytest.mark.parametrize("field", ["allow", "deny"])
def test_an_unknown_arm_is_named(http: httpx.Client, field: str):
    """It has no effect on the others, and the answer says so."""
    answer = ask(http, {**TEXT, "constraints": {field: ["nobody"], "providers": ["local", "acme"]}})
    if field == "allow":
        assert answer.status_code == 422
        assert {"arm": "nobody", "reason": "not in the catalog"} in answer.json()["excluded"]
        answer = ask(http, {**TEXT, "constraints": {"allow": ["small", "nobody"]}})
        assert answer.json()["notes"] == ["constraints.allow: no such arm: 'nobody'"]
    else:
        assert answer.json()["notes"] == [
            "constraints.deny: no such arm: 'nobody'",
            "constraints.providers: no such provider: 'acme'",
        ]
    assert answer.json()["arm"] == "small"
    assert ask(http, TEXT).json()["notes"] == []


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ([], "", "the body should be an object"),
        ({"objective": {"quality": 0}}, "objective", "at least one weight must be > 0"),
        (
            {"objective": {"quality": -1}},
            "objective.quality",
            "should be greater than or equal to 0",
        ),
        ({"objective": {"speed": 1}}, "objective.speed", "is no field here"),
        ({"query": "hello"}, "query", "should be an object"),
        ({"query": {"text": 3}}, "query.text", "should be a valid string"),
        ({"query": {"messages": [{"content": "a"}]}}, "query.messages.0.role", "is missing"),
        (
            {"query": {"messages": [{"role": "user", "content": [{"type": "text"}]}]}},
            "query.messages.0.content.0",
            "a part of type 'text' needs a text",
        ),
        ({"hints": {"labels": []}}, "hints.labels", "should be an object"),
        (
            {"constraints": {"capabilities": "chat"}},
            "constraints.capabilities",
            "should be a list",
        ),
    ],
)
def test_a_422_speaks_of_the_callers_fields(http: httpx.Client, body: Any, field: str, reason: str):
    """By their path, and never of what the validator is made of."""
    answer = ask(http, body)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": field, "reason": reason}]
    in_batch = http.post("/route/batch", json={"requests": [body]}).json()["results"][0]
    assert in_batch["errors"] == answer.json()["errors"]


def test_where_several_shapes_would_do_both_are_named(http: httpx.Client):
    """A field that takes a word or an object, given neither."""
    answer = ask(http, {"objective": 3}).json()
    assert {error["field"] for error in answer["errors"]} == {"objective"}
    assert "'balanced'" in answer["detail"]
    assert "should be an object" in answer["detail"]

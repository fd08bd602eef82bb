"""What /reward takes: usage blocks as providers send them, errors by kind, times."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from serving.parsing.usage import Tokens, tokens
from tests.servers import CONFIG, http_service, settings_for

OPENAI_CHAT = {
    "prompt_tokens": 1_000,
    "completion_tokens": 200,
    "total_tokens": 1_200,
    "prompt_tokens_details": {"cached_tokens": 600, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 150},
}
OPENAI_RESPONSES = {
    "input_tokens": 1_000,
    "input_tokens_details": {"cached_tokens": 600},
    "output_tokens": 200,
    "output_tokens_details": {"reasoning_tokens": 150},
    "total_tokens": 1_200,
}
ANTHROPIC = {
    "input_tokens": 300,
    "cache_creation_input_tokens": 100,
    "cache_read_input_tokens": 600,
    "output_tokens": 200,
    "service_tier": "standard",
}
GEMINI = {
    "promptTokenCount": 1_000,
    "cachedContentTokenCount": 600,
    "candidatesTokenCount": 50,
    "thoughtsTokenCount": 150,
    "totalTokenCount": 1_200,
}
PRICED = CONFIG.replace(
    "usd_per_mtok_out = 15.0\n",
    "usd_per_mtok_out = 15.0\nusd_per_mtok_cached_in = 0.3\nusd_per_mtok_cache_write = 4.0\n"
    "usd_per_request = 0.001\n",
)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (OPENAI_CHAT, Tokens(400, 200, 600)),
        (OPENAI_RESPONSES, Tokens(400, 200, 600)),
        (ANTHROPIC, Tokens(300, 200, 600, 100)),
        (GEMINI, Tokens(400, 200, 600)),
        ({"prompt_token_count": 7, "candidates_token_count": None}, Tokens(7, 0)),
        ({"prompt_tokens": 9, "total_tokens": 9}, Tokens(9, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": None}, Tokens(9, 1)),
        ({"prompt_tokens": 9.0, "completion_tokens": 1.0}, Tokens(9, 1)),
    ],
)
def test_each_token_is_counted_once(usage: dict[str, Any], expected: Tokens):
    """Whether cached and reasoning tokens are part of the others, or come on top."""
    assert tokens(usage) == expected


@pytest.fixture
def ask(redis_url: str, tmp_path: Any) -> Any:
    """Decide for the arm "large", report, and look: the answer and the stored outcome."""
    with http_service(settings_for(redis_url, tmp_path, PRICED)) as http:

        def report(parts: dict[str, Any], arm: str = "large") -> tuple[httpx.Response, Any]:
            only = {"query": {"text": "hello"}, "constraints": {"allow": [arm]}}
            made = http.post("/route", json=only).json()["decision_id"]
            answer = http.post("/reward", json={"decision_id": made, **parts})
            return answer, http.get(f"/decisions/{made}").json()["outcome"]

        yield report


@pytest.mark.parametrize("usage", [OPENAI_CHAT, OPENAI_RESPONSES, GEMINI])
def test_a_cost_is_computed_from_usage(ask: Any, usage: dict[str, Any]):
    """400 tokens at 3 USD, 600 at 0.3 and 200 at 15 per million, and 0.001 for the request."""
    answer, outcome = ask({"usage": usage})
    assert answer.json()["accepted"] == ["cost_usd"]
    assert outcome["cost_usd"] == pytest.approx(0.0012 + 0.00018 + 0.003 + 0.001)


def test_what_is_written_to_a_cache_costs_as_well(ask: Any):
    """300 at 3 USD, 600 at 0.3, 100 at 4 and 200 at 15, and the request."""
    _, outcome = ask({"usage": ANTHROPIC})
    assert outcome["cost_usd"] == pytest.approx(0.0009 + 0.00018 + 0.0004 + 0.003 + 0.001)


def test_an_unknown_price_leaves_the_cost_missing(ask: Any):
    """It is never 0, and the answer names the price; without cached tokens none is needed."""
    answer, outcome = ask({"usage": OPENAI_CHAT, "quality": 1.0}, arm="small")
    assert answer.json()["accepted"] == ["quality"]
    assert answer.json()["missing"] == ["latency_ms", "cost_usd"]
    assert answer.json()["notes"] == [
        "cost_usd stays missing: arm 'small' has no usd_per_mtok_cached_in for 600 tokens"
    ]
    assert "cost_usd" not in outcome
    _, outcome = ask({"usage": {"prompt_tokens": 1_000, "completion_tokens": 0}}, arm="small")
    assert outcome["cost_usd"] == pytest.approx(0.0001)


def test_a_cost_that_is_reported_counts_before_one_that_is_computed(ask: Any):
    """Who pays the bill knows better; the same goes for an unknown price."""
    answer, outcome = ask({"usage": OPENAI_CHAT, "cost_usd": 0.5}, arm="small")
    assert outcome["cost_usd"] == 0.5
    assert answer.json()["notes"] == []


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        ({}, "tokens of no known provider"),
        ({"tokens": 5}, "tokens of no known provider"),
        ([], "should be an object"),
        ({"prompt_tokens": -1}, "prompt_tokens should be a whole number"),
        ({"prompt_tokens": True}, "prompt_tokens should be a whole number"),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}, "should include"),
    ],
)
def test_a_usage_that_tells_nothing_is_refused(ask: Any, usage: Any, why: str):
    """With what is wrong, in the caller's words."""
    answer, _ = ask({"usage": usage})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "usage"
    assert why in answer.json()["detail"]


@pytest.mark.parametrize(("quality", "value"), [(True, 1.0), (False, 0.0), (1, 1.0)])
def test_a_verdict_is_a_quality(ask: Any, quality: Any, value: float):
    """True is 1, false is 0."""
    answer, outcome = ask({"quality": quality})
    assert answer.json()["accepted"] == ["quality"]
    assert outcome["quality"] == value


@pytest.mark.parametrize(
    "kind",
    [
        *("timeout", "connection", "server_error", "rate_limited", "auth", "bad_request"),
        *("content_filter", "cancelled", "out of cheese"),
    ],
)
def test_an_error_has_a_kind(ask: Any, kind: str):
    """Or any other word; it may say when to come back."""
    answer, outcome = ask({"error": kind, "retry_after_s": 30, "quality": None})
    assert answer.json()["accepted"] == ["error", "retry_after_s"]
    assert (outcome["error"], outcome["retry_after_s"]) == (kind, 30.0)


def test_the_time_to_the_first_token_is_kept(ask: Any, raw: Any):
    """Accepted once like a component, alone or with others, and part of the event that goes to
    the log; nothing is learned of it."""
    answer, outcome = ask({"ttft_ms": 210})
    assert answer.json()["accepted"] == ["ttft_ms"]
    assert outcome == {"ttft_ms": 210.0}
    assert not raw.xlen("pm:{default}:outcomes")
    ask({"ttft_ms": 210, "latency_ms": 900})
    [(_, event)] = raw.xrange("pm:{default}:outcomes")
    assert (event[b"ttft_ms"], event[b"latency_ms"]) == (b"210.0", b"900.0")


def test_what_is_kept_is_kept_once(http: httpx.Client):
    """The same again is unchanged, another value a conflict that changes nothing."""
    made = http.post("/route", json={}).json()["decision_id"]
    report = {"decision_id": made, "ttft_ms": 210}
    http.post("/reward", json=report)
    assert http.post("/reward", json=report).json()["unchanged"] == ["ttft_ms"]
    answer = http.post("/reward", json={**report, "ttft_ms": 5, "quality": 1})
    assert answer.status_code == 409
    assert http.get(f"/decisions/{made}").json()["outcome"] == {"ttft_ms": 210.0}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"retry_after_s": 3},
        {"usage": OPENAI_CHAT, "input_tokens": 1, "output_tokens": 1},
        {"ttft_ms": -1},
    ],
)
def test_what_makes_no_sense_together_is_refused(ask: Any, parts: dict[str, Any]):
    """Nothing at all; a wait without an error; two counts of the same tokens."""
    assert ask(parts)[0].status_code == 422


def test_the_arm_that_ran_is_kept_though_nothing_counts_yet(http: httpx.Client):
    """A time to the first token teaches nothing; whose it was holds for what comes later."""
    made = http.post("/route", json={"query": {"text": "x"}}).json()
    other = next(arm for arm in ("small", "large") if arm != made["arm"])
    given = {"decision_id": made["decision_id"]}
    http.post("/reward", json={**given, "ttft_ms": 5.0, "executed_arm": other})
    http.post("/reward", json={**given, "quality": 1.0})
    outcome = http.get(f"/decisions/{made['decision_id']}").json()["outcome"]
    assert outcome["executed_arm"] == other

"""POST /route and GET /decisions, over real HTTP and a real store."""

from __future__ import annotations

import json

import httpx
import pytest
import redis

QUERY = {"query": {"text": "Write a function that reverses a list."}}


def test_a_decision_names_an_arm_and_all_alternatives(http: httpx.Client):
    """Propensities of the chosen arm and of the alternatives sum to 1."""
    answer = http.post("/route", json={**QUERY, "hints": {"task_type": "code"}})
    assert answer.status_code == 200
    body = answer.json()
    assert {body["arm"], *(a["arm"] for a in body["alternatives"])} == {"small", "large"}
    total = body["propensity"] + sum(a["propensity"] for a in body["alternatives"])
    assert total == pytest.approx(1.0, abs=1e-9)
    assert body["provider"] == {"small": "local", "large": "hosted"}[body["arm"]]
    assert body["logged"] is True
    assert body["version"] == "1"
    assert body["snapshot"] == 0
    assert 0 <= body["confidence"] <= 1


def test_an_answer_may_be_kept_short(http: httpx.Client):
    """To so many alternatives, those of the highest propensity; the decision is the same."""
    asked = {**QUERY, "decision_id": "short"}
    short = http.post("/route", json={**asked, "alternatives": 0}).json()
    assert short["alternatives"] == []
    record = http.get("/decisions/short").json()["decision"]
    assert len(record["arms"]) == 2
    whole = http.post("/route", json={**QUERY, "alternatives": 5}).json()
    assert len(whole["alternatives"]) == 1
    assert http.post("/route", json={**QUERY, "alternatives": -1}).status_code == 422


def test_hints_alone_are_enough(http: httpx.Client):
    """A caller that may not send its text sends hints."""
    assert http.post("/route", json={"hints": {"task_type": "chat"}}).status_code == 200


def test_the_same_id_and_body_get_the_stored_answer(http: httpx.Client, raw: redis.Redis):
    """A repeated request makes no second decision."""
    body = {**QUERY, "decision_id": "once"}
    first, second = (http.post("/route", json=body).json() for _ in range(2))
    assert first == second
    assert raw.xlen("pm:{default}:decisions") == 1


def test_the_order_of_labels_makes_no_other_body(http: httpx.Client):
    """JSON objects have no order."""
    labels = [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}]
    first, second = (
        http.post("/route", json={"hints": {"labels": one}, "decision_id": "once"}).json()
        for one in labels
    )
    assert first == second


def test_a_chat_history_may_hold_what_we_do_not_use(http: httpx.Client):
    """Tool calls, refusals, cache marks: the shape is the model provider's, not ours."""
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "Why?", "name": "x"},
    ]
    assert http.post("/route", json={"query": {"messages": messages}}).status_code == 200


def test_the_same_id_with_another_body_is_a_conflict(http: httpx.Client):
    """An id belongs to one request."""
    http.post("/route", json={**QUERY, "decision_id": "once"})
    answer = http.post("/route", json={"query": {"text": "else"}, "decision_id": "once"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_decision_can_be_read_back(http: httpx.Client):
    """GET /decisions/{id} shows the record and what has been accepted for it."""
    made = http.post("/route", json=QUERY).json()
    http.post("/reward", json={"decision_id": made["decision_id"], "quality": 0.5})
    body = http.get(f"/decisions/{made['decision_id']}").json()
    assert body["decision"]["arm"] == made["arm"]
    assert body["decision"]["propensity"] == made["propensity"]
    assert body["outcome"] == {"quality": 0.5, "executed": True, "executed_arm": made["arm"]}


def test_query_text_is_not_stored(http: httpx.Client, raw: redis.Redis):
    """Promise 5: unless the operator turns it on, no key holds the text."""
    made = http.post("/route", json={"query": {"text": "xyzzy plugh"}}).json()
    stored = raw.hgetall(f"pm:{{default}}:decision:{made['decision_id']}")
    logged = raw.xrange("pm:{default}:decisions")
    assert b"xyzzy" not in b"".join(stored.values())
    assert b"xyzzy" not in b"".join(v for _, fields in logged for v in fields.values())


def test_one_wrong_request_spoils_no_other_of_its_batch(http: httpx.Client):
    """Results stand in the order of the requests; each is a decision or a problem."""
    requests = [QUERY, {"nonsense": 1}, {**QUERY, "policy": "nobody"}, QUERY]
    results = http.post("/route/batch", json={"requests": requests}).json()["results"]
    assert [r.get("status") for r in results] == [None, 422, 404, None]
    assert results[0]["decision_id"] != results[3]["decision_id"]


def test_a_request_weighs_with_its_own_objective(http: httpx.Client, raw: redis.Redis):
    """Its weights are normalised and logged with the decision."""
    made = http.post("/route", json={**QUERY, "objective": {"quality": 1, "cost": 3}}).json()
    record = raw.hget(f"pm:{{default}}:decision:{made['decision_id']}", "record")
    assert json.loads(record)["weights"] == [0.25, 0.0, 0.75]


def test_an_embedding_goes_to_an_embedder(http: httpx.Client):
    """Capabilities decide before any value does."""
    made = http.post("/route", json={"hints": {"task_type": "embedding"}}).json()
    assert made["arm"] == "embedder"
    assert made["propensity"] == 1.0


def test_no_eligible_arm_says_why_for_each(http: httpx.Client):
    """Promise 4: a clear answer, never a silent wrong arm."""
    body = {**QUERY, "constraints": {"capabilities": ["vision"], "deny": ["large"]}}
    answer = http.post("/route", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["type"] == "/problems/no-eligible-arm"
    reasons = {row["arm"]: row["reason"] for row in problem["excluded"]}
    assert reasons.keys() == {"small", "large", "embedder"}
    assert "vision" in reasons["small"]
    assert "denied" in reasons["large"]


def test_a_context_too_long_leaves_the_large_window(http: httpx.Client):
    """Prompt and output must fit the arm's window together."""
    made = http.post("/route", json={"hints": {"context_tokens": 9000}}).json()
    assert made["arm"] == "large"


def test_cost_constraints_leave_the_cheap(http: httpx.Client):
    """By the list cost of this call, in USD or by name."""
    for constraints in ({"max_cost_usd": 0.001}, {"cost_tier": "budget"}):
        made = http.post("/route", json={**QUERY, "constraints": constraints}).json()
        assert (made["arm"], made["propensity"]) == ("small", 1.0)


def test_constraints_on_what_nobody_knows_yet_leave_every_arm(http: httpx.Client):
    """Nothing has been learned and the catalog says nothing: no arm is known to be too slow."""
    limits = {"speed": "ultra_fast", "max_latency_ms": 1, "min_quality": 0.99}
    made = http.post("/route", json={**QUERY, "constraints": limits}).json()
    assert {made["arm"], *(a["arm"] for a in made["alternatives"])} == {"small", "large"}

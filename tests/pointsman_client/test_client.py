"""What the client asks and how it reads the answers."""

from __future__ import annotations

import httpx

from pointsman_client import (
    Client,
    Correction,
    Decision,
    PointsmanError,
    Receipt,
)
from tests.pointsman_client.scripted import (
    DECISION,
    DROP,
    NOT_FOUND,
    OVERRULED,
    RECEIPT,
    TOTALS,
    Service,
)


def test_route_reads_the_decision(client: Client):
    """What the service said is there as attributes; fields of newer services are kept too."""
    decision = client.route("Sort a list.")
    assert (decision.arm, decision.provider, decision.model) == ("small", "local", "m-7b")
    assert (decision.version, decision.snapshot, decision.endpoint) == ("3", 42, None)
    assert (decision.propensity, decision.confidence, decision.logged) == (0.9, None, True)
    assert (decision.predicted.quality, decision.predicted.latency_ms) == (0.7, None)
    assert [other.arm for other in decision.alternatives] == ["large"]
    assert decision.model_dump()["a_field_of_the_future"] == [1]


def test_route_says_only_what_was_given(service: Service, client: Client):
    """The body holds the text, an id made by the client, and nothing that wasn't asked for."""
    decision = client.route("Sort a list.")
    [body] = service.bodies("/route")
    assert body == {"decision_id": decision.decision_id, "query": {"text": "Sort a list."}}


def test_route_puts_everything_in_its_place(service: Service, client: Client):
    """Hints, constraints and the objective go where the HTTP interface wants them."""
    client.route(
        messages=[{"role": "user", "content": "Hi"}],
        task_type="code",
        context_tokens=1200,
        output_tokens=300,
        language="en",
        capabilities=["tools"],
        labels={"app": "hrm"},
        constraints={"deny": ["large"]},
        objective={"quality": 0.9, "cost": 0.1},
        policy="second",
        decision_id="mine",
    )
    assert service.bodies("/route") == [
        {
            "policy": "second",
            "decision_id": "mine",
            "query": {"messages": [{"role": "user", "content": "Hi"}]},
            "hints": {
                "task_type": "code",
                "context_tokens": 1200,
                "output_tokens": 300,
                "language": "en",
                "capabilities": ["tools"],
                "labels": {"app": "hrm"},
            },
            "constraints": {"deny": ["large"]},
            "objective": {"quality": 0.9, "cost": 0.1},
        }
    ]


def test_a_query_may_come_whole(service: Service, client: Client):
    """As the HTTP interface has it, alone or beside keywords."""
    hello = [{"role": "user", "content": "Hi"}]
    client.route(query={"messages": hello, "text": None}, task_type="code")
    client.route("Hi", query={})
    assert [body["query"] for body in service.bodies("/route")] == [
        {"messages": hello},
        {"text": "Hi"},
    ]


def test_the_choice_of_a_router_of_ones_own_is_told(service: Service, client: Client):
    """An arm alone, or with the probabilities that it was drawn with."""
    client.route("hi", chosen="small")
    drawn = {"arm": "small", "pmf": {"small": 0.9, "large": 0.1}}
    client.route("hi", chosen=drawn)
    assert [body["chosen"] for _, _, body in service.requests] == [{"arm": "small"}, drawn]


def test_reward_sends_the_parts_it_is_given(service: Service, client: Client):
    """Zero is a value, None is not; the receipt tells what was accepted."""
    receipt = client.reward("d1", quality=0.0, latency_ms=None, input_tokens=10, output_tokens=0)
    assert service.bodies("/reward") == [
        {"decision_id": "d1", "quality": 0.0, "input_tokens": 10, "output_tokens": 0}
    ]
    assert (receipt.accepted, receipt.missing, receipt.late) == (("quality",), ("cost_usd",), False)


def test_a_correction_says_who_and_why(service: Service, client: Client):
    """With the values that hold; the answer tells what was replaced. A lost one is asked again."""
    service.replies = [DROP]
    found = client.correct("d1", quality=0.0, cost_usd=None, by="ada", reason="wrong")
    sent = {"decision_id": "d1", "quality": 0.0, "by": "ada", "reason": "wrong"}
    assert service.bodies("/correction") == [sent, sent]
    assert (found.corrected, found.unchanged) == (("quality",), ("cost_usd",))

    service.replies = [(200, {"results": [NOT_FOUND, {**OVERRULED, "decision_id": "d1"}]})]
    first, second = client.correct_batch(
        [{"decision_id": "x", "quality": 1.0, "by": "ada", "reason": "wrong"}, {**sent}]
    )
    assert isinstance(first, PointsmanError)
    assert isinstance(second, Correction)
    assert service.bodies("/correction/batch")[0]["corrections"][1] == sent


def test_batches_keep_order_and_return_problems(service: Service, client: Client):
    """Results stand where their requests stood; a problem is returned there, not raised."""
    service.replies = [
        (
            200,
            {
                "results": [{**DECISION, "decision_id": "a"}, {**NOT_FOUND, "status": 422}],
                "totals": TOTALS,
            },
        ),
        (200, {"results": [NOT_FOUND, {**RECEIPT, "decision_id": "b"}]}),
    ]
    batch = client.route_batch(
        [{"text": "x", "task_type": "qa"}, {"text": "y"}],
        defaults={"language": "en", "text": None},
        budget_usd=0.5,
        baseline="large",
    )
    first, second = batch
    assert batch.totals.saving == 0.45
    assert isinstance(first, Decision)
    assert isinstance(second, PointsmanError)
    assert second.status == 422
    [body] = service.bodies("/route/batch")
    assert [item["query"]["text"] for item in body["requests"]] == ["x", "y"]
    assert len({item["decision_id"] for item in body["requests"]}) == 2
    shared = {"hints": {"language": "en"}}
    assert (body["defaults"], body["budget_usd"], body["baseline"]) == (shared, 0.5, "large")

    first, second = client.reward_batch(
        [{"decision_id": "a", "quality": 1.0}, {"decision_id": "b"}]
    )
    assert isinstance(first, PointsmanError)
    assert isinstance(second, Receipt)
    assert service.bodies("/reward/batch")[0]["rewards"][0] == {"decision_id": "a", "quality": 1.0}


def test_state_endpoints(service: Service, client: Client):
    """Arms, policies and a stored decision come as the service tells them."""
    assert client.arms() == [{"arm": "small", "enabled": True}]
    assert client.policies() == [{"policy": "default"}]
    service.replies = [(200, {"decision": {"arm": "small"}, "outcome": {}})]
    assert client.decision("a/b", policy="second")["decision"] == {"arm": "small"}
    assert service.requests[-1][1] == "/decisions/a%2Fb?policy=second"


def test_a_client_of_ones_own(service: Service):
    """Proxies, certificates and headers: an httpx client that is set up outside will do."""
    with Client(http=httpx.Client(base_url=service.url, headers={"x-team": "a"})) as client:
        assert client.arms() == [{"arm": "small", "enabled": True}]

"""The client against the service itself."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from pydantic import BaseModel

from features.query import Hints
from pointsman_client import Client, Correction, Decision, PointsmanError, Receipt, options
from serving.routes import requests


@pytest.fixture
def client(http: httpx.Client) -> Iterator[Client]:
    with Client(str(http.base_url)) as client:
        yield client


def undeclared(answer: BaseModel) -> dict[str, object]:
    """What an answer says beyond its model, with what it lacks."""
    found = dict(answer.model_extra or {})
    found |= dict.fromkeys(type(answer).model_fields.keys() - answer.model_fields_set)
    for name in type(answer).model_fields:
        value = getattr(answer, name)
        for part in value if isinstance(value, tuple) else (value,):
            found |= undeclared(part) if isinstance(part, BaseModel) else {}
    return found


def test_the_service_answers_what_is_declared(client: Client):
    """Neither more nor less: the document and the client read one declaration."""
    decision = client.route("Sort a list.", task_type="code")
    assert undeclared(decision) == {}
    assert decision.alternatives
    receipt = client.reward(decision.decision_id, quality=0.5, latency_ms=3, cost_usd=0)
    assert undeclared(receipt) == {}
    assert receipt.accepted
    overruled = client.correct(decision.decision_id, quality=1, by="ada", reason="wrong")
    assert undeclared(overruled) == {}
    assert overruled.corrected == ("quality",)


def test_batches_come_back_as_what_they_are(client: Client):
    """A problem in the place of a result, and the results around it."""
    good, wrong = client.route_batch([{"text": "x"}, {"text": "x", "policy": "nowhere"}])
    assert isinstance(good, Decision)
    assert isinstance(wrong, PointsmanError)
    good_receipt, unknown = client.reward_batch(
        [{"decision_id": good.decision_id, "quality": 1}, {"decision_id": "x", "quality": 1}]
    )
    assert isinstance(good_receipt, Receipt)
    assert isinstance(unknown, PointsmanError)
    assert unknown.status == 404
    [correction] = client.correct_batch(
        [{"decision_id": good.decision_id, "quality": 0, "by": "ada", "reason": "wrong"}]
    )
    assert isinstance(correction, Correction)


def test_numpy_numbers_are_numbers(client: Client):
    """As graders and benchmarks compute them, in a query and in an outcome."""
    with client.call("x", context_tokens=np.int64(900), labels={"n": "1"}) as call:  # type: ignore[typeddict-item]
        call.quality = np.float32(0.5)  # type: ignore[assignment]
        call.tokens(np.int32(120), np.int64(30))  # type: ignore[arg-type]
    stored = client.decision(call.decision_id)["outcome"]
    assert stored["quality"] == 0.5
    assert stored["cost_usd"] > 0


@pytest.mark.parametrize(
    ("keywords", "bodies", "apart"),
    [
        (options.RouteRequest, (requests.RouteRequest, Hints), {"hints"}),
        (options.RewardRequest, (requests.RewardRequest,), set()),
        (options.CorrectionRequest, (requests.CorrectionRequest,), set()),
    ],
)
def test_each_field_has_a_keyword(
    keywords: type, bodies: tuple[type[BaseModel], ...], apart: set[str]
):
    """What the service takes can be said with the client, under the same name, and nothing else."""
    fields = {name for body in bodies for name in body.model_fields} - apart
    assert keywords.__annotations__.keys() - {"text", "messages"} == fields

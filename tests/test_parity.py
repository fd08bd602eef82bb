"""A decision through HTTP equals the same decision in process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import redis

from features.encoder import Encoder
from features.query import Hints, Query
from policy import policy as policies
from policy.arms.catalog import Catalog
from policy.arms.constraints import Constraints
from policy.choosing.incumbent import START, Standing
from policy.config.versions import read_config
from policy.objective import Weights
from policy.policy import Policy, Request
from policy.values import models
from policy.values.snapshot import unpack
from serving.store.states import joined
from tests.servers import learn_all, until


def policy_in_process(raw: redis.Redis, name: str = "default") -> Policy:
    """The newest snapshot of version 1, put together from what the store holds."""
    key = f"pm:{{{name}}}:"
    version = raw.hgetall(f"{key}version:1")
    snapshot = raw.hgetall(f"{key}snapshot:1")
    state = unpack(joined(snapshot) or b"")
    standing = state.header.standing
    revision = raw.hget(f"{key}state", "catalog").decode()
    return policies.build(
        name,
        "1",
        int(snapshot[b"number"]),
        config=read_config(version[b"config"]),
        encoder=Encoder.from_bytes(version[b"encoder"]),
        catalog=Catalog.from_stored(raw.get(f"{key}catalog:{revision}")),
        view=models.read_view(state.header.kind, state.parts),
        standing=START if standing is None else Standing(**standing),
    )


@pytest.fixture
def policy(http: httpx.Client, redis_url: str, raw: redis.Redis) -> Policy:
    """What the service decides with, once it has learned."""
    for i in range(60):
        made = http.post("/route", json={"query": {"text": f"question {i}"}}).json()
        outcome = {"quality": (i % 4) / 3, "latency_ms": 100.0 + i, "cost_usd": 0.001 * (i % 3)}
        http.post("/reward", json={"decision_id": made["decision_id"], **outcome})
    learn_all(redis_url)
    policy = policy_in_process(raw)
    until(
        lambda: http.get("/policies/default").json()["snapshot"] == policy.snapshot,
        "the snapshot serves",
    )
    return policy


def test_http_equals_in_process(http: httpx.Client, policy: Policy):
    """Same snapshot, same decision id: same arm, same pmf, same predictions, same confidence."""
    for i in range(40):
        text, hints = f"Translate number {i} into French", {"labels": {"app": f"app-{i % 3}"}}
        constraints = {"deny": ["small"]} if i % 5 == 0 else {}
        own_weights = {"quality": 1.0, "cost": 1.0} if i % 2 else None
        answer = http.post(
            "/route",
            json={
                "decision_id": f"parity-{i}",
                "query": {"text": text},
                "hints": hints,
                "constraints": constraints,
                "objective": own_weights,
            },
        ).json()
        expected = policy.decide(
            Request(
                Query(text=text),
                Hints(**hints),
                Constraints(**constraints),
                Weights.of(**own_weights) if own_weights else None,
            ),
            f"parity-{i}",
            made_at_ms=0,
        )
        assert answer["arm"] == expected.arm
        assert answer["propensity"] == expected.propensity
        assert answer["confidence"] == expected.confidence
        pmf = {answer["arm"]: answer["propensity"]}
        pmf |= {a["arm"]: a["propensity"] for a in answer["alternatives"]}
        assert pmf == dict(zip(expected.arms, expected.pmf.tolist(), strict=True))
        outcome = expected.predicted[expected.arms.index(expected.arm)]
        predicted = [np.nan if v is None else v for v in answer["predicted"].values()]
        np.testing.assert_array_equal(predicted, outcome)


def test_requests_at_once_are_decided_as_each_alone(http: httpx.Client, policy: Policy):
    """In whatever groups they come: same arm, the pmf to 1e-12, and one that no arm may serve
    spoils no other."""

    def ask(i: int) -> httpx.Response:
        constraints = {"allow": []} if i % 7 == 0 else {"deny": ["small"]} if i % 5 == 0 else {}
        query = {"text": f"question {i}"}
        body = {"decision_id": f"at-once-{i}", "query": query, "constraints": constraints}
        return http.post("/route", json=body)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(80)))
    for i, answer in enumerate(answers):
        if i % 7 == 0:
            assert answer.json()["type"] == "/problems/no-eligible-arm"
            continue
        limits = Constraints(deny=("small",)) if i % 5 == 0 else Constraints()
        asked = Request(Query(text=f"question {i}"), constraints=limits)
        expected = policy.decide(asked, f"at-once-{i}", made_at_ms=0)
        stored = http.get(f"/decisions/at-once-{i}").json()["decision"]
        assert (stored["arm"], tuple(stored["arms"])) == (expected.arm, expected.arms)
        np.testing.assert_allclose(stored["pmf"], expected.pmf, rtol=0, atol=1e-12)

"""An incumbent over HTTP: the same pmf as in process, and a ledger that survives its learner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import httpx
import pytest
import redis

from features.encoder import Encoder
from features.lexicon import TASK_TYPES
from features.query import Query
from policy.choosing.incumbent import START, Ledger, Standing
from policy.config.toml import parse
from policy.policy import Request
from policy.values.snapshot import State, read_head, unpack
from serving.store.learning import LearnerStore
from tests.servers import (
    CONFIG,
    assert_same_state,
    drive,
    fold_again,
    http_service,
    learn_all,
    settings_for,
    until,
)
from tests.test_parity import policy_in_process

CAREFUL = CONFIG + 'incumbent = "large"\nmax_loss = 0.1\nunder_way = 4\n'


@pytest.fixture
def careful(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    with http_service(settings_for(redis_url, tmp_path, CAREFUL)) as client:
        yield client


def pmf(answer: dict) -> dict[str, float]:
    return {answer["arm"]: answer["propensity"]} | {
        other["arm"]: other["propensity"] for other in answer["alternatives"]
    }


def test_http_equals_in_process(careful: httpx.Client, redis_url: str, raw: redis.Redis):
    """First the incumbent alone; then, from the snapshot's standing, the same mixture."""
    assert pmf(careful.post("/route", json={"query": {"text": "hello"}}).json())["large"] == 1.0
    shares = []
    for _ in range(3):
        drive(careful, 10, quality=0.9)
        learn_all(redis_url)
        policy = policy_in_process(raw)
        assert policy.caution is not None
        until(
            lambda number=policy.snapshot: (
                careful.get("/policies/default").json()["snapshot"] == number
            ),
            "the snapshot serves",
        )
        text = f"question of snapshot {policy.snapshot}"
        answer = careful.post(
            "/route", json={"decision_id": text.replace(" ", "-"), "query": {"text": text}}
        ).json()
        expected = policy.decide(Request(Query(text=text)), answer["decision_id"], 0)
        assert pmf(answer) == dict(zip(expected.arms, expected.pmf.tolist(), strict=True))
        free = replace(policy, caution=None).decide(Request(Query(text=text)), "any", 0)
        shares.append((1.0 - expected.pmf[1]) / (1.0 - free.pmf[1]))
    assert shares[0] < shares[-1]
    assert shares[-1] > 0.0


def test_the_ledger_is_folded_once(careful: httpx.Client, redis_url: str):
    """Three bursts leave the ledger of one undisturbed fold, to rounding."""
    store = LearnerStore(redis_url, "default")
    try:
        for _ in range(3):
            drive(careful, 7)
            learn_all(redis_url)
        again = fold_again(store)
        checkpoint = store.checkpoint("1") or b""
    finally:
        store.close()
    assert_same_state(_without_ledger(checkpoint), _without_ledger(again))
    assert astuple(_standing(checkpoint)) == pytest.approx(astuple(_standing(again)), abs=1e-9)


def _without_ledger(checkpoint: bytes) -> bytes:
    state = unpack(checkpoint)
    assert state.header.events == 21
    return State(replace(state.header, ledger=None), state.parts).pack()


def _standing(checkpoint: bytes) -> Standing:
    header = unpack(checkpoint).header
    ledger = Ledger.of(parse(CAREFUL, "test").policies["default"], Encoder.default().d)
    assert ledger is not None
    assert header.ledger is not None
    ledger.restore(header.ledger)
    assert ledger.events == 21
    return ledger.standing()


def test_a_snapshot_holds_the_standing(careful: httpx.Client, raw: redis.Redis, redis_url: str):
    """It says what the ledger made of the outcomes, and /policies tells it."""
    drive(careful, 5, quality=1.0)
    learn_all(redis_url)
    header = read_head(raw.hget("pm:{default}:snapshot:1", "head")).header
    assert header.standing is not None
    standing = Standing(**header.standing)
    assert standing != START
    assert standing.variance == 0.0  # the incumbent alone has acted
    assert 0.0 < standing.earned < 5 * 0.1
    until(
        lambda: (
            careful.get("/policies/default").json()["caution"]
            == {"incumbent": "large", "max_loss": 0.1, "earned": standing.earned, "error": 0.0}
        ),
        "the state tells it",
    )


def test_rules_are_an_incumbent_over_http(redis_url: str, tmp_path: Path, raw: redis.Redis):
    """An event tells what they choose by, from which the learner knows who the incumbent was: the
    cheapest arm has acted alone, and each outcome of it earns."""
    beside = CONFIG + 'incumbent = "rules"\nmax_loss = 0.1\nrules = { min_quality = 0.0 }\n'
    with http_service(settings_for(redis_url, tmp_path, beside)) as http:
        made = http.post("/route", json={"query": {"text": "Sort a list in Python."}}).json()
        assert pmf(made)["small"] == 1.0
        drive(http, 4, quality=1.0)
        learn_all(redis_url)
        policy = policy_in_process(raw)
        assert policy.caution is not None
        assert policy.caution.standing.variance == 0.0
        assert 0.0 < policy.caution.standing.earned < 4 * 0.1
    (_, event), *_ = raw.xrange("pm:{default}:outcomes")
    task, *lengths = event[b"asked"].decode().split()
    assert task in TASK_TYPES
    assert [int(n) > 0 for n in lengths] == [True, True]

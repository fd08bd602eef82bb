"""POST /correction: who overrules what and why, seen by the log and learned exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import redis

from features.encoder import Encoder
from policy.arms.catalog import Catalog
from policy.config.toml import parse
from policy.config.versions import read_config, write_config
from policy.values.linear.model import LinearModel
from policy.values.snapshot import read_head, unpack
from serving.learning.fold import Fold
from serving.learning.registering import register
from serving.store.keys import Keys
from serving.store.learning import Entry, LearnerStore
from serving.store.traffic import Store
from tests.servers import (
    CONFIG,
    assert_same_state,
    fold_again,
    http_service,
    learn_all,
    settings_for,
    until,
)

WHO = {"by": "ada", "reason": "the judge was wrong"}
KEYS = Keys("default")
ARMS = CONFIG[: CONFIG.index("[policies.default]")]
UNIFORM = f"""{ARMS}
[policies.default]
model = "uniform"
[policies.default.challenger]
model = "linear"
"""


@pytest.fixture
def made(http: httpx.Client) -> str:
    answer = http.post("/route", json={"query": {"text": "Sort a list."}})
    return str(answer.json()["decision_id"])


@pytest.fixture
def store(redis_url: str) -> Iterator[LearnerStore]:
    with closing(LearnerStore(redis_url, "default")) as opened:
        yield opened


def report(http: httpx.Client, decision_id: str, **parts: Any) -> httpx.Response:
    return http.post("/reward", json={"decision_id": decision_id, **parts})


def correct(http: httpx.Client, decision_id: str, **parts: Any) -> httpx.Response:
    return http.post("/correction", json={"decision_id": decision_id, **WHO, **parts})


def outcome(http: httpx.Client, decision_id: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/decisions/{decision_id}").json()["outcome"]
    return found


def test_a_correction_replaces_and_keeps_both_values(
    http: httpx.Client, made: str, raw: redis.Redis
):
    """The decision and its event tell the old value and the new one, who and why."""
    report(http, made, quality=0.9, latency_ms=100)
    answer = correct(http, made, quality=0.2, latency_ms=100)
    assert answer.json() == {
        "decision_id": made,
        "corrected": ["quality"],
        "unchanged": ["latency_ms"],
    }
    found = outcome(http, made)
    assert (found["quality"], found["reported_quality"], found["latency_ms"]) == (0.2, 0.9, 100)
    assert "reported_latency_ms" not in found
    assert (found["corrected_by"], found["correction_reason"]) == (WHO["by"], WHO["reason"])
    (_, first), (_, event) = raw.xrange(KEYS.outcomes)
    assert (event[b"quality"], event[b"old_quality"]) == (b"0.2", b"0.9")
    assert (event[b"correction"], event[b"by"]) == (b"1", b"ada")
    assert event[b"reason"].decode() == WHO["reason"]
    assert b"latency_ms" not in event
    base = first.keys() - {b"quality", b"latency_ms", b"earlier", b"at_ms"}
    assert {name: event[name] for name in base} == {name: first[name] for name in base}
    assert event[b"earlier"] == b"quality latency_ms "


def test_the_very_same_correction_counts_once(http: httpx.Client, made: str, raw: redis.Redis):
    """Its answer may have been lost: sent again it changes nothing and says so."""
    report(http, made, quality=0.9)
    assert correct(http, made, quality=0).json()["corrected"] == ["quality"]
    again = correct(http, made, quality=-0.0).json()
    assert (again["corrected"], again["unchanged"]) == ([], ["quality"])
    assert raw.xlen(KEYS.outcomes) == 2


def test_a_corrected_value_may_be_corrected(http: httpx.Client, made: str, raw: redis.Redis):
    """The last one holds; what was reported stays what was reported."""
    report(http, made, quality=0.9)
    correct(http, made, quality=0.2)
    correct(http, made, quality=0.4, by="grace", reason="not that bad")
    found = outcome(http, made)
    assert (found["quality"], found["reported_quality"]) == (0.4, 0.9)
    assert found["corrected_by"] == "grace"
    events = [fields for _, fields in raw.xrange(KEYS.outcomes)]
    assert [event.get(b"old_quality") for event in events] == [None, b"0.9", b"0.2"]


def test_a_repeated_report_stays_one(http: httpx.Client, made: str):
    """Rewards are judged by what was reported; the corrected value is none that was."""
    report(http, made, quality=0.9)
    correct(http, made, quality=0.2)
    assert report(http, made, quality=0.9).json()["unchanged"] == ["quality"]
    assert report(http, made, quality=0.2).status_code == 409
    assert report(http, made, latency_ms=5).json()["accepted"] == ["latency_ms"]
    assert outcome(http, made)["quality"] == 0.2


def test_there_must_be_something_to_overrule(http: httpx.Client, made: str, raw: redis.Redis):
    """What was never reported is to be reported; nothing of such a request is carried out."""
    report(http, made, quality=0.9)
    answer = correct(http, made, quality=0.1, cost_usd=0.1, latency_ms=4)
    assert answer.status_code == 409
    assert "/reward what it lacks: latency_ms, cost_usd" in answer.json()["detail"]
    assert raw.xlen(KEYS.outcomes) == 1
    assert correct(http, "nobody", quality=0.1).status_code == 404
    assert correct(http, made, quality=0.1, policy="nobody").status_code == 404


def test_a_failure_has_no_quality_to_overrule(http: httpx.Client, made: str):
    """An error means quality 0 and can't be overruled; a latency reported with it can."""
    report(http, made, error="timeout", latency_ms=30_000)
    assert correct(http, made, quality=0.5).status_code == 409
    assert correct(http, made, latency_ms=10).json()["corrected"] == ["latency_ms"]


@pytest.mark.parametrize(("reported", "corrected"), [(0.0, 0.7), (0.7, 0.0)])
def test_an_error_contradicts_a_quality_that_was_or_is_good(
    http: httpx.Client, made: str, reported: float, corrected: float
):
    """Whichever of the two is the good one."""
    report(http, made, quality=reported)
    correct(http, made, quality=corrected)
    assert report(http, made, error="timeout").status_code == 409


def test_a_withdrawn_decision_has_no_outcome_to_overrule(http: httpx.Client, made: str):
    """It was never used."""
    report(http, made, executed=False)
    answer = correct(http, made, quality=0.5)
    assert answer.status_code == 409
    assert "withdrawn" in answer.json()["detail"]


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"quality": 1.2},
        {"quality": "0.5"},
        {"latency_ms": -1},
        {"quality": 0.5, "by": None},
        {"quality": 0.5, "reason": None},
        {"quality": 0.5, "by": " "},
        {"quality": 0.5, "reason": ""},
        {"quality": 0.5, "error": "timeout"},
        {"quality": 0.5, "speed": 3},
    ],
)
def test_what_makes_no_sense_is_refused(http: httpx.Client, made: str, parts: dict[str, Any]):
    """A correction without a value, an author or a reason is a 422 in problem+json."""
    report(http, made, quality=0.9)
    body = {"decision_id": made, **WHO, **parts}
    body = {name: value for name, value in body.items() if value is not None}
    answer = http.post("/correction", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_batch_answers_each_correction(http: httpx.Client, made: str):
    """Results stand in the order of the corrections; one that is wrong spoils no other."""
    report(http, made, quality=0.9)
    corrections = [
        {"decision_id": made, "quality": 0.5, **WHO},
        {"decision_id": "nobody", "quality": 0.5, **WHO},
        {"decision_id": made, "quality": 0.5},
        {"decision_id": made, "quality": 0.6, **WHO},
    ]
    results = http.post("/correction/batch", json={"corrections": corrections}).json()["results"]
    assert [r.get("status") for r in results] == [None, 404, 422, None]
    assert results[3]["corrected"] == ["quality"]
    assert outcome(http, made)["quality"] == 0.6
    many = http.post("/correction/batch", json={"corrections": corrections * 300})
    assert many.status_code == 413


def traffic(http: httpx.Client, rng: np.random.Generator, first: int, n: int) -> None:
    """Decisions with outcomes in parts, some of them errors, withdrawn, of another arm or
    corrected, while others come between."""
    for i in range(first, first + n):
        http.post("/route", json={"decision_id": f"d{i}", "query": {"text": f"question {i}"}})
        kind = rng.integers(8)
        if kind == 0:
            report(http, f"d{i}", executed=False)
        elif kind == 1:
            report(http, f"d{i}", error="timeout")
        elif kind == 2:
            report(http, f"d{i}", quality=float(rng.random()), executed_arm="large")
        else:
            report(
                http, f"d{i}", quality=float(rng.random()), latency_ms=float(rng.uniform(0, 9e3))
            )
        old = int(rng.integers(i + 1))
        report(http, f"d{old}", cost_usd=float(rng.uniform(0, 0.01)))
        of = f"d{rng.integers(i + 1)}"
        component, most = [("quality", 1), ("latency_ms", 9e3), ("cost_usd", 0.01)][rng.integers(3)]
        correct(http, of, **{component: float(rng.uniform(0, most))})


def as_if_right(entries: list[Entry]) -> list[Entry]:
    """The events with the values that hold in the end, without their corrections."""
    final: dict[tuple[bytes, bytes], bytes] = {}
    for _, event in entries:
        if b"correction" in event:
            for name in (b"quality", b"latency_ms", b"cost_usd"):
                if name in event:
                    final[event[b"decision_id"], name] = event[name]
    return [
        (
            at,
            {
                name: final.get((event[b"decision_id"], name), value)
                for name, value in event.items()
            },
        )
        for at, event in entries
        if b"correction" not in event
    ]


def folded(store: LearnerStore, version: str, entries: list[Entry], *cuts: int) -> Fold:
    config, encoder = store.version(version)
    fold = Fold.resume(
        version,
        read_config(config),
        Encoder.from_bytes(encoder),
        None,
        lambda revision: Catalog.from_stored(store.catalog(revision)),
    )
    for a, b in pairwise((0, *cuts, len(entries))):
        fold.fold(entries[a:b])
    return fold


def assert_same_sums(one: Fold, other: Fold) -> None:
    assert isinstance(one.model, LinearModel)
    assert isinstance(other.model, LinearModel)
    for name, value in one.model.sums().items():
        np.testing.assert_allclose(other.model.sums()[name], value, rtol=1e-9, atol=1e-9)


async def _register_both(redis_url: str, challenger_encoder: Encoder) -> None:
    """As the service will, but that the challenger's encoder may be one of its own."""
    both = parse(UNIFORM, "test")
    serving_store = Store(redis_url)
    await register(serving_store.versions, "default", both.policies["default"], 0)
    challenger = both.challengers["default"]
    fingerprint = challenger.fingerprint(Encoder.default().fingerprint)
    written = write_config(challenger)
    blob = challenger_encoder.to_bytes()
    await serving_store.versions.register("default", fingerprint, written, blob, 0)
    await serving_store.close()


@pytest.mark.parametrize("d", [64, 56])
def test_corrected_events_are_learned_as_if_they_had_been_right(
    redis_url: str, tmp_path: Path, store: LearnerStore, d: int
):
    """To 1e-9, with forgetting, errors, withdrawn decisions and outcomes in parts, by champions
    and challengers, whatever their encoder; the challenger's estimates as well."""
    asyncio.run(_register_both(redis_url, Encoder.default(d=d)))
    with http_service(settings_for(redis_url, tmp_path, UNIFORM)) as http:
        traffic(http, np.random.default_rng(d), 0, 150)
    entries = store.outcomes("0-0", 10_000, None)
    assert sum(b"correction" in event for _, event in entries) > 50
    corrected = folded(store, "2", entries, 40, 41, 42, 200)
    right = folded(store, "2", as_if_right(entries))
    assert corrected.events == right.events
    assert_same_sums(corrected, right)
    sums, right_sums = (fold.scores.against("1").sums for fold in (corrected, right))
    np.testing.assert_allclose(sums, right_sums, rtol=1e-9, atol=1e-9)


def test_a_learner_that_stops_between_counts_each_correction_once(
    http: httpx.Client, store: LearnerStore, redis_url: str
):
    """Restarted anywhere, from whichever checkpoint, it has learned what one undisturbed fold
    does; what was learned before the checkpoint is corrected after it."""
    rng = np.random.default_rng(1)
    for start in (0, 20, 40):
        traffic(http, rng, start, 20)
        assert learn_all(redis_url) > 0
    assert learn_all(redis_url) == 0
    assert_same_state(store.checkpoint("1"), fold_again(store))
    entries = store.outcomes("0-0", 10_000, None)
    fold = Fold.resume(
        "1",
        read_config(store.version("1")[0]),
        Encoder.from_bytes(store.version("1")[1]),
        unpack(store.checkpoint("1") or b""),
        lambda revision: Catalog.from_stored(store.catalog(revision)),
    )
    assert_same_sums(fold, folded(store, "1", as_if_right(entries)))


def test_a_correction_reaches_the_next_decisions(
    http: httpx.Client, redis_url: str, raw: redis.Redis
):
    """A new snapshot is published, and it expects what holds now; no outcome more is counted."""
    for i in range(40):
        http.post("/route", json={"decision_id": f"d{i}", "query": {"text": "hello"}})
        report(http, f"d{i}", quality=1.0)
    learn_all(redis_url)
    for i in range(40):
        correct(http, f"d{i}", quality=0.1)
    assert learn_all(redis_url) == 40
    assert read_head(raw.hget(KEYS.checkpoint("1"), "head")).header.events == 40
    until(lambda: http.get("/policies/default").json()["snapshot"] == 2, "it serves")
    predicted = http.post("/route", json={"query": {"text": "hello"}}).json()["predicted"]
    assert predicted["quality"] < 0.3


def test_an_overruled_outcome_of_another_arm_teaches_that_arm(
    http: httpx.Client, made: str, store: LearnerStore, raw: redis.Redis
):
    """The executed one, at its list cost."""
    report(http, made, quality=0.9, cost_usd=0.01, executed_arm="large")
    correct(http, made, quality=0.1, cost_usd=0.02)
    (_, first), (_, event) = raw.xrange(KEYS.outcomes)
    assert event[b"arm"] == b"large"
    assert event[b"list_cost_usd"] == first[b"list_cost_usd"]
    model = folded(store, "1", store.outcomes("0-0", 10, None)).model
    assert isinstance(model, LinearModel)
    assert model.arms == ["large"]
    assert model.sums()["yy"][0, 0] == pytest.approx(0.01)


def test_a_component_that_an_error_settled_is_corrected_in_the_log_alone(
    http: httpx.Client, made: str, store: LearnerStore
):
    """A latency that came after the error was never learned, so nothing is taken back."""
    report(http, made, error="timeout")
    report(http, made, latency_ms=500.0)
    correct(http, made, latency_ms=300.0)
    entries = store.outcomes("0-0", 10, None)
    taught = orjson.loads(entries[2][1][b"taught"])
    assert list(taught.values()) == [{}]
    assert_same_sums(folded(store, "1", entries), folded(store, "1", entries[:2]))
    assert outcome(http, made)["reported_latency_ms"] == 500.0


def test_an_event_tells_how_many_came_since(http: httpx.Client, raw: redis.Redis):
    """By the encoder of those who learn; withdrawn decisions and corrections are none."""
    for i in range(4):
        http.post("/route", json={"decision_id": f"d{i}", "query": {"text": "x"}})
    report(http, "d0", quality=0.9)
    report(http, "d1", executed=False)
    report(http, "d0", latency_ms=5)
    report(http, "d2", quality=0.9)
    correct(http, "d2", quality=0.8)
    report(http, "d3", quality=0.9)
    correct(http, "d0", quality=0.1, latency_ms=6)
    *_, (_, event) = raw.xrange(KEYS.outcomes)
    assert orjson.loads(event[b"taught"]) == {
        event[b"encoder"].decode(): {"quality": 3, "latency_ms": 2}
    }

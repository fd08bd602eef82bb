"""GET /policies/{name}/state and POST /decisions: what is given out, and what is taken back."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import redis

from pointsman_client import Client
from pointsman_client.local.asking import answer_of, request_of
from pointsman_client.local.following import Follower
from pointsman_client.local.outbox import Made
from policy.choosing import explore
from policy.deciding import uniform_draw
from policy.stored import opened_record
from serving.settings import Settings
from tests.servers import drive, http_service, learn_all, override, until

Record = dict[str, Any]


@pytest.fixture
def follower(http: httpx.Client) -> Iterator[Follower]:
    with Client(str(http.base_url)) as client:
        yield Follower(client, "default")


def made(follower: Follower, decision_id: str = "made", **body: Any) -> Record:
    """A decision as the local decider would send it."""
    now = follower.now
    request = request_of({"decision_id": decision_id, "query": {"text": "Sort a list."}, **body})
    decision = now.policy.decide(request, decision_id, time.time_ns() // 1_000_000)
    answer = answer_of(decision, now.policy.catalog, request.constraints, {})
    record: Record = orjson.loads(Made(decision, now.state, answer).to_json())
    return record


def sent(http: httpx.Client, *records: Record) -> list[dict[str, Any]]:
    answer = http.post("/decisions", json={"decisions": records})
    assert answer.status_code == 200
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_asking_again_is_cheap(http: httpx.Client, redis_url: str, raw: redis.Redis):
    """304 without a body while nothing changes; an encoder that is there isn't sent again."""
    first = http.get("/policies/default/state")
    tag = {"if-none-match": first.headers["etag"]}
    again = http.get("/policies/default/state", headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    drive(http, 3)
    learn_all(redis_url)
    number = int(raw.hget("pm:{default}:snapshot:1", "number"))
    until(lambda: http.get("/policies/default").json()["snapshot"] == number, "it serves")
    have = {"have": first.json()["champion"]["encoder"]}
    newer = http.get("/policies/default/state", headers=tag, params=have)
    assert newer.status_code == 200
    assert newer.json()["champion"]["snapshot"] == number
    assert newer.json()["champion"]["encoder_bytes"] is None
    assert http.get("/policies/nowhere/state").status_code == 404


def test_a_decision_is_stored_once(http: httpx.Client, follower: Follower, raw: redis.Redis):
    """However often it is delivered, also twice in one batch; another one of its id is a 409."""
    record = made(follower)
    assert sent(http, record, record) == [{"decision_id": "made", "logged": True}] * 2
    assert sent(http, record) == [{"decision_id": "made", "logged": True}]
    assert raw.xlen("pm:{default}:decisions") == 1
    assert http.get("/decisions/made").json()["decision"]["propensity"] == record["propensity"]
    [other] = sent(http, record | {"made_at_ms": record["made_at_ms"] - 1})
    assert other["status"] == 409
    asked = http.post("/route", json={"decision_id": "made", "query": {"text": "Sort a list."}})
    assert asked.status_code == 409


def test_it_is_stored_as_route_would(http: httpx.Client, follower: Follower, raw: redis.Redis):
    """Every field in Redis but the digest of the request, which stayed with the caller."""
    assert sent(http, made(follower))[0]["logged"]
    here = raw.hgetall("pm:{default}:decision:made")
    raw.delete("pm:{default}:decision:made")
    http.post("/route", json={"decision_id": "made", "query": {"text": "Sort a list."}})
    there = raw.hgetall("pm:{default}:decision:made")
    assert here.keys() == there.keys()
    unlike = {name for name in here if here[name] != there[name]}
    assert unlike <= {b"request", b"record", b"made_at_ms"}
    records = (opened_record("decision", all_of[b"record"]) for all_of in (here, there))
    one, other = ({**record, "made_at_ms": 0} for record in records)
    assert one == other


def test_text_is_kept_only_where_the_policy_says_so(http: httpx.Client, follower: Follower):
    """What a caller sends unasked isn't stored."""
    assert sent(http, made(follower) | {"query": "a secret"})[0]["logged"]
    assert http.get("/decisions/made").json()["decision"]["query"] is None


def _other_arm(record: Record) -> Record:
    [other] = set(record["arms"]) - {record["arm"]}
    return {"arm": other, "propensity": record["pmf"][record["arms"].index(other)]}


def _consistent(record: Record, pmf: list[float]) -> Record:
    """Another pmf, with the arm that the id draws from it."""
    at = explore.draw(np.array(pmf), uniform_draw("default", record["decision_id"]))
    return {"pmf": pmf, "arm": record["arms"][at], "propensity": pmf[at]}


TAMPERED: dict[str, tuple[Callable[[Record], Record], str]] = {
    "an arm that the id doesn't draw": (_other_arm, "arm"),
    "another propensity": (lambda r: {"propensity": r["propensity"] / 2}, "propensity"),
    "a pmf of more than 1": (lambda r: {"pmf": [0.6, 0.6], "propensity": 0.6}, "pmf"),
    "a pmf of one arm": (lambda r: {"pmf": [1.0]}, "pmf"),
    "a pmf below the floor": (lambda r: _consistent(r, [0.001, 0.999]) | {"state": "old"}, "pmf"),
    "a pmf of another snapshot": (lambda r: _consistent(r, [0.07, 0.93]), "pmf"),
    "predictions of its own": (lambda r: {"predicted": [[1, 1, 1], [0, 1, 1]]}, "predicted"),
    "arms in another order": (lambda r: {"arms": r["arms"][::-1]}, "arms"),
    "an arm that isn't there": (lambda r: {"arms": ["small", "huge"]}, "arms"),
    "an unknown version": (lambda r: {"version": "7"}, "version"),
    "an unknown catalog": (lambda r: {"catalog": "000000000000"}, "catalog"),
    "an unknown challenger": (lambda r: {"challenger": "7"}, "challenger"),
    "a share without a challenger": (lambda r: {"share": 0.5}, "challenger"),
    "a snapshot to come": (lambda r: {"snapshot": 1}, "snapshot"),
    "another encoder": (lambda r: {"encoder": "0" * 12}, "x"),
    "a context cut short": (lambda r: {"x": r["x"][:8]}, "x"),
    "a context of NaN": (lambda r: {"x": b64encode(b"\0\0\xc0\x7f" * 64).decode()}, "x"),
    "weights of more than 1": (lambda r: {"weights": [1.0, 1.0, 0.0]}, "weights"),
    "a time long gone": (lambda r: {"made_at_ms": r["made_at_ms"] - 3_700_000}, "made_at_ms"),
    "a time to come": (lambda r: {"made_at_ms": r["made_at_ms"] + 120_000}, "made_at_ms"),
    "a propensity of 2": (lambda r: {"propensity": 2.0}, "propensity"),
    "a field that isn't one": (lambda r: {"colour": "red"}, "colour"),
    "no base64": (lambda r: {"x": "?"}, "x"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_cannot_be_is_refused(
    http: httpx.Client, follower: Follower, raw: redis.Redis, name: str
):
    """With the field that is wrong; the batch's other decisions are logged."""
    change, field = TAMPERED[name]
    honest = made(follower, "honest")
    record = made(follower)
    before, refused = sent(http, honest, record | change(record))
    assert before["logged"]
    assert refused["status"] == 422, refused
    assert field in {fault["field"] for fault in refused["errors"]}, refused
    assert raw.xlen("pm:{default}:decisions") == 1


def test_a_pmf_is_computed_again_only_by_the_state_in_force(http: httpx.Client, follower: Follower):
    """What the documents say of the limits: an older state isn't kept, so that a pmf which any
    version might give, with the arm that the id draws from it, is taken at its word."""
    record = made(follower)
    invented = _consistent(record, [0.07, 0.93])
    [refused] = sent(http, record | invented)
    assert refused["status"] == 422
    assert sent(http, record | invented | {"state": "old"})[0]["logged"]


def test_a_challengers_part_is_checked_too(settings: Settings):
    """Its pmf is what the gate judges it by."""
    text = (
        settings.config.read_text() + "\n[policies.default.challenger]\nfloor = 0.2\nshare = 0.3\n"
    )
    settings.config.write_text(text)
    with http_service(settings) as http, Client(str(http.base_url)) as client:
        follower = Follower(client, "default")
        record = made(follower)
        wrong: tuple[Record, ...] = (
            {"challenger_pmf": [0.5, 0.6]},
            {"challenger_pmf": [0.2, 0.8]},
            {"challenger_pmf": None},
            {"share": 0.2},
            {"share": 0.9},
            {"challenger": None, "challenger_pmf": None, "share": 0.0},
            {"challenger_x": record["x"], "challenger_encoder": "0" * 12},
        )
        refused = sent(http, *(record | change for change in wrong))
        assert {one["status"] for one in refused} == {422}
        assert sent(http, record)[0]["logged"]


def _snapshots(http: httpx.Client) -> list[int]:
    """The champion's and the challenger's that serve."""
    policy = http.get("/policies/default").json()
    return [policy["snapshot"], policy["challenger"]["snapshot"]]


@pytest.mark.parametrize("incumbent", ["large", "rules"])
def test_what_caution_leaves_is_taken_and_no_more(
    settings: Settings, redis_url: str, incumbent: str
):
    """The incumbent alone at first, below the floor for the others, then a part of the draw; the
    challenger's is held too, and without its task nobody knows what rules would have chosen."""
    text = settings.config.read_text() + f'incumbent = "{incumbent}"\nmax_loss = 0.05\n'
    text += "[policies.default.challenger]\nfloor = 0.2\nshare = 0.3\n"
    settings.config.write_text(text)
    with http_service(settings) as http, Client(str(http.base_url)) as client:
        follower = Follower(client, "default")
        first = made(follower, "first")
        assert (max(first["pmf"]), first["share"]) == (1.0, 0.0)
        drive(http, 24, quality=1.0)
        learn_all(redis_url)
        until(lambda: _snapshots(http) == [1, 1], "both snapshots serve")
        follower.refresh()
        later = made(follower, "later")
        assert 0.0 < later["share"] < 0.3
        wrong: list[Record] = [{"share": 0.3}, _consistent(later, [0.5, 0.5])]
        wrong += [{"task": "nonsense"}] + [{"task": None}] * (incumbent == "rules")
        refused = sent(http, *(later | change for change in wrong))
        assert {one["status"] for one in refused} == {422}
        assert [one["logged"] for one in sent(http, first, later)] == [True, True]


def test_an_unknown_policy_is_a_404_in_its_place(http: httpx.Client, follower: Follower):
    """As for /route."""
    [refused] = sent(http, made(follower) | {"policy": "nowhere"})
    assert refused["status"] == 404


def test_decisions_of_the_champion_before_are_taken_and_no_others(
    http: httpx.Client, follower: Follower, settings: Settings, raw: redis.Redis, redis_url: str
):
    """What was under way when a version took over; not what never served."""
    old = made(follower, "old")
    changed = settings.config.read_text().replace("cost = 0.1,", "cost = 0.1, latency_ref_ms = 1,")
    settings.config.write_text(changed)
    until(lambda: b"2" in raw.hvals("pm:{default}:versions"), "the version is registered")
    [refused] = sent(http, made(follower, "new") | {"version": "2"})
    assert refused["status"] == 422
    override(redis_url, "2")
    until(lambda: http.get("/policies/default").json()["champion"] == "2", "it serves")
    assert sent(http, old)[0]["logged"]


def test_the_callers_own_router_is_taken_at_its_word(redis_url: str, tmp_path: Any):
    """Its draw isn't ours to repeat, over HTTP or not; that its pmf is one is still asked for."""
    settings = Settings(host="127.0.0.1", port=0, redis_url=redis_url, config=tmp_path / "p.toml")
    settings.config.write_text(
        """[[arms]]
id = "a"
provider = "p"
model = "m"
context_window_tokens = 1000
usd_per_mtok_in = 0
usd_per_mtok_out = 0
[[arms]]
id = "b"
provider = "p"
model = "m"
context_window_tokens = 1000
usd_per_mtok_in = 0
usd_per_mtok_out = 0
[policies.default]
model = "caller"
"""
    )
    with http_service(settings) as http, Client(str(http.base_url)) as client:
        follower = Follower(client, "default")
        for arm in "ab":
            chosen = {"arm": arm, "pmf": {"a": 0.5, "b": 0.5}}
            assert sent(http, made(follower, arm, chosen=chosen))[0]["logged"]
        [refused] = sent(http, made(follower, "c", chosen=chosen) | {"pmf": [0.5, 0.6]})
        assert refused["status"] == 422


def test_a_batch_has_a_bound(http: httpx.Client):
    """As all batches."""
    assert http.post("/decisions", json={"decisions": [{}] * 1_025}).status_code == 413
    assert http.post("/decisions", json={"decisions": []}).status_code == 422

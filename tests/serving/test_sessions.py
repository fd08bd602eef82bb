"""Turns that belong together, over real HTTP and a real store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights
from policy.records import Decision
from serving.sessions import gain_of_leaving
from serving.store.keys import Keys
from tests.servers import http_service, settings_for
from tests.serving.availability.traffic import DOWN, arms, learn, report, route

KEYS = Keys("default")


@pytest.fixture
def http(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    with http_service(settings_for(redis_url, tmp_path, arms())) as client:
        yield client


def outcome(http: httpx.Client, decision_id: str) -> dict[str, Any]:
    return dict(http.get(f"/decisions/{decision_id}").json()["outcome"])


def test_later_turns_stay_with_the_draw(http: httpx.Client, raw: redis.Redis):
    """Its arm, its probability; the log hears of one decision. Another session draws anew."""
    turns = [route(http, session="chat-1") for _ in range(4)]
    assert [one["turn"] for one in turns] == [1, 2, 3, 4]
    assert {one["draw_id"] for one in turns} == {turns[0]["decision_id"]}
    assert len({(one["arm"], one["propensity"]) for one in turns}) == 1
    assert len({one["decision_id"] for one in turns}) == 4
    assert raw.xlen(KEYS.decisions) == 1
    other = route(http, session="chat-2")
    assert (other["turn"], other["draw_id"]) == (1, other["decision_id"])
    arms_of_others = {route(http, session=f"s{i}")["arm"] for i in range(20)}
    assert arms_of_others == {"good", "poor"}


def test_a_repeated_turn_is_the_same_turn(http: httpx.Client):
    first = route(http, session="chat", decision_id="a")
    second = route(http, session="chat", decision_id="b")
    assert route(http, session="chat", decision_id="b") == second
    assert route(http, session="chat", decision_id="a") == first
    assert route(http, session="chat")["turn"] == 3


def test_a_draws_outcome_is_that_of_its_turns(http: httpx.Client):
    """Mean quality, mean latency, summed cost; each turn's own values are taken once, in any
    order."""
    a, b, c = (route(http, session="chat")["decision_id"] for _ in range(3))
    report(http, {"decision_id": b}, quality=0.5, latency_ms=100.0, cost_usd=0.01)
    report(http, {"decision_id": b}, quality=0.5)
    assert outcome(http, a)["quality"] == 0.5
    report(http, {"decision_id": a}, quality=1.0, latency_ms=300.0, cost_usd=0.02)
    report(http, {"decision_id": c}, quality=0.0, cost_usd=0.03)
    found = outcome(http, a)
    assert found["quality"] == pytest.approx(0.5)
    assert found["latency_ms"] == pytest.approx(200.0)
    assert found["cost_usd"] == pytest.approx(0.06)
    wrong = http.post("/reward", json={"decision_id": b, "quality": 0.6})
    assert wrong.status_code == 409
    assert outcome(http, a)["quality"] == pytest.approx(0.5)


def test_what_the_first_turn_said_before_there_was_a_second_counts(http: httpx.Client):
    a = route(http, session="chat")
    report(http, a, quality=1.0, cost_usd=0.01)
    b = route(http, session="chat")
    report(http, b, quality=0.0, cost_usd=0.01)
    report(http, a, quality=1.0, latency_ms=50.0)
    found = outcome(http, a["decision_id"])
    assert found["quality"] == pytest.approx(0.5)
    assert found["cost_usd"] == pytest.approx(0.02)
    assert found["latency_ms"] == 50.0


def test_a_turn_that_fails_fails_the_draw(http: httpx.Client):
    a, b, c = (route(http, session="chat") for _ in range(3))
    report(http, a, quality=1.0)
    report(http, b, error="wrong format")
    report(http, c, quality=1.0)
    found = outcome(http, a["decision_id"])
    assert (found["quality"], found["error"]) == (0.0, "wrong format")


def test_a_turn_that_was_never_used_says_nothing(http: httpx.Client):
    a, b = (route(http, session="chat") for _ in range(2))
    report(http, b, executed=False)
    report(http, a, quality=0.8)
    assert outcome(http, a["decision_id"])["quality"] == 0.8
    assert http.post("/reward", json={"decision_id": b["decision_id"], "quality": 1}).is_error


def test_the_learner_counts_a_session_once(http: httpx.Client, redis_url: str, raw: redis.Redis):
    """Whatever the number of its turns, with the outcome that they have together."""
    turns = [route(http, session="chat") for _ in range(5)]
    for one, quality in zip(turns, (1.0, 0.0, 0.0, 0.0, 0.0), strict=True):
        report(http, one, quality=quality, latency_ms=100.0, cost_usd=0.001)
    learn(http, redis_url)
    assert http.get("/policies/default").json()["events"] == 1
    assert outcome(http, turns[0]["decision_id"])["quality"] == pytest.approx(0.2)


def test_every_process_gives_a_session_the_same_arm(redis_url: str, tmp_path: Path):
    """However many ask at once, and after a restart."""
    settings = settings_for(redis_url, tmp_path, arms())
    with http_service(settings) as one, http_service(settings) as other:
        for session in ("s1", "s2", "s3"):
            with ThreadPoolExecutor(8) as pool:
                turns = list(
                    pool.map(lambda i, s=session: route((one, other)[i % 2], session=s), range(8))
                )
            assert sorted(turn["turn"] for turn in turns) == list(range(1, 9))
            assert len({(turn["arm"], turn["draw_id"]) for turn in turns}) == 1
    with http_service(settings) as again:
        assert route(again, session="s3")["draw_id"] == turns[0]["draw_id"]


def test_an_arm_that_goes_out_is_replaced_by_a_new_draw(http: httpx.Client, raw: redis.Redis):
    """Which is logged as one, with its probability among those that can be called."""
    turns = [route(http, session="chat")]
    gone = turns[0]["arm"]
    for _ in range(3):
        report(http, turns[-1], **DOWN)
        turns.append(route(http, session="chat"))
    last = turns[-1]
    assert last["arm"] != gone
    assert (last["turn"], last["draw_id"]) == (4, last["decision_id"])
    assert last["propensity"] == 1.0
    assert raw.xlen(KEYS.decisions) == 2
    assert route(http, session="chat")["draw_id"] == last["decision_id"]


def test_what_a_turn_demands_may_need_a_new_draw(http: httpx.Client):
    first = route(http, session="chat")
    other = {"good": "poor", "poor": "good"}[first["arm"]]
    second = route(http, session="chat", constraints={"deny": [first["arm"]]})
    assert (second["arm"], second["draw_id"]) == (other, second["decision_id"])


def test_an_idle_session_ends(redis_url: str, tmp_path: Path, raw: redis.Redis):
    config = arms(policy="sessions = { idle_s = 600 }")
    with http_service(settings_for(redis_url, tmp_path, config)) as http:
        route(http, session="chat")
        assert 590_000 < raw.pttl(KEYS.session("chat")) <= 600_000
        raw.delete(KEYS.session("chat"))
        assert route(http, session="chat")["turn"] == 1


def test_a_session_whose_draw_has_expired_goes_on(http: httpx.Client, raw: redis.Redis):
    first = route(http, session="chat")
    raw.delete(KEYS.decision(first["decision_id"]))
    turn = route(http, session="chat")
    assert (turn["turn"], turn["draw_id"]) == (2, turn["decision_id"])


def test_a_request_that_is_refused_begins_no_session(http: httpx.Client):
    """Neither one without an eligible arm, nor one whose id was used before."""
    body = {"session": "chat", "constraints": {"allow": ["nope"]}}
    assert http.post("/route", json=body).status_code == 422
    used = route(http, session="other", decision_id="used")
    taken = http.post("/route", json={"session": "chat", "decision_id": "used"})
    assert taken.status_code == 409
    turn = route(http, session="chat")
    assert (turn["turn"], turn["draw_id"]) == (1, turn["decision_id"])
    assert turn["draw_id"] != used["draw_id"]


def test_turns_in_one_batch_are_of_one_draw(http: httpx.Client):
    """Invalid ones among them don't hurt the others."""
    requests = [
        {"session": "chat", "constraints": {"allow": ["nope"]} if i % 2 else {}} for i in range(40)
    ]
    results = http.post("/route/batch", json={"requests": requests}).json()["results"]
    turns = [one for one in results if "arm" in one]
    assert len(turns) == 20
    assert len({(one["arm"], one["draw_id"]) for one in turns}) == 1
    assert sorted(one["turn"] for one in turns) == list(range(1, 21))


def test_a_turn_counts_for_the_arm_of_its_draw_alone(http: httpx.Client):
    """What ran elsewhere is refused, not credited to it."""
    for made in (route(http, session="chat"), route(http, session="chat")):
        other = {"good": "poor", "poor": "good"}[made["arm"]]
        for more in (
            {"executed_arm": other, "quality": 0.9},
            {"attempts": [{"arm": other, "quality": 0.9}]},
        ):
            answer = http.post("/reward", json={"decision_id": made["decision_id"], **more})
            assert answer.status_code == 422, answer.text
            assert "executed = false" in answer.text
        report(http, made, executed_arm=made["arm"], quality=0.5, ttft_ms=7.0)
        again = {"decision_id": made["decision_id"], "ttft_ms": 8.0}
        assert http.post("/reward", json=again).status_code == 409
    assert outcome(http, made["decision_id"])["quality"] == 0.5


def test_what_a_person_corrects_stands(http: httpx.Client):
    """Whatever further turns report; of other components they still count."""
    a, b, c = (route(http, session="chat") for _ in range(3))
    report(http, a, quality=0.9, cost_usd=0.01)
    report(http, b, quality=0.7, cost_usd=0.01)
    who = {"by": "ada", "reason": "read it"}
    body = {"decision_id": a["decision_id"], "quality": 0.1, **who}
    assert http.post("/correction", json=body).status_code == 200
    report(http, c, quality=0.8, cost_usd=0.02)
    found = outcome(http, a["decision_id"])
    assert found["quality"] == 0.1
    assert found["cost_usd"] == pytest.approx(0.04)


def test_a_dear_session_does_not_pass_a_budget(redis_url: str, tmp_path: Path):
    """A turn chooses as if it were alone: where its arm is too dear by then, it draws anew."""
    config = arms(policy='budget = { usd = 0.01 }\nsessions = { redraw = "gain" }')
    dear = config.replace("usd_per_mtok_in = 0.1", "usd_per_mtok_in = 1.0", 1)
    with http_service(settings_for(redis_url, tmp_path, dear)) as http:
        for i in range(6):
            for tokens in (20, 2_000, 20_000):
                body = {"session": f"s{i}", "hints": {"context_tokens": tokens}}
                answer = http.post("/route", json=body)
                assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"session": "a b"}, "session"),
        ({"session": "a", "plans": ["hedge"]}, "a session stays with one arm"),
    ],
)
def test_bad_sessions_are_told(http: httpx.Client, body: dict[str, Any], says: str):
    answer = http.post("/route", json=body)
    assert answer.status_code == 422
    assert says in answer.text


def test_leaving_costs_what_the_cache_saves():
    """The arm that has the prompt cached is cheaper than it predicts."""
    catalog = Catalog(
        tuple(
            Arm(
                id=name,
                provider="p",
                model=name,
                usd_per_mtok_in=10.0,
                usd_per_mtok_out=10.0,
                usd_per_mtok_cached_in=cached,
            )
            for name, cached in (("here", 1.0), ("there", None))
        )
    )
    free = Decision(
        *("d", "p", "1", 1, "c", "e", 0, "here", 0.5, None),
        arms=("here", "there"),
        pmf=np.full(2, 0.5),
        predicted=np.array([[0.5, 0.0, 0.1], [0.6, 0.0, 0.1]]),
        prompt_tokens=10_000,
        output_tokens=10,
        weights=Weights.of(quality=0.5, cost=0.5),
        x=np.zeros(1, dtype=np.float32),
    )
    gain = gain_of_leaving(free, "here", catalog, Scales(1e4, 1.0))
    assert gain == pytest.approx(0.5 * 0.1 - 0.5 * 0.09)
    assert gain_of_leaving(free, "there", catalog, Scales(1e4, 1.0)) == pytest.approx(0.0, abs=1e-9)

"""The local decider against the service itself, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis

from pointsman_client import Client, PointsmanError
from pointsman_client.local import Decider, Decision
from serving.settings import Settings
from tests.servers import NEW_ARM, drive, http_service, learn_all, override, until

WEIGHTS = {"quality": 1.0, "cost": 1.0}


@pytest.fixture
def decider(http: httpx.Client) -> Iterator[Decider]:
    with Decider(str(http.base_url), poll_s=0.05, send_s=0.02) as decider:
        yield decider


def served(http: httpx.Client, snapshot: int) -> None:
    until(lambda: http.get("/policies/default").json()["snapshot"] >= snapshot, "a snapshot serves")


def follows(decider: Decider, http: httpx.Client) -> None:
    """Wait until the decider has what the service has."""
    tag = http.get("/policies/default/state").headers["etag"]
    until(lambda: f'"{decider._follower.now.tag}"' == tag, "the decider follows")


def arms_of(decision: Decision) -> set[str]:
    return {decision.arm, *(other.arm for other in decision.alternatives)}


def asked(i: int) -> dict[str, Any]:
    """Requests of every kind, as keywords of a client."""
    kinds: list[dict[str, Any]] = [
        {"text": f"Translate number {i} into French"},
        {"text": f"Sort list {i} in Python", "task_type": "code", "labels": {"app": i}},
        {"task_type": "chat", "context_tokens": 40 * i},
        {"messages": [{"role": "user", "content": f"Why {i}?"}], "objective": WEIGHTS},
        {"text": f"2 + {i}", "constraints": {"deny": ["small"]}, "objective": "cheap"},
    ]
    return {**kinds[i % len(kinds)], "decision_id": f"id-{i}"}


def test_it_decides_as_the_service_does(
    http: httpx.Client, decider: Decider, redis_url: str, raw: redis.Redis
):
    """Same snapshot, same id: same arm, propensities, predictions, confidence, of 50 decisions
    after learning. The service has never seen the ids: it decides for itself."""
    drive(http, 40)
    learn_all(redis_url)
    served(http, 1)
    follows(decider, http)
    decided = [decider.route(**asked(i)) for i in range(50)]
    assert decider.flush()
    assert all(one.logged for one in decided)
    raw.delete(*(f"pm:{{default}}:decision:{one.decision_id}" for one in decided))
    with Client(str(http.base_url)) as client:
        for i, one in enumerate(decided):
            there = client.route(**asked(i))
            assert one.snapshot >= 1
            assert one.model_dump() == there.model_dump()
    assert {one.arm for one in decided} == {"small", "large"}


def test_a_challenger_with_its_own_share_is_part_of_it(settings: Settings, redis_url: str):
    """The pmf is the mixture that /route would have logged, and the challenger's is logged too."""
    text = settings.config.read_text() + (
        '\n[policies.default.challenger]\nmodel = "linear"\nfloor = 0.2\nshare = 0.3\n'
    )
    settings.config.write_text(text)
    with http_service(settings) as http, Decider(str(http.base_url)) as decider:
        one = decider.route("hello", decision_id="shared")
        assert decider.flush()
        record = http.get("/decisions/shared").json()["decision"]
        assert record["challenger"] == "2"
        assert record["share"] == 0.3
        assert record["propensity"] == one.propensity
        assert one.logged


def test_what_rules_choose_by_is_told_where_they_are_the_incumbent(
    settings: Settings, raw: redis.Redis
):
    """As /route would have stored it; a task type that is none is refused."""
    settings.config.write_text(settings.config.read_text() + 'incumbent = "rules"\n')
    with http_service(settings) as http, Decider(str(http.base_url)) as decider:
        decider.route("Sort a list in Python", task_type="code", decision_id="beside-rules")
        assert decider.flush()
        record = http.get("/decisions/beside-rules").json()["decision"]
        lengths = f"{record['prompt_tokens']} {record['output_tokens']}"
        stored = raw.hget("pm:{default}:decision:beside-rules", "asked").decode()
        assert stored == f"code {lengths}"
        wrong = http.post("/decisions", json={"decisions": [{**record, "task": "nonsense"}]})
        assert "must be one of" in str(wrong.json()["results"][0]["errors"])


def test_what_fails_is_left_alone(http: httpx.Client, decider: Decider):
    """By what was reported to the service, the decider's own decisions among it; and it says with
    which share of failures it has reckoned."""
    for n in range(5):
        made = http.post("/route", json={"constraints": {"allow": ["small"]}}).json()
        failed = {"error": "timeout"} if n == 1 else {"quality": 1.0}
        http.post("/reward", json={"decision_id": made["decision_id"], **failed})
    follows(decider, http)
    decision = decider.route("Why?", constraints={"allow": ["small", "large"]})
    assert decider.flush()
    assert decision.logged
    logged = http.get(f"/decisions/{decision.decision_id}").json()["decision"]
    answered = dict(zip(logged["arms"], logged["answered"], strict=True))
    assert answered == {"small": pytest.approx(0.98, abs=0.005), "large": 1.0}
    for _ in range(3):
        made = decider.route("Why?", constraints={"allow": ["large"]})
        decider.reward(made.decision_id, error="server_error")
    assert decider.flush()
    follows(decider, http)
    decision = decider.route("Why?")
    assert arms_of(decision) == {"small"}
    assert [one.arm for one in decision.excluded] == ["large"]


def test_acknowledged_decisions_are_learned_from(
    http: httpx.Client, decider: Decider, redis_url: str, raw: redis.Redis
):
    """Unlogged until acknowledged; then record, stream, reward and learner are as ever, and the
    decider follows what was learned."""
    decisions = []
    for i in range(20):
        with decider.call(f"question {i}", task_type="code") as call:
            call.quality = (i % 5) / 4
            call.cost_usd = 0.001
        decisions.append(call.decision)
    assert decider.flush()
    assert decider.backlog().decisions == decider.backlog().lost_decisions == 0
    assert all(one.logged for one in decisions)
    stored = http.get(f"/decisions/{decisions[3].decision_id}").json()
    assert stored["decision"]["arm"] == decisions[3].arm
    assert stored["decision"]["query"] is None
    assert stored["outcome"]["quality"] == 0.75
    assert stored["outcome"]["latency_ms"] > 0
    assert raw.xlen("pm:{default}:decisions") == raw.xlen("pm:{default}:outcomes") == 20
    assert learn_all(redis_url) == 20
    served(http, 1)
    follows(decider, http)
    assert decider.route("one more").snapshot >= 1


def test_a_decision_is_unlogged_until_the_service_says_so(settings: Settings):
    """The answer comes before anything was sent, a reward waits for it, and the text stays here."""
    with http_service(settings) as http:
        with Decider(str(http.base_url), send_s=60.0) as decider:
            one = decider.route("a secret", decision_id="late")
            assert decider.reward("late", quality=1)
            assert not one.logged
            assert decider.backlog().decisions == decider.backlog().rewards == 1
            assert http.get("/decisions/late").status_code == 404
            with pytest.raises(PointsmanError, match="409"):
                decider.route("a secret", decision_id="late")
        assert one.logged
        assert b"secret" not in http.get("/decisions/late").content
        assert http.get("/decisions/late").json()["outcome"]["quality"] == 1


def test_it_goes_on_while_the_service_is_away(settings: Settings):
    """It decides from the last snapshot, keeps what it decided, and tells it when the service is
    back at that address."""
    with http_service(settings) as http:
        port = http.base_url.port
        decider = Decider(str(http.base_url), poll_s=0.05, send_s=0.02, timeout_s=1.0)
        assert decider.route("before").arm
        assert decider.flush()
    away = [decider.route(f"question {i}") for i in range(5)]
    decider.reward(away[0].decision_id, quality=1)
    assert not decider.flush(0.3)
    assert not any(one.logged for one in away)
    assert decider.backlog().decisions == 5
    with http_service(settings.model_copy(update={"port": port})) as http:
        assert decider.flush(15.0)
        assert all(one.logged for one in away)
        outcome = http.get(f"/decisions/{away[0].decision_id}").json()["outcome"]
        assert outcome["quality"] == 1
        decider.close()


def test_beyond_the_buffer_decisions_are_lost_and_say_so(settings: Settings):
    """Memory has a bound, and nobody is told that what is lost was logged."""
    with http_service(settings) as http:
        decider = Decider(str(http.base_url), send_s=60.0, buffer=3)
        made = [decider.route(f"question {i}") for i in range(5)]
        taken = [decider.reward(one.decision_id, quality=1) for one in made]
        assert decider.backlog() == (3, 3, 2, 2)
        assert taken == [True, True, True, False, False]
        assert "not logged" in made[4].notes[-1]
        decider.close()
        assert [one.logged for one in made] == [True, True, True, False, False]


def test_what_the_service_refuses_is_never_logged(http: httpx.Client, decider: Decider):
    """An id that belongs to another decision; its answer says why."""
    http.post("/route", json={"decision_id": "taken", "query": {"text": "x"}})
    one = decider.route("y", decision_id="taken")
    assert decider.flush()
    assert not one.logged
    assert "409" in one.notes[-1]
    assert decider.backlog().lost_decisions == 1


def test_it_follows_arms_and_promotions(
    http: httpx.Client, decider: Decider, settings: Settings, redis_url: str
):
    """What an operator changes acts here too; a decision of the champion before is still taken."""
    before = decider.route("x")
    settings.config.write_text(settings.config.read_text() + NEW_ARM)
    until(
        lambda: "medium" in arms_of(decider.route("x")),
        "the new arm may be chosen here",
    )
    changed = settings.config.read_text().replace("cost = 0.1,", "cost = 0.1, latency_ref_ms = 1,")
    settings.config.write_text(changed)
    until(lambda: "2" in _versions(redis_url), "the changed policy is registered")
    override(redis_url, "2")
    until(lambda: decider.route("x").version == "2", "the new champion decides here")
    assert decider.flush()
    assert before.logged
    assert decider.backlog().lost_decisions == 0


def _versions(redis_url: str) -> set[str]:
    with redis.Redis.from_url(redis_url) as raw:
        return {version.decode() for version in raw.hvals("pm:{default}:versions")}


@pytest.mark.parametrize(
    ("keywords", "status"),
    [
        ({"constraints": {"deny": ["small", "large", "embedder"]}}, 422),
        ({"constraints": {"max_cost": 1}}, 422),
        ({"objective": "best"}, 422),
        ({"objective": {"quality": -1}}, 422),
        ({"objective": {"speed": 1}}, 422),
        ({"objective": {"quality": "high"}}, 422),
        ({"objective": [1]}, 422),
        ({"alternatives": -1}, 422),
        ({"alternatives": 1.5}, 422),
        ({"plans": ["teleport"]}, 422),
        ({"session": "a b"}, 422),
        ({"decision_id": 5}, 422),
        ({"decision_id": ["a"]}, 422),
        ({"colour": "red"}, 422),
        ({"decision_id": "a b"}, 422),
        ({"policy": "other"}, 404),
        ({"context_tokens": float("nan")}, None),
    ],
)
def test_what_cannot_be_answered_is_the_clients_own_error(
    http: httpx.Client, decider: Decider, keywords: dict[str, Any], status: int | None
):
    """PointsmanError with the status that the service would give."""
    with pytest.raises(PointsmanError) as caught:
        decider.route("x", **keywords)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)
    assert "Weights" not in str(caught.value)
    with Client(str(http.base_url)) as client, pytest.raises(PointsmanError) as remote:
        client.route("x", **keywords)
    assert remote.value.status == status


def test_plans_and_sessions_do_nothing_here(decider: Decider):
    """Taken as /route takes them, and told in a note; none of them is no word of it."""
    one = decider.route("hi", session="chat:1", plans=["fallback"], alternatives=1.0)  # type: ignore[typeddict-item]
    assert one.notes == ("plans: does nothing here", "session: does nothing here")
    assert len(one.alternatives) == 1
    assert decider.route("hi", plans=[]).notes == ()


def test_without_a_service_there_is_nothing_to_decide_with():
    """The first state must be had; an unknown policy is told."""
    with pytest.raises(PointsmanError, match="No answer"):
        Decider("http://127.0.0.1:1")


def test_an_unknown_policy_is_told_at_once(http: httpx.Client):
    """As by the service."""
    with pytest.raises(PointsmanError, match="Unknown policy"):
        Decider(str(http.base_url), "nowhere")

"""What was decided without Redis is logged with its first report, once, and learned."""

from __future__ import annotations

import asyncio
import signal
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import redis

from pointsman_client import AsyncClient, Client, Decision
from policy.stored import opened_record
from serving.access.tokens import FILE, Tokens, WrongToken, secret_of
from serving.store.learning import LearnerStore
from tests.offline_eval.rows import decision, same
from tests.servers import (
    CONFIG,
    assert_same_state,
    fold_again,
    http_service,
    learn_all,
    settings_for,
    until,
)
from tests.serving.test_deadlines import frozen
from tests.serving.test_direct import Server, free_port

QUERY = {"query": {"text": "xyzzy"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(free_port(), tmp_path_factory.mktemp("valkey") / "s")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def raw(server: Server) -> Iterator[redis.Redis]:
    with server.client(server.urls[1]) as client:
        client.flushall()
        yield client


@contextmanager
def degraded(server: Server, folder: Path, config: str = CONFIG) -> Iterator[httpx.Client]:
    settings = settings_for(
        server.urls[1], folder, config, degraded="serve", store_timeout_ms=1_000
    )
    with http_service(settings) as http:
        until(lambda: http.get("/readyz").json()["status"] == "ready", "it is ready")
        yield http


def unlogged(http: httpx.Client, server: Server, **body: Any) -> dict[str, Any]:
    """A decision that was made while Redis was away."""
    with frozen(server):
        until(lambda: http.get("/readyz").json()["status"] == "degraded", "Redis is missed")
        made: dict[str, Any] = http.post("/route", json={**QUERY, **body}).json()
    until(lambda: http.get("/readyz").json()["status"] == "ready", "Redis is back")
    assert made["logged"] is False
    return made


def report(http: httpx.Client, made: dict[str, Any], **outcome: Any) -> httpx.Response:
    said = {"quality": 0.5, "latency_ms": 20, "cost_usd": 0.001}
    ids = {"decision_id": made["decision_id"], "token": made["token"]}
    return http.post("/reward", json={**ids, **said, **outcome})


def test_a_token_brings_its_decision_to_the_log_once(
    server: Server, raw: redis.Redis, tmp_path: Path
):
    """As it was answered, marked, without its text; its reward is learned once, though it is told
    twice; and of a logged decision nothing is carried."""
    with degraded(server, tmp_path) as http:
        assert http.post("/route", json=QUERY).json()["token"] is None
        made = unlogged(http, server)
        assert report(http, made).json()["accepted"] == ["quality", "latency_ms", "cost_usd"]
        again = report(http, made).json()
        assert (again["accepted"], len(again["unchanged"])) == ([], 3)
        assert report(http, made, quality=0.9).status_code == 409
        shown = http.get(f"/decisions/{made['decision_id']}").json()["decision"]
    entries = [fields[b"record"] for _, fields in raw.xrange("pm:{default}:decisions")]
    told = [opened_record("decision", entry) for entry in entries]
    found = [one for one in told if one["decision_id"] == made["decision_id"]]
    assert found == [shown]
    assert b"xyzzy" not in b"".join(entries)
    assert shown["logged_by"] == "token"
    assert (shown["arm"], shown["propensity"]) == (made["arm"], made["propensity"])
    others = {one["arm"]: one["propensity"] for one in made["alternatives"]}
    pmf = dict(zip(shown["arms"], shown["pmf"], strict=True))
    assert pmf == {**others, made["arm"]: made["propensity"]}
    assert learn_all(server.urls[1]) == 1
    with closing(LearnerStore(server.urls[1], "default")) as store:
        assert_same_state(store.checkpoint("1"), fold_again(store))


def test_a_write_that_was_not_answered_is_not_made_twice(
    server: Server, raw: redis.Redis, tmp_path: Path
):
    """The first request that waits in vain may have been written after all; its token then finds
    its own decision."""
    with degraded(server, tmp_path) as http:
        with frozen(server):
            answers = [http.post("/route", json=QUERY).json() for _ in range(2)]
        until(lambda: http.get("/readyz").json()["status"] == "ready", "Redis is back")
        for made in answers:
            assert made["logged"] is False
            assert report(http, made).status_code == 200
    entries = raw.xrange("pm:{default}:decisions")
    told = [orjson.loads(fields[b"record"])["decision_id"] for _, fields in entries]
    assert sorted(told) == sorted(made["decision_id"] for made in answers)
    assert raw.xlen("pm:{default}:outcomes") == 2


def test_what_a_token_does_not_say_is_refused(server: Server, raw: redis.Redis, tmp_path: Path):
    """Changed, of another decision, too old, or used for an id that has another arm: each is told
    as what it is, and nothing is written."""
    with degraded(server, tmp_path, CONFIG + '[policies.other]\nmodel = "uniform"\n') as http:
        made = unlogged(http, server, decision_id="mine")
        before = raw.xlen("pm:{default}:decisions")
        head, payload, mac = made["token"].split(".")
        middle = bytearray(urlsafe_b64decode(payload))
        middle[len(middle) // 2] ^= 1
        changed = f"{head}.{urlsafe_b64encode(middle).decode()}.{mac}"
        for wrong in (changed, "", "pmt1", f"{head}.{payload}.", "ä" * 9):
            refused = report(http, {**made, "token": wrong})
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["field"] == "token"
        assert "is of 'mine'" in report(http, {**made, "decision_id": "x"}).json()["detail"]
        assert "policy 'default'" in report(http, made, policy="other").json()["detail"]
        tokens = Tokens(secret_of(None, tmp_path, make=False))
        decision, digest = tokens.read(made["token"])
        old = replace(decision, made_at_ms=decision.made_at_ms - 604_800_001)
        expired = report(http, {**made, "token": tokens.sign(old, digest)})
        assert (expired.status_code, "expired" in expired.json()["detail"]) == (404, True)
        lost = replace(decision, catalog="gone")
        assert report(http, {**made, "token": tokens.sign(lost, digest)}).status_code == 422
        assert raw.xlen("pm:{default}:decisions") == before
        assert report(http, made).status_code == 200
        arm = next(name for name in decision.arms if name != decision.arm)
        other = tokens.sign(replace(decision, arm=arm), digest)
        assert report(http, {**made, "token": other}).status_code == 409
        assert raw.xlen("pm:{default}:decisions") == before + 1


def test_what_no_arm_may_answer_is_said_without_redis_too(server: Server, tmp_path: Path):
    """As the 422 that it is, whether the request has an id or not: what an id got before can't be
    known then."""
    asked = {**QUERY, "constraints": {"max_cost_usd": 0.0}}
    with degraded(server, tmp_path) as http, frozen(server):
        until(lambda: http.get("/readyz").json()["status"] == "degraded", "Redis is missed")
        for body in (asked, {**asked, "decision_id": "mine"}):
            refused = http.post("/route", json=body)
            assert refused.status_code == 422
            assert refused.json()["type"] == "/problems/no-eligible-arm"


def test_a_session_without_redis_has_decisions_of_their_own(
    server: Server, raw: redis.Redis, tmp_path: Path
):
    """Nobody knows its draw then, so none is claimed."""
    with degraded(server, tmp_path) as http:
        first = http.post("/route", json={**QUERY, "session": "s"}).json()
        made = unlogged(http, server, session="s")
        assert (made["session"], made["draw_id"], made["turn"]) == (None, None, None)
        assert report(http, made).status_code == 200
        later = http.post("/route", json={**QUERY, "session": "s"}).json()
        assert (later["draw_id"], later["turn"]) == (first["decision_id"], 2)


def test_the_clients_carry_tokens_and_send_reports_again(
    server: Server, raw: redis.Redis, tmp_path: Path
):
    """A caller that uses `call` does nothing of its own; nor does one that reports later."""

    async def later(url: str) -> Decision:
        async with AsyncClient(url) as client:
            async with client.call("x") as call:
                call.quality = 0.5
            assert not call.decision.logged
            assert call.receipt is None
            assert await client.flush() == 1
            server.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(until, lambda: ready_again(http), "Redis is back")
            assert await client.flush() == 0
            return call.decision

    def ready_again(http: httpx.Client) -> bool:
        return bool(http.get("/readyz").json()["status"] == "ready")

    with degraded(server, tmp_path) as http, Client(str(http.base_url)) as client:
        with frozen(server):
            with client.call("x") as call:
                call.quality = 0.5
            assert call.receipt is None
            alone = client.route("y")
        until(lambda: ready_again(http), "Redis is back")
        assert client.reward(alone.decision_id, quality=0.25).accepted == ("quality",)
        with client.call("z") as logged:
            logged.quality = 1.0
        assert client.flush() == 0
        with frozen(server):
            decision = asyncio.run(later(str(http.base_url)))
    ids = [call.decision_id, alone.decision_id, logged.decision_id, decision.decision_id]
    told = [fields[b"decision_id"].decode() for _, fields in raw.xrange("pm:{default}:outcomes")]
    assert sorted(told) == sorted(ids)


def test_all_processes_on_a_folder_sign_alike(tmp_path: Path):
    """With a secret that is made once, for its owner alone; another host's is given to all."""
    assert secret_of(None, tmp_path / "new", make=False) is None
    secret = secret_of(None, tmp_path / "new", make=True)
    assert secret == secret_of(None, tmp_path / "new", make=True)
    path = tmp_path / "new" / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [FILE]
    given = "a secret that is long enough for all"
    assert secret_of(given, tmp_path / "new", make=True) == given.encode()
    path.write_text("torn")
    with pytest.raises(ValueError, match="expected 64 hex digits"):
        secret_of(None, tmp_path / "new", make=True)
    with pytest.raises(WrongToken, match="another secret"):
        Tokens(None).read("pmt1.x.y")


def test_a_token_holds_a_decision_bit_for_bit():
    """But for the query's text."""
    made = decision(query="xyzzy", challenger_x=np.array([0.3, 7.0], dtype=np.float32))
    tokens = Tokens(b"0" * 32)
    again, digest = tokens.read(tokens.sign(made, "d1"))
    assert digest == "d1"
    assert same(again, replace(made, query=None))

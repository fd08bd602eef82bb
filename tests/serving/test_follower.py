"""What changes while the service runs: arms, prices, configurations, the store's health."""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from policy.config import toml
from policy.config.problems import ConfigError
from serving.app import create_app
from serving.learning import follower
from serving.learning.registering import register_policy
from serving.processes.config_file import ConfigFile
from serving.processes.embedded import Embedded
from serving.service import Service
from serving.settings import Settings
from serving.store.traffic import Store
from tests.servers import (
    CONFIG,
    NEW_ARM,
    drive,
    http_service,
    learn_all,
    override,
    settings_for,
    until,
)

QUERY = {"query": {"text": "hello"}}


def arms_of(answer: dict[str, Any]) -> dict[str, float]:
    """arm -> propensity over the whole action set."""
    chosen = {answer["arm"]: answer["propensity"]}
    return chosen | {a["arm"]: a["propensity"] for a in answer["alternatives"]}


def rewrite(settings: Settings, text: str) -> None:
    time.sleep(0.01)  # so that the file's time of change differs
    settings.config.write_text(text)


def in_force(http: httpx.Client, arm: str) -> bool:
    return arm in arms_of(http.post("/route", json=QUERY).json())


def test_arms_alone_are_served(redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """By a policy `default`; what isn't known of them is null, and the log says whose prices have
    no date."""
    alone = """
[[arms]]
id = "small"
provider = "local"
model = "small-8b"
usd_per_mtok_in = 0.1
usd_per_mtok_out = 0.2
"""
    with http_service(settings_for(redis_url, tmp_path, "\ufeff" + alone)) as http:
        assert http.post("/route", json={**QUERY, "policy": "default"}).json()["arm"] == "small"
        (arm,) = http.get("/arms").json()["arms"]
        assert arm["context_window_tokens"] is None
    assert "when these arms' prices were checked (prices_checked): small" in caplog.text


def test_a_new_arm_joins_without_a_restart_under_a_cap(
    http: httpx.Client, settings: Settings, redis_url: str
):
    """It starts from the shared prior and gets some traffic, at most its cap, until it is known."""
    for i in range(300):
        made = http.post("/route", json={"query": {"text": f"question {i}"}}).json()
        quality = 0.5 + 0.01 * (i % 3)
        http.post("/reward", json={"decision_id": made["decision_id"], "quality": quality})
    learn_all(redis_url)
    until(lambda: http.get("/policies/default").json()["events"] > 0, "what was learned serves")
    rewrite(settings, CONFIG + NEW_ARM)
    until(lambda: in_force(http, "medium"), "the new arm is eligible")
    share = arms_of(http.post("/route", json=QUERY).json())["medium"]
    assert 0 < share <= 0.5 + 0.01  # the cap of new_arm_share, and the floor


def test_a_disabled_arm_stops_at_once(http: httpx.Client, settings: Settings):
    """No exploration reaches it any more."""
    rewrite(settings, CONFIG.replace('model = "small-8b"', 'model = "small-8b"\nenabled = false'))
    until(lambda: not in_force(http, "small"), "the arm is gone")


def test_a_removed_arm_stops_and_its_decisions_stay_readable(
    http: httpx.Client, settings: Settings
):
    """A repeated id still gets its stored answer, from the catalog of then."""
    body = {**QUERY, "decision_id": "old"}
    before = http.post("/route", json=body).json()
    small = CONFIG[: CONFIG.index('[[arms]]\nid = "large"')]
    rewrite(settings, small + CONFIG[CONFIG.index('[[arms]]\nid = "embedder"') :])
    until(lambda: not in_force(http, "large"), "the arm is gone")
    assert http.post("/route", json=body).json() == before


def test_a_repeated_id_keeps_its_answer_when_no_arm_is_left(http: httpx.Client, settings: Settings):
    """What was acknowledged stands, even where the request would get a 422 today."""
    body = {**QUERY, "decision_id": "old", "constraints": {"allow": ["small"]}}
    before = http.post("/route", json=body).json()
    rewrite(settings, CONFIG.replace('model = "small-8b"', 'model = "small-8b"\nenabled = false'))
    until(lambda: not in_force(http, "small"), "the arm is gone")
    assert http.post("/route", json=body).json() == before
    assert http.post("/route", json={**body, "decision_id": "new"}).status_code == 422


def test_what_is_no_part_of_a_version_follows_the_file(
    http: httpx.Client, settings: Settings, raw: redis.Redis
):
    """Even while another version waits for its promotion: text once withdrawn stays withdrawn."""
    storing = CONFIG + "store_text = true\n"
    rewrite(settings, storing)

    def text_of(decision_id: str) -> str | None:
        http.post("/route", json={**QUERY, "decision_id": decision_id})
        return http.get(f"/decisions/{decision_id}").json()["decision"]["query"]

    until(lambda: text_of(f"on-{time.monotonic_ns()}") == "hello", "text is stored")
    rewrite(settings, CONFIG + 'scale = 0.5\narms = ["large"]\n')
    until(lambda: raw.hlen("pm:{default}:versions") == 2, "the version is registered")
    until(lambda: not in_force(http, "small"), "the arms of the file are in force")
    assert text_of("off") is None


def test_a_broken_file_leaves_the_old_configuration(http: httpx.Client, settings: Settings):
    """A typo in an editor must not stop traffic."""
    rewrite(settings, CONFIG + "nonsense = [")
    time.sleep(1.5)
    assert http.post("/route", json=QUERY).status_code == 200
    rewrite(settings, CONFIG + NEW_ARM)
    until(lambda: in_force(http, "medium"), "the mended file is read")


def test_a_change_of_arms_is_audited(http: httpx.Client, settings: Settings, raw: redis.Redis):
    """The catalog has a revision of its own, logged with each decision."""
    rewrite(settings, CONFIG + NEW_ARM)
    until(lambda: in_force(http, "medium"), "the new arm is eligible")
    kinds = [fields[b"kind"] for _, fields in raw.xrange("pm:{default}:audit")]
    assert kinds == [b"initial", b"catalog", b"catalog"]


def test_a_changed_policy_registers_a_version_that_does_not_serve(
    http: httpx.Client, settings: Settings, redis_url: str, raw: redis.Redis
):
    """Promise 3: it takes an operator's recorded override to make it champion."""
    rewrite(settings, CONFIG.replace("quality = 0.8", "quality = 0.5"))
    until(lambda: raw.hlen("pm:{default}:versions") == 2, "the version is registered")
    assert http.post("/route", json=QUERY).json()["version"] == "1"
    assert override(redis_url, "3") is None
    assert override(redis_url, "2") == "1"
    until(lambda: http.post("/route", json=QUERY).json()["version"] == "2", "2 serves", 2.0)
    last = raw.xrevrange("pm:{default}:audit", count=1)[0][1]
    assert (last[b"kind"], last[b"who"], last[b"why"]) == (b"override", b"me", b"tests say so")


def test_a_price_change_acts_at_once_and_makes_no_version(
    http: httpx.Client, settings: Settings, raw: redis.Redis
):
    """Prices belong to the catalog."""
    rewrite(settings, CONFIG.replace("usd_per_mtok_in = 3.0", "usd_per_mtok_in = 9.0"))
    until(lambda: raw.xlen("pm:{default}:audit") == 3, "the price is in force")
    assert raw.hlen("pm:{default}:versions") == 1


def test_without_its_store_the_service_refuses_and_recovers(tmp_path: Path):
    """Promise 1: nothing is acknowledged that isn't stored."""
    server = Embedded(tmp_path / "valkey", fsync="everysec", max_memory_mb=64)
    server.start()
    try:
        with http_service(settings_for(server.url, tmp_path)) as http:
            assert http.post("/route", json=QUERY).status_code == 200
            server.stop()
            answer = http.post("/route", json=QUERY)
            assert answer.status_code == 503
            assert answer.json()["type"] == "/problems/store-unavailable"
            assert http.get("/readyz").status_code == 503
            assert http.get("/healthz").status_code == 200
            server.start()
            until(lambda: http.post("/route", json=QUERY).status_code == 200, "it serves again")
    finally:
        server.stop()


def test_degraded_serving_says_that_it_logs_nothing(tmp_path: Path):
    """Promise 6: an unlogged decision never claims to be logged."""
    server = Embedded(tmp_path / "valkey", fsync="everysec", max_memory_mb=64)
    server.start()
    try:
        settings = settings_for(server.url, tmp_path, degraded="serve")
        with http_service(settings) as http:
            assert http.post("/route", json=QUERY).json()["logged"] is True
            server.stop()
            answer = http.post("/route", json=QUERY)
            assert (answer.status_code, answer.json()["logged"]) == (200, False)
    finally:
        server.stop()


def test_what_redis_has_lost_is_registered_again(
    http: httpx.Client, raw: redis.Redis, redis_url: str
):
    """As after a failover to a replica that hadn't got it yet: versions, roles and the catalog are
    there again, and the learner knows what it needs."""
    catalog = http.get("/policies/default").json()["catalog"]
    lost = ("state", "versions", "version:1", f"catalog:{catalog}")
    names = [f"pm:{{default}}:{name}" for name in lost]
    assert raw.delete(*names) == 4
    until(lambda: raw.exists(*names) == 4, "all of it is there again")
    drive(http, 5)
    assert learn_all(redis_url) == 5


def test_a_full_store_answers_503(tmp_path: Path):
    """At its memory cap the store takes no writes, and the service says so."""
    server = Embedded(tmp_path / "valkey", fsync="everysec", max_memory_mb=64)
    server.start()
    try:
        with (
            http_service(settings_for(server.url, tmp_path)) as http,
            redis.Redis.from_url(server.url) as raw,
        ):
            raw.config_set("maxmemory", "1mb")
            answer = http.post("/route", json=QUERY)
            assert answer.status_code == 503
            assert "memory" in answer.json()["detail"]
            raw.config_set("maxmemory", "64mb")
            assert http.post("/route", json=QUERY).status_code == 200
    finally:
        server.stop()


def test_a_champion_that_is_loaded_while_the_file_changes_serves(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    """A slow look at the store, begun before a new file was adopted and done after it."""

    async def overtaken() -> str:
        store, loaded, adopted = Store(redis_url), asyncio.Event(), asyncio.Event()
        service = Service(store, lambda: 0)
        following = follower.Follower(service, store.versions, settings.config, lambda: 0)
        await following.start()
        await following.stop()
        changed = CONFIG.replace("cost = 0.1,", "cost = 0.1, latency_ref_ms = 1,")
        file = toml.parse(changed, "a newer file")
        await register_policy(store.versions, "default", file, 0)
        await asyncio.to_thread(override, redis_url, "2")
        load = follower.load_running

        async def slow(*given: Any) -> Any:
            running = await load(*given)
            loaded.set()
            await adopted.wait()
            return running

        monkeypatch.setattr(follower, "load_running", slow)
        looking = asyncio.create_task(following._attempt("default"))
        await loaded.wait()
        following._config = file
        adopted.set()
        await looking
        await store.close()
        return service.policies["default"].version

    assert asyncio.run(overtaken()) == "2"


ANNOUNCED = (
    "price_changes = [{ on = 2026-01-02, usd_per_mtok_in = 0.3, usd_per_mtok_out = 0.4 }, "
    "{ on = 2200-01-01, usd_per_mtok_in = 0.5, usd_per_mtok_out = 0.6 }]"
)
CHANGING = CONFIG.replace('model = "small-8b"', f'model = "small-8b"\n{ANNOUNCED}')


def test_announced_prices_act_on_their_day(tmp_path: Path):
    """The file is read again when the day has changed, though nobody has touched it."""
    path = tmp_path / "pointsman.toml"
    path.write_text(CHANGING)
    day = datetime.date(2026, 1, 1)
    file = ConfigFile(path, lambda: day)
    assert file.read().arms.arm("small").usd_per_mtok_in == 0.1
    assert not file.changed()
    day = datetime.date(2026, 1, 2)
    assert file.changed()
    assert file.latest().arms.arm("small").usd_per_mtok_in == 0.3
    assert not file.changed()


def test_a_service_has_the_prices_of_the_day(redis_url: str, tmp_path: Path):
    """Those whose day has begun, in the catalog and in what a call is expected to cost."""
    with http_service(settings_for(redis_url, tmp_path, CHANGING)) as http:
        small = next(one for one in http.get("/arms").json()["arms"] if one["arm"] == "small")
        assert (small["usd_per_mtok_in"], small["usd_per_mtok_out"]) == (0.3, 0.4)
        assert [change["on"] for change in small["price_changes"]] == ["2200-01-01"]
        body = {"constraints": {"allow": ["small"]}, "decision_id": "d"}
        http.post("/route", json=body)
        http.post("/reward", json={"decision_id": "d", "input_tokens": 1000, "output_tokens": 500})
        assert http.get("/decisions/d").json()["outcome"]["cost_usd"] == pytest.approx(0.0005)


def test_who_starts_while_the_file_is_wrong_goes_on_with_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """What was right last is kept, where the process belongs to a service that runs; a later edit
    that is right acts."""
    path, kept = tmp_path / "pointsman.toml", tmp_path / "data" / "last.toml"
    path.write_text(CONFIG)
    before = ConfigFile(path, kept=kept).read()
    path.write_text(CONFIG.replace("objective", "colour"))
    with pytest.raises(ConfigError, match="colour"):
        ConfigFile(path).latest()
    started = ConfigFile(path, kept=kept)
    assert started.latest() == before
    assert "colour" in caplog.text
    assert "stays in force" in caplog.text
    path.write_text(CONFIG.replace("0.02", "0.03"))
    os.utime(path, ns=(1, 1))  # however soon after
    assert started.latest().arms.arm("embedder").usd_per_mtok_in == 0.03
    assert ConfigFile(path, kept=kept).latest() == started.latest()


def test_a_service_that_can_not_start_leaves_nothing_running(settings: Settings):
    """What had been started before is stopped, or the process would go on without serving."""
    settings.config.write_text("arms = 'none'")
    app = create_app(settings)

    async def start() -> None:
        with pytest.raises(ConfigError):
            async with app.router.lifespan_context(app):
                pass
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(start())

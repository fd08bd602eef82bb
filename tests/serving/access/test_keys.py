"""What a key is, and for how long it is valid."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from pathlib import Path

import httpx
import pytest
import redis

from serving.access.keys import Caller, Key, MissingScope, new_key, new_secret, rotated
from serving.access.store import NameTaken, key_store
from serving.app import create_app
from serving.processes.embedded import Embedded
from serving.store.keys import ACCESS_KEYS, KEYS_USED
from tests.servers import CONFIG, http_service, settings_for, until
from tests.serving.access.making import bearing, known, make_key, now_ms, put

QUERY = {"query": {"text": "hello"}}


def test_a_secret_is_256_random_bits_and_is_not_stored(redis_url: str, raw: redis.Redis):
    """Nothing that Redis holds lets anybody in."""
    key, secret = make_key(redis_url)
    assert secret.startswith("pm_")
    assert len(base64.urlsafe_b64decode(secret[3:] + "=")) == 32
    assert len({new_secret() for _ in range(1_000)}) == 1_000
    for name in raw.keys("*"):
        assert secret[3:].encode() not in raw.dump(name)
    assert key.id.encode() in raw.hgetall(ACCESS_KEYS)


def test_the_first_key_closes_a_running_service_and_none_opens_it_again(
    http: httpx.Client, redis_url: str, raw: redis.Redis
):
    """Neither the last one's revocation nor an emptied store, until the process starts anew."""
    assert http.get("/arms").status_code == 200
    key, secret = make_key(redis_url)
    known(http, secret)
    until(lambda: http.get("/arms").status_code == 401, "keys are wanted", 5.0)
    put(redis_url, key.model_copy(update={"revoked_at_ms": now_ms()}), key)
    until(lambda: http.get("/arms", headers=bearing(secret)).status_code == 401, "revoked", 5.0)
    assert "revoked" in http.get("/arms", headers=bearing(secret)).json()["detail"]
    raw.flushall()
    until(lambda: "known" in http.get("/arms", headers=bearing(secret)).text, "emptied", 5.0)
    assert http.get("/arms").status_code == 401


def test_a_revocation_reaches_every_process(redis_url: str, tmp_path: Path):
    """By a hint at once, and by a look at the store each half second."""
    key, secret = make_key(redis_url)
    settings = settings_for(redis_url, tmp_path)
    with http_service(settings) as one, http_service(settings) as other:
        for http in (one, other):
            assert http.get("/arms", headers=bearing(secret)).status_code == 200
        put(redis_url, key.model_copy(update={"revoked_at_ms": now_ms()}), key)
        for http in (one, other):
            until(lambda: http.get("/arms", headers=bearing(secret)).status_code == 401, "it", 5.0)  # noqa: B023


def test_a_key_ends_when_it_expires(redis_url: str, tmp_path: Path):
    """Nobody has to do anything for it."""
    _, secret = make_key(redis_url, expires_at_ms=now_ms() + 1_000)
    with http_service(settings_for(redis_url, tmp_path)) as http:
        until(lambda: http.get("/arms", headers=bearing(secret)).status_code == 401, "over", 5.0)
        assert "expired" in http.get("/arms", headers=bearing(secret)).json()["detail"]


def test_without_redis_the_last_known_keys_stay_valid_until_they_expire(tmp_path: Path):
    """Nobody else comes in then, and nobody stays for longer than was said."""
    server = Embedded(tmp_path / "valkey", fsync="everysec", max_memory_mb=64)
    server.start()
    try:
        _, lasting = make_key(server.url)
        settings = settings_for(server.url, tmp_path, degraded="serve")
        with http_service(settings) as http:
            _, short = make_key(server.url, expires_at_ms=now_ms() + 3_000)
            known(http, short)
            server.stop()
            made = http.post("/route", json=QUERY, headers=bearing(lasting)).json()
            assert made["logged"] is False
            assert http.post("/route", json=QUERY, headers=bearing("pm_x")).status_code == 401
            for secret, status in ((short, 401), (lasting, 200)):
                until(
                    lambda s=secret, t=status: (
                        http.get("/arms", headers=bearing(s)).status_code == t
                    ),
                    f"it answers {status}",
                    15.0,
                )
    finally:
        server.stop()


def test_rotation_leaves_both_secrets_valid_for_a_while(redis_url: str, tmp_path: Path):
    """Id, name and scopes stay; the old one ends by itself."""
    key, old = make_key(redis_url)
    new = new_secret()
    put(redis_url, rotated(key, new, now_ms(), overlap_ms=1_500), key)
    with http_service(settings_for(redis_url, tmp_path)) as http:
        assert http.get("/arms", headers=bearing(new)).status_code == 200
        until(lambda: http.get("/arms", headers=bearing(old)).status_code == 401, "over", 5.0)
        assert "replaced" in http.get("/arms", headers=bearing(old)).json()["detail"]
        assert http.get("/arms", headers=bearing(new)).status_code == 200


def test_an_old_secret_never_gains_time():
    """By hand: what ends in 5 s ends then, however long the next overlap; what is over goes."""
    key = Key.model_construct(id="k", digests=())
    for secret, overlap_ms in (("a", 0), ("b", 0), ("c", 5_000), ("d", 60_000)):
        key = rotated(key, secret, 1_000, overlap_ms)
    assert [one.expires_at_ms for one in key.digests] == [None, 61_000, 6_000]


def test_of_two_that_make_a_key_of_one_name_one_does(redis_url: str, raw: redis.Redis):
    """Neither looks first: the store refuses the other, what it can't read is in nobody's way."""
    raw.hset(ACCESS_KEYS, mapping={"0" * 12: b"{", "1" * 12: b"7"})

    async def both() -> list[BaseException | None]:
        pairs = [new_key("app", {"read": None}, new_secret(), "tests", now_ms()) for _ in range(2)]
        async with key_store(redis_url) as one, key_store(redis_url) as other:
            done = (
                s.put(k, None, "key created", "tests", 1)
                for s, k in zip((one, other), pairs, strict=True)
            )
            return await asyncio.gather(*done, return_exceptions=True)

    refused = [error for error in asyncio.run(both()) if error is not None]
    assert [type(error) for error in refused] == [NameTaken]
    assert raw.hlen(ACCESS_KEYS) == 3


@pytest.mark.parametrize("field", ["expires_at_ms", "created_at_ms", "requests_per_minute"])
def test_what_no_calendar_holds_is_neither_stored_nor_read(
    redis_url: str, raw: redis.Redis, tmp_path: Path, field: str
):
    """A key that is there nevertheless lets nobody in, and keeps nobody from seeing the others."""
    key, secret = make_key(redis_url)
    wrong = key.model_copy(update={field: 10**20, "id": "0" * 12})
    with pytest.raises(ValueError, match=field):
        put(redis_url, wrong, None)
    assert raw.hlen(ACCESS_KEYS) == 1
    raw.hset(ACCESS_KEYS, wrong.id, wrong.model_dump_json())
    with http_service(settings_for(redis_url, tmp_path)) as http:
        known(http, secret)
        shown = http.get("/keys", headers=bearing(secret)).json()["keys"]
    assert [one["id"] for one in shown] == [key.id]


def test_what_another_release_has_stored_lets_nobody_in(
    redis_url: str, raw: redis.Redis, tmp_path: Path
):
    """A key that can't be read is a key: the service is closed."""
    raw.hset(ACCESS_KEYS, "0" * 12, b'{"format": 99}')
    with http_service(settings_for(redis_url, tmp_path)) as http:
        assert http.get("/arms").status_code == 401


def test_its_last_use_is_known(redis_url: str, raw: redis.Redis, tmp_path: Path):
    """Written with the next look at the store, not with each request."""
    key, secret = make_key(redis_url)
    before_ms = now_ms()
    with http_service(settings_for(redis_url, tmp_path)) as http:
        http.get("/arms", headers=bearing(secret))
        until(lambda: raw.hexists(KEYS_USED, key.id), "it is kept", 5.0)
    assert before_ms <= int(raw.hget(KEYS_USED, key.id)) <= now_ms()


def test_a_browser_may_read_with_a_password(redis_url: str, tmp_path: Path):
    """HTTP's Basic scheme, the key for a password; what changes something wants a header that no
    foreign page can have a browser send."""
    _, secret = make_key(redis_url)
    with http_service(settings_for(redis_url, tmp_path, CONFIG)) as http:
        assert http.get("/", auth=("anybody", secret)).status_code == 200
        assert http.get("/", auth=("anybody", "wrong")).status_code == 401
        assert http.get("/", headers={"Authorization": b"Basic \xff"}).status_code == 401
        assert http.post("/route", json={}, auth=("anybody", secret)).status_code == 401


def test_a_path_that_declares_no_scope_is_not_served(redis_url: str, tmp_path: Path):
    """Not even where everybody may come in: so it can't be forgotten."""
    settings = settings_for(redis_url, tmp_path)
    app = create_app(settings)

    @app.get("/later")
    async def later() -> str:
        return "anything"

    with http_service(settings, app) as http:
        answer = http.get("/later")
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/no-such-path"


def test_a_caller_is_told_which_scope_for_which_policy():
    """The message names both, and `all` where figures are of all."""
    key = Key.model_construct(scopes={"read": ("mine",)})
    caller = Caller(key, "read", Counter())
    caller.check("mine")
    with pytest.raises(MissingScope, match="lacks the scope `read` for policy 'other'"):
        caller.check("other")
    with pytest.raises(MissingScope, match="lacks the scope `read` for all policies"):
        caller.check_all()

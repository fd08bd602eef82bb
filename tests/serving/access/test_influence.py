"""What a key's rewards did is known, beside those of others, and can be bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from serving.access.influence import Sums, by_key, compared, figures
from serving.store.keys import Keys
from tests.servers import CONFIG, http_service, settings_for, until
from tests.serving.access.making import TWO, bearing, make_key

BOUNDED = CONFIG.replace("[policies.default]", "[policies.default]\nmax_rewards_per_key = 3")


def routed(http: httpx.Client, secret: str, **body: Any) -> dict[str, Any]:
    query = {"query": {"text": "hello"}, **body}
    made: dict[str, Any] = http.post("/route", json=query, headers=bearing(secret)).json()
    return made


def reported(http: httpx.Client, secret: str, decision_id: str, **body: Any) -> httpx.Response:
    body = {"decision_id": decision_id, **body}
    return http.post("/reward", json=body, headers=bearing(secret))


@contextmanager
def serving(redis_url: str, folder: Path, config: str) -> Iterator[httpx.Client]:
    with http_service(settings_for(redis_url, folder, config)) as http:
        yield http


def listed(http: httpx.Client, secret: str) -> dict[str, dict[str, Any]]:
    """What GET /keys tells, by id."""
    answer = http.get("/keys", headers=bearing(secret))
    assert answer.status_code == 200, answer.text
    return {key["id"]: key for key in answer.json()["keys"]}


def test_the_figures_by_hand():
    """By hand: three reports of 1 beside (0.4, 0.6) move the mean from 0.5 to 0.8."""
    days = [
        {b"a rewards": b"2", b"a n x": b"2", b"a sum x": b"2", b"a squares x": b"2"},
        {b"a rewards": b"1", b"a n x": b"1", b"a sum x": b"1", b"a squares x": b"1"},
        {b"b rewards": b"2", b"b n x": b"2", b"b sum x": b"1", b"b squares x": b"0.52"},
        {b"b decisions": b"7", b"c decisions": b"1"},
    ]
    found = by_key(days)
    told = figures(found, "a")
    assert (told["decisions"], told["rewards"]) == (0, 3)
    assert told["moved"] == pytest.approx(0.3)
    # variances 0 and 0.02: pooled 0.02 / 3; of the difference 0.02 / 2
    assert told["arms"][0]["difference_sd"] == pytest.approx(0.5 / (0.02 / 3) ** 0.5)
    assert told["unlike_se"] == pytest.approx(0.5 / 0.1)
    assert figures(found, "c")["arms"] == []
    assert figures(found, "nobody")["decisions"] == 0


def test_nothing_to_compare_with_is_null():
    """Never 0."""
    told = compared(Sums(3, 1.5, 0.9), Sums())
    assert told["quality"] == 0.5
    assert [told[name] for name in ("others_quality", "moved", "difference_se")] == [None] * 3
    assert compared(Sums(1, 1.0, 1.0), Sums(1, 0.0, 0.0))["difference_se"] is None


def test_get_keys_tells_each_keys_part(redis_url: str, tmp_path: Path):
    """Decisions and rewards by policy; whose qualities are unlike, and by how much they moved each
    arm. What is there already counts once."""
    keys = [make_key(redis_url, ("route", "reward")) for _ in range(2)]
    admin, asking = make_key(redis_url, ("admin",))
    with serving(redis_url, tmp_path, CONFIG) as http:
        for (_, secret), qualities in zip(keys, ((0.5, 0.6, 0.4, 0.5), (1.0, 1.0)), strict=True):
            for quality in qualities:
                made = routed(http, secret, constraints={"allow": ["large"]})
                for _ in range(2):
                    answer = reported(http, secret, made["decision_id"], quality=quality)
                    assert answer.status_code == 200
        until(
            lambda: listed(http, asking)[keys[1][0].id]["policies"]["default"]["decisions"] == 2,
            "decisions are counted",
        )
        told = listed(http, asking)
    honest, other = (told[key.id]["policies"]["default"] for key, _ in keys)
    assert (honest["decisions"], honest["rewards"]) == (4, 4)
    assert (other["decisions"], other["rewards"]) == (2, 2)
    (arm,) = other["arms"]
    assert (arm["arm"], arm["n"], arm["others_n"]) == ("large", 2, 4)
    assert arm["quality"] == 1.0
    assert arm["others_quality"] == pytest.approx(0.5)
    assert other["moved"] == pytest.approx(2 / 6 * 0.5)
    assert arm["difference_sd"] > 5
    assert told[keys[0][0].id]["last_used_ms"] > time.time() * 1_000 - 60_000
    assert told[admin.id]["policies"]["default"]["rewards"] == 0


def test_who_reported_is_in_the_decision_and_the_event(
    redis_url: str, raw: redis.Redis, tmp_path: Path
):
    """The key's id, never its secret; nothing where there are no keys."""
    with serving(redis_url, tmp_path, CONFIG) as http:
        before = http.post("/route", json={"query": {"text": "x"}}).json()
        http.post("/reward", json={"decision_id": before["decision_id"], "quality": 0.5})
    key, secret = make_key(redis_url)
    with serving(redis_url, tmp_path, CONFIG) as http:
        made = routed(http, secret)
        reported(http, secret, made["decision_id"], quality=0.5)
        why = {"decision_id": made["decision_id"], "quality": 0.7, "by": "me", "reason": "so"}
        assert http.post("/correction", json=why, headers=bearing(secret)).status_code == 200
        shown = http.get(f"/decisions/{made['decision_id']}", headers=bearing(secret)).json()
    assert shown["outcome"]["reported_by"] == key.id
    events = [fields for _, fields in raw.xrange(Keys("default").outcomes)]
    assert [event.get(b"reported_by", b"").decode() for event in events] == ["", key.id, key.id]


def test_a_key_has_so_many_rewards_a_day(redis_url: str, tmp_path: Path):
    """Beyond them 429, which changes nothing; what is there already is still acknowledged, and
    other keys have their own."""
    (_, one), (_, other) = (make_key(redis_url) for _ in range(2))
    with serving(redis_url, tmp_path, BOUNDED) as http:
        ids = [routed(http, one)["decision_id"] for _ in range(5)]
        assert [reported(http, one, i, quality=1.0).status_code for i in ids[:3]] == [200] * 3
        refused = reported(http, one, ids[3], quality=1.0)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert refused.json()["detail"] == "this key has 3 rewards a day of policy 'default'"
        assert reported(http, one, ids[0], quality=1.0).json()["unchanged"] == ["quality"]
        assert reported(http, one, ids[3], executed=False).status_code == 429
        batch = [{"decision_id": i, "quality": 1.0} for i in ids]
        answer = http.post("/reward/batch", json={"rewards": batch}, headers=bearing(one)).json()
        assert [each.get("status", 200) for each in answer["results"]] == [200] * 3 + [429] * 2
        assert answer["results"][3]["retry_after_s"] > 0
        shown = http.get(f"/decisions/{ids[3]}", headers=bearing(one)).json()
        assert shown["outcome"] == {}
        assert reported(http, other, ids[3], quality=1.0).status_code == 200


def test_turns_count_as_reports_too(redis_url: str, tmp_path: Path):
    """Each turn's own report, though they make one row."""
    key, secret = make_key(redis_url)
    with serving(redis_url, tmp_path, BOUNDED) as http:
        turns = [routed(http, secret, session="s")["decision_id"] for _ in range(4)]
        found = [reported(http, secret, i, quality=0.5).status_code for i in turns]
        assert found == [200, 200, 200, 429]
        shown = http.get(f"/decisions/{turns[1]}", headers=bearing(secret)).json()
        assert shown["outcome"]["reported_by"] == key.id
        assert listed(http, secret)[key.id]["policies"]["default"]["rewards"] == 3


def test_an_admin_of_some_policies_sees_those(redis_url: str, tmp_path: Path):
    """Neither keys nor figures nor names of others."""
    mine, secret = make_key(redis_url, ("admin", "read"), ("mine",))
    both, _ = make_key(redis_url, ("route",), ("mine", "other"))
    other, _ = make_key(redis_url, ("route",), ("other",))
    everything, _ = make_key(redis_url)
    with serving(redis_url, tmp_path, CONFIG + TWO) as http:
        told = listed(http, secret)
    assert told.keys() == {mine.id, both.id, everything.id}
    assert told[both.id]["scopes"] == {"route": ["mine"]}
    assert told[everything.id]["scopes"]["route"] is None
    assert all(key["policies"].keys() == {"mine"} for key in told.values())
    assert other.id not in told

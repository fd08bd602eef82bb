"""What is stored of one policy is damaged: the others go on, and it does once that is mended."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import redis

from tests.servers import CONFIG, drive, http_service, learn_all, settings_for, until

TWO = CONFIG + "\n[policies.support]\n"
SNAPSHOT = "pm:{support}:snapshot:1"


def asked(http: httpx.Client, policy: str) -> httpx.Response:
    return http.post("/route", json={"query": {"text": "hello"}, "policy": policy})


def flip(raw: redis.Redis, key: str, field: str) -> None:
    """Change one bit of a field of a hash."""
    damaged = bytearray(raw.hget(key, field))
    damaged[-1] ^= 1
    raw.hset(key, field, bytes(damaged))


def reported(http: httpx.Client, policy: str) -> None:
    made = asked(http, policy).json()
    body = {"decision_id": made["decision_id"], "policy": policy, "quality": 1.0}
    assert http.post("/reward", json=body).status_code == 200


@pytest.mark.parametrize(
    ("key", "field"), [(SNAPSHOT, "part:values"), ("pm:{support}:version:1", "config")]
)
def test_a_process_that_starts_serves_the_policies_that_it_can_read(
    redis_url: str,
    tmp_path: Path,
    raw: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    key: str,
    field: str,
):
    """Who asks for the other one is told, without a stranger's learning its name; the log says it
    once; and it serves as soon as it can be read, without a restart."""
    settings = settings_for(redis_url, tmp_path, TWO)
    with http_service(settings) as http:
        drive(http, 2)
        reported(http, "support")
    assert (learn_all(redis_url), learn_all(redis_url, "support")) == (2, 1)
    flip(raw, key, field)
    with http_service(settings) as http:
        assert asked(http, "default").status_code == 200
        answer = asked(http, "support")
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/store-unavailable")
        assert "can't be read" in answer.json()["detail"]
        told = http.get("/readyz")
        assert told.status_code == 503
        assert "can't be read" in told.json()["detail"]
        assert "support" not in told.text
        for _ in range(3):
            raw.publish("pm:{default}:published", "1")
            assert asked(http, "support").status_code == 503
        flip(raw, key, field)
        until(lambda: asked(http, "support").status_code == 200, "it serves")
        assert http.get("/readyz").status_code == 200
    said = [r.getMessage() for r in caplog.records if "it isn't served yet" in r.getMessage()]
    assert [line.partition(":")[0] for line in said] == ["policy support"]
    assert "damaged" in said[0] or "checksum" in said[0]
    assert not any(record.exc_info for record in caplog.records)


def test_a_learner_that_starts_mends_a_damaged_snapshot(
    redis_url: str, tmp_path: Path, raw: redis.Redis
):
    """It publishes what its checkpoint holds, all of it, though no outcome is new."""
    with http_service(settings_for(redis_url, tmp_path, TWO)) as http:
        reported(http, "support")
        learn_all(redis_url, "support")
        whole = raw.hget(SNAPSHOT, "part:values")
        flip(raw, SNAPSHOT, "part:values")
        assert learn_all(redis_url, "support") == 0
        assert raw.hget(SNAPSHOT, "part:values") == whole

"""What a key costs each request."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from serving.access.guard import Guard
from serving.access.store import key_store
from tests.serving.access.making import make_key

HEADERS = [
    (b"host", b"127.0.0.1:8080"),
    (b"user-agent", b"python-httpx"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip"),
    (b"connection", b"keep-alive"),
    (b"content-type", b"application/json"),
    (b"content-length", b"120"),
]
ROUNDS = 1_000


@pytest.mark.parametrize("limit", [None, 10**9])
def test_it_takes_less_than_ten_microseconds(redis_url: str, tmp_path: Path, limit: int | None):
    """Of CPU time, all told: who it is, the scope, the policy, counting the decision and, where it
    has a limit, the request. The least of ten runs."""
    _, secret = make_key(redis_url, ("route",), ("default", "other"), requests_per_minute=limit)
    headers = [*HEADERS, (b"authorization", b"Bearer " + secret.encode())]

    async def run() -> float:
        async with key_store(redis_url) as store:
            guard = Guard(store, lambda: time.time_ns() // 1_000_000, may_be_open=True)
            await guard.refresh()
            took = []
            for _ in range(10):
                begun = time.process_time()
                for _ in range(ROUNDS):
                    caller = await guard.admit("POST", "/route", headers)
                    assert caller is not None
                    caller.check("default")
                    caller.got_decision("default")
                took.append((time.process_time() - begun) / ROUNDS)
        return min(took)

    assert asyncio.run(run()) < 10e-6

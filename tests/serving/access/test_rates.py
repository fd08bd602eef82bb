"""A key has so many requests in a minute, over all processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import cycle, islice
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from pointsman.commands import keys
from serving.access.rates import MINUTE_MS, Rates, TooManyRequests
from serving.access.store import key_store
from serving.store.keys import StoreUnavailable
from tests.servers import http_service, settings_for
from tests.serving.access.making import bearing, known, make_key
from tests.serving.test_deadlines import SLACK_S, TIMEOUT_MS, frozen
from tests.serving.test_direct import Server, free_port

ROUTE = {"query": {"text": "hello"}}


async def tried(rates: Rates, n: int, limit: int) -> int:
    """How many of `n` requests at once are let in."""

    async def one() -> bool:
        try:
            await rates.take("k", limit)
        except TooManyRequests:
            return False
        return True

    return sum(await asyncio.gather(*(one() for _ in range(n))))


def on_redis(url: str, do: Callable[[Rates, Rates, list[int], list[int]], Awaitable[None]]) -> None:
    """Two processes' counts over one Redis, with a clock in ms and a count of round trips."""

    async def run() -> None:
        async with key_store(url) as store:
            now, trips = [0], [0]

            async def counted(*asked: int | str) -> int:
                trips[0] += 1
                return await store.reserve(*asked)  # type: ignore[arg-type]

            one, other = (Rates(counted, lambda: now[0]) for _ in range(2))
            await do(one, other, now, trips)

    asyncio.run(run())


def test_two_processes_let_in_no_more_than_one_does(redis_url: str):
    """Never more than the limit, and short of it by what each had taken and not needed; in the next
    minute as many again."""

    async def do(one: Rates, other: Rates, now: list[int], trips: list[int]) -> None:
        for minute in range(2):
            now[0] = minute * MINUTE_MS + 1
            let_in = 0
            for _ in range(60):
                let_in += await tried(one, 7, 500) + await tried(other, 1, 500)
            assert 490 <= let_in <= 500 or let_in == 60 * 8
        now[0] += MINUTE_MS
        assert await tried(one, 1_000, 500) + await tried(other, 1_000, 500) == 500

    on_redis(redis_url, do)


def test_a_round_trip_is_for_a_hundredth(redis_url: str):
    """Requests that come one by one ask Redis a hundred times a minute at most, and not at all once
    all is used up."""

    async def do(one: Rates, other: Rates, now: list[int], trips: list[int]) -> None:
        for _ in range(2_000):
            assert await tried(one, 1, 2_000) == 1
        assert trips[0] == 100
        for _ in range(50):
            assert await tried(one, 1, 2_000) == 0
        assert trips[0] == 101

    on_redis(redis_url, do)


def test_without_redis_each_process_counts_alone():
    """Nobody is refused for a lack of Redis, nor let in without end."""

    async def away(*asked: int | str) -> int:
        raise StoreUnavailable("away")

    assert asyncio.run(tried(Rates(away, lambda: 0), 700, 300)) == 300


def test_beyond_it_there_is_a_429_that_says_when(redis_url: str, tmp_path: Path):
    """Two services, alternately asked; on /route, which bypasses the framework, as elsewhere."""
    made = CliRunner().invoke(
        keys.command,
        ["create", "app", "--scope", "route", "--scope", "read", "--requests-per-minute", "12"],
        env={"POINTSMAN_REDIS_URL": redis_url},
    )
    settings = settings_for(redis_url, tmp_path)
    with http_service(settings) as one, http_service(settings) as other:

        def ask(http: httpx.Client, i: int) -> httpx.Response:
            headers = bearing(made.stdout.strip())
            if i % 3:
                return http.post("/route", json=ROUTE, headers=headers)
            return http.get("/arms", headers=headers)

        for _ in range(3):  # a minute may end meanwhile
            minute = time.time() // 60
            both = islice(cycle((one, other)), 30)
            answers = [ask(http, i) for i, http in enumerate(both)]
            if time.time() // 60 == minute:
                break
    assert sorted(a.status_code for a in answers) in ([200] * 12 + [429] * 18, [429] * 30)
    refused = answers[-1]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"] == "/problems/rate-limited"
    assert refused.json()["detail"] == "this key has 12 requests a minute"


def test_a_count_waits_for_redis_no_longer_than_all_else(tmp_path: Path):
    """Where it hangs: the first request gives up in time, the others at once, and they are counted
    all the same."""
    server = Server(free_port(), tmp_path / "s")
    server.start()
    settings = settings_for(server.urls[0], tmp_path, degraded="serve", store_timeout_ms=TIMEOUT_MS)
    _, secret = make_key(server.urls[0], ["route", "read"], requests_per_minute=5)
    try:
        with http_service(settings) as http:

            def ask() -> int:
                return http.post("/route", json=ROUTE, headers=bearing(secret)).status_code

            known(http, secret)
            with frozen(server):
                start = time.monotonic()
                assert ask() == 200
                assert time.monotonic() - start < TIMEOUT_MS / 1_000 + SLACK_S
                answers = [ask() for _ in range(11)]  # a minute may end meanwhile
                assert time.monotonic() - start < TIMEOUT_MS / 1_000 + 2 * SLACK_S
            assert set(answers) == {200, 429}
            assert answers.count(200) <= 9
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_have_no_limit(http: httpx.Client, path: str):
    """They carry no key."""
    assert {http.get(path).status_code for _ in range(30)} == {200}

"""Who may come in without a key: whoever is on this machine, but no other site's page."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.access.guard import Guard
from serving.access.keys import NoKey
from serving.access.opening import foreign
from serving.access.store import key_store
from tests.servers import http_service, settings_for
from tests.serving.access.making import bearing, known, make_key

QUERY = {"query": {"text": "hello"}}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "example.org"},
        {"Host": "localhost.example.org:8080"},
        {"Host": "example.org:8080", "Origin": "http://example.org:8080"},
    ],
)
def test_another_sites_page_is_not_answered(
    http: httpx.Client, redis_url: str, headers: dict[str, str]
):
    """Neither read nor rewarded, through a browser on this machine; with a key it doesn't matter,
    for no page has one."""
    for method, path in (("POST", "/route"), ("POST", "/reward"), ("GET", "/policies")):
        answer = http.request(method, path, headers=headers, content=b"{}")
        assert answer.status_code == 403
        assert answer.json()["type"] == "/problems/foreign-page"
    _, secret = make_key(redis_url)
    known(http, secret)
    answer = http.post("/route", json=QUERY, headers=headers | bearing(secret))
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST", "127.0.0.2:9", "[::1]:8080"])
def test_this_machine_is_answered(http: httpx.Client, host: str):
    """By its addresses, and as localhost; its own pages as well."""
    for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
        assert http.post("/route", json=QUERY, headers=headers).status_code == 200


def test_who_opens_it_may_call_it_anything(redis_url: str, tmp_path: Path):
    """But other sites' pages stay out."""
    with http_service(settings_for(redis_url, tmp_path, open=True)) as http:
        assert http.get("/arms", headers={"Host": "router.internal"}).status_code == 200
        headers = {"Host": "router.internal", "Origin": "https://example.org"}
        assert http.get("/arms", headers=headers).status_code == 403


@pytest.fixture(scope="module")
def guard(module_url: str) -> Guard:
    """One that knows a key."""
    make_key(module_url)

    async def read() -> Guard:
        async with key_store(module_url) as store:
            guard = Guard(store, lambda: 0, may_be_open=True)
            await guard.refresh()
        return guard

    return asyncio.run(read())


@given(st.binary(max_size=80), st.sampled_from(["GET", "POST", "HEAD"]))
def test_no_header_lets_anybody_in_or_breaks_the_check(guard: Guard, value: bytes, method: str):
    """Whatever bytes come: without a key that is known it is a 401."""
    for sent in (value, b"Bearer " + value, b"basic " + value):
        with pytest.raises(NoKey):
            guard.admit(method, "/route", [(b"authorization", sent)]).send(None)


@given(st.lists(st.tuples(st.sampled_from([b"host", b"origin"]), st.binary(max_size=40))))
def test_any_host_and_origin_are_judged(headers: list[tuple[bytes, bytes]]):
    """Without failing."""
    for any_name in (True, False):
        assert foreign(headers, any_name=any_name) is None or isinstance(
            foreign(headers, any_name=any_name), str
        )

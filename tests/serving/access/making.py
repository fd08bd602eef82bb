"""Keys for tests, made as `pointsman keys create` makes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import httpx

from serving.access.keys import Key, Policies, new_key, new_secret
from serving.access.scopes import SCOPES, Scope
from serving.access.store import key_store
from tests.servers import until

TWO = """
[policies.mine]
model = "uniform"

[policies.other]
model = "uniform"
"""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def make_key(
    redis_url: str,
    scopes: Sequence[Scope] = SCOPES,
    policies: Policies = None,
    expires_at_ms: int | None = None,
    requests_per_minute: int | None = None,
) -> tuple[Key, str]:
    """A stored key and its secret."""
    secret = new_secret()
    name = f"key-{secret[-6:].strip('_-')}"
    of = dict.fromkeys(scopes, policies)
    key = new_key(name, of, secret, "tests", now_ms(), expires_at_ms, requests_per_minute)
    put(redis_url, key, None)
    return key, secret


def put(redis_url: str, key: Key, before: Key | None) -> None:
    async def stored() -> None:
        async with key_store(redis_url) as store:
            await store.put(key, before, "key changed", "tests", now_ms())

    asyncio.run(stored())


def bearing(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def known(http: httpx.Client, secret: str) -> None:
    """Wait until a running service knows a key, as it does within two seconds."""

    def status(headers: dict[str, str]) -> int:
        return http.get("/docs", headers=headers).status_code

    until(lambda: status({}) == 401 != status(bearing(secret)), "the key is known", 5.0)

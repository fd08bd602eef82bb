"""All checks of a service, in their order; what can't be reached is a finding too."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from offline_eval.registry import default_uri
from pointsman.doctor import configuration, disk, following, keys, recorded, server, stored
from pointsman.doctor.finding import Finding
from policy.config.schema import Config
from serving.access.keys import Key
from serving.access.store import key_store
from serving.processes.config_file import utc_day
from serving.processes.embedded import EmbeddedError, NotRunning, running_url
from serving.settings import Settings
from serving.store.connecting.checking import refusal
from serving.store.connecting.clients import FAILED
from serving.store.keys import StoreUnavailable
from serving.store.operating.server import look
from serving.store.operating.standing import StandingStore


def examine(chosen: Settings, *, mend: bool = False) -> Iterator[Finding]:
    """What there is to say of a service with these settings, part by part."""
    config, found = configuration.read(chosen)
    yield from found
    yield from configuration.environment(os.environ)
    if config is not None:
        yield from configuration.prices(config.arms.arms, utc_day())
    uri = default_uri(chosen.data)
    yield from disk.checked(disk.places(chosen, uri))
    correct = "correct POINTSMAN_REDIS_URL, or that Redis"
    try:
        url = chosen.redis_url or running_url(chosen.data)
        if reason := refusal(url, evicting=True):  # of which `memory` tells
            yield Finding("redis", "fault", reason, correct)
            return
        for place, seen in look(url).items():
            yield from server.checked(seen, place, chosen.wait_replicas)
        yield from keys.checked(*asyncio.run(_keys(url)), chosen, time.time_ns() // 1_000_000)
        if config is not None:
            yield from _policies(url, config, chosen, uri, mend=mend)
    except (NotRunning, StoreUnavailable, ValueError) as error:
        start = "start `pointsman up`, or correct POINTSMAN_REDIS_URL or POINTSMAN_DATA"
        yield Finding("redis", "fault", str(error), start)
    except FAILED as error:
        yield Finding("redis", "fault", f"Redis: {error}", correct)
    except EmbeddedError as error:
        yield Finding("redis", "fault", str(error), "see valkey.log there: does it load its files?")


async def _keys(url: str) -> tuple[Sequence[Key], Mapping[str, int]]:
    async with key_store(url) as store:
        return await store.all(), await store.last_used()


def _policies(
    url: str, config: Config, chosen: Settings, uri: str, *, mend: bool
) -> Iterator[Finding]:
    for policy in config.policies:
        with closing(StandingStore(url, policy)) as store:
            if store.roles() is None:
                what = f"{policy}: Redis doesn't know this policy"
                yield Finding("policy", "fault", what, "start a service: it registers policies")
                continue
            yield from stored.checked(store, policy, chosen.log_path())
            yield from following.checked(store, policy, chosen)
            yield from recorded.checked(store, uri, policy, mend=mend)

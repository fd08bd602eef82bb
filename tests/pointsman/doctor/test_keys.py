"""What `pointsman doctor` says of keys that `pointsman keys` has made in a real store."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pointsman.commands.keys import command
from pointsman.doctor.examining import _keys
from pointsman.doctor.keys import DAY_MS, checked
from serving.access.store import key_store
from tests.servers import settings_for

NEVER = "--scope", "route"


def make(redis_url: str, name: str, *arguments: str) -> str:
    """The id of a new key."""
    done = CliRunner(env={"POINTSMAN_REDIS_URL": redis_url}).invoke(
        command, ["create", name, "--json", *(arguments or NEVER)]
    )
    assert done.exit_code == 0, done.output
    told: dict[str, str] = json.loads(done.stdout)
    return told["id"]


def told(
    redis_url: str, folder: Path, days: float = 0.0, **settings: object
) -> list[tuple[str, str]]:
    """What is said `days` from now."""
    keys, used = asyncio.run(_keys(redis_url))
    now_ms = (keys[0].created_at_ms if keys else 0) + int(days * DAY_MS)
    chosen = settings_for(redis_url, folder).model_copy(update=settings)
    return [(one.level, one.what) for one in checked(keys, used, chosen, now_ms)]


def test_without_keys_only_loopback_is_fine(redis_url: str, tmp_path: Path):
    """Elsewhere it won't start, or whoever reaches it may do everything."""
    assert told(redis_url, tmp_path) == [("ok", "there are none; only 127.0.0.1 is served")]
    ((level, what),) = told(redis_url, tmp_path, host="0.0.0.0")
    assert (level, what.startswith("it won't start")) == ("fault", True)
    ((level, what),) = told(redis_url, tmp_path, host="0.0.0.0", open=True)
    assert (level, "may do everything" in what) == ("warning", True)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (0.0, [("ok", "2 are valid")]),
        (4.5, [("warning", "app expires in 5.5 days")]),
        (11.0, [("warning", "app has expired: whoever comes with it gets a 401")]),
    ],
)
def test_a_key_that_ends_is_named(
    redis_url: str, tmp_path: Path, days: float, expected: list[tuple[str, str]]
):
    """A week before, and once it has."""
    make(redis_url, "app", *NEVER, "--expires", "10d")
    make(redis_url, "other")
    assert told(redis_url, tmp_path, days, host="0.0.0.0") == expected


def test_a_key_that_nobody_uses_is_named(redis_url: str, tmp_path: Path):
    """Since it was last used, or made; a revoked one is nobody's matter."""
    app, _ = make(redis_url, "app"), make(redis_url, "idle")
    make(redis_url, "gone")
    CliRunner(env={"POINTSMAN_REDIS_URL": redis_url}).invoke(command, ["revoke", "gone"])
    keys, _ = asyncio.run(_keys(redis_url))

    async def use() -> None:
        async with key_store(redis_url) as store:
            await store.used({app: keys[0].created_at_ms + 20 * DAY_MS})

    asyncio.run(use())
    assert told(redis_url, tmp_path, 40.0) == [("warning", "nobody has used idle for 40 days")]


def test_where_no_key_is_valid_nobody_comes_in(redis_url: str, tmp_path: Path):
    """A fault, on loopback too."""
    make(redis_url, "app")
    CliRunner(env={"POINTSMAN_REDIS_URL": redis_url}).invoke(command, ["revoke", "app"])
    assert told(redis_url, tmp_path) == [("fault", "none is valid: every request gets a 401")]

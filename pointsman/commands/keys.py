"""`pointsman keys`."""

from __future__ import annotations

import asyncio
import getpass
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from pointsman.commands import settings
from serving.access import keys
from serving.access.keys import END_MS, MOST_REQUESTS, Key, Policies
from serving.access.scopes import SCOPES, Scope
from serving.access.store import KeyStore, key_store
from serving.processes.embedded import FOLDER, Embedded, NotRunning, running_url
from serving.store.keys import StoreUnavailable

T = TypeVar("T")
UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
TOO_LATE = "expected a time before the year 10000"
HEAD = ("key", "id", "for", "made", "expires", "last used")


class Duration(click.ParamType[int]):
    """90d, 12h, 30m or 45s -> ms, at least `least_ms`, and from now on to the year 9999."""

    name = "duration"

    def __init__(self, least_ms: int = 0) -> None:
        self._least_ms = least_ms

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch("([0-9]{1,15})([smhd])", str(value))
        if found is None:
            self.fail(f"expected a duration such as 90d, 12h, 30m or 45s, got {value!r}")
        length_ms = int(found[1]) * UNITS_MS[found[2]]
        if length_ms < self._least_ms:
            self.fail(f"expected a duration of some length, got {value!r}")
        if settings.now_ms() + length_ms >= END_MS:
            self.fail(TOO_LATE)
        return length_ms


class Until(settings.Time):
    """A duration from now, or a time to come -> ms since 1970."""

    name = "until"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        now_ms = settings.now_ms()
        if value[-1:] in UNITS_MS:
            return now_ms + Duration(least_ms=1).convert(value, param, ctx)
        at = super().convert(value, param, ctx)
        if at <= now_ms:
            self.fail(f"{value} is over already")
        if at >= END_MS:
            self.fail(TOO_LATE)
        return at


@click.group(epilog=settings.help_text())
def command() -> None:
    """Make, show, replace and revoke the keys that requests come with.

    Without any key the service listens on loopback only, and whoever is on this machine may do
    everything; once there is one, every request needs a key. Processes that run heed what is done
    here within two seconds. It works while the service runs, and before it first does.
    """


@command.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE[:POLICY,...]",
    help=f"What it is for: {', '.join(SCOPES)}. May be repeated.",
)
@click.option("--policy", "policies", multiple=True, help="For this policy only. May be repeated.")
@click.option("--expires", type=Until(), help="When: 90d, 12h or 2027-01-31. [never]")
@click.option(
    "--requests-per-minute", type=click.IntRange(1, MOST_REQUESTS), help="Beyond it: 429. [no end]"
)
@settings.as_json
def create(
    name: str,
    scopes: tuple[str, ...],
    policies: tuple[str, ...],
    expires: int | None,
    requests_per_minute: int | None,
    as_json: bool,
) -> None:
    """Make a key called NAME, and print its secret: this once, and on stdout alone.

    It is for all policies, those to come among them, unless some are named: `--scope route --scope
    reward --policy support`, or scope by scope `--scope route:support,search --scope read`.
    """
    secret, now_ms, by = keys.new_secret(), settings.now_ms(), getpass.getuser()
    given = _granted(scopes, policies)
    key = keys.new_key(name, given, secret, by, now_ms, expires, requests_per_minute)

    async def make(store: KeyStore) -> None:
        await store.put(key, None, "key created", by, now_ms)

    _on_store(make)
    _print_secret(key, secret, as_json)


def _granted(words: Sequence[str], policies: Sequence[str]) -> dict[Scope, Policies]:
    """What the key is for: the union of what is said of each scope.

    >>> _granted(["route:a", "route:c,b", "read"], ())
    {'route': ('a', 'b', 'c'), 'read': None}
    """
    granted: dict[Scope, Policies] = {}
    for word in words:
        scope, of = _scope(word, policies)
        before = granted.get(scope, of)
        if (of is None) != (before is None):
            raise click.UsageError(f"--scope {scope} is for policies that are named, or for all")
        granted[scope] = tuple(sorted({*(before or ()), *(of or ())})) or None
    return granted


def _scope(word: str, policies: Sequence[str]) -> tuple[Scope, Policies]:
    """A scope and the policies that it is for.

    >>> _scope("route:b,a", ()), _scope("read", ("a",)), _scope("read", ())
    (('route', ('a', 'b')), ('read', ('a',)), ('read', None))
    """
    name, colon, listed = word.partition(":")
    for scope in SCOPES:
        if scope == name:
            named = listed.split(",") if colon else policies
            return scope, tuple(sorted(set(named))) or None
    raise click.UsageError(f"a scope is one of {', '.join(SCOPES)}, got {name!r}")


@command.command()
@click.argument("name")
@click.option(
    "--overlap",
    type=Duration(),
    default="24h",
    show_default=True,
    help="For how long the old secret stays valid beside the new one; 0s ends it at once.",
)
@click.option("--expires", type=Until(), help="When the key does. [as before]")
@settings.as_json
def rotate(name: str, overlap: int, expires: int | None, as_json: bool) -> None:
    """Give the key NAME (or of that id) another secret, and print it: this once.

    Scopes, id and what is counted for the key stay.
    """
    secret, now_ms, by = keys.new_secret(), settings.now_ms(), getpass.getuser()

    async def replace(store: KeyStore) -> Key:
        before = _named(await store.all(), name)
        key = keys.rotated(before, secret, now_ms, overlap)
        if expires is not None:
            key = key.model_copy(update={"expires_at_ms": expires})
        await store.put(key, before, "key rotated", by, now_ms)
        return key

    _print_secret(_on_store(replace), secret, as_json)


@command.command()
@click.argument("name")
@settings.as_json
def revoke(name: str, as_json: bool) -> None:
    """End the key NAME (or of that id): within two seconds no process takes it any more.

    It stays on the list, with what was done with it. With the last key revoked nobody may come in.
    """
    now_ms, by = settings.now_ms(), getpass.getuser()

    async def end(store: KeyStore) -> Key:
        before = _named(await store.all(), name)
        key = before.model_copy(update={"revoked_at_ms": now_ms})
        await store.put(key, before, "key revoked", by, now_ms)
        return key

    key = _on_store(end)
    text = f"key {key.name} ({key.id}) is revoked"
    click.echo(json.dumps(_shown(key, {})) if as_json else text)


@command.command("list")
@click.option("--audit", is_flag=True, help="What was done to keys instead, by whom and when.")
@settings.as_json
def list_(audit: bool, as_json: bool) -> None:
    """Show all keys, revoked ones too; no secret can be shown again."""

    async def read(store: KeyStore) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        used = await store.last_used()
        return [_shown(key, used) for key in await store.all()], await store.audit()

    found, done = _on_store(read)
    if audit:
        click.echo(json.dumps({"audit": done}) if as_json else "\n".join(map(_told, done)))
    else:
        click.echo(json.dumps({"keys": found}) if as_json else _table(found))


def _named(found: Sequence[Key], name: str) -> Key:
    for key in found:
        if name in (key.name, key.id) and key.revoked_at_ms is None:
            return key
    raise click.ClickException(f"there is no key {name!r} that could be changed")


def _on_store(do: Callable[[KeyStore], Awaitable[T]]) -> T:
    """What `do` makes of the keys, wherever they are."""

    async def on(url: str) -> T:
        async with key_store(url) as store:
            return await do(store)

    try:
        with _url() as url:
            return asyncio.run(on(url))
    except StoreUnavailable as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _url() -> Iterator[str]:
    """The operator's own Redis, or the embedded server: started for the moment if none runs."""
    chosen = settings.read()
    if chosen.redis_url is not None:
        yield chosen.redis_url
        return
    try:
        url = running_url(chosen.data)
    except NotRunning:
        server = Embedded(
            chosen.data / FOLDER, fsync=chosen.fsync, max_memory_mb=chosen.max_memory_mb
        )
        server.start()
        try:
            yield server.url
        finally:
            server.stop()
    else:
        yield url


def _print_secret(key: Key, secret: str, as_json: bool) -> None:
    click.echo(json.dumps(_shown(key, {}) | {"secret": secret}) if as_json else secret)
    until = "" if key.expires_at_ms is None else f", until {_time(key.expires_at_ms)} UTC"
    told = f"key {key.name} ({key.id}) for {_scopes(key.scopes)}{until}"
    others = [one.expires_at_ms for one in key.digests[1:]]
    if others and (last_ms := max(at for at in others if at is not None)):
        told += f"; the one before is valid until {_time(last_ms)} UTC"
    click.echo(f"{told}\nthis is the only time that its secret is shown", err=True)


def _shown(key: Key, used: Mapping[str, int]) -> dict[str, Any]:
    """Without digests."""
    told = key.model_dump(mode="json", exclude={"digests", "format"})
    return told | {"invalid": key.invalid(settings.now_ms()), "last_used_ms": used.get(key.id)}


def _table(found: Sequence[Mapping[str, Any]]) -> str:
    lines = [HEAD, *map(_cells, found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    padded = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _cells(key: Mapping[str, Any]) -> tuple[str, ...]:
    until = "never" if key["expires_at_ms"] is None else _time(key["expires_at_ms"])
    return (
        key["name"],
        key["id"],
        _scopes(key["scopes"]),
        f"{_time(key['created_at_ms'])} by {key['created_by']}",
        until if key["revoked_at_ms"] is None else f"revoked {_time(key['revoked_at_ms'])}",
        "-" if key["last_used_ms"] is None else _time(key["last_used_ms"]),
    )


def _told(entry: Mapping[str, str]) -> str:
    what = f"{entry['kind']}  {entry['name']} ({entry['key']})"
    return f"{_time(int(entry['at_ms']))}  {what} by {entry['who']}"


def _scopes(scopes: Mapping[Any, Sequence[str] | None]) -> str:
    parts = (
        name if of is None else f"{name}:{','.join(of)}" for name, of in sorted(scopes.items())
    )
    return " ".join(parts)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")

"""All keys of ours, as plain items: out of one server, and into another, of whichever version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import groupby, islice
from typing import Any, NamedTuple, TypeVar

from serving.store.connecting.clients import blocking, each
from serving.store.waiting import reachable

PREFIX = b"pm:"
AHEAD = 1_000_000  # fencing tokens that may have been given out since a copy was made
_FENCES = (b":fence", b":archive_fence")
_LEASES = (b":lease", b":archive_lease")
_AT_ONCE = 500

T = TypeVar("T")


class Item(NamedTuple):
    """A string, a field of a hash, a member of a sorted set (its score is the value), a field of a
    stream's entry, or the last id of a stream, which has no field. `expires_at_ms` is its key's, 0
    for never."""

    key: bytes
    kind: str
    expires_at_ms: int
    entry: bytes
    field: bytes
    value: bytes


def read(client: Any) -> Iterator[Item]:
    """All items of the keys that a server has, a key's one after the other.

    Raises
    ------
    ValueError
        If a key is of a kind that none of ours is.
    """
    streams: set[bytes] = set()  # a scan may tell a key twice; of these, that would matter
    for names in _batches(client.scan_iter(match=PREFIX + b"*", count=_AT_ONCE), _AT_ONCE):
        with client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.type(name).pexpiretime(name)
            told = pipe.execute()
            asked = []
            for name, kind, expires in zip(names, told[::2], told[1::2], strict=True):
                if kind == b"none" or name in streams:  # expired meanwhile, or known
                    continue
                if (known := _KINDS.get(kind.decode())) is None:
                    raise ValueError(f"{name.decode(errors='replace')} is a {kind.decode()}")
                if kind == b"stream":
                    streams.add(name)
                known.ask(pipe, name)
                asked.append((name, kind.decode(), max(expires, 0)))
            found = pipe.execute()
        for key, answer in zip(asked, found, strict=True):
            if answer:
                yield from (
                    Item(*key, *part) for part in _KINDS[key[1]].parts(client, key[0], answer)
                )


def write(url: str, items: Iterable[Item], now_ms: int) -> int:
    """Write items where their keys belong; how many keys. What has expired is left out, and fencing
    tokens go on far behind those that the copied service may have given out since."""
    keys = 0
    with reachable(), ExitStack() as opened:
        pipes: dict[bytes, Any] = {}
        for (name, kind, expires), some in groupby(items, key=lambda item: item[:3]):
            if expires and expires <= now_ms:
                continue
            policy = name.partition(b"}")[0]
            if policy not in pipes:
                client = opened.enter_context(closing(blocking(url, name.decode())))
                pipes[policy] = client.pipeline(transaction=False)
            pipe = pipes[policy]
            for command in _KINDS[kind].commands(name, some):
                pipe.execute_command(*command)
                if len(pipe) >= _AT_ONCE:
                    pipe.execute()
            if expires:
                pipe.execute_command("PEXPIREAT", name, expires)
            keys += 1
        for pipe in pipes.values():
            pipe.execute()
    return keys


def held(url: str) -> list[str]:
    """The leases that processes hold there, by their keys."""
    return sorted(name.decode() for _, name in _names(url) if name.endswith(_LEASES))


def count(url: str) -> int:
    """How many keys of ours there are."""
    return sum(1 for _ in _names(url))


def clear(url: str) -> None:
    """Remove all keys of ours."""
    for client, name in _names(url):
        client.unlink(name)


def _names(url: str) -> Iterator[tuple[Any, bytes]]:
    with reachable(), ExitStack() as opened:
        for client in each(url).values():
            opened.enter_context(closing(client))
            for name in client.scan_iter(match=PREFIX + b"*", count=_AT_ONCE):
                yield client, name


def _batches(some: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(some)
    while batch := list(islice(rest, size)):
        yield batch


_Parts = Iterator[tuple[bytes, bytes, bytes]]  # entry, field, value
_Command = tuple[Any, ...]


def _string(client: Any, name: bytes, value: bytes) -> _Parts:
    yield b"", b"", value


def _hash(client: Any, name: bytes, fields: dict[bytes, bytes]) -> _Parts:
    for field, value in fields.items():
        yield b"", field, value


def _sorted(client: Any, name: bytes, members: list[tuple[bytes, float]]) -> _Parts:
    for member, score in members:
        yield b"", member, repr(float(score)).encode()


def _stream(client: Any, name: bytes, info: dict[str, bytes]) -> _Parts:
    start = b"-"
    while some := client.xrange(name, start, "+", _AT_ONCE):
        for entry, fields in some:
            for field, value in fields.items():
                yield entry, field, value
        start = b"(" + some[-1][0]
    yield info["last-generated-id"], b"", b""


def _write_string(name: bytes, items: Iterable[Item]) -> Iterator[_Command]:
    for item in items:
        fence = name.endswith(_FENCES)
        yield "SET", name, int(item.value) + AHEAD if fence else item.value


def _write_hash(name: bytes, items: Iterable[Item]) -> Iterator[_Command]:
    for some in _batches(items, _AT_ONCE):
        yield "HSET", name, *(word for item in some for word in (item.field, item.value))


def _write_sorted(name: bytes, items: Iterable[Item]) -> Iterator[_Command]:
    for some in _batches(items, _AT_ONCE):
        yield "ZADD", name, *(word for item in some for word in (item.value, item.field))


def _write_stream(name: bytes, items: Iterable[Item]) -> Iterator[_Command]:
    empty = True
    for (entry, last), some in groupby(items, key=lambda item: (item.entry, not item.field)):
        if not last:
            yield "XADD", name, entry, *(w for item in some for w in (item.field, item.value))
            empty = False
            continue
        if empty:
            yield "XADD", name, entry, "", ""
            yield "XDEL", name, entry
        yield "XSETID", name, entry


class _Kind(NamedTuple):
    """How a kind of key is asked for, what its answer holds, and how that is written."""

    ask: Callable[[Any, bytes], Any]
    parts: Callable[[Any, bytes, Any], _Parts]
    commands: Callable[[bytes, Iterable[Item]], Iterator[_Command]]


_KINDS = {
    "string": _Kind(lambda pipe, name: pipe.get(name), _string, _write_string),
    "hash": _Kind(lambda pipe, name: pipe.hgetall(name), _hash, _write_hash),
    "zset": _Kind(
        lambda pipe, name: pipe.zrange(name, 0, -1, withscores=True), _sorted, _write_sorted
    ),
    "stream": _Kind(lambda pipe, name: pipe.xinfo_stream(name), _stream, _write_stream),
}

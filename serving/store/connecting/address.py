"""What an address of Redis says. Reaches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit, urlunsplit

from redis.connection import SSLConnection, parse_url

Place = tuple[str, int]  # host and port

DEFAULT_PORTS = {"cluster": 6379, "sentinel": 26379}
UNKNOWN = (
    "redis://, rediss://, unix://, redis+cluster:// and redis+sentinel:// are known, got {}://"
)


@dataclass(frozen=True, slots=True)
class Address:
    """One server, a cluster, or the master of a service that Sentinels watch.

    `seeds` are the nodes, or the Sentinels, that are named; there are others. `options` are
    redis-py's of each connection to a server (for one server, host and port or path among them),
    `sentinel_options` those of one to a Sentinel.
    """

    kind: Literal["server", "cluster", "sentinel"]
    options: dict[str, Any]
    tls: bool
    seeds: tuple[Place, ...] = ()
    service: str = ""
    sentinel_options: dict[str, Any] | None = None

    @classmethod
    def of(cls, url: str) -> Address:
        """From `redis://HOST:PORT/DB` (or `unix://PATH`), `redis+cluster://HOST:PORT,HOST:PORT` or
        `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB`; with `rediss` for `redis`, over TLS.

        Raises
        ------
        ValueError
            If it is none of these.
        """
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if not kind:
            if scheme not in ("redis", "rediss", "unix"):
                raise ValueError(UNKNOWN.format(parts.scheme))
            database = parts.path.strip("/")
            if scheme in ("redis", "rediss") and database and not database.isdecimal():
                # The library passes over it, and would take database 0.
                raise ValueError(f"a database is a number, got {database!r}")
            return cls("server", *_options(url))
        if scheme not in ("redis", "rediss") or kind not in DEFAULT_PORTS:
            raise ValueError(UNKNOWN.format(parts.scheme))
        user, at, hosts = parts.netloc.rpartition("@")
        seeds = tuple(_seed(host, DEFAULT_PORTS[kind]) for host in hosts.split(","))
        service, _, database = parts.path.strip("/").partition("/")
        if kind == "cluster" and service:
            raise ValueError(f"a cluster has no databases, got {parts.path!r}")
        if kind == "sentinel" and not service:
            raise ValueError("a Sentinel's address ends with the service: /SERVICE or /SERVICE/DB")
        if database and not database.isdecimal():
            raise ValueError(f"a database is a number, got {database!r}")
        query, own = _sentinel_options(parts.query)
        plain = SplitResult(scheme, f"{user}{at}host", f"/{database}", query, "")
        options, tls = _options(urlunsplit(plain))
        options.pop("host")
        if kind == "cluster":
            return cls("cluster", options, tls, seeds)
        safe = {name: value for name, value in options.items() if name.startswith("ssl_")}
        return cls("sentinel", options, tls, seeds, service, {**safe, **own})


def _options(url: str) -> tuple[dict[str, Any], bool]:
    """redis-py's reading of an address, and whether it is with TLS."""
    options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    kind = options.pop("connection_class", None)
    return options, kind is SSLConnection


def _seed(host: str, default_port: int) -> Place:
    one = urlsplit(f"//{host.strip()}")
    if not one.hostname:
        raise ValueError("hosts are separated by commas, and one is missing")
    return one.hostname, one.port or default_port


def _sentinel_options(query: str) -> tuple[str, dict[str, Any]]:
    """A query without what is for Sentinels, and that."""
    given = parse_qs(query)
    own = {name: given.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    return urlencode(given, doseq=True), {name: words[0] for name, words in own.items() if words}

"""Whether a service can stand on the Redis at an address, and why not."""

from __future__ import annotations

import socket
from typing import Any

import redis
from redis import exceptions

from serving.store.connecting import clients
from serving.store.connecting.address import Address

_MODES = {
    "standalone": "one server: write redis://HOST:PORT",
    "cluster": "a node of a cluster: write redis+cluster://HOST:PORT",
    "sentinel": "a Sentinel: write redis+sentinel://HOST:PORT/SERVICE",
}
ONE_TRY: dict[str, Any] = {"retry": None, "socket_timeout": 1.0, "socket_connect_timeout": 1.0}


def answers(url: str) -> bool:
    """Whether a server answers at this address now; no second try."""
    client = redis.Redis.from_url(url, **ONE_TRY)
    try:
        return bool(client.ping())
    except (exceptions.RedisError, OSError):
        return False
    finally:
        client.close()


def refusal(url: str, *, evicting: bool = False) -> str | None:
    """Why a service can't stand on the Redis at this address, in one line; None where it can. One
    that is `evicting` keys may be let pass."""
    to = Address.of(url)
    if to.kind == "server":
        return _refusal_of(redis.Redis.from_url(url, **ONE_TRY), "standalone", evicting)
    try:
        places = clients.masters(to)
    except exceptions.ConnectionError as error:
        named = ", ".join(f"{host}:{port}" for host, port in to.seeds)
        return f"no {to.kind} answers on {named}: {error}"
    mode = "cluster" if to.kind == "cluster" else "standalone"
    for place in places:
        reason = _refusal_of(clients.one(*place, to.tls, to.options), mode, evicting)
        if reason is not None:
            return reason
    return None


def _refusal_of(client: redis.Redis, mode: str, evicting: bool) -> str | None:
    """Why one server won't do."""
    try:
        client.ping()
        evicts = client.info("memory").get("maxmemory_policy", "noeviction")
        told = client.info("server")
        found = told.get("server_mode") or told.get("redis_mode", mode)  # Valkey's, or Redis's
    except exceptions.RedisError as error:
        return _reason(client, error)
    except (OSError, UnicodeError) as error:
        return f"no Redis answers on {_place(client)}: {error}"
    finally:
        client.close()
    if found != mode:
        return f"{_place(client)} is {_MODES[found]}"
    if evicts != "noeviction" and not evicting:
        return (
            f"Redis on {_place(client)} evicts keys (maxmemory-policy {evicts}), and would lose "
            "decisions: set it to noeviction"
        )
    return None


def require_usable(url: str) -> None:
    """Say at the start, in one line, what waiting doesn't mend.

    Raises
    ------
    OSError
        If a service can't stand on the Redis at this address.
    ValueError
        If it is no address.
    """
    try:
        reason = refusal(url)
    except ValueError as error:
        raise ValueError(f"POINTSMAN_REDIS_URL: {error}") from error
    if reason is not None:
        raise OSError(f"POINTSMAN_REDIS_URL: {reason}")


def _place(client: redis.Redis) -> str:
    """Host and port, or the socket's path: never a password."""
    to = client.connection_pool.connection_kwargs
    return str(to.get("path") or f"{to.get('host', 'localhost')}:{to.get('port', 6379)}")


def _reason(client: redis.Redis, error: exceptions.RedisError) -> str:
    """What an error on the way in comes from, as far as it can be told."""
    to, where, said = client.connection_pool.connection_kwargs, _place(client), str(error)
    cause = error.__cause__ or error.__context__
    if isinstance(error, exceptions.AuthenticationError):
        if to.get("password"):
            reason = f"Redis on {where} refuses the password, or the user, that is given"
        else:
            reason = f"Redis on {where} wants a password, and none is given"
    elif isinstance(error, exceptions.NoPermissionError):
        reason = f"Redis on {where} doesn't let this user do what a service needs: {said}"
    elif "DB index" in said:
        reason = f"Redis on {where} has no database {to.get('db')}"
    elif isinstance(cause, socket.gaierror):
        reason = f"the host {to.get('host')!r} isn't known: {cause.strerror}"
    elif issubclass(client.connection_pool.connection_class, redis.SSLConnection):
        reason = f"no TLS with Redis on {where}: {said} (rediss:// is with TLS, redis:// without)"
    else:
        reason = f"no Redis answers on {where}: {said}"
    return reason

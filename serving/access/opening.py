"""Whether a service may listen on an address, and what it says of who may come in."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

from serving.access.keys import Key

OWN_NAME = re.compile(rb"(([0-9.]+|\[[^]]*\]|localhost)(:[0-9]+)?)?", re.IGNORECASE)


class NotClosed(RuntimeError):
    """Anybody could come in who reaches the address, and nobody has said that they may."""


class ForeignPage(PermissionError):
    """A browser sends this for a page of somebody else, and there are no keys to tell."""


def foreign(headers: Iterable[tuple[bytes, bytes]], *, any_name: bool) -> str | None:
    """Why a request may be another site's, that a browser here was made to send; else None.

    Its origin is another one than the service, or (unless `any_name` will do) it came by a name
    that isn't `localhost`: the other site's own, made to point here (DNS rebinding). Addresses are
    no names.

    >>> same = (b"host", b"localhost:8080"), (b"origin", b"http://localhost:8080")
    >>> foreign(same, any_name=False)
    >>> foreign([same[0], (b"origin", b"https://example.org")], any_name=False)
    'a page of https://example.org'
    >>> foreign([(b"host", b"example.org:8080")], any_name=False)
    'the name example.org:8080'
    """
    host = origin = b""
    for name, value in headers:
        if name == b"host":
            host = value
        elif name == b"origin":
            origin = value
    if origin and origin.partition(b"://")[2] != host:
        return f"a page of {origin.decode('latin-1')[:100]}"
    if any_name or OWN_NAME.fullmatch(host):
        return None
    return f"the name {host.decode('latin-1')[:100]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")]
    [True, True, True, False, False]
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_certificate(certfile: Path, keyfile: Path | None) -> None:
    """Raise OSError where TLS can't be served with these files, in one line."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except OSError as error:  # ssl.SSLError is one
        files = f"{certfile}" if keyfile is None else f"{certfile} and {keyfile}"
        raise OSError(f"can't serve TLS with {files}: {error}") from error


def who_may_come_in(
    keys: Sequence[Key], host: str, port: int, *, anybody: bool, now_ms: int
) -> str:
    """One line for the log.

    Raises
    ------
    NotClosed
        If there are no keys, the address isn't loopback's, and not `anybody` may come in.
    """
    if keys:
        valid = sum(key.invalid(now_ms) is None for key in keys)
        return f"every request needs a key: {valid} of {len(keys)} are valid"
    make = "`pointsman keys create` makes the first"
    if is_loopback(host):
        return f"no keys: whoever is on this machine may do everything ({make})"
    if anybody:
        return f"no keys, and --open: whoever reaches {host}:{port} may do everything ({make})"
    raise NotClosed(
        f"on {host}:{port} without a key anybody may do everything: {make}; --open allows it"
    )

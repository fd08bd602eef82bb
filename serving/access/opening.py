"""Whether a service may listen on an address, and what it says of who may come in."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from serving.access.keys import Key


class NotClosed(RuntimeError):
    """Anybody could come in who reaches the address, and nobody has said that they may."""


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

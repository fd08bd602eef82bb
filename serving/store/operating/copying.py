"""All that a server holds, as it is at one moment: what it sends to a new replica.

The server goes on serving meanwhile; a child of its own writes what is sent, with all that was
written before and nothing that was written since.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.store.waiting import reachable

_CHUNK = 1 << 20
_TIMEOUT_S = 120.0  # between two things that it says; it says something each second
_MARK = 40  # bytes, after which a server that doesn't know the length ends


def copy(client: Any, path: Path) -> None:
    """Write a snapshot (an RDB file) of the server that `client` talks to.

    Raises
    ------
    StoreUnavailable
        If the connection is lost, or the server lets this user have none.
    OSError
        If it can't be written.
    """
    with reachable():
        connection = client.connection_pool.get_connection()
    try:
        with path.open("wb") as file:
            for chunk in _sent(connection):
                file.write(chunk)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        connection.disconnect()  # else it would send on what is written now


def _sent(connection: Any) -> Iterator[bytes]:
    with reachable():
        connection.send_command("REPLCONF", "capa", "eof")
        connection.read_response()
        connection.send_command("SYNC")
        connection._sock.settimeout(_TIMEOUT_S)
        yield from _snapshot(connection._sock)


def _snapshot(sock: Any) -> Iterator[bytes]:
    head, data = _head(sock)
    if head.startswith(b"$EOF:"):
        mark = head.removeprefix(b"$EOF:")
        while not data.endswith(mark):
            yield data[:-_MARK]
            data = data[-_MARK:] + _some(sock)
        yield data[:-_MARK]
        return
    if not head.startswith(b"$"):
        raise ConnectionError(f"it gives no snapshot: {head.decode(errors='replace')}")
    left = int(head[1:])
    while left:
        data = data or _some(sock)
        left -= len(data)
        yield data
        data = b""


def _head(sock: Any) -> tuple[bytes, bytes]:
    """The line that says how much follows, and the beginning of that."""
    data = b""
    while b"\r\n" not in data:
        data = (data + _some(sock)).lstrip(b"\n")  # a sign of life, until the snapshot begins
    head, _, rest = data.partition(b"\r\n")
    return head, rest


def _some(sock: Any) -> bytes:
    data: bytes = sock.recv(_CHUNK)
    if not data:
        raise ConnectionError("the server has closed the connection")
    return data

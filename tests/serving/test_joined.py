"""Head and body of a response go out together, and nothing else changes on the wire."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest


@pytest.fixture
def wire(http: httpx.Client) -> Iterator[socket.socket]:
    address = (http.base_url.host, http.base_url.port)
    with socket.create_connection(address, timeout=5.0) as connected:
        yield connected


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def test_a_response_arrives_in_one_piece(wire: socket.socket):
    """Each of a hundred on a connection: a second write would come later now and then."""
    for _ in range(100):
        wire.sendall(get("/healthz"))
        head, _, body = wire.recv(65_536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
        assert body


def test_requests_that_come_together_are_answered_in_order(wire: socket.socket):
    """Pipelined, the last of them asking for the end: all answers, then the connection closes."""
    wire.sendall(get("/healthz") + get("/nowhere") + get("/healthz", "Connection: close\r\n"))
    answer = b"".join(iter(lambda: wire.recv(65_536), b""))
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200"]


def test_a_large_answer_is_whole(http: httpx.Client):
    """More than a socket takes at once."""
    page = http.get("/docs/swagger-ui-bundle.js")
    assert page.status_code == 200
    assert len(page.content) == int(page.headers["content-length"]) > 500_000

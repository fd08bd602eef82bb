"""HEAD works where GET does."""

from __future__ import annotations

import socket

import httpx
import pytest

PATHS = ("/healthz", "/readyz", "/arms", "/policies", "/policies/default", "/openapi.json", "/docs")


@pytest.mark.parametrize("path", [*PATHS, "/policies/nowhere", "/nowhere"])
def test_head_answers_as_get_does_without_a_body(http: httpx.Client, path: str):
    """Status, type and length are those of a GET, also where that is a problem."""
    got, headed = http.get(path), http.head(path)
    assert headed.status_code == got.status_code
    for name in ("content-type", "content-length"):
        assert headed.headers[name] == got.headers[name]
    assert headed.content == b""


def test_nothing_follows_the_head_on_the_wire(http: httpx.Client):
    """A client that keeps the connection would read a body as the next answer."""
    address = (http.base_url.host, http.base_url.port)
    with socket.create_connection(address, timeout=5.0) as wire:
        wire.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/route", "/reward", "/route/batch"])
def test_head_of_what_is_only_posted_is_refused(http: httpx.Client, path: str):
    """As a GET is."""
    assert http.get(path).status_code == http.head(path).status_code == 405

"""What comes in over a connection: whatever a client sends, it is answered, in order, as a problem
where it is none of ours."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from serving.observing import metrics
from tests.servers import http_service, settings_for

BODY = json.dumps({"query": {"text": "hello"}}).encode()
UPGRADE = "connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk"


@pytest.fixture(scope="module")
def service(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with http_service(settings_for(module_url, tmp_path_factory.mktemp("s"))) as http:
        yield http


@pytest.fixture
def wire(service: httpx.Client) -> Iterator[socket.socket]:
    address = (service.base_url.host, service.base_url.port)
    with socket.create_connection(address, timeout=10.0) as connected:
        yield connected


def post(body: bytes, *more: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = ("POST /route HTTP/1.1", "host: localhost", f"content-length: {size}", *more)
    return "\r\n".join((*lines, "", "")).encode() + body


def statuses(wire: socket.socket, sent: bytes, n: int) -> list[str]:
    """Of the answers to `n` requests, as they come."""
    wire.sendall(sent)
    answers = b""
    while answers.count(b"HTTP/1.1 ") < n and (part := wire.recv(262_144)):
        answers += part
    return [part[:3].decode() for part in answers.split(b"HTTP/1.1 ")[1:]]


def to_the_end(wire: socket.socket, sent: bytes) -> bytes:
    wire.sendall(sent)
    return b"".join(iter(lambda: wire.recv(65_536), b""))


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Those of the follower aside: other tests empty the store that this service follows."""
    said = (record for record in caplog.records if record.levelno >= logging.WARNING)
    return [record for record in said if not record.name.startswith("serving.learning.")]


@pytest.mark.parametrize("pieces", [1, 2, 50], ids=["at once", "in halves", "in pieces"])
def test_an_offer_to_upgrade_is_not_taken(
    wire: socket.socket, caplog: pytest.LogCaptureFixture, pieces: int
):
    """The request is answered as any, with its body, however it comes; nothing is logged of it,
    and the connection goes on, pipelined requests included."""
    sent = post(BODY, *UPGRADE)
    size = -(-len(sent) // pieces)
    for at in range(0, len(sent), size):
        wire.sendall(sent[at : at + size])
        time.sleep(0.002 * (pieces > 1))
    assert statuses(wire, b"", 1) == ["200"]
    assert statuses(wire, sent * 40 + post(BODY), 41) == ["200"] * 41
    chunked = post(BODY, *UPGRADE).replace(
        b"content-length: %d" % len(BODY), b"transfer-encoding: chunked"
    )
    chunked = chunked.replace(BODY, b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
    assert statuses(wire, chunked, 1) == ["200"]
    without_body = "\r\n".join(("GET /healthz HTTP/1.1", "host: localhost", *UPGRADE, "", ""))
    assert statuses(wire, without_body.encode() * 2, 2) == ["200"] * 2
    assert not warnings(caplog)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n",
        b"GET http://localhost HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST /route HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1x\r\n\r\n",
        b"POST /route HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /route HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ],
    ids=["tls", "garbage", "http/2", "connect", "no path", "length", "two lengths", "chunk"],
)
def test_what_is_no_http_is_a_problem(
    wire: socket.socket, sent: bytes, caplog: pytest.LogCaptureFixture
):
    """As everything that is refused is; it is counted, and logs nothing."""
    counted = metrics.problems(400, "malformed-http")._value
    before = counted.get()
    head, _, body = to_the_end(wire, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in head
    assert json.loads(body)["type"] == "/problems/malformed-http"
    assert counted.get() == before + 1
    assert not warnings(caplog)


def test_what_came_before_is_answered_first(wire: socket.socket):
    """Then the connection is closed: nobody takes a problem for the answer to another request."""
    answers = to_the_end(wire, post(BODY) * 3 + b"nonsense\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.count(b"HTTP/1.1 ") == 3


@pytest.mark.parametrize("where", ["/route", "x: "], ids=["a path", "a header"])
def test_a_head_that_comes_at_once_has_its_bound_too(wire: socket.socket, where: str):
    """As one has that comes in pieces; just below it a request is answered."""
    sent = post(BODY, "x: y")
    filled = where.encode() + b"?" * (where == "/route")
    assert statuses(wire, sent.replace(where.encode(), filled + b"y" * 65_000), 1) == ["200"]
    too_much = sent.replace(where.encode(), filled + b"y" * 66_000)
    assert to_the_end(wire, too_much).startswith(b"HTTP/1.1 431 ")


def test_many_small_requests_at_once_are_no_large_head(
    wire: socket.socket, caplog: pytest.LogCaptureFixture
):
    """All are answered."""
    small = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: %s\r\n\r\n" % (b"y" * 400)
    assert statuses(wire, small * 600, 600) == ["200"] * 600
    assert not warnings(caplog)


def test_a_body_that_says_it_is_too_large_is_refused_at_its_head(wire: socket.socket):
    """At once: the client needn't send it to hear so."""
    start = time.monotonic()
    assert statuses(wire, post(b"{}", length=99_999_999), 1) == ["413"]
    assert time.monotonic() - start < 5.0

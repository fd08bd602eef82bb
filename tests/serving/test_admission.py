"""What goes beyond what a process may have under way is refused at once, and who dawdles is cut."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from serving.access.admission import LARGEST_PART, UPLOADS, WEIGHT_BYTES, Admission
from serving.observing import metrics
from serving.settings import Settings
from tests.servers import http_service, settings_for, until
from tests.serving.test_deadlines import frozen
from tests.serving.test_direct import Server, free_port

PLACES = 2
QUERY = {"query": {"text": "hello"}}
BODY = json.dumps(QUERY).encode()


def head(path: str, length: int, *more: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {length}", *more)
    return "\r\n".join((*lines, "", "")).encode()


@contextmanager
def connected(http: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", http.base_url.port), timeout=20.0) as link:
        yield link


def all_of(link: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    try:
        while part := link.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def one_answer(link: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found:
        found += link.recv(65_536)
    before, _, body = found.partition(b"\r\n\r\n")
    length = int(before.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    while len(body) < length:
        body += link.recv(65_536)
    return before


def test_places_by_hand():
    """A large body counts as several requests, but leaves room for others, and the heaviest is as
    welcome as any; what comes in takes no place."""
    admission = Admission(8)
    light, heavy = admission.request(100), admission.request(100 * WEIGHT_BYTES)
    assert light is not None
    assert heavy is not None
    assert (light.weight, heavy.weight) == (1, 1 + 8 // LARGEST_PART)
    assert admission.under_way == 4
    rest = [admission.request(0) for _ in range(4)]
    assert all(rest)
    assert admission.request(0) is None
    heavy.leave()
    last = admission.request(100 * WEIGHT_BYTES)
    assert last is not None
    assert admission.under_way == 8
    for place in (*rest, light, last):
        assert place is not None
        place.leave()
    uploads = [admission.upload() for _ in range(UPLOADS)]
    assert all(uploads)
    assert admission.upload() is None
    assert admission.under_way == 0
    assert uploads[0] is not None
    uploads[0].received(3 * WEIGHT_BYTES)
    assert (admission.under_way, admission.uploads) == (3, UPLOADS - 1)
    for place in uploads:
        assert place is not None
        place.leave()
    assert (admission.under_way, admission.uploads) == (0, 0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(free_port(), tmp_path / "s")
    made.start()
    yield made
    made.stop()


def test_what_goes_beyond_is_refused_at_once(server: Server, tmp_path: Path):
    """With when to come back, while those under way go on; probes always get in, and a refused
    client's connection stays usable."""
    settings = settings_for(server.urls[0], tmp_path, max_inflight=2)
    with http_service(settings) as http, ThreadPoolExecutor(2) as pool, ExitStack() as ice:
        http.post("/route", json=QUERY).raise_for_status()
        ice.enter_context(frozen(server))
        waiting = [pool.submit(http.post, "/route", json=QUERY, timeout=30.0) for _ in range(2)]
        until(lambda: http.get("/policies").status_code == 429, "both are under way")
        start = time.monotonic()
        for _ in range(20):
            refused = http.post("/route", json=QUERY)
            assert refused.status_code == 429
        assert time.monotonic() - start < 2.0
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["type"] == "/problems/overloaded"
        assert http.head("/policies").status_code == 429
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code in (200, 503)
        ice.close()
        assert [one.result().status_code for one in waiting] == [200, 200]
        until(lambda: http.post("/route", json=QUERY).status_code == 200, "there is room again")
        counted = http.get("/metrics").text
        assert 'pointsman_problems_total{status="429",type="overloaded"}' in counted


def with_few_places(url: str, folder: Path, request_timeout_s: float) -> Iterator[httpx.Client]:
    settings = settings_for(url, folder, max_inflight=PLACES, request_timeout_s=request_timeout_s)
    with http_service(settings) as http:
        yield http


@pytest.fixture(scope="module")
def impatient(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with room for two requests, which must come in within a second."""
    yield from with_few_places(module_url, tmp_path_factory.mktemp("impatient"), 1.0)


@pytest.fixture(scope="module")
def patient(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with room for two requests, which have their time."""
    yield from with_few_places(module_url, tmp_path_factory.mktemp("patient"), 30.0)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"POST /rou", b"408"),
        (head("/route", 100), b"408"),
        (head("/route", 100) + b'{"query"', b"408"),
        (head("/route", 200_000) + b" " * 100_000, b"408"),
        (
            b"POST /route HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
            b"408",
        ),
    ],
    ids=["nothing", "a line", "half a head", "a head", "half a body", "a large half", "a chunk"],
)
def test_who_dawdles_is_cut_and_keeps_nobody_out(impatient: httpx.Client, sent: bytes, told: bytes):
    """There is room for others all the while."""
    with ExitStack() as stack:
        links = [stack.enter_context(connected(impatient)) for _ in range(PLACES + 1)]
        for link in links:
            link.sendall(sent)
        assert impatient.post("/route", json=QUERY).status_code == 200
        for link in links:
            answer = all_of(link)
            assert answer[9:12] == told
            assert (b"/problems/incomplete" in answer) == bool(told)
    assert impatient.post("/route", json=QUERY).status_code == 200


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /policies HTTP/1.1\r\nx: ",
        b"GET /",
        b"POST /route HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx: ",
    ],
    ids=["a header", "a path", "a trailer"],
)
def test_what_has_no_end_is_cut(impatient: httpx.Client, begun: bytes):
    """Whatever isn't body would be kept, and grow."""
    with connected(impatient) as link:
        link.sendall(begun)
        try:
            for _ in range(200):
                link.sendall(b"x" * 10_000)
        except OSError:
            return
        assert all_of(link)[9:12] in (b"431", b"400", b"")  # what came after may have reset it


def test_who_dawdles_after_an_answer_is_cut_too(impatient: httpx.Client):
    """The second request of a connection has the same time as the first."""
    with connected(impatient) as link:
        link.sendall(head("/route", len(BODY)) + BODY)
        assert b"200 OK" in one_answer(link)
        link.sendall(b"POST /rou")
        assert b" 408 " in all_of(link)


def test_whoever_does_not_read_is_cut(impatient: httpx.Client):
    """Answers that nobody takes aren't kept for ever, nor is the place of the one under way."""
    asked = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with connected(impatient) as link:
        link.settimeout(0.01)
        until(lambda: not _sent(link, asked), "it is cut", 30.0)
        until(lambda: impatient.post("/route", json=QUERY).status_code == 200, "there is room")


def _sent(link: socket.socket, request: bytes) -> bool:
    """Whether the other side is still there."""
    try:
        link.send(request * 10)
    except TimeoutError:  # it reads no more, for it can't write
        return True
    except OSError:
        return False
    return True


def test_large_bodies_come_in_pieces(patient: httpx.Client):
    """Slow enough to be under way for long, fast enough to be let in; pipelined requests wait."""
    body = json.dumps({"query": {"text": "x" * 300_000}}).encode()
    with connected(patient) as link:
        link.sendall(head("/route", len(body)))
        for at in range(0, len(body), 100_000):
            link.sendall(body[at : at + 100_000])
            time.sleep(0.02)
        assert b"200 OK" in one_answer(link)
        link.sendall(head("/route", len(body), "expect: 100-continue"))
        assert link.recv(100).startswith(b"HTTP/1.1 100 Continue")
        link.sendall(body)
        assert b"200 OK" in one_answer(link)
        link.sendall((head("/route", len(BODY)) + BODY) * 3)
        assert b"200 OK" in one_answer(link)


def test_a_body_does_not_count_as_the_next_requests_head(patient: httpx.Client):
    """Though its end comes in one piece with that, as where it was refused before it was read."""
    large = head("/reward", 1_200_000) + b"x" * 1_200_000
    with connected(patient) as link:
        sending = threading.Thread(target=link.sendall, args=((large + small()) * 5,))
        sending.start()
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 10 and (part := link.recv(65_536)):
            answers += part
        sending.join()
    assert answers.count(b"HTTP/1.1 413 ") == 5
    assert answers.count(b"HTTP/1.1 200 OK") == 5


def small() -> bytes:
    return head("/route", len(BODY)) + BODY


def test_only_so_many_large_bodies_come_in_at_once(patient: httpx.Client):
    """Others are refused before they are read, and small ones get in."""
    large = head("/route", 500_000) + b" " * 100_000
    with ExitStack() as links:
        for _ in range(UPLOADS):
            links.enter_context(connected(patient)).sendall(large)
        until(lambda: _refused(patient, large), "a large one is refused")
        assert patient.post("/route", json=QUERY).status_code == 200


def _refused(http: httpx.Client, request: bytes) -> bool:
    with connected(http) as link:
        link.sendall(request)
        return b" 429 " in one_answer(link)


def test_only_so_many_connections_are_held(settings: Settings):
    """One more is told so, and closed, where all others have sent a request; when one goes there
    is room."""
    with few_connections(settings) as http, ExitStack() as links:
        held = [links.enter_context(connected(http)) for _ in range(2)]
        for link in held:
            link.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"200 OK" in one_answer(link)
        refused = _told(http)
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"3 connections are held, as many as may be" in refused
        assert b"\r\nretry-after: 1\r\n" in refused
        held[0].close()
        until(lambda: _told(http).startswith(b"HTTP/1.1 200 "), "there is room")


def test_who_says_nothing_gives_way(settings: Settings):
    """Connections that have sent no whole request keep no probe out: the oldest of them is
    closed."""
    with few_connections(settings) as http, ExitStack() as links:
        silent = [links.enter_context(connected(http)) for _ in range(2)]
        silent[1].sendall(b"POST /rou")
        for _ in range(3):
            assert _told(http).startswith(b"HTTP/1.1 200 ")
        assert b"3 connections are held" in all_of(silent[0])


@contextmanager
def few_connections(settings: Settings) -> Iterator[httpx.Client]:
    """A service that holds three, of which this client's is one."""
    with http_service(settings.model_copy(update={"max_connections": 3})) as http:
        assert http.get("/healthz").status_code == 200
        yield http


def _told(http: httpx.Client) -> bytes:
    with connected(http) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        return all_of(link)


def incomplete() -> float:
    """How often a body didn't come: services of this process count together."""
    return metrics.problems(400, "incomplete")._value.get()


def test_a_client_that_hangs_up_is_no_fault_of_ours(
    patient: httpx.Client, caplog: pytest.LogCaptureFixture
):
    """Nothing is logged as an error where a body never came."""
    before = incomplete()
    for path in ("/route", "/route/batch"):
        with connected(patient) as link:
            link.sendall(head(path, 200_000) + b" " * 100_000)
    until(lambda: incomplete() == before + 2, "both are noticed")
    elsewhere = "serving.learning.follower"  # other tests empty the store that this service follows
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert not [record for record in errors if record.name != elsewhere]

"""Whatever goes wrong between a caller and the service is a PointsmanError."""

from __future__ import annotations

import pickle
import socket
from typing import Any

import httpx
import pytest

from pointsman_client import (
    Client,
    PointsmanError,
)
from tests.pointsman_client.scripted import DROP, NOT_FOUND, Service


def test_a_problem_is_an_error_with_its_parts(service: Service, client: Client):
    """problem+json becomes an exception that carries status, title, detail and all the rest."""
    service.replies = [(404, {**NOT_FOUND, "hint": "expired?"})]
    with pytest.raises(PointsmanError, match="404 Unknown decision: no decision 'x'") as caught:
        client.reward("x", quality=1.0)
    assert (caught.value.status, caught.value.title) == (404, "Unknown decision")
    assert caught.value.problem["hint"] == "expired?"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((502, b"<html>\n Bad gateway</html>"), "502 Bad Gateway: <html> Bad gateway"),
        ((500, b"[]"), r"500 Internal Server Error: \[\]"),
        ((200, b"<html>Welcome</html>"), "200 Not a Pointsman answer"),
        ((200, {"arm": "small"}), "200 Not a Pointsman answer"),
        ((200, b'"status"'), "200 Not a Pointsman answer"),
        ((200, b"\xff\xfe{"), "200 Not a Pointsman answer"),
        ((200, b"[" * 100_000), "200 Not a Pointsman answer"),
        ((500, {"status": "failed"}), "500 Internal Server Error: "),
        ((200, b"no gzip", ("content-encoding", "gzip")), "No answer: .* DecodingError"),
        (
            (308, b"", ("location", "https://elsewhere/route")),
            "308 Permanent Redirect: .* redirects to https://elsewhere/route: give the client",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_answer_from_something_else_is_an_error(
    service: Service, client: Client, reply: Any, message: str
):
    """A proxy's page or a stranger's JSON never passes for a decision."""
    service.replies = [reply]
    with pytest.raises(PointsmanError, match=message) as caught:
        client.route("x")
    assert "\n" not in str(caught.value)


def test_a_lost_connection_is_tried_again_with_the_same_id(service: Service, client: Client):
    """Two attempts fail, the third is answered: one decision, for all three carried one id."""
    service.replies = [DROP, DROP]
    decision = client.route("x")
    assert [body["decision_id"] for body in service.bodies("/route")] == [decision.decision_id] * 3


def test_attempts_end(service: Service, client: Client):
    """After the last attempt the error says what was tried, and has no status."""
    service.replies = [DROP, DROP, DROP]
    with pytest.raises(PointsmanError, match=r"No answer: POST http://.*/route") as caught:
        client.route("x")
    assert caught.value.status is None
    assert len(service.requests) == 3


def test_a_refusal_is_not_tried_again(service: Service, client: Client):
    """The service has spoken: an error status is final."""
    service.replies = [(503, {**NOT_FOUND, "status": 503})]
    with pytest.raises(PointsmanError, match="503"):
        client.route("x")
    assert len(service.requests) == 1


def test_nobody_listens():
    """A service that isn't there is told as such."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(url, retries=0) as client, pytest.raises(PointsmanError, match="ConnectError"):
            client.arms()


def test_a_slow_service_costs_one_timeout():
    """The caller said how long to wait; it isn't made to wait again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(url, timeout_s=0.05) as client,
            pytest.raises(PointsmanError, match="ReadTimeout"),
        ):
            client.arms()


@pytest.mark.parametrize(
    "results", [["status"], [{"status": "x"}], [1], [], {}, [NOT_FOUND, NOT_FOUND]], ids=str
)
def test_results_that_are_none_are_an_error(service: Service, client: Client, results: Any):
    """Of another number than was asked for, or of another kind: no result stands for another."""
    service.replies = [(200, {"results": results})]
    with pytest.raises(PointsmanError, match="200 Not a Pointsman answer"):
        client.route_batch([{"text": "x"}])


def test_redirects_without_an_end(service: Service):
    """A client of one's own may follow redirects, and then it can be sent in circles."""
    there_and_back = (307, b"", ("location", "/route"))
    service.replies = [there_and_back] * 4
    own = httpx.Client(base_url=service.url, follow_redirects=True, max_redirects=2)
    with Client(http=own) as client, pytest.raises(PointsmanError, match="TooManyRedirects"):
        client.route("x")


def test_a_client_that_is_closed(client: Client):
    """It says so as it says everything else."""
    client.close()
    with pytest.raises(PointsmanError, match=r"No answer: .*closed"):
        client.route("x")


def test_what_is_no_request(service: Service, client: Client):
    """An item that isn't a dict never leaves."""
    with pytest.raises(PointsmanError, match="Not sent: expected a dict, got str"):
        client.route_batch(["Sort a list."])  # type: ignore[list-item]
    assert service.requests == []


def test_an_error_can_be_pickled():
    """So that it comes back from a process pool as what it was."""
    error = PointsmanError(404, "Unknown decision", "no decision 'x'", NOT_FOUND)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "404 Unknown decision: no decision 'x'"
    assert (again.status, again.problem) == (404, NOT_FOUND)


@pytest.mark.parametrize("url", ["http://[::1", "http://a:port", None])
def test_no_address_is_a_problem_of_ours(url: str):
    """Said at once, when the client is made."""
    with pytest.raises(PointsmanError, match="No address"):
        Client(url)

"""The clients against a real HTTP server that answers as DESIGN's section on HTTP says."""

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import pytest

from pointsman import AsyncClient, Call, Client, Correction, Decision, PointsmanError, Receipt

DROP = "close the connection without an answer"
DECISION: dict[str, Any] = {
    "policy": "default",
    "version": "3",
    "snapshot": 42,
    "arm": "small",
    "provider": "local",
    "model": "m-7b",
    "endpoint": None,
    "propensity": 0.9,
    "confidence": None,
    "predicted": {"quality": 0.7, "latency_ms": None, "cost_usd": 0.0001},
    "alternatives": [
        {"arm": "large", "provider": "p", "model": "m-70b", "propensity": 0.1, "predicted": {}}
    ],
    "logged": True,
    "a_field_of_the_future": [1],
}
RECEIPT = {"accepted": ["quality"], "unchanged": [], "missing": ["cost_usd"], "late": False}
OVERRULED = {"corrected": ["quality"], "unchanged": ["cost_usd"]}
NOT_FOUND = {
    "type": "/problems/unknown-decision",
    "title": "Unknown decision",
    "status": 404,
    "detail": "no decision 'x'",
}


class Service:
    """Answers each request with what it asks for, or with the next scripted reply."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.replies: list[Any] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            answers: ClassVar[dict[str, Any]] = {
                "/route": lambda body: {**DECISION, "decision_id": body["decision_id"]},
                "/reward": lambda body: {**RECEIPT, "decision_id": body["decision_id"]},
                "/correction": lambda body: {**OVERRULED, "decision_id": body["decision_id"]},
                "/arms": lambda _: {"arms": [{"arm": "small", "enabled": True}]},
                "/policies": lambda _: {"policies": [{"policy": "default"}]},
            }

            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                self._reply(json.loads(self.rfile.read(size)))

            def do_GET(self) -> None:
                self._reply(None)

            def _reply(self, body: Any) -> None:
                service.requests.append((self.command, self.path, body))
                reply = service.replies.pop(0) if service.replies else None
                if reply is DROP:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, content = reply or (200, self.answers[self.path](body))
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def bodies(self, path: str) -> list[Any]:
        return [body for _, asked, body in self.requests if asked == path]

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.stop()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def fail_with(call: Call) -> None:
    """A model call that got as far as an answer, and then failed."""
    call.quality = 0.9
    raise ZeroDivisionError


def test_route_reads_the_decision(client: Client):
    """What the service said is there as attributes; fields of newer services are kept too."""
    decision = client.route("Sort a list.")
    assert (decision.arm, decision.provider, decision.model) == ("small", "local", "m-7b")
    assert (decision.version, decision.snapshot, decision.endpoint) == ("3", 42, None)
    assert (decision.propensity, decision.confidence, decision.logged) == (0.9, None, True)
    assert (decision.predicted.quality, decision.predicted.latency_ms) == (0.7, None)
    assert [other.arm for other in decision.alternatives] == ["large"]
    assert decision.model_dump()["a_field_of_the_future"] == [1]


def test_route_says_only_what_was_given(service: Service, client: Client):
    """The body holds the text, an id made by the client, and nothing that wasn't asked for."""
    decision = client.route("Sort a list.")
    [body] = service.bodies("/route")
    assert body == {"decision_id": decision.decision_id, "query": {"text": "Sort a list."}}


def test_route_puts_everything_in_its_place(service: Service, client: Client):
    """Hints, constraints and the objective go where the HTTP interface wants them."""
    client.route(
        messages=[{"role": "user", "content": "Hi"}],
        task_type="code",
        context_tokens=1200,
        output_tokens=300,
        language="en",
        capabilities=["tools"],
        labels={"app": "hrm"},
        constraints={"deny": ["large"]},
        objective={"quality": 0.9, "cost": 0.1},
        policy="second",
        decision_id="mine",
    )
    assert service.bodies("/route") == [
        {
            "policy": "second",
            "decision_id": "mine",
            "query": {"messages": [{"role": "user", "content": "Hi"}]},
            "hints": {
                "task_type": "code",
                "context_tokens": 1200,
                "output_tokens": 300,
                "language": "en",
                "capabilities": ["tools"],
                "labels": {"app": "hrm"},
            },
            "constraints": {"deny": ["large"]},
            "objective": {"quality": 0.9, "cost": 0.1},
        }
    ]


def test_the_choice_of_a_router_of_ones_own_is_told(service: Service, client: Client):
    """An arm alone, or with the probabilities that it was drawn with."""
    client.route("hi", chosen="small")
    drawn = {"arm": "small", "pmf": {"small": 0.9, "large": 0.1}}
    client.route("hi", chosen=drawn)
    assert [body["chosen"] for _, _, body in service.requests] == [{"arm": "small"}, drawn]


def test_reward_sends_the_parts_it_is_given(service: Service, client: Client):
    """Zero is a value, None is not; the receipt tells what was accepted."""
    receipt = client.reward("d1", quality=0.0, latency_ms=None, input_tokens=10, output_tokens=0)
    assert service.bodies("/reward") == [
        {"decision_id": "d1", "quality": 0.0, "input_tokens": 10, "output_tokens": 0}
    ]
    assert (receipt.accepted, receipt.missing, receipt.late) == (("quality",), ("cost_usd",), False)


def test_a_correction_says_who_and_why(service: Service, client: Client):
    """With the values that hold; the answer tells what was replaced. A lost one is asked again."""
    service.replies = [DROP]
    found = client.correct("d1", quality=0.0, cost_usd=None, by="ada", reason="wrong")
    sent = {"decision_id": "d1", "quality": 0.0, "by": "ada", "reason": "wrong"}
    assert service.bodies("/correction") == [sent, sent]
    assert (found.corrected, found.unchanged) == (("quality",), ("cost_usd",))

    service.replies = [(200, {"results": [NOT_FOUND, {**OVERRULED, "decision_id": "d1"}]})]
    first, second = client.correct_batch(
        [{"decision_id": "x", "quality": 1.0, "by": "ada", "reason": "wrong"}, {**sent}]
    )
    assert isinstance(first, PointsmanError)
    assert isinstance(second, Correction)
    assert service.bodies("/correction/batch")[0]["corrections"][1] == sent


def test_batches_keep_order_and_return_problems(service: Service, client: Client):
    """Results stand where their requests stood; a problem is returned there, not raised."""
    service.replies = [
        (200, {"results": [{**DECISION, "decision_id": "a"}, {**NOT_FOUND, "status": 422}]}),
        (200, {"results": [NOT_FOUND, {**RECEIPT, "decision_id": "b"}]}),
    ]
    first, second = client.route_batch([{"text": "x", "task_type": "qa"}, {"text": "y"}])
    assert isinstance(first, Decision)
    assert isinstance(second, PointsmanError)
    assert second.status == 422
    [body] = service.bodies("/route/batch")
    assert [item["query"]["text"] for item in body["requests"]] == ["x", "y"]
    assert len({item["decision_id"] for item in body["requests"]}) == 2

    first, second = client.reward_batch(
        [{"decision_id": "a", "quality": 1.0}, {"decision_id": "b"}]
    )
    assert isinstance(first, PointsmanError)
    assert isinstance(second, Receipt)
    assert service.bodies("/reward/batch")[0]["rewards"][0] == {"decision_id": "a", "quality": 1.0}


def test_state_endpoints(service: Service, client: Client):
    """Arms, policies and a stored decision come as the service tells them."""
    assert client.arms() == [{"arm": "small", "enabled": True}]
    assert client.policies() == [{"policy": "default"}]
    service.replies = [(200, {"decision": {"arm": "small"}, "outcome": {}})]
    assert client.decision("a/b", policy="second")["decision"] == {"arm": "small"}
    assert service.requests[-1][1] == "/decisions/a%2Fb?policy=second"


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
        ((502, b"<html>Bad gateway</html>"), "502 Bad Gateway: <html>Bad gateway"),
        ((500, b"[]"), r"500 Internal Server Error: \[\]"),
        ((200, b"<html>Welcome</html>"), "200 Not a Pointsman answer"),
        ((200, {"arm": "small"}), "200 Not a Pointsman answer"),
    ],
    ids=str,
)
def test_an_answer_from_something_else_is_an_error(
    service: Service, client: Client, reply: Any, message: str
):
    """A proxy's page or a stranger's JSON never passes for a decision."""
    service.replies = [reply]
    with pytest.raises(PointsmanError, match=message):
        client.route("x")


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


def test_a_call_reports_what_happened(service: Service, client: Client):
    """Quality and tokens are reported as set, the latency as measured."""
    with client.call("x", task_type="code") as call:
        assert (call.arm, call.provider, call.model) == ("small", "local", "m-7b")
        assert call.endpoint is None
        call.quality = 0.9
        call.tokens(120, 30)
    [reward] = service.bodies("/reward")
    assert 0 <= reward.pop("latency_ms") < 60_000
    assert reward == {
        "decision_id": call.decision.decision_id,
        "policy": "default",
        "quality": 0.9,
        "input_tokens": 120,
        "output_tokens": 30,
    }
    assert call.receipt is not None
    assert call.receipt.accepted == ("quality",)


def test_a_call_that_raises_reports_its_error(service: Service, client: Client):
    """The exception's name is the error, quality stays out, and the exception goes on."""
    with pytest.raises(ZeroDivisionError), client.call("x") as call:
        fail_with(call)
    [reward] = service.bodies("/reward")
    assert reward["error"] == "ZeroDivisionError"
    assert reward.keys() == {"decision_id", "policy", "latency_ms", "error"}


def test_what_the_caller_sets_counts(service: Service, client: Client):
    """A caller that measured for itself, fell back to another arm, or saw a refusal says so."""
    with client.call("x") as call:
        call.latency_ms = 812.0
        call.cost_usd = 0.002
        call.tokens(1, 1)
        call.executed_arm = "large"
        call.error = "content_filter"
    [reward] = service.bodies("/reward")
    assert reward == {
        "decision_id": call.decision.decision_id,
        "policy": "default",
        "latency_ms": 812.0,
        "cost_usd": 0.002,
        "error": "content_filter",
        "executed_arm": "large",
    }


def test_a_call_that_was_not_made_is_withdrawn(service: Service, client: Client):
    """`executed = False` reports that, and no outcome with it."""
    with client.call("x") as call:
        call.executed = False
    [reward] = service.bodies("/reward")
    assert reward == {
        "decision_id": call.decision.decision_id,
        "policy": "default",
        "executed": False,
    }


def test_an_interrupt_says_nothing_about_the_arm(service: Service, client: Client):
    """Ctrl-C is no failure of the model, so nothing is reported."""
    with pytest.raises(KeyboardInterrupt), client.call("x"):
        raise KeyboardInterrupt
    assert service.bodies("/reward") == []


def test_an_unreachable_service_spoils_no_answer(
    service: Service, client: Client, caplog: pytest.LogCaptureFixture
):
    """Once the answer is there, a reward that can't be delivered is a warning."""
    down = {**NOT_FOUND, "status": 503, "title": "Store unavailable"}
    service.replies = [None, (503, down)]
    with caplog.at_level(logging.WARNING, "pointsman"), client.call("x") as call:
        pass
    assert call.receipt is None
    assert "not reported: 503 Store unavailable" in caplog.text


def test_a_wrong_report_is_told(service: Service, client: Client):
    """A report that the service refuses is the caller's fault, and raises."""
    service.replies = [None, (422, {**NOT_FOUND, "status": 422})]
    with pytest.raises(PointsmanError, match="422"), client.call("x") as call:
        call.quality = 1.5


def test_a_failed_report_never_hides_the_callers_exception(service: Service, client: Client):
    """Whatever the service says to the report, the caller sees what went wrong in its block."""
    service.replies = [None, (422, {**NOT_FOUND, "status": 422})]
    with pytest.raises(ZeroDivisionError), client.call("x") as call:
        fail_with(call)


def test_the_async_client_does_the_same(service: Service):
    """Every method has its awaited twin, and the bodies on the wire are the same."""

    async def use() -> None:
        async with AsyncClient(service.url) as client:
            service.replies = [DROP]
            decision = await client.route("x", task_type="code")
            assert decision.arm == "small"
            receipt = await client.reward(decision.decision_id, quality=1.0)
            assert receipt.accepted == ("quality",)
            overruled = await client.correct("d1", quality=0.2, by="ada", reason="wrong")
            assert overruled.corrected == ("quality",)
            assert await client.arms() == [{"arm": "small", "enabled": True}]
            assert await client.policies() == [{"policy": "default"}]
            service.replies = [
                (200, {"results": [NOT_FOUND]}),
                (200, {"results": [NOT_FOUND]}),
                (200, {"results": [NOT_FOUND]}),
                (200, {"decision": {}, "outcome": {}}),
            ]
            [problem] = await client.route_batch([{"text": "x"}])
            assert isinstance(problem, PointsmanError)
            [problem] = await client.reward_batch([{"decision_id": "x", "quality": 1.0}])
            assert isinstance(problem, PointsmanError)
            [problem] = await client.correct_batch(
                [{"decision_id": "x", "quality": 1.0, "by": "ada", "reason": "wrong"}]
            )
            assert isinstance(problem, PointsmanError)
            assert await client.decision("x") == {"decision": {}, "outcome": {}}

            async with client.call("x") as call:
                call.quality = 0.5
                await asyncio.sleep(0.01)
            with pytest.raises(ZeroDivisionError):
                async with client.call("x"):
                    _ = 1 / 0

    asyncio.run(use())
    first, second, *_ = service.bodies("/route")
    assert first == second
    _, worked, failed = service.bodies("/reward")
    assert worked["quality"] == 0.5
    assert worked["latency_ms"] > 9
    assert failed["error"] == "ZeroDivisionError"


def test_a_cancelled_task_says_nothing_about_the_arm(service: Service):
    """A caller that goes away cancels its task; the arm is not to blame."""

    async def use() -> None:
        async with AsyncClient(service.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), client.call("x"):
                    await asyncio.sleep(60)

    asyncio.run(use())
    assert service.bodies("/reward") == []


def test_a_timeout_inside_the_block_is_the_arms(service: Service):
    """A limit set on the model call itself is an outcome: TimeoutError."""

    async def use() -> None:
        async with AsyncClient(service.url) as client:
            with pytest.raises(TimeoutError):
                async with client.call("x"), asyncio.timeout(0.01):
                    await asyncio.sleep(60)

    asyncio.run(use())
    assert service.bodies("/reward")[0]["error"] == "TimeoutError"


def test_a_client_of_ones_own(service: Service):
    """Proxies, certificates and headers: an httpx client that is set up outside will do."""
    with Client(http=httpx.Client(base_url=service.url, headers={"x-team": "a"})) as client:
        assert client.arms() == [{"arm": "small", "enabled": True}]


def test_importing_it_is_light():
    """`import pointsman` brings httpx and pydantic, and nothing of ours or heavier."""
    code = "import sys, pointsman; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"httpx", "pydantic"} <= set(loaded)
    heavy = {"numpy", "scipy", "fastapi", "redis", "features", "policy", "serving"}
    assert heavy.isdisjoint(loaded)

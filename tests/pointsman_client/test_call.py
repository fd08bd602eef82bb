"""A model call, timed and reported; nothing of that hides what the caller's code did."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from pointsman_client import (
    Call,
    Client,
    PointsmanError,
)
from tests.pointsman_client.scripted import DROP, NOT_FOUND, Service


def fail_with(call: Call, failure: Exception | None = None, cost_usd: Any = None) -> None:
    """A model call that got as far as an answer, and then failed."""
    call.quality, call.cost_usd = 0.9, cost_usd
    raise failure or ZeroDivisionError


def test_a_call_takes_what_the_provider_sent(service: Service, client: Client):
    """Usage as it is, and the time to the first token."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    with client.call("x") as call:
        call.usage, call.ttft_ms = usage, np.float32(120)
    [reward] = service.bodies("/reward")
    assert (reward["usage"], reward["ttft_ms"]) == (usage, 120)


def test_a_slip_is_not_taken_in_silence(client: Client):
    """What was learned would never be reported."""
    with (
        pytest.raises(AttributeError, match=r"'qualty' .known: .*quality"),
        client.call("x") as call,
    ):
        call.qualty = 0.9  # type: ignore[attr-defined]


def test_a_call_reports_what_happened(service: Service, client: Client):
    """Quality and tokens are reported as set, the latency as measured."""
    with client.call("x", task_type="code") as call:
        assert (call.arm, call.provider, call.model) == ("small", "local", "m-7b")
        assert call.endpoint is None
        assert (
            call.decision_id
            == call.decision.decision_id
            == service.bodies("/route")[0]["decision_id"]
        )
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


class Refused(Exception):
    """As SDKs raise it: with the response, or its status."""

    def __init__(self, status: int, headers: Any = None) -> None:
        super().__init__(status)
        self.status_code = status
        self.response = SimpleNamespace(headers=headers or {})


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (TimeoutError(), "timeout"),
        (httpx.ReadTimeout("late"), "timeout"),
        (ConnectionResetError(), "connection"),
        (httpx.ConnectError("refused"), "connection"),
        (Refused(500), "server_error"),
        (Refused(529), "server_error"),
        (Refused(401), "auth"),
        (Refused(422), "bad_request"),
        (Refused(429), "rate_limited"),
        (Refused(404), "Refused"),
        (KeyError("status"), "KeyError"),
    ],
)
def test_what_failed_is_told_by_its_kind(
    service: Service, client: Client, failure: Exception, error: str
):
    """So the service knows whether the arm is well, whatever library the exception is of."""
    with pytest.raises(type(failure)), client.call("x") as call:
        fail_with(call, failure)
    assert service.bodies("/reward")[0]["error"] == error


@pytest.mark.parametrize(("header", "told"), [("7", 7.0), ("Wed, 21 Oct 2026", None), (None, None)])
def test_a_rate_limit_tells_how_long(
    service: Service, client: Client, header: str | None, told: float | None
):
    """In seconds; a date is passed over."""
    failure = Refused(429, {} if header is None else {"retry-after": header})
    with pytest.raises(Refused), client.call("x") as call:
        fail_with(call, failure)
    assert service.bodies("/reward")[0].get("retry_after_s") == told


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
    with caplog.at_level(logging.WARNING, "pointsman_client"), client.call("x") as call:
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


@pytest.mark.parametrize(
    ("reported", "reply", "message"),
    [
        (float("nan"), None, "Not sent: quality: expected a finite number, got nan"),
        (np.float32("inf"), None, "Not sent: quality: expected a finite number, got inf"),
        (object(), None, "Not sent: quality: expected what JSON has, got object"),
        (1.5, (422, NOT_FOUND), "422 Unknown decision"),
    ],
)
def test_a_wrong_report_is_told_unless_the_block_failed(
    service: Service, client: Client, reported: Any, reply: Any, message: str
):
    """Then the caller's own exception is what is raised, and no other."""
    service.replies = [None, reply]
    with pytest.raises(PointsmanError, match=message), client.call("x") as call:
        call.quality = reported
    with pytest.raises(ZeroDivisionError), client.call("x") as call:
        fail_with(call, cost_usd=reported)


@pytest.mark.parametrize("failure", [StopIteration("mine"), RuntimeError("mine"), OSError("mine")])
def test_the_callers_own_exception_is_raised_as_it_is(
    service: Service, client: Client, failure: Exception
):
    """The very object, whatever its type means to generators, and though the report fails too."""
    service.replies = [None, (500, b"<html>")]
    with pytest.raises(type(failure)) as caught, client.call("x") as call:
        fail_with(call, failure)
    assert caught.value is failure
    assert service.bodies("/reward")[0]["error"] == type(failure).__name__


@pytest.mark.parametrize(
    "reply",
    [(200, b"<html>Welcome</html>"), (404, b"<html>"), (302, b"", ("location", "/login")), DROP],
    ids=["page", "not found", "redirect", "lost"],
)
def test_a_proxy_spoils_no_answer(
    service: Service, client: Client, caplog: pytest.LogCaptureFixture, reply: Any
):
    """What stands before the service and isn't ours can't refuse a report: it is a warning."""
    with client.call("x"):
        service.replies = [reply] * 3
    assert "not reported" in caplog.text


def test_a_client_closed_in_the_block_spoils_no_answer(
    client: Client, caplog: pytest.LogCaptureFixture
):
    """The block's answer stands; that it couldn't be reported is a warning."""
    with client.call("x"):
        client.close()
    assert "not reported: No answer" in caplog.text

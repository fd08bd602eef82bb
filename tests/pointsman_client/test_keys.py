"""How clients carry a key, against a real service that wants one."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

from pointsman.commands import frontier, status
from pointsman_client import AsyncClient, Client, Forbidden, PointsmanError, Unauthorized
from pointsman_client.errors import RateLimited
from pointsman_client.local import Decider
from tests.pointsman_client.scripted import RECEIPT, Service
from tests.servers import http_service, settings_for
from tests.serving.access.making import make_key


def test_both_clients_and_the_decider_carry_a_key(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The one given, else that of POINTSMAN_API_KEY; commands take the latter."""
    _, caller = make_key(redis_url, ("route", "reward"))
    _, reader = make_key(redis_url, ("read",))
    with http_service(settings_for(redis_url, tmp_path)) as http:
        url = str(http.base_url)
        with Client(url) as nobody, pytest.raises(Unauthorized, match="POINTSMAN_API_KEY"):
            nobody.route("x")
        assert CliRunner().invoke(status.command, ["--url", url]).exit_code == 1
        with Client(url, api_key=f" {caller}\n") as client:  # as read from a file
            decision = client.route("x")
            assert client.reward(decision.decision_id, quality=1.0).accepted == ("quality",)
            with pytest.raises(Forbidden, match="lacks the scope `read`") as lacks:
                client.policies()
            assert lacks.value.problem["scope"] == "read"
            (refused,) = client.reward_batch([{"decision_id": "x", "quality": 1}])
            assert isinstance(refused, PointsmanError)

        async def routed() -> str:
            async with AsyncClient(url, api_key=caller) as client:
                return (await client.route("x")).arm

        assert asyncio.run(routed())
        with Decider(url, api_key=caller) as decider:
            decider.reward(decider.route("x").decision_id, quality=1.0)
            assert decider.flush(10.0)
        monkeypatch.setenv("POINTSMAN_API_KEY", reader)
        for command, words in ((status.command, []), (frontier.command, ["default"])):
            done = CliRunner().invoke(command, [*words, "--url", url])
            assert done.exit_code == 0, done.output


@pytest.mark.parametrize("status", [401, 429])
def test_an_answer_is_not_spoilt_by_a_limit_or_a_key_that_has_ended(
    service: Service, client: Client, caplog: pytest.LogCaptureFixture, status: int
):
    """The model has answered by then: the report is a warning, and is sent again after a limit."""
    problem = {"type": "/problems/x", "title": "No", "status": status, "detail": "not now"}
    with client.call("x") as call:
        taken = {"results": [{"decision_id": call.decision_id, **RECEIPT}]}
        service.replies = [(status, problem), (200, taken)]
        call.quality = 1.0
    assert "not reported" in caplog.text
    assert client.flush() == 0
    reports = service.bodies("/reward/batch")
    assert len(reports) == (1 if status == 429 else 0)


def test_a_key_that_can_not_be_sent_is_not_shown(service: Service):
    """It may be a secret with a typing error."""
    with pytest.raises(PointsmanError, match="printable ASCII") as error:
        Client(service.url, api_key="pm_se\ncret")
    assert "cret" not in str(error.value)


def test_a_rate_limit_says_when_to_come_again(service: Service, client: Client):
    """From the header, or from the problem of an item; it survives pickling, as all do."""
    service.replies = [(429, {"title": "Too many"}, ("retry-after", "7"))]
    with pytest.raises(RateLimited) as caught:
        client.route("x")
    assert caught.value.retry_after_s == 7
    assert pickle.loads(pickle.dumps(caught.value)).retry_after_s == 7
    assert RateLimited(429, "Too many", "").retry_after_s is None

"""The client for asyncio does what the other one does."""

from __future__ import annotations

import asyncio
from asyncio import TimeoutError as TimedOut  # before Python 3.11 another than the builtin

import pytest

from pointsman_client import AsyncClient, Call, PointsmanError
from tests.pointsman_client.scripted import DROP, NOT_FOUND, TOTALS, Service


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
                (200, {"results": [NOT_FOUND], "totals": TOTALS}),
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

    async def held(client: AsyncClient) -> None:
        async with client.call("x"):
            await asyncio.sleep(60)

    async def use() -> None:
        async with AsyncClient(service.url) as client:
            with pytest.raises(TimedOut):
                await asyncio.wait_for(held(client), 0.2)

    asyncio.run(use())
    assert service.bodies("/reward") == []


def test_a_timeout_inside_the_block_is_the_arms(service: Service):
    """A limit set on the model call itself is an outcome: TimeoutError."""

    async def use() -> None:
        async with AsyncClient(service.url) as client:
            with pytest.raises(TimedOut):
                async with client.call("x"):
                    await asyncio.wait_for(asyncio.sleep(60), 0.01)

    asyncio.run(use())
    assert service.bodies("/reward")[0]["error"] == "timeout"


async def fail_with(call: Call) -> None:
    """A model call that got as far as an answer, and then failed."""
    call.cost_usd = float("nan")
    raise ZeroDivisionError


def test_what_goes_wrong_is_told_alike(service: Service):
    """Not sent, not answered, and the caller's own exception, as with the other client."""

    async def use() -> None:
        async with AsyncClient(service.url) as client:
            with pytest.raises(PointsmanError, match="Not sent: quality"):
                async with client.call("x") as call:
                    call.quality = float("nan")
            with pytest.raises(ZeroDivisionError):
                async with client.call("x", task_type="code") as call:
                    await fail_with(call)
            service.replies = [DROP] * 3
            with pytest.raises(PointsmanError, match="No answer"):
                await client.route("x")
        with pytest.raises(PointsmanError, match=r"No answer: .*closed"):
            await client.route("x")

    asyncio.run(use())

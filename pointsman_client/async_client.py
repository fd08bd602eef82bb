"""The client for asyncio: what `client.Client` does, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from pointsman_client import wire
from pointsman_client.answers import Correction, Decision, Receipt
from pointsman_client.call import Call
from pointsman_client.client import DEFAULT_URL
from pointsman_client.errors import PointsmanError
from pointsman_client.options import (
    CorrectionOptions,
    CorrectionRequest,
    RewardOptions,
    RewardRequest,
    RouteOptions,
    RouteRequest,
    SelectOptions,
    selection,
)
from pointsman_client.wire import RETRIED, Request, T, pauses

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AsyncClient:
    """Client for asyncio: the same methods, awaited; `async with client.call(...) as call:`."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 5.0,
        retries: int = 2,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._http = http or httpx.AsyncClient(base_url=wire.address(url), timeout=timeout_s)
        self._retries = retries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def route(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Decision:
        """See `Client.route`."""
        return await self._send(wire.route({**options, "text": text}))

    async def select_model(
        self,
        task_type: str,
        context_size: int | str | None = None,
        speed_requirement: str = "balanced",
        cost_constraint: float | str | None = None,
        quality_threshold: float | None = None,
        *,
        fallback: bool = True,
        **others: Unpack[SelectOptions],
    ) -> Decision:
        """See `Client.select_model`."""
        wanted = (task_type, context_size, speed_requirement, cost_constraint, quality_threshold)
        return await self._send(wire.route(selection(*wanted, fallback, others)))

    async def route_batch(
        self,
        requests: Iterable[RouteRequest],
        *,
        defaults: RouteRequest | None = None,
        budget_usd: float | None = None,
        baseline: str | None = None,
    ) -> wire.Batch:
        """See `Client.route_batch`."""
        return await self._send(wire.route_batch(requests, defaults, budget_usd, baseline))

    async def reward(self, decision_id: str, **outcome: Unpack[RewardOptions]) -> Receipt:
        """See `Client.reward`."""
        return await self._send(wire.reward({**outcome, "decision_id": decision_id}))

    async def reward_batch(
        self, rewards: Iterable[RewardRequest]
    ) -> list[Receipt | PointsmanError]:
        """See `Client.reward_batch`."""
        return await self._send(wire.reward_batch(rewards))

    async def correct(
        self, decision_id: str, **correction: Unpack[CorrectionOptions]
    ) -> Correction:
        """See `Client.correct`."""
        return await self._send(wire.correct({**correction, "decision_id": decision_id}))

    async def correct_batch(
        self, corrections: Iterable[CorrectionRequest]
    ) -> list[Correction | PointsmanError]:
        """See `Client.correct_batch`."""
        return await self._send(wire.correct_batch(corrections))

    async def decision(self, decision_id: str, policy: str = "default") -> dict[str, Any]:
        """See `Client.decision`."""
        return await self._send(wire.decision(decision_id, policy))

    async def arms(self) -> list[dict[str, Any]]:
        return await self._send(wire.listed("arms"))

    async def policies(self) -> list[dict[str, Any]]:
        return await self._send(wire.listed("policies"))

    async def frontier(self, policy: str = "default") -> dict[str, Any]:
        """See `Client.frontier`."""
        return await self._send(wire.frontier(policy))

    @asynccontextmanager
    async def call(
        self, text: str | None = None, **options: Unpack[RouteOptions]
    ) -> AsyncIterator[Call]:
        """See `Client.call`."""
        call = Call(await self.route(text, **options))
        try:
            yield call
        except Exception as failure:
            await self._report(call, failure)
            raise
        await self._report(call, None)

    async def _report(self, call: Call, failure: Exception | None) -> None:
        try:
            call.receipt = await self._send(wire.reward(call._stop(failure)))
        except PointsmanError as error:
            call._unreported(error, failure)

    async def _send(self, request: Request[T]) -> T:
        for pause_s in pauses(self._retries):
            try:
                response = await self._http.request(**request.to_send())
                break
            except Exception as error:  # whatever it is, no answer came
                if pause_s is None or not isinstance(error, RETRIED):
                    raise request.unanswered(error, self._http.base_url) from error
                await asyncio.sleep(pause_s)
        return request.answer(response)

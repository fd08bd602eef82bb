"""The client for asyncio: what `client.Client` does, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
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
from pointsman_client.unlogged import Unlogged
from pointsman_client.wire import RETRIED, Request, T, pauses

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AsyncClient:
    """Client for asyncio: the same methods, awaited; `async with client.call(...) as call:`."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 5.0,
        retries: int = 2,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._http = http or httpx.AsyncClient(base_url=wire.address(url), timeout=timeout_s)
        self._headers = wire.bearing(api_key)
        self._retries = retries
        self._unlogged = Unlogged()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """See `Client.close`."""
        await self.flush()
        await self._http.aclose()

    async def route(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Decision:
        """See `Client.route`."""
        return await self._route({**options, "text": text})

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
        return await self._route(selection(*wanted, fallback, others))

    async def route_batch(
        self,
        requests: Iterable[RouteRequest],
        *,
        defaults: RouteRequest | None = None,
        budget_usd: float | None = None,
        baseline: str | None = None,
    ) -> wire.Batch:
        """See `Client.route_batch`."""
        batch = await self._send(wire.route_batch(requests, defaults, budget_usd, baseline))
        self._unlogged.seen(*batch)
        return batch

    async def reward(self, decision_id: str, **outcome: Unpack[RewardOptions]) -> Receipt:
        """See `Client.reward`."""
        report = self._unlogged.with_token({**outcome, "decision_id": decision_id})
        return await self._send(wire.reward(report))

    async def reward_batch(
        self, rewards: Iterable[RewardRequest]
    ) -> list[Receipt | PointsmanError]:
        """See `Client.reward_batch`."""
        return await self._send(wire.reward_batch(map(self._unlogged.with_token, rewards)))

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
        report = self._unlogged.with_token(call._stop(failure))
        try:
            call.receipt = await self._send(wire.reward(report))
        except PointsmanError as error:
            call._unreported(error, failure)
            self._unlogged.keep(report, error)
        else:
            await self.flush()

    async def flush(self) -> int:
        """See `Client.flush`."""
        while reports := self._unlogged.take():
            told: Sequence[Receipt | PointsmanError]
            try:
                told = await self.reward_batch(reports)
            except PointsmanError as error:
                told = [error] * len(reports)
            if not self._unlogged.settle(reports, told):
                break
        return len(self._unlogged)

    async def _route(self, request: RouteRequest) -> Decision:
        decision = await self._send(wire.route(request))
        self._unlogged.seen(decision)
        return decision

    async def _send(self, request: Request[T]) -> T:
        for pause_s in pauses(self._retries):
            try:
                response = await self._http.request(**request.to_send(self._headers))
                break
            except Exception as error:  # whatever it is, no answer came
                if pause_s is None or not isinstance(error, RETRIED):
                    raise request.unanswered(error, self._http.base_url) from error
                await asyncio.sleep(pause_s)
        return request.answer(response)

"""The client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from pointsman_client import wire
from pointsman_client.answers import Correction, Decision, Receipt
from pointsman_client.call import Call
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

DEFAULT_URL = "http://127.0.0.1:8080"


class Client:
    """Talks to a Pointsman service; threads may share one.

    `api_key` is what `pointsman keys create` has printed; without it POINTSMAN_API_KEY holds, if
    set.

    >>> client = Client("http://127.0.0.1:8080")
    >>> with client.call("Sort a list in Python.", task_type="code") as call:  # doctest: +SKIP
    ...     answer = ask(call.provider, call.model)
    ...     call.tokens(answer.input_tokens, answer.output_tokens)
    ...     call.quality = grade(answer)
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 5.0,
        retries: int = 2,
        http: httpx.Client | None = None,
    ) -> None:
        self._http = http or httpx.Client(base_url=wire.address(url), timeout=timeout_s)
        self._headers = wire.bearing(api_key)
        self._retries = retries
        self._unlogged = Unlogged()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close, after a last try to send what `flush` does."""
        self.flush()
        self._http.close()

    def route(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Decision:
        """Which arm should answer? Give `text` or `messages`, hints, or both."""
        return self._route({**options, "text": text})

    def select_model(
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
        """Which model for such a call? One answer of `/route` to five words about it.

        Parameters
        ----------
        task_type
            As in hints: `code`, `math`, ..., or any label of your own.
        context_size
            The prompt's tokens, or `short` (below 2,000), `medium` (32,000), `long` (128,000) or
            `very_long` (2,000,000): the model's window holds whatever is below.
        speed_requirement
            `ultra_fast` (0.5 s), `fast` (2 s), `balanced` (10 s) or `quality` (30 s): the longest
            wait, kept with probability 0.9, and what is weighed most, as the objective.
        cost_constraint
            The most USD a call, or `free`, `budget` (0.0001), `standard` (0.001) or `premium`.
        quality_threshold
            The least predicted quality, in [0, 1].
        fallback
            Where no model keeps all limits: whether to answer with one that keeps most of them
            (`gave_way` then names what it doesn't keep), or to raise PointsmanError, status 422.
        others
            What else `route` takes, the text among it.
        """
        wanted = (task_type, context_size, speed_requirement, cost_constraint, quality_threshold)
        return self._route(selection(*wanted, fallback, others))

    def route_batch(
        self,
        requests: Iterable[RouteRequest],
        *,
        defaults: RouteRequest | None = None,
        budget_usd: float | None = None,
        baseline: str | None = None,
    ) -> wire.Batch:
        """Several at once, each a dict of what `route` takes; a problem stands in its place.

        `defaults` are what those say that say nothing else, `budget_usd` what all may cost
        together, as predicted, and `baseline` an arm that `.totals` of the answer compare with.
        """
        batch = self._send(wire.route_batch(requests, defaults, budget_usd, baseline))
        self._unlogged.seen(*batch)
        return batch

    def reward(self, decision_id: str, **outcome: Unpack[RewardOptions]) -> Receipt:
        """Report what came of a decision, in any parts; each component is accepted once."""
        report = self._unlogged.with_token({**outcome, "decision_id": decision_id})
        return self._send(wire.reward(report))

    def reward_batch(self, rewards: Iterable[RewardRequest]) -> list[Receipt | PointsmanError]:
        """Several at once, each a dict of what `reward` takes; a problem stands in its place."""
        return self._send(wire.reward_batch(map(self._unlogged.with_token, rewards)))

    def correct(self, decision_id: str, **correction: Unpack[CorrectionOptions]) -> Correction:
        """Overrule what was reported: the values that hold instead, `by` whom and the `reason`.

        The learner takes the old values back, and the log keeps both.
        """
        return self._send(wire.correct({**correction, "decision_id": decision_id}))

    def correct_batch(
        self, corrections: Iterable[CorrectionRequest]
    ) -> list[Correction | PointsmanError]:
        """Several at once, each a dict of what `correct` takes; a problem stands in its place."""
        return self._send(wire.correct_batch(corrections))

    def decision(self, decision_id: str, policy: str = "default") -> dict[str, Any]:
        """The stored decision, and what has been accepted for it."""
        return self._send(wire.decision(decision_id, policy))

    def arms(self) -> list[dict[str, Any]]:
        return self._send(wire.listed("arms"))

    def policies(self) -> list[dict[str, Any]]:
        return self._send(wire.listed("policies"))

    def frontier(self, policy: str = "default") -> dict[str, Any]:
        """Quality, latency and cost per task type: of each arm, and of the policy under other
        weights, as the service answers."""
        return self._send(wire.frontier(policy))

    @contextmanager
    def call(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Iterator[Call]:
        """Route, time the block, and report its latency and, if it raises, its error.

        The exception goes on to the caller. KeyboardInterrupt and a cancelled task report
        nothing, for they say nothing about the arm. If the service can't be reached after the
        block, the logger "pointsman_client" warns and the caller keeps its answer; the report is
        kept for `flush`.
        """
        call = Call(self.route(text, **options))
        try:
            yield call
        except Exception as failure:
            self._report(call, failure)
            raise
        self._report(call, None)

    def _report(self, call: Call, failure: Exception | None) -> None:
        report = self._unlogged.with_token(call._stop(failure))
        try:
            call.receipt = self._send(wire.reward(report))
        except PointsmanError as error:
            call._unreported(error, failure)
            self._unlogged.keep(report, error)
        else:
            self.flush()

    def flush(self) -> int:
        """Send the reports of calls again that nobody took, as the next call that is reported does
        too; how many are still kept. It keeps 1,000 at most."""
        while reports := self._unlogged.take():
            told: Sequence[Receipt | PointsmanError]
            try:
                told = self.reward_batch(reports)
            except PointsmanError as error:
                told = [error] * len(reports)
            if not self._unlogged.settle(reports, told):
                break
        return len(self._unlogged)

    def _route(self, request: RouteRequest) -> Decision:
        decision = self._send(wire.route(request))
        self._unlogged.seen(decision)
        return decision

    def _send(self, request: Request[T]) -> T:
        for pause_s in pauses(self._retries):
            try:
                response = self._http.request(**request.to_send(self._headers))
                break
            except Exception as error:  # whatever it is, no answer came
                if pause_s is None or not isinstance(error, RETRIED):
                    raise request.unanswered(error, self._http.base_url) from error
                time.sleep(pause_s)
        return request.answer(response)

"""Clients of the HTTP service. Light: httpx and pydantic, nothing of ours; it knows no policy."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Required, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict

log = logging.getLogger("pointsman")

DEFAULT_URL = "http://127.0.0.1:8080"
FIRST_PAUSE_S = 0.05

# No answer came, so the request may or may not have been carried out. Sending it again is safe:
# decisions carry an id made here, a reward's component counts once, and a correction to the value
# that holds changes nothing. A read timeout is not among them: the caller chose how long to wait.
RETRIED = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)

QUERY = ("text", "messages")
HINTS = ("task_type", "context_tokens", "output_tokens", "language", "capabilities", "labels")

T = TypeVar("T")


class PointsmanError(Exception):
    """A problem that the service reported, or (`status` None) that no answer came at all."""

    def __init__(
        self, status: int | None, title: str, detail: str, problem: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{title}: {detail}" if status is None else f"{status} {title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.problem = dict(problem or {})


class _Answer(BaseModel):
    """Newer services may say more than this client knows."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Predicted(_Answer):
    """What the policy expects of an arm; None where it doesn't know."""

    quality: float | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None


class Alternative(_Answer):
    """An eligible arm that was not chosen."""

    arm: str
    provider: str
    model: str
    propensity: float
    predicted: Predicted = Predicted()


class Decision(_Answer):
    """Which arm to use, and the probability it was drawn with."""

    decision_id: str
    policy: str
    version: str
    snapshot: int
    arm: str
    provider: str
    model: str
    endpoint: str | None = None
    propensity: float
    confidence: float | None = None
    predicted: Predicted = Predicted()
    alternatives: tuple[Alternative, ...] = ()
    logged: bool = True


class Receipt(_Answer):
    """What a reward has changed, in the names quality, latency_ms, cost_usd and error."""

    decision_id: str
    accepted: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    late: bool = False


class Correction(_Answer):
    """What a correction has replaced, in the names quality, latency_ms and cost_usd; `unchanged`
    held already."""

    decision_id: str
    corrected: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


class RouteOptions(TypedDict, total=False):
    """What else `route` takes: hints, constraints, an objective, the policy's name ..."""

    messages: Sequence[Mapping[str, Any]] | None
    task_type: str | None
    context_tokens: int | None
    output_tokens: int | None
    language: str | None
    capabilities: Sequence[str] | None
    labels: Mapping[str, str] | None
    constraints: Mapping[str, Any] | None
    objective: str | Mapping[str, float] | None
    chosen: str | Mapping[str, Any] | None
    """What your own router chose: its arm, or {"arm": ..., "pmf": {arm: probability, ...}}."""
    policy: str
    decision_id: str | None


class RouteRequest(RouteOptions, total=False):
    """One of `route_batch`."""

    text: str | None


class RewardOptions(TypedDict, total=False):
    """The components of an outcome, in any parts; tokens stand for a cost."""

    quality: float | None
    latency_ms: float | None
    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    error: str | None
    executed_arm: str | None
    executed: bool | None
    policy: str


class RewardRequest(RewardOptions, total=False):
    """One of `reward_batch`."""

    decision_id: Required[str]


class CorrectionOptions(TypedDict, total=False):
    """The values that hold instead of those reported; who says so and why."""

    by: Required[str]
    reason: Required[str]
    quality: float | None
    latency_ms: float | None
    cost_usd: float | None
    policy: str


class CorrectionRequest(CorrectionOptions, total=False):
    """One of `correct_batch`."""

    decision_id: Required[str]


@dataclass
class Call:
    """One model call, inside the `with` block that times it. Set what you learn about it."""

    decision: Decision
    quality: float | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None
    """Measured on exit, unless you set it."""
    error: str | None = None
    """The exception's name on exit, unless you set it; an error means quality 0."""
    executed_arm: str | None = None
    """The arm that really answered, if it was another."""
    executed: bool | None = None
    """False if in the end nothing was called: the decision is withdrawn."""
    receipt: Receipt | None = None
    _tokens: tuple[int, int] | None = field(default=None, repr=False)
    _started: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def arm(self) -> str:
        return self.decision.arm

    @property
    def provider(self) -> str:
        return self.decision.provider

    @property
    def model(self) -> str:
        return self.decision.model

    @property
    def endpoint(self) -> str | None:
        return self.decision.endpoint

    def tokens(self, input_tokens: int, output_tokens: int) -> None:
        """Token counts, priced by the service at the decision's prices."""
        self._tokens = (input_tokens, output_tokens)

    def _stop(self, failure: Exception | None) -> RewardRequest:
        """Stop the clock, take the failure down, and say what there is to report."""
        if self.latency_ms is None:
            self.latency_ms = (time.perf_counter() - self._started) * 1000.0
        if failure is not None and self.error is None:
            self.error = type(failure).__name__
        outcome: RewardRequest = {
            "decision_id": self.decision.decision_id,
            "policy": self.decision.policy,
        }
        if self.executed is False:
            return {**outcome, "executed": False}
        if self.cost_usd is None and self._tokens is not None:
            outcome["input_tokens"], outcome["output_tokens"] = self._tokens
        return {
            **outcome,
            "quality": self.quality if self.error is None else None,
            "latency_ms": self.latency_ms,
            "cost_usd": self.cost_usd,
            "error": self.error,
            "executed_arm": self.executed_arm,
        }

    def _unreported(self, error: PointsmanError, failure: Exception | None) -> None:
        """Raise what the caller got wrong; an answer is not spoilt by a service out of reach."""
        callers_fault = error.status is not None and error.status < 500
        if callers_fault and failure is None:
            raise error
        log.warning("outcome of decision %s not reported: %s", self.decision.decision_id, error)


@dataclass(frozen=True)
class _Request(Generic[T]):
    """What to send and how to read the answer: all that both clients share."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    params: Mapping[str, str] = field(default_factory=dict)

    def to_send(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "url": self.path,
            "json": self.body,
            "params": self.params or None,
        }

    def answer(self, response: httpx.Response) -> T:
        try:
            content = response.json()
        except ValueError:
            content = None
        if not response.is_success:
            if isinstance(content, dict):
                raise _problem(content, response.status_code, response.reason_phrase)
            raise PointsmanError(response.status_code, response.reason_phrase, response.text[:200])
        try:
            return self.read(content)
        except (ValueError, KeyError, TypeError) as error:
            raise PointsmanError(
                response.status_code, "Not a Pointsman answer", f"{response.url}: {error}"
            ) from error

    def unanswered(self, error: httpx.TransportError, base_url: httpx.URL) -> PointsmanError:
        reason = f"{type(error).__name__} {error}".rstrip()
        url = f"{str(base_url).rstrip('/')}{self.path}"
        return PointsmanError(None, "No answer", f"{self.method} {url}: {reason}")


def _route(request: RouteRequest) -> _Request[Decision]:
    return _Request("POST", "/route", Decision.model_validate, _route_body(request))


def _route_batch(requests: Iterable[RouteRequest]) -> _Request[list[Decision | PointsmanError]]:
    body = {"requests": [_route_body(request) for request in requests]}
    return _Request("POST", "/route/batch", _results_of(Decision), body)


def _route_body(request: RouteRequest) -> dict[str, Any]:
    """The id is made here, so that a retried request never makes two decisions."""
    given = _given(request)
    query = {name: given.pop(name) for name in QUERY if name in given}
    hints = {name: given.pop(name) for name in HINTS if name in given}
    if isinstance(chosen := given.get("chosen"), str):
        given["chosen"] = {"arm": chosen}
    return {
        "decision_id": uuid.uuid4().hex,
        **({"query": query} if query else {}),
        **({"hints": hints} if hints else {}),
        **given,
    }


def _reward(request: RewardRequest) -> _Request[Receipt]:
    return _Request("POST", "/reward", Receipt.model_validate, _given(request))


def _reward_batch(rewards: Iterable[RewardRequest]) -> _Request[list[Receipt | PointsmanError]]:
    body = {"rewards": [_given(reward) for reward in rewards]}
    return _Request("POST", "/reward/batch", _results_of(Receipt), body)


def _correct(request: CorrectionRequest) -> _Request[Correction]:
    return _Request("POST", "/correction", Correction.model_validate, _given(request))


def _correct_batch(
    corrections: Iterable[CorrectionRequest],
) -> _Request[list[Correction | PointsmanError]]:
    body = {"corrections": [_given(correction) for correction in corrections]}
    return _Request("POST", "/correction/batch", _results_of(Correction), body)


def _decision(decision_id: str, policy: str) -> _Request[dict[str, Any]]:
    path = f"/decisions/{quote(decision_id, safe='')}"
    return _Request("GET", path, dict, params={"policy": policy})


def _list(name: str) -> _Request[list[dict[str, Any]]]:
    return _Request("GET", f"/{name}", lambda content: [dict(item) for item in content[name]])


A = TypeVar("A", bound=_Answer)


def _results_of(model: type[A]) -> Callable[[Any], list[A | PointsmanError]]:
    """How to read a batch: a result with a status is a problem, and is returned, not raised."""
    return lambda content: [
        _problem(item) if "status" in item else model.model_validate(item)
        for item in content["results"]
    ]


def _problem(
    content: Mapping[str, Any], status: int | None = None, title: str = "Problem"
) -> PointsmanError:
    return PointsmanError(
        content.get("status", status),
        str(content.get("title", title)),
        str(content.get("detail", "")),
        content,
    )


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _pauses(retries: int) -> Iterator[float | None]:
    """How long to wait before each next attempt; None after the last."""
    yield from (FIRST_PAUSE_S * 2**i for i in range(retries))
    yield None


class Client:
    """Talks to a Pointsman service; threads may share one.

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
        timeout_s: float = 5.0,
        retries: int = 2,
        http: httpx.Client | None = None,
    ) -> None:
        self._http = http or httpx.Client(base_url=url, timeout=timeout_s)
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def route(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Decision:
        """Which arm should answer? Give `text` or `messages`, hints, or both."""
        return self._send(_route({**options, "text": text}))

    def route_batch(self, requests: Iterable[RouteRequest]) -> list[Decision | PointsmanError]:
        """Several at once, each a dict of what `route` takes; a problem stands in its place."""
        return self._send(_route_batch(requests))

    def reward(self, decision_id: str, **outcome: Unpack[RewardOptions]) -> Receipt:
        """Report what came of a decision, in any parts; each component is accepted once."""
        return self._send(_reward({**outcome, "decision_id": decision_id}))

    def reward_batch(self, rewards: Iterable[RewardRequest]) -> list[Receipt | PointsmanError]:
        """Several at once, each a dict of what `reward` takes; a problem stands in its place."""
        return self._send(_reward_batch(rewards))

    def correct(self, decision_id: str, **correction: Unpack[CorrectionOptions]) -> Correction:
        """Overrule what was reported: the values that hold instead, `by` whom and the `reason`.

        The learner takes the old values back, and the log keeps both.
        """
        return self._send(_correct({**correction, "decision_id": decision_id}))

    def correct_batch(
        self, corrections: Iterable[CorrectionRequest]
    ) -> list[Correction | PointsmanError]:
        """Several at once, each a dict of what `correct` takes; a problem stands in its place."""
        return self._send(_correct_batch(corrections))

    def decision(self, decision_id: str, policy: str = "default") -> dict[str, Any]:
        """The stored decision, and what has been accepted for it."""
        return self._send(_decision(decision_id, policy))

    def arms(self) -> list[dict[str, Any]]:
        return self._send(_list("arms"))

    def policies(self) -> list[dict[str, Any]]:
        return self._send(_list("policies"))

    @contextmanager
    def call(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Iterator[Call]:
        """Route, time the block, and report its latency and, if it raises, its error.

        The exception goes on to the caller. KeyboardInterrupt and a cancelled task report
        nothing, for they say nothing about the arm. If the service can't be reached after the
        block, the logger "pointsman" warns and the caller keeps its answer.
        """
        call = Call(self.route(text, **options))
        try:
            yield call
        except Exception as failure:
            self._report(call, failure)
            raise
        self._report(call, None)

    def _report(self, call: Call, failure: Exception | None) -> None:
        try:
            call.receipt = self._send(_reward(call._stop(failure)))
        except PointsmanError as error:
            call._unreported(error, failure)

    def _send(self, request: _Request[T]) -> T:
        for pause_s in _pauses(self._retries):
            try:
                response = self._http.request(**request.to_send())
                break
            except httpx.TransportError as error:
                if pause_s is None or not isinstance(error, RETRIED):
                    raise request.unanswered(error, self._http.base_url) from error
                time.sleep(pause_s)
        return request.answer(response)


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
        self._http = http or httpx.AsyncClient(base_url=url, timeout=timeout_s)
        self._retries = retries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def route(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Decision:
        """See `Client.route`."""
        return await self._send(_route({**options, "text": text}))

    async def route_batch(
        self, requests: Iterable[RouteRequest]
    ) -> list[Decision | PointsmanError]:
        """See `Client.route_batch`."""
        return await self._send(_route_batch(requests))

    async def reward(self, decision_id: str, **outcome: Unpack[RewardOptions]) -> Receipt:
        """See `Client.reward`."""
        return await self._send(_reward({**outcome, "decision_id": decision_id}))

    async def reward_batch(
        self, rewards: Iterable[RewardRequest]
    ) -> list[Receipt | PointsmanError]:
        """See `Client.reward_batch`."""
        return await self._send(_reward_batch(rewards))

    async def correct(
        self, decision_id: str, **correction: Unpack[CorrectionOptions]
    ) -> Correction:
        """See `Client.correct`."""
        return await self._send(_correct({**correction, "decision_id": decision_id}))

    async def correct_batch(
        self, corrections: Iterable[CorrectionRequest]
    ) -> list[Correction | PointsmanError]:
        """See `Client.correct_batch`."""
        return await self._send(_correct_batch(corrections))

    async def decision(self, decision_id: str, policy: str = "default") -> dict[str, Any]:
        """See `Client.decision`."""
        return await self._send(_decision(decision_id, policy))

    async def arms(self) -> list[dict[str, Any]]:
        return await self._send(_list("arms"))

    async def policies(self) -> list[dict[str, Any]]:
        return await self._send(_list("policies"))

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
            call.receipt = await self._send(_reward(call._stop(failure)))
        except PointsmanError as error:
            call._unreported(error, failure)

    async def _send(self, request: _Request[T]) -> T:
        for pause_s in _pauses(self._retries):
            try:
                response = await self._http.request(**request.to_send())
                break
            except httpx.TransportError as error:
                if pause_s is None or not isinstance(error, RETRIED):
                    raise request.unanswered(error, self._http.base_url) from error
                await asyncio.sleep(pause_s)
        return request.answer(response)

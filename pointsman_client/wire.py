"""What is sent and how its answer is read: all that both clients share. Sends nothing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Union
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from pointsman_client.answers import Correction, Decision, Receipt, Totals
from pointsman_client.encoding import encode
from pointsman_client.errors import (
    Forbidden,
    NotSent,
    PointsmanError,
    RateLimited,
    Unauthorized,
)
from pointsman_client.options import CorrectionRequest, RewardRequest, RouteRequest

FIRST_PAUSE_S = 0.05
SHOWN = 200  # characters of an answer that isn't ours

# No answer came, so the request may or may not have been carried out. Sending it again is safe:
# decisions carry an id made here, a reward's component counts once, and a correction to the value
# that holds changes nothing. A read timeout is not among them: the caller chose how long to wait.
RETRIED = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)

KINDS = {401: Unauthorized, 403: Forbidden, 429: RateLimited}
QUERY = ("text", "messages")
HINTS = ("task_type", "context_tokens", "output_tokens", "language", "capabilities", "labels")

T = TypeVar("T")
A = TypeVar("A", bound=BaseModel)


def address(url: str) -> httpx.URL:
    """Where the service is; PointsmanError for what is no address."""
    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise PointsmanError(None, "No address", f"{url!r}: {error}") from None


def bearing(api_key: str | None) -> dict[str, str]:
    """The header for a key: the one that is given, or that of POINTSMAN_API_KEY."""
    key = (os.environ.get("POINTSMAN_API_KEY", "") if api_key is None else api_key).strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):  # it isn't shown: it may be a secret all the same
        raise PointsmanError(None, "No key", "a key has printable ASCII characters only")
    return {"authorization": f"Bearer {key}"}


@dataclass(frozen=True)
class Request(Generic[T]):
    """One request, and how to read what comes back."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: bytes | None = None
    params: Mapping[str, str | list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_send(self, more: Mapping[str, str]) -> dict[str, Any]:
        """With `more` headers."""
        content_type = {"content-type": "application/json"} if self.body else {}
        return {
            "method": self.method,
            "url": self.path,
            "content": self.body,
            "headers": {**content_type, **more, **self.headers},
            "params": self.params or None,
        }

    def answer(self, response: httpx.Response) -> T:
        """What came back, or the error that it means."""
        try:
            content = response.json()
        except (ValueError, RecursionError):
            content = None
        if not response.is_success:
            raise _refusal(response, content)
        try:
            return self.read(content)
        except Exception as error:  # whatever a stranger's JSON makes of reading it
            what = f"{response.url} answered {response.text[:SHOWN]!r}"
            raise PointsmanError(response.status_code, "Not a Pointsman answer", what) from error

    def unanswered(self, error: Exception, base_url: httpx.URL) -> PointsmanError:
        reason = f"{type(error).__name__} {error}".rstrip()
        url = f"{str(base_url).rstrip('/')}{self.path}"
        return PointsmanError(None, "No answer", f"{self.method} {url}: {reason}")


def pauses(retries: int) -> Iterator[float | None]:
    """Seconds to wait before each next attempt; None after the last."""
    yield from (FIRST_PAUSE_S * 2**i for i in range(retries))
    yield None


def route(request: RouteRequest) -> Request[Decision]:
    return Request("POST", "/route", Decision.model_validate, encode(route_body(request)))


class Batch(list[Union[Decision, PointsmanError]]):
    """The decisions of a batch, in its order, each a problem where there is none; and what they
    come to."""

    totals: Totals


def route_batch(
    requests: Iterable[RouteRequest],
    defaults: RouteRequest | None = None,
    budget_usd: float | None = None,
    baseline: str | None = None,
) -> Request[Batch]:
    items = [*map(route_body, requests)]
    shared = None if defaults is None else route_body(defaults)
    if shared is not None:
        del shared["decision_id"]
    body = _given({"defaults": shared, "budget_usd": budget_usd, "baseline": baseline})

    def read(content: Any) -> Batch:
        batch = Batch(results(content, len(items), Decision))
        batch.totals = Totals.model_validate(content["totals"])
        return batch

    return Request("POST", "/route/batch", read, encode({"requests": items, **body}))


def reward(request: RewardRequest) -> Request[Receipt]:
    return Request("POST", "/reward", Receipt.model_validate, encode(_given(request)))


def reward_batch(rewards: Iterable[RewardRequest]) -> Request[list[Receipt | PointsmanError]]:
    return _batch("/reward/batch", "rewards", [*map(_given, rewards)], Receipt)


def correct(request: CorrectionRequest) -> Request[Correction]:
    return Request("POST", "/correction", Correction.model_validate, encode(_given(request)))


def correct_batch(
    corrections: Iterable[CorrectionRequest],
) -> Request[list[Correction | PointsmanError]]:
    return _batch("/correction/batch", "corrections", [*map(_given, corrections)], Correction)


def decision(decision_id: str, policy: str) -> Request[dict[str, Any]]:
    path = f"/decisions/{quote(str(decision_id), safe='')}"
    return Request("GET", path, dict, params={"policy": policy})


def listed(name: str) -> Request[list[dict[str, Any]]]:
    return Request("GET", f"/{name}", lambda content: [dict(item) for item in content[name]])


def frontier(policy: str) -> Request[dict[str, Any]]:
    return Request("GET", f"/policies/{quote(str(policy), safe='')}/frontier", dict)


def route_body(request: RouteRequest) -> dict[str, Any]:
    """The id is made here, so that a retried request never makes two decisions."""
    given = _given(request)
    query = _given(given.pop("query", {}))
    query |= {name: given.pop(name) for name in QUERY if name in given}
    hints = {name: given.pop(name) for name in HINTS if name in given}
    if isinstance(chosen := given.get("chosen"), str):
        given["chosen"] = {"arm": chosen}
    return {
        "decision_id": secrets.token_hex(16),
        **({"query": query} if query else {}),
        **({"hints": hints} if hints else {}),
        **given,
    }


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        raise NotSent(None, "Not sent", f"expected a dict, got {type(fields).__name__}")
    return {name: value for name, value in fields.items() if value is not None}


def _batch(
    path: str, name: str, items: list[dict[str, Any]], model: type[A]
) -> Request[list[A | PointsmanError]]:
    def read(content: Any) -> list[A | PointsmanError]:
        return results(content, len(items), model)

    return Request("POST", path, read, encode({name: items}))


def results(content: Any, n: int, model: type[A]) -> list[A | PointsmanError]:
    """What a batch of n gave. A result with a status is a problem, and is returned, not raised."""
    found = content["results"]
    if len(found) != n:
        raise ValueError(f"{len(found)} results for {n} items")
    return [
        _problem(item, item["status"]) if "status" in item else model.model_validate(item)
        for item in found
    ]


def _refusal(response: httpx.Response, content: Any) -> PointsmanError:
    status, title = response.status_code, response.reason_phrase
    if isinstance(content, dict):
        wait_s = response.headers.get("retry-after", "")
        if wait_s.isdecimal():
            content = {"retry_after_s": int(wait_s), **content}
        return _problem(content, status, title)
    if response.has_redirect_location:
        to = f"{response.url} redirects to {response.headers['location']}: give the client that URL"
        return PointsmanError(status, title, to)
    return PointsmanError(status, title, " ".join(response.text[:SHOWN].split()))


def _problem(content: Mapping[str, Any], status: int, title: str = "Problem") -> PointsmanError:
    title, detail = str(content.get("title", title)), str(content.get("detail", ""))
    return KINDS.get(int(status), PointsmanError)(int(status), title, detail, content)

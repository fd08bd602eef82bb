"""Clients that ask until they are answered, and a ledger of what was acknowledged to them. Knows
nothing of what is done to the service meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from tests.servers import until

PATIENCE_S = 30.0  # how long a client goes on asking, and how long anything may take to come back
LOST = 0  # in place of a status: the connection was lost, or refused
ANNOUNCED = {503: "/problems/store-unavailable", 429: "/problems/too-many-requests"}


@dataclass
class Ledger:
    """What was acknowledged: arm and propensity of each decision, the components of its outcome;
    and how it was answered."""

    decisions: dict[str, tuple[str, float]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, float]] = field(default_factory=dict)
    late: dict[str, set[str]] = field(default_factory=dict)  # components, which the log leaves out
    answers: Counter[int] = field(default_factory=Counter)  # by status
    slowest_s: float = 0.0  # of all answers, refusals among them
    acknowledged: int = 0  # requests
    last_sent: float = 0.0  # of these, monotonic
    reported: int = 0  # outcome events
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, status: int, sent: float) -> None:
        with self._lock:
            self.answers[status] += 1
            if status != LOST:
                self.slowest_s = max(self.slowest_s, time.monotonic() - sent)
            if status == 200:
                self.acknowledged += 1
                self.last_sent = max(self.last_sent, sent)

    def reports(self, decision_id: str, part: dict[str, float], *, late: bool = False) -> None:
        with self._lock:
            self.outcomes.setdefault(decision_id, {}).update(part)
            self.reported += 1
            if late:
                self.late.setdefault(decision_id, set()).update(part)


class Traffic:
    """Rounds of /route and /reward, over several connections at once, from `with` to its end; each
    round that was begun is completed. Services share the rounds where there are several."""

    clients = 4
    asks_again = 0.05  # of the decisions, as a client does that lost the answer

    def __init__(self, urls: str | Sequence[str], seed: int, pause_s: float = 0.0) -> None:
        self.ledger = Ledger()
        self._urls = [urls] if isinstance(urls, str) else urls
        self._seed = seed
        self._pause_s = pause_s
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(self.clients)
        self._running: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._running = [self._pool.submit(self._client, i) for i in range(self.clients)]
        return self

    def __exit__(self, *exception: object) -> None:
        self.over()
        if exception[0] is None:
            self.check()

    def over(self) -> None:
        """Begin no more rounds, and complete those that are begun."""
        self._over.set()
        self._pool.shutdown()

    def check(self) -> None:
        """Raise what a client has stumbled on."""
        for future in self._running:
            if future.done():
                future.result()

    def reach(self, acknowledged: int) -> None:
        """Wait until so many requests in all are acknowledged, while clients get on at all."""
        while (before := self.ledger.acknowledged) < acknowledged:
            until(lambda seen=before: self._moved(seen), "requests are answered", 2 * PATIENCE_S)

    def _moved(self, before: int) -> bool:
        self.check()
        return self.ledger.acknowledged > before

    def _client(self, first: int) -> None:
        with httpx.Client(base_url=self._urls[first % len(self._urls)], timeout=20.0) as http:
            i = first
            while not self._over.is_set():
                self._round(http, i)
                i += self.clients
                self._over.wait(self._pause_s)

    def _round(self, http: httpx.Client, i: int) -> None:
        rng = random.Random(self._seed * 1_000_000 + i)
        decision_id = f"{self._seed}-{i}"
        asked = {"decision_id": decision_id, "query": {"text": f"question {i % 97}"}}
        made = self._post(http, "/route", asked)
        self.ledger.decisions[decision_id] = made["arm"], made["propensity"]
        if rng.random() < self.asks_again:
            assert self._post(http, "/route", asked) == made
        about = {name: made[name] for name in ("decision_id", "token") if made[name]}
        outcome = {
            "quality": rng.random(),
            "latency_ms": rng.uniform(50, 5_000),
            "cost_usd": rng.uniform(0, 0.01),
        }
        self._report(http, about, outcome, rng)

    def _report(
        self,
        http: httpx.Client,
        about: dict[str, str],
        outcome: dict[str, float],
        rng: random.Random,
    ) -> None:
        """Report on the decision that `about` names, and on one that wasn't logged brings along."""
        for part in _parts(outcome, rng):
            receipt = self._post(http, "/reward", {**about, **part})
            assert {*receipt["accepted"], *receipt["unchanged"]} == part.keys()
            self.ledger.reports(about["decision_id"], part, late=receipt["late"])

    def _post(self, http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._answer(http, path, body, {200}).json()
        return found

    def _answer(
        self, http: httpx.Client, path: str, body: dict[str, Any], wanted: set[int]
    ) -> httpx.Response:
        """Ask until there is an answer; a lost connection or a refusal acknowledges nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            sent = time.monotonic()
            try:
                answer = http.post(path, json=body)
            except httpx.TransportError:
                self.ledger.answered(LOST, sent)
            else:
                self.ledger.answered(answer.status_code, sent)
                if answer.status_code in wanted:
                    return answer
                assert answer.status_code in ANNOUNCED, answer.text
                assert answer.json()["type"] == ANNOUNCED[answer.status_code]
                assert int(answer.headers["Retry-After"]) >= 1
            assert time.monotonic() < deadline, f"no answer to {path} within {PATIENCE_S} s"
            time.sleep(0.02)


def _parts(outcome: dict[str, float], rng: random.Random) -> Iterator[dict[str, float]]:
    """All at once, or quality last, as a grader's verdict would come."""
    if rng.random() < 0.8:
        yield outcome
    else:
        yield {name: outcome[name] for name in ("latency_ms", "cost_usd")}
        yield {"quality": outcome["quality"]}

"""What decides and learns in simulated traffic: a policy in process, or a service over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from features.encoder import Encoder
from features.profile import Profile, profile
from features.query import Hints, Query
from pointsman.trying.lag import RATE, Lag, Published
from pointsman.trying.outcomes import OutcomeSet
from pointsman_client import Client, PointsmanError
from pointsman_client.answers import Decision
from pointsman_client.options import RewardRequest, RouteRequest
from policy import policy as policies
from policy import records
from policy.choosing.incumbent import START, Ledger
from policy.choosing.rules import chosen_by
from policy.config.schema import PolicyConfig
from policy.deciding import Encoded
from policy.policy import Policy, Request
from policy.records import Context, OutcomeBatch
from policy.values import models
from policy.values.protocol import ValueModel

MAX_BATCH = 256  # rounds in one request: a service takes 1,024 by default

A = TypeVar("A")
Tick = Callable[[int], object]
"""Told how many rounds are done since it was told last."""


@dataclass(frozen=True, slots=True)
class Routed:
    """One round: which query (its row), which arm (its column), under which id, by which
    snapshot."""

    row: int
    arm: int
    decision_id: str
    snapshot: int = 0
    propensity: float = np.nan
    eligible: bytes = b""
    confidence: float = np.nan


class Router(Protocol):
    """What decides and learns."""

    def route(self, rows: Sequence[int]) -> list[Routed]: ...

    def reward(self, routed: Sequence[Routed]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A query as a policy sees it, profiled and encoded once for all shuffles."""

    request: Request
    known: Profile
    x: Context


def asked(outcomes: OutcomeSet, encoder: Encoder, hints: bool, tick: Tick) -> list[Asked]:
    """All queries of a set, encoded."""
    made = []
    for row in range(len(outcomes)):
        request = as_request(outcomes, row, hints)
        known = profile(request.query, request.hints)
        made.append(Asked(request, known, encoder.encode(request.query, request.hints, known)))
        tick(1)
    return made


def as_request(outcomes: OutcomeSet, row: int, hints: bool) -> Request:
    """One query of a set with its labels; with `hints` its category is told as the task type."""
    category = outcomes.categories[row] if hints else ""
    told = Hints(task_type=category or None, labels=dict(outcomes.labels_of(row)))
    return Request(Query(text=outcomes.texts[row]), told)


def round_id(run: str, number: int) -> str:
    """The id of the decision of a run's round, counted from 1; the id decides the draw."""
    return f"{run}.{number}"


class InProcess:
    """A policy and its learner in this process, cold unless it is given what to start from.

    What has arrived is learned when `lag` says that a snapshot with it is in force: by default as
    late as a service's would be.
    """

    def __init__(
        self,
        outcomes: OutcomeSet,
        config: PolicyConfig,
        encoder: Encoder,
        queries: Sequence[Asked],
        run: str,
        model: ValueModel | None = None,
        lag: Lag | None = None,
    ) -> None:
        self._outcomes = outcomes
        self._config = config
        self._encoder = encoder
        self._queries = queries
        self._run = run
        self._model = model or models.new_model(config, encoder)
        self._lag = lag or Published.at(RATE)
        self._ledger = Ledger.of(config, encoder.d)
        self._arrived: list[Routed] = []
        self._learned = 0
        self._rounds = 0
        self._snapshot = 0
        self.policy = self._publish()

    def route(self, rows: Sequence[int]) -> list[Routed]:
        return [self._route(row) for row in rows]

    def _route(self, row: int) -> Routed:
        query = self._queries[row]
        seen = self._lag(self._rounds, self._learned + len(self._arrived))
        self._learn(seen - self._learned)
        self._rounds += 1
        decision_id = round_id(self._run, self._rounds)
        asked = Encoded(query.request, decision_id, query.known, query.x)
        decision = self.policy.decide_encoded(asked, 0)
        catalog = self._outcomes.catalog
        return Routed(
            row,
            catalog.index(decision.arm),
            decision_id,
            decision.snapshot,
            decision.propensity,
            records.packed(catalog.among(decision.arms)),
            np.nan if decision.confidence is None else decision.confidence,
        )

    def reward(self, routed: Sequence[Routed]) -> None:
        self._arrived += routed

    def _learn(self, n: int) -> None:
        """Learn the next n of the outcomes that have arrived, and publish."""
        if n <= 0 or self._model is None:
            return
        batch = self._batch(self._arrived[:n])
        self._model.learn(batch)
        if self._ledger is not None:
            self._ledger.add(batch)
        self._learned += n
        del self._arrived[:n]
        self.policy = self._publish()

    def _publish(self) -> Policy:
        policy = policies.build(
            "default",
            "1",
            self._snapshot,
            config=self._config,
            encoder=self._encoder,
            catalog=self._outcomes.catalog,
            view=None if self._model is None else self._model.view(),
            standing=START if self._ledger is None else self._ledger.standing(),
        )
        self._snapshot += 1
        return policy

    def _batch(self, routed: Sequence[Routed]) -> OutcomeBatch:
        rows = np.array([one.row for one in routed], dtype=np.intp)
        arms = np.array([one.arm for one in routed], dtype=np.intp)
        queries = [self._queries[row] for row in rows]
        catalog, n = self._outcomes.catalog, len(routed)
        return OutcomeBatch(
            arms=[catalog.ids[arm] for arm in arms],
            x=np.stack([query.x for query in queries]),
            quality=self._outcomes.quality[rows, arms],
            latency_ms=self._outcomes.latency_ms[rows, arms],
            cost_usd=self._outcomes.cost_usd[rows, arms],
            error=np.zeros(n, dtype=bool),
            settled=np.zeros((n, 3), dtype=bool),
            list_cost_usd=np.array(
                [
                    catalog.list_cost_usd(
                        query.known.prompt_tokens, query.known.output_tokens, arms[i : i + 1]
                    )[0]
                    for i, query in enumerate(queries)
                ]
            ),
            asked=np.array([chosen_by(query.known) for query in queries]),
            propensity=np.array([one.propensity for one in routed]),
            catalogs=[catalog] * n,
            eligible=[one.eligible for one in routed],
        )


class OverHttp:
    """A running service, at most `concurrency` requests at a time. With `run` decisions have the
    ids that they would have in process; else the service gives them new ones."""

    def __init__(
        self,
        client: Client,
        outcomes: OutcomeSet,
        hints: bool,
        concurrency: int = 1,
        run: str | None = None,
    ) -> None:
        self._client = client
        self._outcomes = outcomes
        self._hints = hints
        self._run = run
        self._rounds = 0
        self._pool = ThreadPoolExecutor(concurrency) if concurrency > 1 else None

    def __enter__(self) -> OverHttp:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def route(self, rows: Sequence[int]) -> list[Routed]:
        first = self._rounds + 1
        self._rounds += len(rows)
        return list(self._map(self._route, [*enumerate(rows, first)]))

    def reward(self, routed: Sequence[Routed]) -> None:
        for _ in self._map(self._reward, routed):
            pass

    def _map(self, call: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return map(call, items) if self._pool is None else self._pool.map(call, items)

    def _route(self, numbered: tuple[int, int]) -> Routed:
        number, row = numbered
        query = _query(self._outcomes, row, self._hints)
        if self._run is not None:
            query["decision_id"] = round_id(self._run, number)
        return _routed(self._outcomes, row, self._client.route(**query))

    def _reward(self, one: Routed) -> None:
        self._client.reward(**_report(self._outcomes, one))


class InBatches:
    """A running service that is asked, and told, with one request for all rounds that are due."""

    def __init__(self, client: Client, outcomes: OutcomeSet, hints: bool) -> None:
        self._client = client
        self._outcomes = outcomes
        self._hints = hints

    def route(self, rows: Sequence[int]) -> list[Routed]:
        answers = self._client.route_batch(_query(self._outcomes, row, self._hints) for row in rows)
        return [
            _routed(self._outcomes, row, decision)
            for row, decision in zip(rows, map(_answered, answers), strict=True)
        ]

    def reward(self, routed: Sequence[Routed]) -> None:
        for start in range(0, len(routed), MAX_BATCH):
            some = routed[start : start + MAX_BATCH]
            for answer in self._client.reward_batch(_report(self._outcomes, one) for one in some):
                _answered(answer)


def _query(outcomes: OutcomeSet, row: int, hints: bool) -> RouteRequest:
    category = outcomes.categories[row] if hints else ""
    labels = outcomes.labels_of(row)
    return {"text": outcomes.texts[row], "task_type": category or None, "labels": labels}


def _routed(outcomes: OutcomeSet, row: int, decision: Decision) -> Routed:
    arm = outcomes.catalog.index(decision.arm)
    return Routed(row, arm, decision.decision_id, decision.snapshot)


def _report(outcomes: OutcomeSet, one: Routed) -> RewardRequest:
    latency_ms, cost_usd = (
        float(values[one.row, one.arm]) for values in (outcomes.latency_ms, outcomes.cost_usd)
    )
    return {
        "decision_id": one.decision_id,
        "quality": float(outcomes.quality[one.row, one.arm]),
        "cost_usd": None if np.isnan(cost_usd) else cost_usd,
        "latency_ms": None if np.isnan(latency_ms) else latency_ms,
    }


def _answered(answer: A | PointsmanError) -> A:
    if isinstance(answer, PointsmanError):
        raise answer
    return answer

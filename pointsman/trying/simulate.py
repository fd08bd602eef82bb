"""Traffic from full-information outcomes: route, look the chosen arm's outcome up, report it.

One loop drives a policy in process or a service over HTTP. Prints nothing and opens no file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from features.encoder import Encoder
from features.profile import Profile, profile
from features.query import Hints, Query
from pointsman.client import Client, PointsmanError, RewardRequest, RouteRequest
from pointsman.trying.outcomes import OutcomeSet
from policy import policy as policies
from policy import records
from policy.arms.catalog import Index, Mask, Vector
from policy.config.schema import PolicyConfig
from policy.objective import components, reward
from policy.policy import Policy, Request
from policy.records import Context, OutcomeBatch
from policy.values import models
from policy.values.protocol import ValueModel
from policy.values.warm import Corpus, warm_start

MAX_BATCH = 256  # rounds in one request, which a service takes by default
MAX_GAP = 32  # outcomes between two snapshots, in the long run

A = TypeVar("A")
Tick = Callable[[int], object]
"""Told how many rounds are done since it was told last."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """How queries come in and how their rewards come back."""

    seed: int = 0
    delay: int = 0
    """Rounds that lie between a decision and its reward."""
    loss: float = 0.0
    """The probability that a reward never comes."""
    hints: bool = True
    """Send the category as the task type; else the text alone."""
    warm: int = 0
    """Queries of each shuffle whose outcomes, of all arms, are known before; the others count."""
    warm_labels: bool = True
    """These queries tell their categories, also where the traffic doesn't."""

    def shuffle(self, n: int, number: int) -> tuple[Index, Mask]:
        """The order of n queries in shuffle `number`, and which rounds lose their reward."""
        rng = np.random.default_rng((self.seed, number))
        return rng.permutation(n), rng.random(n) < self.loss


@dataclass(frozen=True, slots=True)
class Routed:
    """One round: which query (its row), which arm (its column), under which id."""

    row: int
    arm: int
    decision_id: str
    propensity: float = np.nan
    eligible: bytes = b""


class Router(Protocol):
    """What decides and learns."""

    def route(self, rows: Sequence[int]) -> list[Routed]: ...

    def reward(self, routed: Sequence[Routed]) -> None: ...


def drive(
    router: Router, order: Index, lost: Mask, delay: int, tick: Tick, at_once: int = 1
) -> Index:
    """The arms (n,) that a router chose, in the order of the rounds, `at_once` rounds at a time.

    A reward is reported once `delay` later rounds have been decided; the last ones after the end.
    """
    chosen = np.empty(len(order), dtype=np.intp)
    waiting: deque[tuple[int, Routed]] = deque()
    for start in range(0, len(order), at_once):
        routed = router.route(order[start : start + at_once].tolist())
        for i, one in enumerate(routed, start):
            chosen[i] = one.arm
            if not lost[i]:
                waiting.append((i + delay, one))
        due = []
        while waiting and waiting[0][0] < start + len(routed):
            due.append(waiting.popleft()[1])
        if due:
            router.reward(due)
        tick(len(routed))
    router.reward([one for _, one in waiting])
    return chosen


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A query as a policy sees it, profiled and encoded once for all shuffles."""

    request: Request
    known: Profile
    x: Context


def asked(outcomes: OutcomeSet, encoder: Encoder, hints: bool, tick: Tick) -> list[Asked]:
    """All queries of a set, encoded."""
    made = []
    for text, category in zip(outcomes.texts, outcomes.categories, strict=True):
        request = Request(Query(text=text), _hints(category, hints))
        known = profile(request.query, request.hints)
        made.append(Asked(request, known, encoder.encode(request.query, request.hints, known)))
        tick(1)
    return made


def _hints(category: str, hints: bool) -> Hints:
    return Hints(task_type=category) if hints and category else Hints()


class InProcess:
    """A policy and its learner in this process, cold unless it is given what to start from.

    The learner publishes after each of the first 16 outcomes, then ever more rarely, in the end
    after each 32. A service publishes by the clock, so there it depends on the rate.
    """

    def __init__(
        self,
        outcomes: OutcomeSet,
        config: PolicyConfig,
        encoder: Encoder,
        queries: Sequence[Asked],
        run: str,
        model: ValueModel | None = None,
    ) -> None:
        self._outcomes = outcomes
        self._config = config
        self._encoder = encoder
        self._queries = queries
        self._run = run
        self._model = model or models.new_model(config, encoder)
        self._arrived: list[Routed] = []
        self._learned = 0
        self._rounds = 0
        self._snapshot = 0
        self.policy = self._publish()

    def route(self, rows: Sequence[int]) -> list[Routed]:
        return [self._route(row) for row in rows]

    def _route(self, row: int) -> Routed:
        query = self._queries[row]
        self._rounds += 1
        decision_id = f"{self._run}.{self._rounds}"
        decision = self.policy.decide_encoded(query.request, query.known, query.x, decision_id, 0)
        catalog = self._outcomes.catalog
        return Routed(
            row,
            catalog.index(decision.arm),
            decision_id,
            decision.propensity,
            records.packed(catalog.among(decision.arms)),
        )

    def reward(self, routed: Sequence[Routed]) -> None:
        self._arrived += routed
        if self._model is None or len(self._arrived) < min(max(self._learned // 16, 1), MAX_GAP):
            return
        self._model.learn(self._batch(self._arrived))
        self._learned += len(self._arrived)
        self._arrived = []
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
            propensity=np.array([one.propensity for one in routed]),
            catalogs=[catalog] * n,
            eligible=[one.eligible for one in routed],
        )


def corpus(outcomes: OutcomeSet, rows: Index, labels: bool) -> Corpus:
    """Some queries of a set with the outcomes of all arms."""
    k = len(outcomes.catalog)
    some = outcomes.take(rows)
    return Corpus(
        catalog=outcomes.catalog,
        queries=[
            Request(Query(text=text), _hints(category, labels))
            for text, category in zip(some.texts, some.categories, strict=True)
        ],
        row=np.repeat(np.arange(len(rows)), k),
        arm=np.tile(np.arange(k), len(rows)),
        quality=some.quality.ravel(),
        latency_ms=some.latency_ms.ravel(),
        cost_usd=some.cost_usd.ravel(),
        error=np.zeros(len(rows) * k, dtype=bool),
        propensity=np.full(len(rows) * k, np.nan),
    )


class OverHttp:
    """A running service, at most `concurrency` requests at a time."""

    def __init__(
        self, client: Client, outcomes: OutcomeSet, hints: bool, concurrency: int = 1
    ) -> None:
        self._client = client
        self._outcomes = outcomes
        self._hints = hints
        self._pool = ThreadPoolExecutor(concurrency) if concurrency > 1 else None

    def __enter__(self) -> OverHttp:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def route(self, rows: Sequence[int]) -> list[Routed]:
        return list(self._map(self._route, rows))

    def reward(self, routed: Sequence[Routed]) -> None:
        for _ in self._map(self._reward, routed):
            pass

    def _map(self, call: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return map(call, items) if self._pool is None else self._pool.map(call, items)

    def _route(self, row: int) -> Routed:
        decision = self._client.route(**_query(self._outcomes, row, self._hints))
        return Routed(row, self._outcomes.catalog.index(decision.arm), decision.decision_id)

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
        arms = self._outcomes.catalog
        return [
            Routed(row, arms.index(decision.arm), decision.decision_id)
            for row, decision in zip(rows, map(_answered, answers), strict=True)
        ]

    def reward(self, routed: Sequence[Routed]) -> None:
        for start in range(0, len(routed), MAX_BATCH):
            some = routed[start : start + MAX_BATCH]
            for answer in self._client.reward_batch(_report(self._outcomes, one) for one in some):
                _answered(answer)


def _query(outcomes: OutcomeSet, row: int, hints: bool) -> RouteRequest:
    category = outcomes.categories[row] if hints else ""
    return {"text": outcomes.texts[row], "task_type": category or None}


def _report(outcomes: OutcomeSet, one: Routed) -> RewardRequest:
    latency_ms = float(outcomes.latency_ms[one.row, one.arm])
    return {
        "decision_id": one.decision_id,
        "quality": float(outcomes.quality[one.row, one.arm]),
        "cost_usd": float(outcomes.cost_usd[one.row, one.arm]),
        "latency_ms": None if np.isnan(latency_ms) else latency_ms,
    }


def _answered(answer: A | PointsmanError) -> A:
    if isinstance(answer, PointsmanError):
        raise answer
    return answer


def differences(outcomes: OutcomeSet, arms: Iterable[str]) -> str:
    """How a service's arms differ from a set's, in words; empty where they don't."""
    served, wanted = set(arms), set(outcomes.catalog.ids)
    found = [
        f"{what} {', '.join(sorted(names))}"
        for what, names in (("it lacks", wanted - served), ("it also has", served - wanted))
        if names
    ]
    return "; ".join(found)


@dataclass(frozen=True, eq=False)
class Hindsight:
    """What is known only when every arm's outcomes are: rewards (n, k) and the fixed choices."""

    reward: Vector
    category: Index
    """(n,) the number of each query's category."""

    @classmethod
    def of(cls, outcomes: OutcomeSet, config: PolicyConfig) -> Hindsight:
        """Judge a set by a policy's objective; ValueError where the set lacks what it weighs."""
        if config.weights.latency and not outcomes.has_latency:
            raise ValueError(f"the objective weighs latency, which {outcomes.name} doesn't have")
        y = components(
            outcomes.quality.ravel(),
            outcomes.latency_ms.ravel(),
            outcomes.cost_usd.ravel(),
            np.zeros(outcomes.quality.size, dtype=bool),
            config.scales,
        )
        rewards = reward(y, config.weights).reshape(outcomes.quality.shape)
        return cls(rewards, outcomes.category_index)

    def uniform(self, rows: Index) -> Vector:
        """(rows,) the mean reward of all arms."""
        mean: Vector = self.reward[rows].mean(axis=1)
        return mean

    def single(self, rows: Index) -> Vector:
        """(rows,) the rewards of the arm that is best for all of these queries."""
        best: Vector = self.reward[rows, self.best(rows)]
        return best

    def per_category(self, rows: Index) -> Vector:
        """(rows,) the rewards of the arm that is best for all of these queries of a category."""
        best: Vector = self.reward[rows, self.rule(rows)]
        return best

    def best(self, rows: Index) -> int:
        """The arm that is best for all of these queries."""
        return int(self.reward[rows].mean(axis=0).argmax())

    def rule(self, rows: Index) -> Index:
        """(rows,) the arm that is best for all of these queries of a category."""
        sums = np.zeros((int(self.category.max()) + 1, self.reward.shape[1]))
        np.add.at(sums, self.category[rows], self.reward[rows])
        best: Index = sums.argmax(axis=1)[self.category[rows]]
        return best


@dataclass(frozen=True, eq=False)
class Result:
    """m shuffles of the same n rounds: the query and the arm of each round, (m, n)."""

    outcomes: OutcomeSet
    hindsight: Hindsight
    order: Index
    arms: Index
    seconds: float

    @cached_property
    def rewards(self) -> Vector:
        """(m, n) in the order of the rounds."""
        earned: Vector = self.hindsight.reward[self.order, self.arms]
        return earned

    @property
    def mean_reward(self) -> float:
        return float(self.rewards.mean())

    @cached_property
    def in_hindsight(self) -> tuple[Vector, Vector, Vector]:
        """Rewards (m, n) of uniform choice, the best single arm and the best arm per category,
        where all rounds of a shuffle are known."""
        of = self.hindsight
        uniform, single, rule = (
            np.stack([rewards(rows) for rows in self.order])
            for rewards in (of.uniform, of.single, of.per_category)
        )
        return uniform, single, rule

    @property
    def captured(self) -> Vector:
        """(m,) how much of the way from the best single arm to the rule per category was made;
        NaN where there is no such way."""
        _, best, rule = (rewards.mean(axis=1) for rewards in self.in_hindsight)
        way = rule - best
        gained = self.rewards.mean(axis=1) - best
        shares: Vector = np.divide(gained, way, out=np.full(len(way), np.nan), where=way > 1e-12)
        return shares

    def share(self, rounds: slice) -> Vector:
        """(k,) the share that each arm had of some rounds."""
        taken = self.arms[:, rounds]
        shares: Vector = np.bincount(taken.ravel(), minlength=len(self.outcomes.catalog)) / (
            taken.size or 1
        )
        return shares

    def figures(self) -> dict[str, float | int | None]:
        """What `--json` prints; null where a figure can't be known."""
        captured = self.captured
        uniform, best, rule = (float(rewards.mean()) for rewards in self.in_hindsight)
        m = len(captured)
        error = captured.std(ddof=1) / np.sqrt(m) if m > 1 else np.nan
        return {
            "mean_reward": self.mean_reward,
            "best_single": best,
            "best_per_category": rule,
            "uniform": uniform,
            "captured": _known(captured.mean()),
            "captured_se": _known(error),
            "rounds": self.order.shape[1],
            "shuffles": m,
            "seconds": self.seconds,
        }


def together(results: Sequence[Result]) -> Result:
    """The shuffles of several results of one set as one; the time is that of the longest."""
    first = results[0]
    return replace(
        first,
        order=np.concatenate([result.order for result in results]),
        arms=np.concatenate([result.arms for result in results]),
        seconds=max(result.seconds for result in results),
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def silent(_: int) -> None:
    """A tick that nobody watches."""


def in_process(
    outcomes: OutcomeSet,
    config: PolicyConfig,
    traffic: Traffic,
    shuffles: Iterable[int] = (0,),
    tick: Tick = silent,
) -> Result:
    """Drive a policy through some shuffles, cold or from the first `traffic.warm` queries of each;
    one tick per query encoded and per round."""
    started = time.perf_counter()
    if not 0 <= traffic.warm < len(outcomes):
        raise ValueError(f"warm must be in [0, {len(outcomes)}), got {traffic.warm}")
    hindsight = Hindsight.of(outcomes, config)
    encoder, model = models.default_encoder(config), None
    queries = asked(outcomes, encoder, traffic.hints, tick) if not traffic.warm else []
    orders, chosen = [], []
    for number in shuffles:
        order, lost = traffic.shuffle(len(outcomes), number)
        known, order, lost = order[: traffic.warm], order[traffic.warm :], lost[traffic.warm :]
        if traffic.warm:
            encoder, model = warm_start(config, corpus(outcomes, known, traffic.warm_labels))
            queries = asked(outcomes, encoder, traffic.hints, tick)
        run = f"{traffic.seed}.{number}"
        router = InProcess(outcomes, config, encoder, queries, run, model)
        chosen.append(drive(router, order, lost, traffic.delay, tick))
        orders.append(order)
    seconds = time.perf_counter() - started
    return Result(outcomes, hindsight, np.stack(orders), np.stack(chosen), seconds)


def over_http(
    outcomes: OutcomeSet,
    config: PolicyConfig,
    traffic: Traffic,
    client: Client,
    concurrency: int = 1,
    tick: Tick = silent,
    batch: int = 1,
) -> Result:
    """Drive a running service once through the set; `config` only scores what comes of it.

    `concurrency` rounds are under way at once, each with requests of its own, or instead of that
    `batch` rounds share each request, which takes less time.

    Raises
    ------
    ValueError
        If the service's arms aren't the set's.
    pointsman.PointsmanError
        If the service can't be reached or refuses.
    """
    started = time.perf_counter()
    hindsight = Hindsight.of(outcomes, config)
    serving = [arm["arm"] for arm in client.arms() if arm.get("enabled", True)]
    if found := differences(outcomes, serving):
        raise ValueError(
            f"the service's arms are not those of {outcomes.name}: {found} "
            "(--write-config writes a configuration that fits)"
        )
    order, lost = traffic.shuffle(len(outcomes), 0)
    if batch > 1:
        in_batches = InBatches(client, outcomes, traffic.hints)
        chosen = drive(in_batches, order, lost, traffic.delay, tick, batch)
    else:
        with OverHttp(client, outcomes, traffic.hints, concurrency) as router:
            chosen = drive(router, order, lost, traffic.delay, tick, concurrency)
    seconds = time.perf_counter() - started
    return Result(outcomes, hindsight, order[None], chosen[None], seconds)


def sample(outcomes: OutcomeSet, rounds: int | None, seed: int) -> OutcomeSet:
    """At most `rounds` of a set's queries, the same for every shuffle and every baseline."""
    if rounds is None or rounds >= len(outcomes):
        return outcomes
    rows = np.random.default_rng(seed).permutation(len(outcomes))[:rounds]
    return outcomes.take(np.sort(rows))

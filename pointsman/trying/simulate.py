"""Traffic from full-information outcomes: route, look the chosen arm's outcome up, report it.

One loop drives a policy in process or a service over HTTP. Prints nothing and opens no file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pointsman.trying.lag import RATE, Published
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.result import Hindsight, Result
from pointsman.trying.routers import (
    InBatches,
    InProcess,
    OverHttp,
    Routed,
    Router,
    Tick,
    as_request,
    asked,
)
from pointsman_client import Client
from policy.arms.catalog import Index, Mask
from policy.config.schema import PolicyConfig
from policy.values import models
from policy.values.warm import Corpus, warm_start


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
    rate: float = RATE
    """Rounds a second, in process: a service publishes by the clock, so the faster it is asked,
    the more rounds pass before an outcome is in force."""

    def shuffle(self, n: int, number: int) -> tuple[Index, Mask]:
        """The order of n queries in shuffle `number`, and which rounds lose their reward."""
        rng = np.random.default_rng((self.seed, number))
        return rng.permutation(n), rng.random(n) < self.loss


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


def corpus(outcomes: OutcomeSet, rows: Index, labels: bool) -> Corpus:
    """Some queries of a set with the outcomes of all arms."""
    k = len(outcomes.catalog)
    some = outcomes.take(rows)
    return Corpus(
        catalog=outcomes.catalog,
        queries=[as_request(some, row, labels) for row in range(len(some))],
        row=np.repeat(np.arange(len(rows)), k),
        arm=np.tile(np.arange(k), len(rows)),
        quality=some.quality.ravel(),
        latency_ms=some.latency_ms.ravel(),
        cost_usd=some.cost_usd.ravel(),
        error=np.zeros(len(rows) * k, dtype=bool),
        propensity=np.full(len(rows) * k, np.nan),
    )


def differences(outcomes: OutcomeSet, arms: Iterable[str]) -> str:
    """How a service's arms differ from a set's, in words; empty where they don't."""
    served, wanted = set(arms), set(outcomes.catalog.ids)
    found = [
        f"{what} {', '.join(sorted(names))}"
        for what, names in (("it lacks", wanted - served), ("it also has", served - wanted))
        if names
    ]
    return "; ".join(found)


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
        lag = Published.at(traffic.rate)
        router = InProcess(outcomes, config, encoder, queries, run, model, lag)
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

"""What a budget keeps and what it costs: `python -m benchmarks.budget FOLDER [--shuffles 4]
[--json FILE]`.

The folder holds full-information outcomes (see pointsman/trying/outcomes.py). A run is days of
10,000 queries each, drawn anew from the set, under a hard budget a day, with the category as a hint
and rewards at once, from a warm start of 500 queries or cold; only quality counts beside the
budget. Scenes: `steady`; `cheaper`, where the dearest arm's price falls tenfold at noon of the
second day; `doubled`, where the traffic doubles at each noon. `over` is how much of the budget was
passed (negative: left), the worst and the mean of all days; `gain` is the mean quality above that
of the best fixed mixture of two arms in hindsight which spends as much on the same queries, of the
last day; `refused` counts the queries that got no arm.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import tables
from pointsman.commands.settings import progress
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.routers import Asked, asked
from pointsman.trying.simulate import Traffic, corpus, silent
from policy import policy as policies
from policy.arms.catalog import Catalog, Index, Vector
from policy.arms.constraints import NoEligibleArm
from policy.choosing.pacing import Budget, Pace, Purse, spent
from policy.config.schema import PolicyConfig
from policy.deciding import Encoded
from policy.policy import Policy
from policy.records import OutcomeBatch, packed
from policy.values import models
from policy.values.warm import warm_start

SCENES = ("steady", "cheaper", "doubled")
DAY_MS = 86_400_000
ROUNDS = 10_000  # a day
EVERY = 16  # rounds, after which a snapshot is taken


@dataclass(frozen=True, slots=True)
class Day:
    """What a day spent beside its budget, and earned beside the best mixture of the same spend."""

    over: float
    gain: float
    refused: int


def times(rng: np.random.Generator, day: int, scene: str) -> Vector:
    """When a day's queries come, in ms; in `doubled` two in three after noon."""
    u = np.sort(rng.random(ROUNDS))
    if scene == "doubled":
        u = np.where(u < 1 / 3, 1.5 * u, 0.5 + 0.75 * (u - 1 / 3))
    return (day + u) * DAY_MS


def mixture(quality: Vector, cost: Vector, spend: float) -> float:
    """The mean quality of the best mixture of two arms (n, k) that costs at most `spend` a row."""
    q, c = quality.mean(axis=0), cost.mean(axis=0)
    best = -np.inf
    for low in range(len(c)):
        for high in range(len(c)):
            if c[low] <= spend and c[high] >= c[low]:
                part = 1.0 if c[high] <= spend else (spend - c[low]) / (c[high] - c[low])
                best = max(best, q[low] + part * (q[high] - q[low]))
    return float(best)


def cheaper(catalog: Catalog, arm: str, part: float) -> Catalog:
    """A catalog where one arm's prices are a part of what they were."""
    now = catalog.arm(arm)
    names = ("usd_per_mtok_in", "usd_per_mtok_out")
    prices = {name: part * (getattr(now, name) or 0.0) for name in names}
    then = now.model_copy(update=prices)
    return Catalog(tuple(then if one.id == arm else one for one in catalog.arms))


class Run:
    """One policy through some days."""

    def __init__(self, outcomes: OutcomeSet, scene: str, usd: float, warm: int, number: int):
        self.outcomes, self.scene, self.budget = outcomes, scene, Budget(usd=usd * ROUNDS)
        objective = folders.config(outcomes).policies["default"].objective
        of_quality = objective.model_copy(update={"quality": 1.0, "latency": 0.0, "cost": 0.0})
        self.config = PolicyConfig(objective=of_quality)
        order, _ = Traffic().shuffle(len(outcomes), number)
        self.rows = order[warm:]
        if warm:
            known = corpus(outcomes, order[:warm], labels=True)
            self.encoder, model = warm_start(self.config, known)
        else:
            self.encoder = models.default_encoder(self.config)
            model = models.new_model(self.config, self.encoder)
        assert model is not None  # of the default policy
        self.model = model
        self.queries: list[Asked] = asked(outcomes, self.encoder, True, silent)
        self.dearest = int(outcomes.cost_usd.mean(axis=0).argmax())
        self.rng = np.random.default_rng((number, 7))
        self.purse = Purse()
        self.name = f"{scene}.{usd}.{warm}.{number}"

    def days(self, count: int) -> Iterator[Day]:
        for day in range(count):
            yield self._day(day)

    def _part(self, day: float) -> float:
        return 0.1 if self.scene == "cheaper" and day >= 1.5 else 1.0

    def _policy(self, part: float) -> Policy:
        catalog = cheaper(self.outcomes.catalog, self.outcomes.catalog.ids[self.dearest], part)
        return policies.build(
            self.name,
            "1",
            1,
            config=self.config,
            encoder=self.encoder,
            catalog=catalog,
            view=self.model.view(),
        )

    def _day(self, day: int) -> Day:
        rows = self.rng.choice(self.rows, ROUNDS)
        cost = self.outcomes.cost_usd[rows].copy()
        at = times(self.rng, day, self.scene)
        cost[:, self.dearest] *= [self._part(moment / DAY_MS) for moment in at]
        quality = self.outcomes.quality[rows]
        earned, paid, refused = np.zeros(ROUNDS), np.zeros(ROUNDS), 0
        policy, waiting = self._policy(self._part(day)), list[OutcomeBatch]()
        for i, row in enumerate(rows.tolist()):
            try:
                arm, batch = self._decide(policy, row, f"{day}.{i}", int(at[i]), cost[i])
            except NoEligibleArm:
                refused += 1
                continue
            earned[i], paid[i] = quality[i, arm], cost[i, arm]
            waiting.append(batch)
            if len(waiting) == EVERY:
                for one in waiting:
                    self.model.learn(one)
                policy, waiting = self._policy(self._part(at[i] / DAY_MS)), []
        best = mixture(quality, cost, float(paid.mean()))
        return Day(float(paid.sum()) / self.budget.usd - 1.0, float(earned.mean()) - best, refused)

    def _decide(
        self, policy: Policy, row: int, number: str, now_ms: int, cost: Vector
    ) -> tuple[int, OutcomeBatch]:
        query, pace = self.queries[row], Pace.of(self.budget, self.purse, now_ms)
        asked = Encoded(query.request, f"{self.name}.{number}", query.known, query.x)
        decision = replace(policy, pace=pace).decide_encoded(asked, now_ms)
        index = np.array([policy.catalog.index(arm) for arm in decision.arms])
        listed = policy.catalog.list_cost_usd(
            query.known.prompt_tokens, query.known.output_tokens, index
        )
        expected = decision.predicted[:, 2]
        expected = np.where(np.isnan(expected), listed, expected)
        at = decision.arms.index(decision.arm)
        arm = int(index[at])
        self.purse = spent(
            pace,
            now_ms,
            float(decision.pmf @ expected),
            float(cost[arm]),  # rewards come at once
            float(expected.min()),
        )
        return arm, self._batch(policy.catalog, row, arm, float(listed[at]), cost, index)

    def _batch(
        self, catalog: Catalog, row: int, arm: int, listed: float, cost: Vector, index: Index
    ) -> OutcomeBatch:
        return OutcomeBatch(
            arms=[catalog.ids[arm]],
            x=self.queries[row].x[None],
            quality=self.outcomes.quality[row, [arm]],
            latency_ms=np.array([np.nan]),
            cost_usd=cost[[arm]],
            error=np.zeros(1, dtype=bool),
            settled=np.zeros((1, 3), dtype=bool),
            list_cost_usd=np.array([listed]),
            propensity=np.array([np.nan]),
            catalogs=[catalog],
            eligible=[packed(catalog.among([catalog.ids[i] for i in index]))],
        )


COLUMNS = {
    "worst": ("over, worst", "12.2%"),
    "mean": ("mean", "8.2%"),
    "gain": ("gain", "9.4f"),
    "gain_se": ("se", "8.4f"),
    "refused": ("refused", "8.1f"),
}


def measure(
    outcomes: OutcomeSet, scene: str, usd: float, warm: int, shuffles: int, days: int, tick: Any
) -> dict[str, float | int | str | None]:
    """A row of the table."""
    over, gain, refused = [], [], 0
    for number in range(shuffles):
        for day in Run(outcomes, scene, usd, warm, number).days(days):
            over.append(day.over)
            refused += day.refused
            tick(1)
        gain.append(day.gain)
    return {
        "worst": max(over),
        "mean": float(np.mean(over)),
        "gain": float(np.mean(gain)),
        "gain_se": float(np.std(gain, ddof=1) / np.sqrt(shuffles)) if shuffles > 1 else None,
        "refused": refused / shuffles,
    }


def main() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    summary = (__doc__ or "").partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=summary)
    parser.add_argument("set", type=Path, metavar="FOLDER")
    parser.add_argument("--usd", nargs="+", type=float, default=[0.0001, 0.0006, 0.003])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--warm", nargs="+", type=int, default=[500, 0])
    parser.add_argument("--shuffles", type=int, default=4)
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    try:
        outcomes = folders.load(options.set)
    except ValueError as error:
        parser.error(str(error))
    cells = [(s, u, w) for w in options.warm for u in options.usd for s in options.scenes]
    print(f"{'scene, USD a decision, warm':<32} {tables.head(COLUMNS)}")
    made = []
    with progress(len(cells) * options.shuffles * options.days) as tick:
        for scene, usd, warm in cells:
            row = measure(outcomes, scene, usd, warm, options.shuffles, options.days, tick)
            name = f"{scene}, {usd:g}, {warm}"
            print(f"{name:<32} {tables.cells(row, COLUMNS)}", flush=True)
            made.append({"scene": scene, "usd": usd, "warm": warm, **row})
    if options.json:
        options.json.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()

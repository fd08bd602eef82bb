"""A policy in process beside the service: `python -m benchmarks.http_parity [SET...] [--runs 10]
[--delays 0 50] [--json FILE]`.

A set is a folder of full-information outcomes (see pointsman/trying/outcomes.py) or `demo`, the
made-up one. Each run is a shuffle, cold, with the category as a hint, and is played three times
with the same decision ids, which decide the draws:

http        by a service of its own, one round at a time, over HTTP
replayed    in process, each decision by a snapshot of as many outcomes as over HTTP: the arms must
            be the same, and `other` counts those that are not
modelled    in process with snapshots as late as they were on average (see
            pointsman/trying/lag.py), which is what `simulate` does at a rate it is given

`gap` is the time between two snapshots over HTTP and `late` that from a snapshot's last outcome to
the first decision by it; a machine that does other things makes both longer. `difference` is
captured over HTTP less modelled, with the standard error of the runs' differences; `sd` is over the
runs, and `ratio` that of the two, which has a relative standard error of 1 / sqrt(runs - 1).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import tables
from pointsman.commands.settings import progress
from pointsman.trying import demo, trial
from pointsman.trying import outcomes as folders
from pointsman.trying.lag import Lag, Published
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.result import Hindsight, Result
from pointsman.trying.routers import Asked, InProcess, OverHttp, Routed, Tick, asked
from pointsman.trying.simulate import Traffic, drive, silent
from pointsman_client import Client
from policy.arms.catalog import Index, Mask, Vector
from policy.config.schema import Config, PolicyConfig
from policy.values import models

Figures = dict[str, Any]


@dataclass(frozen=True, eq=False)
class World:
    """What all runs share."""

    outcomes: OutcomeSet
    config: PolicyConfig
    queries: Sequence[Asked]
    hindsight: Hindsight
    rounds: int

    @classmethod
    def of(cls, name: str, rounds: int) -> World:
        """`demo`, or a folder; ValueError where that can't be read."""
        if name == "demo":
            outcomes, config = demo.make(rounds), demo.POLICY
        else:
            outcomes = folders.load(Path(name))
            config = folders.config(outcomes).policies["default"]
        queries = asked(outcomes, models.default_encoder(config), True, silent)
        hindsight = Hindsight.of(outcomes, config)
        return cls(outcomes, config, queries, hindsight, min(rounds, len(outcomes)))

    def order(self, number: int) -> Index:
        order, _ = Traffic().shuffle(len(self.outcomes), number)
        return order[: self.rounds]

    def captured(self, number: int, arms: Index) -> float:
        rows = self.order(number)[None]
        result = Result(self.outcomes, self.hindsight, rows, arms[None], 0.0)
        return float(result.captured[0])


class Noting(OverHttp):
    """A service, and how many outcomes each decision's snapshot has."""

    def __init__(self, client: Client, outcomes: OutcomeSet, run: str) -> None:
        super().__init__(client, outcomes, hints=True, run=run)
        self._http = client
        self._snapshot = 0
        self.has: list[int] = []
        self.missed = 0
        """Snapshots that were replaced before they could be asked after."""

    def route(self, rows: Sequence[int]) -> list[Routed]:
        routed = super().route(rows)
        for one in routed:
            if not self.has or one.snapshot != self._snapshot:
                (running,) = self._http.policies()
                self._snapshot = one.snapshot
                self.missed += running["snapshot"] != one.snapshot
                self.has.append(running["events"])
            else:
                self.has.append(self.has[-1])
        return routed


@dataclass(frozen=True, eq=False)
class Served:
    """A run over HTTP: by round, (n,), the arm and how many outcomes its snapshot had."""

    arms: Index
    has: Index
    missed: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rounds a second."""
        return len(self.arms) / self.seconds

    def gap(self) -> float:
        """Mean rounds between two snapshots."""
        return len(self.arms) / max(int(np.count_nonzero(np.diff(self.has))), 1)

    def late(self, delay: int) -> float:
        """Mean rounds from a snapshot's last outcome to the first decision by it."""
        first = np.flatnonzero(np.diff(self.has)) + 1
        return float((first - delay - self.has[first]).mean()) if len(first) else 0.0


def serve(world: World, number: int, delay: int, tick: Tick) -> Served:
    """One run by a fresh service."""
    config = Config(world.outcomes.catalog, {"default": world.config})
    service = trial.start(config)
    try:
        router = Noting(service.client, world.outcomes, _run(number))
        started = time.perf_counter()
        arms = drive(router, world.order(number), _none(world), delay, tick)
        seconds = time.perf_counter() - started
    finally:
        service.stop()
    return Served(arms, np.array(router.has), router.missed, seconds)


def alone(world: World, number: int, delay: int, lag: Lag) -> Index:
    """The same run in process: its arms (n,)."""
    encoder = models.default_encoder(world.config)
    router = InProcess(world.outcomes, world.config, encoder, world.queries, _run(number), lag=lag)
    return drive(router, world.order(number), _none(world), delay, silent)


def replayed(has: Index) -> Lag:
    """Snapshots as they were in force over HTTP."""
    return lambda decided, _: int(has[decided])


def _run(number: int) -> str:
    return f"0.{number}"


def _none(world: World) -> Mask:
    return np.zeros(world.rounds, dtype=bool)


def measure(world: World, delays: Sequence[int], runs: int) -> Iterator[tuple[int, Figures]]:
    """Each delay's row."""
    for delay in delays:
        with progress(runs * world.rounds) as tick:
            served = [serve(world, number, delay, tick) for number in range(runs)]
        again = [alone(world, i, delay, replayed(one.has)) for i, one in enumerate(served)]
        rate = float(np.mean([one.rate for one in served]))
        gap = float(np.mean([one.gap() for one in served]))
        late = float(np.mean([one.late(delay) for one in served]))
        lags = (Published(max(round(gap), 1), round(late)) for _ in range(runs))
        modelled = [alone(world, i, delay, lag) for i, lag in enumerate(lags)]
        row: Figures = {
            "runs": runs,
            "rounds": world.rounds,
            "rate": rate,
            "gap_s": gap / rate,
            "late_s": late / rate,
            "other": sum(
                int((one.arms != arms).sum()) for one, arms in zip(served, again, strict=True)
            ),
            "missed": sum(one.missed for one in served),
        }
        http, model = (
            np.array([world.captured(i, arms) for i, arms in enumerate(all_arms)])
            for all_arms in ([one.arms for one in served], modelled)
        )
        yield delay, row | compared(http, model) | {"captured": [http.tolist(), model.tolist()]}


def compared(http: Vector, modelled: Vector) -> Figures:
    """Means and spreads of runs (m,) both ways, and of the runs' differences."""
    apart = http - modelled
    return {
        "http": float(http.mean()),
        "http_sd": float(http.std(ddof=1)),
        "modelled": float(modelled.mean()),
        "modelled_sd": float(modelled.std(ddof=1)),
        "difference": float(apart.mean()),
        "difference_se": float(apart.std(ddof=1) / np.sqrt(len(apart))),
        "sd_ratio": float(http.std(ddof=1) / modelled.std(ddof=1)),
    }


COLUMNS = {
    "rounds": ("rounds", "6.0f"),
    "rate": ("a second", "8.0f"),
    "gap_s": ("gap s", "6.3f"),
    "late_s": ("late s", "6.3f"),
    "missed": ("missed", "6.0f"),
    "other": ("other", "6.0f"),
    "http": ("http", "6.3f"),
    "http_sd": ("sd", "5.3f"),
    "modelled": ("modelled", "8.3f"),
    "modelled_sd": ("sd", "5.3f"),
    "difference": ("difference", "10.3f"),
    "difference_se": ("se", "5.3f"),
    "sd_ratio": ("ratio", "5.2f"),
}


def main() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    summary = (__doc__ or "").partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_parity", description=summary)
    parser.add_argument("sets", nargs="*", default=["demo"], metavar="SET")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3_000)
    parser.add_argument("--delays", nargs="+", type=int, default=[0, 50], metavar="ROUNDS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    if options.runs < 2 or options.rounds < 1 or min(options.delays) < 0:
        parser.error("--runs must be at least 2, --rounds at least 1, --delays at least 0")
    made = []
    print(f"{'':<30} {tables.head(COLUMNS)}")
    for name in options.sets:
        try:
            world = World.of(name, options.rounds)
        except ValueError as error:
            parser.error(str(error))
        for delay, row in measure(world, options.delays, options.runs):
            label = f"{world.outcomes.name}, delay {delay}"
            print(f"{label:<30} {tables.cells(row, COLUMNS)}", flush=True)
            made.append({"set": world.outcomes.name, "delay": delay, **row})
    if options.json:
        options.json.write_text(json.dumps(made, indent=2) + "\n")

"""What caution keeps and what it costs: `python -m benchmarks.caution FOLDER... [--runs 200]
[--incumbents best median rules] [--json FILE]`.

Each folder holds full-information outcomes (see pointsman/trying/outcomes.py). A run is one
shuffle, cold, with the category as a hint and rewards at once; the incumbent is the best single arm
of the set, its median one, or rules that were fitted on the whole set. `fell` is the share of runs
in which, after some number of rounds from 100 on, what was earned until then was less than 1 -
max_loss of what the incumbent would have earned on the same queries; `free` is the policy without
caution, judged alike (by fewer runs, for it falls often). `gain` is the mean reward beside the
incumbent's, `captured` as in benchmarks.routing, `others` the share of the last tenth of the rounds
that had another arm.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import tables
from features.lexicon import TASK_TYPES
from pointsman.commands.settings import progress
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.result import Hindsight
from pointsman.trying.routers import Asked, InProcess, asked
from pointsman.trying.simulate import Traffic, drive, silent
from policy.arms.catalog import Catalog, Index, Vector
from policy.choosing.rules import Calls, Fitted, Rules, chosen_by, fit
from policy.config.schema import RULES, PolicyConfig
from policy.values import models

FROM = 100  # rounds, before which nobody judges
INCUMBENTS = ("best", "median", RULES)
FREE = 20  # runs without caution


@dataclass(frozen=True, slots=True)
class Run:
    """One shuffle, by a policy that loses at most a share of the incumbent's reward; None where it
    is free to, and then judged by `judged_by`."""

    folder: Path
    incumbent: str
    max_loss: float | None
    judged_by: float
    rounds: int
    number: int


@dataclass(frozen=True, slots=True)
class Came:
    """What came of a run."""

    fell: bool
    gain: float
    captured: float
    others: float


@dataclass(frozen=True, eq=False)
class World:
    """A set, and (n,) the column of each query's incumbent; where that is rules, they and the
    arms' priors are fitted on the whole set."""

    outcomes: OutcomeSet
    config: PolicyConfig
    queries: Sequence[Asked]
    hindsight: Hindsight
    incumbent: Index


@lru_cache(maxsize=1)
def _load(folder: Path, incumbent: str) -> World:
    outcomes = folders.load(folder)
    config = folders.config(outcomes).policies["default"]
    queries = asked(outcomes, models.default_encoder(config), True, silent)
    hindsight = Hindsight.of(outcomes, config)
    if incumbent != RULES:
        theirs = np.full(len(outcomes), named(incumbent, hindsight))
        return World(outcomes, config, queries, hindsight, theirs)
    fitted = _fitted(outcomes, config, queries)
    arms = tuple(
        arm.model_copy(update={"priors": dict(zip(TASK_TYPES, row, strict=True))})
        for arm, row in zip(outcomes.catalog.arms, fitted.priors.tolist(), strict=True)
    )
    catalog = Catalog(arms)
    rules, everything = Rules(catalog, fitted.rules), np.arange(len(arms))
    theirs = np.array([rules.choice(everything, *chosen_by(query.known)) for query in queries])
    config = config.model_copy(update={"rules": fitted.rules})
    return World(replace(outcomes, catalog=catalog), config, queries, hindsight, theirs)


def named(incumbent: str, hindsight: Hindsight) -> int:
    """The column of the arm that is best, or the median, over the whole set."""
    by_reward = np.argsort(hindsight.reward.mean(axis=0), kind="stable")
    return int(by_reward[-1 if incumbent == "best" else len(by_reward) // 2])


def _fitted(outcomes: OutcomeSet, config: PolicyConfig, queries: Sequence[Asked]) -> Fitted:
    n, k = outcomes.quality.shape
    task = np.array([chosen_by(query.known)[0] for query in queries])
    calls = Calls(
        np.repeat(task, k),
        np.tile(np.arange(k), n),
        outcomes.quality.ravel(),
        outcomes.latency_ms.ravel(),
        outcomes.cost_usd.ravel(),
        np.ones(n * k),
        np.zeros(n * k, dtype=bool),
    )
    return fit(calls, k, config.weights, config.scales)


def fell(rewards: Vector, incumbent: Vector, max_loss: float) -> bool:
    """Whether rewards (n,) were, summed up to some round from FROM on, below the share of the
    incumbent's (n,) that may not be lost."""
    left = np.cumsum(rewards - (1.0 - max_loss) * incumbent)
    return bool((left[FROM - 1 :] < -1e-9).any())


def play(run: Run) -> Came:
    world = _load(run.folder, run.incumbent)
    outcomes, hindsight, theirs = world.outcomes, world.hindsight, world.incumbent
    said: dict[str, Any] = {"objective": world.config.objective}
    if run.max_loss is not None:
        name = RULES if run.incumbent == RULES else outcomes.catalog.ids[theirs[0]]
        said |= {"incumbent": name, "max_loss": run.max_loss, "rules": world.config.rules}
    config = PolicyConfig(**said)
    order, lost = Traffic().shuffle(len(outcomes), run.number)
    order, lost = order[: run.rounds], lost[: run.rounds]
    encoder = models.default_encoder(config)
    router = InProcess(outcomes, config, encoder, world.queries, f"caution.{run.number}")
    chosen = drive(router, order, lost, 0, silent)
    rewards, incumbent = hindsight.reward[order, chosen], hindsight.reward[order, theirs[order]]
    single = float(hindsight.single(order).mean())
    way = float(hindsight.per_category(order).mean()) - single
    return Came(
        fell(rewards, incumbent, run.judged_by),
        float(rewards.mean() - incumbent.mean()),
        float(rewards.mean() - single) / way if way > 1e-12 else np.nan,
        float((chosen != theirs[order])[-run.rounds // 10 :].mean()),
    )


Cell = tuple[Path, str, float | None]


def measure(
    cells: Sequence[Cell], judged_by: float, rounds: int, runs: int, processes: int
) -> Iterator[tuple[Cell, list[Came]]]:
    """Each set, incumbent and max_loss (None: free) with its runs, as they get done. What is free
    is judged by another max_loss."""
    fresh = multiprocessing.get_context("spawn")  # a child reads the BLAS setting when it starts
    counts = [runs if loss is not None else min(runs, FREE) for _, _, loss in cells]
    tasks = [
        Run(folder, incumbent, loss, judged_by if loss is None else loss, rounds, number)
        for (folder, incumbent, loss), count in zip(cells, counts, strict=True)
        for number in range(count)
    ]
    with fresh.Pool(processes) as pool, progress(len(tasks)) as tick:
        played = pool.imap(play, tasks)
        for cell, count in zip(cells, counts, strict=True):
            came = []
            for _ in range(count):
                came.append(next(played))
                tick(1)
            yield cell, came


def figures(came: Sequence[Came]) -> dict[str, float | int | str | None]:
    """A row of the table."""
    captured = np.array([one.captured for one in came])
    known = not np.isnan(captured).any()
    error = captured.std(ddof=1) / np.sqrt(len(came)) if known and len(came) > 1 else None
    return {
        "runs": len(came),
        "fell": float(np.mean([one.fell for one in came])),
        "gain": float(np.mean([one.gain for one in came])),
        "captured": float(captured.mean()) if known else None,
        "captured_se": None if error is None else float(error),
        "others": float(np.mean([one.others for one in came])),
    }


COLUMNS = {
    "runs": ("runs", "5.0f"),
    "fell": ("fell", "6.3f"),
    "gain": ("gain", "8.4f"),
    "captured": ("captured", "9.3f"),
    "captured_se": ("se", "6.3f"),
    "others": ("others", "7.2f"),
}


def main() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    summary = (__doc__ or "").partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caution", description=summary)
    parser.add_argument("sets", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--incumbents", nargs="+", choices=INCUMBENTS, default=INCUMBENTS)
    parser.add_argument("--max-loss", nargs="+", type=float, default=[0.01, 0.05])
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    if min(options.runs, options.processes) < 1 or options.rounds <= FROM:
        parser.error(f"--runs and --processes must be at least 1, --rounds more than {FROM}")
    try:
        for folder in options.sets:
            folders.load(folder)
    except ValueError as error:
        parser.error(str(error))
    made = []
    print(f"{'':<40} {tables.head(COLUMNS)}")
    losses = (None, *options.max_loss)
    cells: list[Cell] = list(product(options.sets, options.incumbents, losses))
    for (folder, incumbent, loss), came in measure(
        cells, options.max_loss[0], options.rounds, options.runs, options.processes
    ):
        row = figures(came)
        name = f"{folder.name}, {incumbent}, {'free' if loss is None else f'{loss:.0%}'}"
        print(f"{name:<40} {tables.cells(row, COLUMNS)}", flush=True)
        made.append({"set": folder.name, "incumbent": incumbent, "max_loss": loss, **row})
    if options.json:
        options.json.write_text(json.dumps(made, indent=2) + "\n")

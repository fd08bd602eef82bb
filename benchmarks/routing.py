"""Routing quality on real outcomes, ours beside other libraries: `python -m benchmarks.routing
--sets FOLDER... [--json FILE] [--plot FILE]`.

Each folder holds full-information outcomes (see pointsman/trying/outcomes.py). The whole grid is
every policy and peer x every set x {cold, warm} x {category hint, text only} x {rewards at once,
delayed by 200 rounds, 30% missing}; options narrow it. Warm means that the first 500 queries of
each shuffle come with all arms' outcomes, and that only the rounds after them count.

`captured` = (mean reward of all rounds, learning included, - best single arm) / (best arm per
category - best single arm), both in hindsight over the same rounds; mean of the shuffles and its
standard error. All see the same rounds in the same order, with the same rewards lost, so `ahead`,
what the default policy captured more than another, has a standard error of its own, from the
paired differences. The objective is quality 0.9, cost 0.1, linear, cost_ref = the largest per-arm
mean cost of the set. `us` is the median of one decision, from x to the drawn arm.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import tables
from benchmarks.common.peers import PEERS, SLOW, PeerRouter, installed
from pointsman.commands.settings import progress
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.result import Hindsight, Result
from pointsman.trying.routers import Asked, InProcess, Router, asked
from pointsman.trying.simulate import Traffic, corpus, drive, in_process, silent
from policy.arms.catalog import Index, Vector
from policy.config.schema import PolicyConfig
from policy.values import models
from policy.values.warm import warm_start

POLICIES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "greedy": {"exploration": "greedy"},
    "epsilon_greedy": {"exploration": "epsilon_greedy"},
    "softmax": {"exploration": "softmax"},
    "square_cb": {"exploration": "square_cb"},
    "vw": {"model": "vw"},
    "nearest": {"model": "nearest"},
    "rules": {"model": "rules"},  # as they are without a fit: by price, no quality being known
    "uniform": {"model": "uniform"},
    "best_single": {"model": "fixed", "floor": 0.0},  # of the arm that hindsight finds best
}
"""What each policy changes in the default one's configuration."""

WARM = 500  # queries of which every arm's outcome is known beforehand
STARTS: Mapping[str, int] = {"cold": 0, "warm": WARM}
CONTEXTS: Mapping[str, bool] = {"hints": True, "text": False}
REWARDS: Mapping[str, Mapping[str, Any]] = {
    "at-once": {},
    "delayed": {"delay": 200},
    "missing": {"loss": 0.3},
}
PART = 5  # shuffles that one process does in one go
LEARNED = 1_000  # rounds before decisions are timed
TIMED = 500

Figures = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the grid."""

    folder: Path
    start: str
    context: str
    rewards: str

    @property
    def traffic(self) -> Traffic:
        given = REWARDS[self.rewards]
        return Traffic(hints=CONTEXTS[self.context], warm=STARTS[self.start], **given)

    def __str__(self) -> str:
        return f"{self.folder.name}, {self.start}, {self.context}, rewards {self.rewards}"


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """m shuffles of one policy or peer: rewards (m, n) by round, what hindsight makes of the same
    rounds, and how much of that was captured, (m,) each."""

    rewards: Vector
    uniform: Vector
    single: Vector
    rule: Vector
    captured: Vector

    @classmethod
    def of(cls, result: Result) -> Played:
        uniform, single, rule = (rewards.mean(axis=1) for rewards in result.in_hindsight)
        return cls(result.rewards, uniform, single, rule, result.captured)


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[OutcomeSet, Hindsight, PolicyConfig]:
    outcomes = folders.load(folder)
    config = folders.config(outcomes).policies["default"]
    return outcomes, Hindsight.of(outcomes, config), config


@lru_cache(maxsize=PART)
def _asked(folder: Path, traffic: Traffic, number: int) -> list[Asked]:
    """The queries as the default policy sees them: where it starts warm, by the encoder that it
    fits in this shuffle."""
    outcomes, _, config = _load(folder)
    encoder = models.default_encoder(config)
    if traffic.warm:
        known = traffic.shuffle(len(outcomes), number)[0][: traffic.warm]
        encoder, _ = warm_start(config, corpus(outcomes, known, traffic.warm_labels))
    return asked(outcomes, encoder, traffic.hints, silent)


def configured(name: str, outcomes: OutcomeSet, hindsight: Hindsight) -> PolicyConfig:
    """The configuration that a policy of the table means on a set."""
    changes = dict(POLICIES[name])
    if changes.get("model") == "fixed":
        changes["arm"] = outcomes.catalog.ids[hindsight.best(np.arange(len(outcomes)))]
    default = folders.config(outcomes).policies["default"]
    return PolicyConfig(objective=default.objective, **changes)


def play(cell: Cell, name: str, numbers: Sequence[int]) -> Played:
    """Some shuffles of one cell, by a policy or a peer."""
    outcomes, hindsight, _ = _load(cell.folder)
    if name in POLICIES:
        config = configured(name, outcomes, hindsight)
        return Played.of(in_process(outcomes, config, cell.traffic, numbers))
    shuffles = [_play_peer(cell, name, number) for number in numbers]
    order = np.stack([rows for rows, _ in shuffles])
    arms = np.stack([chosen for _, chosen in shuffles])
    return Played.of(Result(outcomes, hindsight, order, arms, 0.0))


def _play_peer(cell: Cell, name: str, number: int) -> tuple[Index, Index]:
    """The rows (n,) that count, in the order of the rounds, and the arms (n,) that were chosen."""
    outcomes, hindsight, _ = _load(cell.folder)
    traffic = cell.traffic
    order, lost = traffic.shuffle(len(outcomes), number)
    known, rows, lost = order[: traffic.warm], order[traffic.warm :], lost[traffic.warm :]
    seen = replace(traffic, delay=0, loss=0.0)  # neither changes what a query looks like
    router = _peer(
        name, _asked(cell.folder, seen, number if traffic.warm else 0), hindsight, number
    )
    router.warm(known)
    return rows, drive(router, rows, lost, traffic.delay, silent)


def _peer(name: str, queries: Sequence[Asked], hindsight: Hindsight, seed: int) -> PeerRouter:
    x = np.stack([query.x for query in queries])
    peer = PEERS[name].make(x.shape[1], hindsight.reward.shape[1], seed)
    return PeerRouter(peer, x, hindsight.reward)


def together(parts: Sequence[Played]) -> Played:
    """The shuffles of several parts as one."""
    names = ("rewards", "uniform", "single", "rule", "captured")
    return Played(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def decision_us(folder: Path, name: str) -> float:
    """The median of one decision from x, in microseconds, once there is something learned."""
    outcomes, hindsight, _ = _load(folder)
    router: Router
    if name in POLICIES:
        config = configured(name, outcomes, hindsight)
        encoder = models.default_encoder(config)
        router = InProcess(outcomes, config, encoder, _asked(folder, Traffic(), 0), "timed")
    else:
        router = _peer(name, _asked(folder, Traffic(), 0), hindsight, 0)
    order, lost = Traffic().shuffle(len(outcomes), 0)
    learned = min(LEARNED, len(outcomes) // 2)
    drive(router, order[:learned], lost[:learned], 0, silent)
    taken = []
    for row in order[learned : learned + TIMED].tolist():
        start = time.perf_counter_ns()
        router.route([row])
        taken.append(time.perf_counter_ns() - start)
    return round(median(taken) / 1_000, 1)


@dataclass(frozen=True, slots=True)
class Task:
    """What one process does in one go."""

    cell: Cell
    name: str
    numbers: tuple[int, ...]


def _do(task: Task) -> tuple[Task, Played]:
    # What peers say of their own priors and small samples is none of the table's business.
    logging.disable(logging.WARNING)
    return task, play(task.cell, task.name, task.numbers)


def _time(task: tuple[Path, str]) -> float:
    logging.disable(logging.WARNING)
    return decision_us(*task)


def measure(
    cells: Sequence[Cell], names: Sequence[str], shuffles: int, processes: int
) -> Iterator[tuple[Cell, dict[str, Played], dict[str, float]]]:
    """Each cell's shuffles by name, and the decision times on its set, as they get done."""
    fresh = multiprocessing.get_context("spawn")  # a child reads the BLAS setting when it starts
    parts = [tuple(range(shuffles))[i : i + PART] for i in range(0, shuffles, PART)]
    tasks = [Task(cell, name, part) for cell, part, name in product(cells, parts, names)]
    folders_of = list(dict.fromkeys(cell.folder for cell in cells))
    length = len(tasks) + len(folders_of) * len(names)
    with fresh.Pool(processes) as pool, progress(length) as tick:
        times: dict[Path, dict[str, float]] = {folder: {} for folder in folders_of}
        for folder, name in product(folders_of, names):  # one at a time, so that none disturbs
            times[folder][name] = pool.apply(_time, ((folder, name),))
            tick(1)
        done: dict[Cell, dict[str, list[Played]]] = {cell: {} for cell in cells}
        for task, played in pool.imap(_do, tasks):
            tick(1)
            by_name = done[task.cell]
            by_name.setdefault(task.name, []).append(played)
            if sum(map(len, by_name.values())) == len(names) * len(parts):
                whole = {name: together(by_name[name]) for name in names}
                yield task.cell, whole, times[task.cell.folder]


def figures(played: Played, default: Played | None, us: float) -> Figures:
    """A row of the table; null where a figure can't be known."""
    ahead = None if default is None else default.captured - played.captured
    earned = None if default is None else (default.rewards - played.rewards).mean(axis=1)
    return {
        "mean_reward": float(played.rewards.mean()),
        "captured": _mean(played.captured),
        "captured_se": _error(played.captured),
        "default_ahead": _mean(ahead),
        "default_ahead_se": _error(ahead),
        "default_earns_more": _mean(earned),
        "default_earns_more_se": _error(earned),
        "decide_us": us,
    }


def _mean(values: Vector | None) -> float | None:
    return None if values is None or np.isnan(values).any() else float(values.mean())


def _error(values: Vector | None) -> float | None:
    """The standard error of a mean of shuffles; one alone has none."""
    if values is None or len(values) < 2 or np.isnan(values).any():
        return None
    return float(values.std(ddof=1) / np.sqrt(len(values)))


COLUMNS = {
    "mean_reward": ("reward", "8.4f"),
    "captured": ("captured", "9.3f"),
    "captured_se": ("se", "7.3f"),
    "default_ahead": ("ahead", "8.3f"),
    "default_ahead_se": ("se", "7.3f"),
    "decide_us": ("us", "8.1f"),
}


def table(cell: Cell, rows: Mapping[str, Figures], first: Played) -> str:
    """One cell for a person to read."""
    m, n = first.rewards.shape
    uniform, single, rule = (
        float(values.mean()) for values in (first.uniform, first.single, first.rule)
    )
    lines = [
        f"{cell}: {m} x {n:,} rounds; uniform {uniform:.4f}, best single arm {single:.4f}, "
        f"best per category {rule:.4f}",
        f"{'':<20} {tables.head(COLUMNS)}",
        *(f"{name:<20} {tables.cells(row, COLUMNS)}" for name, row in rows.items()),
    ]
    return "\n".join(lines)


def report(
    cells: Sequence[Cell],
    names: Sequence[str],
    shuffles: int,
    processes: int,
    plot: Path | None = None,
) -> list[dict[str, Any]]:
    """Print each cell's table once it is done, draw it, and return all figures."""
    here = [name for name in names if name in POLICIES or installed(name)]
    made = []
    for cell, played, us in measure(cells, here, shuffles, processes):
        default = played.get("default")
        rows = {name: figures(one, default, us[name]) for name, one in played.items()}
        first = next(iter(played.values()))
        print(table(cell, rows, first))
        for name in names:
            if name not in here:
                print(f"{name:<20} not installed: {PEERS[name].package}")
        print(flush=True)
        made.append(_as_json(cell, rows, first))
        if plot is not None:
            _draw(cell, played, plot if len(cells) == 1 else _named_after(plot, cell))
    return made


def _as_json(cell: Cell, rows: Mapping[str, Figures], first: Played) -> dict[str, Any]:
    m, n = first.rewards.shape
    return {
        "set": cell.folder.name,
        "start": cell.start,
        "context": cell.context,
        "rewards": cell.rewards,
        "rounds": n,
        "shuffles": m,
        "uniform": float(first.uniform.mean()),
        "best_single": float(first.single.mean()),
        "best_per_category": float(first.rule.mean()),
        "rows": rows,
    }


def _draw(cell: Cell, played: Mapping[str, Played], path: Path) -> None:
    from pointsman import plots  # noqa: PLC0415 - matplotlib takes half a second to load

    first = next(iter(played.values()))
    lines = {
        "best arm per category,\nin hindsight": float(first.rule.mean()),
        "best single arm,\nin hindsight": float(first.single.mean()),
    }
    rewards = {name: one.rewards for name, one in played.items()}
    plots.save(plots.compared(rewards, lines, str(cell)), path)


def _named_after(plot: Path, cell: Cell) -> Path:
    parts = (plot.stem, cell.folder.name, cell.start, cell.context, cell.rewards)
    return plot.with_name("-".join(parts) + plot.suffix)


def _narrowed(given: str, choices: Mapping[str, object], everything: str) -> list[str]:
    return list(choices) if given == everything else [given]


def main() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    summary = (__doc__ or "").partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=summary)
    parser.add_argument("--sets", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--policies", nargs="*", choices=POLICIES, default=list(POLICIES))
    quick = [name for name in PEERS if name not in SLOW]
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=quick)
    parser.add_argument("--start", choices=[*STARTS, "both"], default="both")
    parser.add_argument("--context", choices=[*CONTEXTS, "both"], default="both")
    parser.add_argument("--rewards", choices=[*REWARDS, "all"], default="all")
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="running reward; one per cell")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    if min(options.shuffles, options.processes) < 1:
        parser.error("--shuffles and --processes must be at least 1")
    try:
        for folder in options.sets:
            folders.load(folder)
    except ValueError as error:
        parser.error(str(error))
    grid = product(
        options.sets,
        _narrowed(options.start, STARTS, "both"),
        _narrowed(options.context, CONTEXTS, "both"),
        _narrowed(options.rewards, REWARDS, "all"),
    )
    cells = [Cell(*place) for place in grid]
    names = [*options.policies, *options.peers]
    made = report(cells, names, options.shuffles, options.processes, options.plot)
    if options.json:
        options.json.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()

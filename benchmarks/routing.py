"""Routing quality on real outcomes, ours beside LinTS and other libraries:
`python -m benchmarks.routing --sets FOLDER... [--calibration] [--json FILE] [--plot FILE]`.

Each folder holds full-information outcomes (see pointsman/trying/outcomes.py). The whole grid is
every policy and peer x every set x {cold, warm} x {category hint, text only} x {rewards at once,
delayed by 200 rounds, 30% missing}; options narrow it. `--context label` tells the category by a
label that is not the task type, `--noise-labels N` adds N labels with 2,000 random values each.
Warm means that the first 500 queries of each shuffle come with all arms' outcomes, and that only
the rounds after them count.

`captured` = (mean reward of all rounds, learning included, - best single arm) / (best arm per
category - best single arm), both in hindsight over the same rounds; mean of the shuffles, its
standard error and the least of them. All see the same rounds in the same order, with the same
rewards lost, so `ahead`, what the default policy captured more than another, has a standard error
of its own, from the paired differences; `earns` is the same in mean reward. Of LinTS' widths the
one that is best in hindsight has an asterisk. The objective is quality 0.9, cost 0.1, linear,
cost_ref = the largest per-arm mean cost of the set. Our snapshots come as late as a service's
(pointsman/trying/lag.py); LinTS learns from each outcome at once. `us` is the median of one
decision, from x to the drawn arm.

`--typos` adds how often another arm becomes the most probable one, once all is learned, when each
character of a query's text is replaced by another with the probability 0.05.

`--calibration` adds, for the default policy, how often an arm of each confidence is the one that
hindsight finds the best of its category over the same rounds.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import calibration, tables
from benchmarks.common.lints import WIDTHS
from benchmarks.common.peers import PEERS, SLOW, installed
from benchmarks.common.plays import (
    CONTEXTS,
    POLICIES,
    REWARDS,
    STARTS,
    Cell,
    Played,
    decision_us,
    play,
    together,
)
from pointsman.commands.settings import progress
from pointsman.trying import outcomes as folders
from policy.arms.catalog import Vector

Figures = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class Task:
    """What one process does in one go: a shuffle by all, so that its encoder is fitted once."""

    cell: Cell
    names: tuple[str, ...]
    number: int


def _do(task: Task) -> tuple[Task, dict[str, Played]]:
    # What peers say of their own priors and small samples is none of the table's business.
    logging.disable(logging.WARNING)
    return task, {name: play(task.cell, name, task.number) for name in task.names}


def _time(task: tuple[Path, str]) -> float:
    logging.disable(logging.WARNING)
    return decision_us(*task)


def measure(
    cells: Sequence[Cell], names: Sequence[str], shuffles: int, processes: int
) -> Iterator[tuple[Cell, dict[str, Played], dict[str, float]]]:
    """Each cell's shuffles by name, and the decision times on its set, as they get done."""
    fresh = multiprocessing.get_context("spawn")  # a child reads the BLAS setting when it starts
    tasks = [Task(cell, tuple(names), number) for cell in cells for number in range(shuffles)]
    folders_of = list(dict.fromkeys(cell.folder for cell in cells))
    length = len(tasks) + len(folders_of) * len(names)
    with fresh.Pool(processes) as pool, progress(length) as tick:
        times: dict[Path, dict[str, float]] = {folder: {} for folder in folders_of}
        for folder, name in product(folders_of, names):  # one at a time, so that none disturbs
            times[folder][name] = pool.apply(_time, ((folder, name),))
            tick(1)
        done: dict[Cell, list[dict[str, Played]]] = {cell: [] for cell in cells}
        for task, played in pool.imap(_do, tasks):
            tick(1)
            parts = done[task.cell]
            parts.append(played)
            if len(parts) == shuffles:
                whole = {name: together([part[name] for part in parts]) for name in names}
                yield task.cell, whole, times[task.cell.folder]


def figures(played: Played, default: Played | None, us: float) -> Figures:
    """A row of the table; null where a figure can't be known."""
    ahead = None if default is None else default.captured - played.captured
    earned = None if default is None else (default.rewards - played.rewards).mean(axis=1)
    return {
        "mean_reward": float(played.rewards.mean()),
        "captured": _mean(played.captured),
        "captured_se": _error(played.captured),
        "captured_least": _least(played.captured),
        "default_ahead": _mean(ahead),
        "default_ahead_se": _error(ahead),
        "default_earns_more": _mean(earned),
        "default_earns_more_se": _error(earned),
        "flips": _mean(played.flips),
        "flips_se": _error(played.flips),
        "decide_us": us,
    }


def _mean(values: Vector | None) -> float | None:
    return None if values is None or np.isnan(values).any() else float(values.mean())


def _least(values: Vector) -> float | None:
    return None if np.isnan(values).any() else float(values.min())


def _error(values: Vector | None) -> float | None:
    """The standard error of a mean of shuffles; one alone has none."""
    if values is None or len(values) < 2 or np.isnan(values).any():
        return None
    return float(values.std(ddof=1) / np.sqrt(len(values)))


COLUMNS = {
    "mean_reward": ("reward", "8.4f"),
    "captured": ("captured", "9.3f"),
    "captured_se": ("se", "7.3f"),
    "captured_least": ("least", "7.3f"),
    "default_ahead": ("ahead", "8.3f"),
    "default_ahead_se": ("se", "7.3f"),
    "default_earns_more": ("earns", "8.4f"),
    "default_earns_more_se": ("se", "7.4f"),
    "decide_us": ("us", "8.1f"),
}


def _best_width(rows: Mapping[str, Figures]) -> str | None:
    """The yardstick's width that earned most, hence captured most of the same rounds."""
    tried = [name for name in rows if name in WIDTHS]
    return max(tried, key=lambda name: rows[name]["mean_reward"] or 0.0, default=None)


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
    ]
    best = _best_width(rows)
    for name, row in rows.items():
        lines.append(f"{name + '*' * (name == best):<20} {tables.cells(row, COLUMNS)}")
    return "\n".join(lines)


def _flips(rows: Mapping[str, Figures]) -> Iterator[str]:
    """Of whom it is known: what typing errors do."""
    for name, row in rows.items():
        if row["flips"] is not None:
            error = f" ± {row['flips_se']:.3f}" if row["flips_se"] is not None else ""
            yield f"{name}: typing errors change {row['flips']:.3f}{error} of the likeliest arms"


def report(
    cells: Sequence[Cell],
    names: Sequence[str],
    shuffles: int,
    processes: int,
    plot: Path | None = None,
    calibrated: bool = False,
) -> list[dict[str, Any]]:
    """Print each cell's table once it is done, draw it, and return all figures; `calibrated`: with
    the calibration of the default policy, which must be among the names."""
    here = [name for name in names if name not in PEERS or installed(name)]
    made = []
    for cell, played, us in measure(cells, here, shuffles, processes):
        default = played.get("default")
        rows = {name: figures(one, default, us[name]) for name, one in played.items()}
        first = next(iter(played.values()))
        print(table(cell, rows, first))
        if cell.typos:
            print("\n".join(_flips(rows)))
        for name in names:
            if name not in here:
                print(f"{name:<20} not installed: {PEERS[name].package}")
        made.append(_as_json(cell, rows, first))
        if calibrated:
            bins = calibration.calibration(played["default"].confidence, played["default"].right)
            print(calibration.table(bins))
            made[-1]["calibration"] = [asdict(one) for one in bins]
        print(flush=True)
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
        "noise_labels": cell.noise_labels,
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
    parser.add_argument("--calibration", action="store_true", help="of the default's confidence")
    parser.add_argument("--start", choices=[*STARTS, "both"], default="both")
    parser.add_argument("--context", choices=[*CONTEXTS, "both"], default="both")
    parser.add_argument("--noise-labels", type=int, default=0, metavar="N")
    parser.add_argument("--typos", action="store_true", help="how often they change the answer")
    parser.add_argument("--rewards", choices=[*REWARDS, "all"], default="all")
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="running reward; one per cell")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    if min(options.shuffles, options.processes) < 1:
        parser.error("--shuffles and --processes must be at least 1")
    if options.noise_labels < 0:
        parser.error("--noise-labels must be at least 0")
    if options.calibration and "default" not in options.policies:
        parser.error("--calibration needs the default policy")
    try:
        for folder in options.sets:
            folders.load(folder)
    except ValueError as error:
        parser.error(str(error))
    grid = product(
        options.sets,
        _narrowed(options.start, STARTS, "both"),
        ["hints", "text"] if options.context == "both" else [options.context],
        _narrowed(options.rewards, REWARDS, "all"),
    )
    cells = [Cell(*place, options.noise_labels, options.typos) for place in grid]
    names = [*options.policies, *WIDTHS, *options.peers]
    made = report(
        cells, names, options.shuffles, options.processes, options.plot, options.calibration
    )
    if options.json:
        options.json.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()

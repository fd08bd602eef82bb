"""Routing quality on real outcomes: `python -m benchmarks.routing FOLDER... [--json FILE]`.

Each folder holds full-information outcomes (see pointsman/outcomes.py). The default policy starts
cold; `captured` = (mean reward over all rounds, learning included, - best single arm in hindsight)
/ (best arm per category in hindsight - best single arm in hindsight), mean of the shuffles and its
standard error. The objective is quality 0.9, cost 0.1, linear, cost_ref = the largest per-arm mean
cost of the set. Decision times are medians on one core, from text to drawn arm and from x to it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np

from pointsman import outcomes as folders
from pointsman.simulate import (
    Asked,
    InProcess,
    Result,
    Traffic,
    asked,
    drive,
    in_process,
    together,
)
from policy import models

LEARNED = 2_000  # rounds before decisions are timed
TIMED = 1_000

Figures = dict[str, float | int | None]


def shuffles(folder: Path, traffic: Traffic, numbers: range) -> Result:
    """Some shuffles of one set, by the default policy."""
    outcomes = folders.load(folder)
    config = folders.config(outcomes).policies["default"]
    return in_process(outcomes, config, traffic, numbers)


def decision_us(folder: Path, traffic: Traffic) -> Figures:
    """Medians of one decision in microseconds, once the policy has learned."""
    outcomes = folders.load(folder)
    config = folders.config(outcomes).policies["default"]
    encoder = models.default_encoder(config)
    order, lost = traffic.shuffle(len(outcomes), 0)
    outcomes = outcomes.take(order[: LEARNED + TIMED])
    queries = asked(outcomes, encoder, traffic.hints, lambda _: None)
    router = InProcess(outcomes, config, encoder, queries, "timed")
    learned = min(LEARNED, len(outcomes) // 2)
    drive(router, np.arange(learned), lost[:learned], traffic.delay, lambda _: None)
    policy, timed = router.policy, queries[learned:]
    return {
        "decide_us": _median_us(lambda q: policy.decide(q.request, "timed", 0), timed),
        "decide_encoded_us": _median_us(
            lambda q: policy.decide_encoded(q.request, q.known, q.x, "timed", 0), timed
        ),
    }


def _median_us(decide: Callable[[Asked], object], queries: Iterable[Asked]) -> float:
    taken = []
    for query in queries:
        start = time.perf_counter_ns()
        decide(query)
        taken.append(time.perf_counter_ns() - start)
    return round(median(taken) / 1_000, 1)


def measure(sets: list[Path], m: int, traffic: Traffic, processes: int) -> dict[str, Figures]:
    """Figures per set, its shuffles spread over processes."""
    figures = {}
    fresh = multiprocessing.get_context("spawn")  # a child reads the BLAS setting when it starts
    with fresh.Pool(processes) as pool:
        for folder in sets:
            started = time.perf_counter()
            parts = [range(i, m, processes) for i in range(min(processes, m))]
            results = pool.starmap(shuffles, [(folder, traffic, part) for part in parts])
            row = together(results).figures()
            row["seconds"] = round(time.perf_counter() - started, 1)
            row |= pool.apply(decision_us, (folder, traffic))
            figures[folder.name] = row
            print(_line(folder.name, row), flush=True)
    return figures


COLUMNS = {
    "uniform": "8.4f",
    "best_single": "11.4f",
    "best_per_category": "9.4f",
    "mean_reward": "8.4f",
    "captured": "9.3f",
    "captured_se": "7.3f",
    "rounds": "8,d",
    "shuffles": "9d",
    "decide_us": "10.1f",
    "decide_encoded_us": "13.1f",
    "seconds": "8.1f",
}
HEADER = (
    f"{'set':<20} uniform best single per cat.   reward  captured     se   rounds  shuffles"
    "  decide us  of it after x   seconds"
)


def _line(name: str, row: Figures) -> str:
    cells = [_cell(row[column], spec) for column, spec in COLUMNS.items()]
    return f"{name:<19} " + " ".join(cells)


def _cell(value: float | int | None, spec: str) -> str:
    return f"{'-':>{spec.partition('.')[0].rstrip(',d')}}" if value is None else f"{value:{spec}}"


def main() -> None:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=summary)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--no-hints", action="store_true", help="text only, without the category")
    parser.add_argument("--delay", type=int, default=0, metavar="ROUNDS")
    parser.add_argument("--loss", type=float, default=0.0, metavar="P")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    traffic = Traffic(delay=options.delay, loss=options.loss, hints=not options.no_hints)
    print(HEADER)
    figures = measure(options.folders, options.shuffles, traffic, options.processes)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""How often intervals hold the truth: `python -m benchmarks.coverage [--runs N] [--json FILE]`.

A policy's value is estimated by importance weighting: terms w r, with weights of mean 1 and binary
rewards that are likelier (0.7 against 0.3) where the weight is above its median, so that the large
weights matter. The weights are

light    uniform in [0.5, 1.5]
heavy    lognormal, sigma 1.5: a hundredth of the rows carries a fifth of the weight
pareto   of index 1.5: no variance, no fourth moment to speak of

`fixed` asks whether the interval after all n rounds holds the true value, `peeking` whether all of
those after every 100 rounds do. `betting` is the interval that decides (intervals.py); Student-t
and bootstrap are for reading (the bootstrap is asked once, for as many runs as --bootstrap says).
The widths are medians, of the betting interval over a few runs.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from offline_eval.estimating.intervals import Bets, bootstrap, value_sequence

Vector = NDArray[np.float64]

ALPHA = 0.05
LOOK = 100
SIZES = (500, 5_000, 50_000)
OFTEN, SELDOM = 0.7, 0.3
SIGMA, INDEX = 1.5, 1.5
WIDTHS = 8  # runs whose betting interval is inverted
WANTED = 0.945


@dataclass(frozen=True, slots=True)
class Weighting:
    """Weights of mean 1, their median, and how much of their sum lies above it."""

    draw: Callable[[np.random.Generator, int], Vector]
    median: float
    above: float

    @property
    def value(self) -> float:
        return OFTEN * self.above + SELDOM * (1 - self.above)


WEIGHTINGS: Mapping[str, Weighting] = {
    "light": Weighting(lambda rng, n: rng.uniform(0.5, 1.5, n), 1.0, 0.625),
    "heavy": Weighting(
        lambda rng, n: rng.lognormal(-(SIGMA**2) / 2, SIGMA, n),
        math.exp(-(SIGMA**2) / 2),
        float(stats.norm.cdf(SIGMA)),
    ),
    "pareto": Weighting(
        lambda rng, n: (1 - 1 / INDEX) * (1 + rng.pareto(INDEX, n)),
        (1 - 1 / INDEX) * 2 ** (1 / INDEX),
        2 ** ((1 - INDEX) / INDEX),
    ),
}


@dataclass(slots=True)
class Tally:
    """Of the runs of one line: which held the truth, and how wide some were."""

    held: dict[str, list[bool]] = field(default_factory=dict)
    widths: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, held: bool) -> None:
        self.held.setdefault(name, []).append(held)

    def add(self, other: Tally) -> Tally:
        for name, held in other.held.items():
            self.held.setdefault(name, []).extend(held)
        for name, widths in other.widths.items():
            self.widths.setdefault(name, []).extend(widths)
        return self


def play(name: str, n: int, runs: int, resampled: int, seed: int) -> Tally:
    """Runs of n rounds, with the weights called `name`."""
    weighting = WEIGHTINGS[name]
    rng = np.random.default_rng([seed, n, list(WEIGHTINGS).index(name)])
    tally = Tally()
    for run in range(runs):
        w = weighting.draw(rng, n)
        likely = np.where(w > weighting.median, OFTEN, SELDOM)
        r = (rng.random(n) < likely).astype(np.float64)
        path = np.maximum(
            _log_wealth(w * r, weighting.value), _log_wealth(w - w * r, 1 - weighting.value)
        )
        tally.note("betting fixed", bool(path[-1] < math.log(2 / ALPHA)))
        tally.note("betting peeking", bool(path.max() < math.log(2 / ALPHA)))
        off, half = _student(w * r, weighting.value)
        tally.note("student fixed", bool(off[-1] <= half[-1]))
        tally.note("student peeking", bool((off <= half).all()))
        tally.widths.setdefault("student", []).append(float(2 * half[-1]))
        if run < resampled:
            interval = bootstrap(w * r, seed=run, alpha=ALPHA)
            tally.note("bootstrap fixed", weighting.value in interval)
        if run < WIDTHS:
            low, high = value_sequence(w, r, ALPHA)
            tally.widths.setdefault("betting", []).append(high - low)
    return tally


def _log_wealth(terms: Vector, mean: float) -> Vector:
    """(looks,) of `value_sequence`'s bets against the true mean: its bound is wrong at a look just
    where this reaches log(2 / alpha)."""
    bets = Bets.within(bound=0.0, high=1.0)
    logs = np.log1p(bets.sizes * (terms[:, None] - mean))
    per_look = logs.reshape(-1, LOOK, len(bets)).sum(axis=1)
    return bets.log_wealth(np.cumsum(per_look, axis=0))


def _student(terms: Vector, mean: float) -> tuple[Vector, Vector]:
    """(looks,) how far the estimate is off, and half the width of the interval."""
    n = np.arange(LOOK, len(terms) + 1, LOOK)
    total, squares = np.cumsum(terms)[n - 1], np.cumsum(terms**2)[n - 1]
    variance = np.maximum(squares - total**2 / n, 0.0) / (n - 1)
    half: Vector = stats.t.isf(ALPHA / 2, n - 1) * np.sqrt(variance / n)
    return np.abs(total / n - mean), half


def _job(line: tuple[str, int], runs: int, resampled: int, part: tuple[int, int]) -> Tally:
    number, parts = part
    own, own_resampled = (count // parts + (number < count % parts) for count in (runs, resampled))
    return play(*line, own, own_resampled, seed=number)


COLUMNS = (
    "betting fixed",
    "betting peeking",
    "student fixed",
    "student peeking",
    "bootstrap fixed",
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000, help="for each line")
    parser.add_argument("--bootstrap", type=int, default=100, help="runs that are resampled")
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTINGS), choices=list(WEIGHTINGS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    lines = []
    print("weights       n  " + "  ".join(COLUMNS) + "  width  (student)", flush=True)
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        parts = [(number, given.processes) for number in range(given.processes)]
        for name in given.weights:
            for n in given.sizes:
                started = time.perf_counter()
                job = partial(_job, (name, n), given.runs, given.bootstrap)
                tally = Tally()
                for result in pool.map(job, parts):
                    tally.add(result)
                line: dict[str, float | int | str | None] = {"weights": name, "n": n}
                for column in COLUMNS:
                    held = tally.held.get(column)
                    line[column] = float(np.mean(held)) if held else None
                for kind, widths in tally.widths.items():
                    line[f"{kind} width"] = float(np.median(widths))
                lines.append(line)
                print(_row(line), flush=True)
                print(f"{time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    if given.json:
        given.json.write_text(json.dumps({"runs": given.runs, "lines": lines}, indent=2) + "\n")


def _row(line: Mapping[str, float | int | str | None]) -> str:
    told = "  ".join(f"{_share(line[column]):>{len(column)}}" for column in COLUMNS)
    return (
        f"{line['weights']:<7} {line['n']:>6,}  {told}  {line['betting width']:.3f}"
        f"  {line['student width']:>9.3f}"
    )


def _share(value: float | int | str | None) -> str:
    return "" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()

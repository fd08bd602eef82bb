"""How often a gate lets a challenger pass: `python -m benchmarks.gate [--gates N] [--json FILE]`.

A world: five arms, binary quality that is the reward, and a challenger that differs from the
champion on half of the contexts. There the champion prefers one arm and the challenger another;
all arms are thought to be of the same quality, so the prediction knows nothing of the difference.
`soft` policies leave each other arm a tenth of the draw, as posteriors do that are still learning,
`firm` ones a floor of 1% alone. The challenger has a share of a tenth of the draw, or none.

Each gate is asked after every 100 rounds and stays passed once it has:

ours        the betting e-process of offline_eval/gate/terms.py, and a recent half above 0
guarded     the same, unless the quality guardrail has shown harm
personalizer  a higher mean, and a lower bound above the online one: importance weighting and the
            plain mean, each with 95% normal bounds
vw            the lower bound of vw-estimators' 95% confidence sequence for the challenger's value
            (`estimators.bandits.cs`, if installed: extra `peers`) above the plain mean; asked at a
            dozen rounds only, as each answer costs a root search

`of 0` and below, what passes is wrong; at most 5% may. `bound` is the best that any test could do
that is asked at the end alone and knows the variance (two-sample z at 5%): a gate that may be asked
at any time pays for it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from offline_eval.gate.judging import FIRST_WINDOW
from offline_eval.gate.terms import BETS, Pair, plain_terms, terms_for
from offline_eval.gate.verdict import Settings

Vector = NDArray[np.float64]
Index = NDArray[np.int64]

ARMS = 5
LOOK = 100
DIFFERS = 0.5  # of the contexts
PREFERRED = {"soft": 0.6, "firm": 0.99 + 0.01 / ARMS}
HORIZONS = {0.05: 2_000, 0.02: 10_000, 0.01: 50_000, 0.0: 10_000, -0.02: 10_000}
WANTED = 0.9
AT_MOST = 0.05
AT_A_TIME = 10  # gates that are simulated together: bounds the memory
VW_LOOKS = 12
RULES = ("ours", "guarded", "personalizer", "vw")


@dataclass(frozen=True, slots=True)
class World:
    """`better` is the mean reward of the challenger less the champion's, over all contexts."""

    kind: str
    share: float
    quality: float
    better: float

    @property
    def rounds(self) -> int:
        return HORIZONS[self.better]

    @property
    def possible(self) -> bool:
        return bool((np.abs(self.qualities() - 0.5) <= 0.5).all())

    def pmfs(self) -> tuple[Vector, Vector, Vector]:
        """(2, ARMS) challenger, champion and what is drawn from, where they differ and not."""
        rest = (1.0 - PREFERRED[self.kind]) / (ARMS - 1)
        champion = np.full((2, ARMS), rest)
        champion[:, 0] = PREFERRED[self.kind]
        challenger = champion.copy()
        challenger[0] = np.roll(champion[0], 1)
        return challenger, champion, (1 - self.share) * champion + self.share * challenger

    def qualities(self) -> Vector:
        """(ARMS,) alike but for the two preferred ones, which differ as much as it takes."""
        challenger, champion, _ = self.pmfs()
        gap = self.better / (DIFFERS * (challenger[0, 1] - champion[0, 1]))
        qualities = np.full(ARMS, self.quality)
        qualities[:2] += np.array([-gap, gap]) / 2
        return qualities


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """All rows that a world can produce: (context kind, arm, outcome), with what each means."""

    probability: Vector  # (c,)
    terms: Vector  # (c,) difference, for reading
    logs: Vector  # (c, j) log-wealth
    harm_logs: Vector  # (c, j) of the quality guardrail
    reward: Vector  # (c,)
    weight: Vector  # (c,) of the challenger
    bound: float

    @classmethod
    def of(cls, world: World) -> Cells:
        kind, arm, outcome = np.array(list(product(range(2), range(ARMS), range(2)))).T
        challenger, champion, drawn = (pmf[kind] for pmf in world.pmfs())
        pair = Pair(challenger, champion, drawn, arm)
        quality, predicted = world.qualities()[arm], np.full((len(kind), ARMS), world.quality)
        reward = outcome.astype(np.float64)
        margin = Settings().quality_margin
        terms = terms_for(pair, reward, predicted)
        harm = terms_for(pair.turned(), reward, predicted, mean=margin)
        probability = (
            np.where(kind == 0, DIFFERS, 1 - DIFFERS)
            * pair.at_chosen(drawn)
            * np.where(outcome == 1, quality, 1 - quality)
        )
        plain = plain_terms(pair, reward, predicted)
        variance = float(probability @ plain**2) - world.better**2
        z = world.better * math.sqrt(world.rounds / variance) if variance > 0 else 0.0
        return cls(
            probability=probability,
            terms=plain,
            logs=np.log1p(BETS.sizes * terms),
            harm_logs=np.log1p(BETS.sizes * (harm - margin)),
            reward=reward,
            weight=pair.at_chosen(challenger) / pair.at_chosen(drawn),
            bound=float(stats.norm.sf(stats.norm.isf(0.05) - z)),
        )


def play(
    world: World, gates: int, seed: int, rules: Collection[str] = RULES
) -> dict[str, list[bool]]:
    """Which of the simulated gates pass by the world's horizon, by rule."""
    cells = Cells.of(world)
    rng = np.random.default_rng(seed)
    passed: dict[str, list[bool]] = {rule: [] for rule in rules}
    ahead = np.cumsum(cells.probability)[:-1].astype(np.float32)
    for start in range(0, gates, AT_A_TIME):
        size = min(AT_A_TIME, gates - start), world.rounds
        drawn = np.searchsorted(ahead, rng.random(size, dtype=np.float32))
        blocks = _counts(drawn, len(cells.probability))
        shown, blocked = _ours(cells, blocks)
        verdicts = {
            "ours": shown,
            "guarded": shown & ~blocked,
            "personalizer": _personalizer(cells, blocks),
        }
        for rule in passed.keys() & verdicts.keys():
            passed[rule] += [bool(looks.any()) for looks in verdicts[rule]]
        if "vw" in rules and confidence_sequence() is not None:
            passed["vw"] += [_vw(cells, row) for row in drawn]
    return passed


def _counts(drawn: Index, cells: int) -> Vector:
    """(s, looks, c) how often each cell came up by each look."""
    sims, rounds = drawn.shape
    looks = rounds // LOOK
    block = np.arange(sims * looks).repeat(LOOK)
    counts = np.bincount(block * cells + drawn.ravel(), minlength=sims * looks * cells)
    per_look: Vector = counts.reshape(sims, looks, cells).cumsum(axis=1).astype(np.float64)
    return per_look


def _ours(cells: Cells, counts: Vector) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(s, looks) passed, and blocked by the guardrail, each with its evidence's peak so far."""
    settings = Settings()
    log_e = BETS.log_wealth(counts @ cells.logs)
    harm = BETS.log_wealth(counts @ cells.harm_logs)
    total = counts @ cells.terms
    looks = np.arange(1, total.shape[1] + 1)
    before = np.pad(total, ((0, 0), (1, 0)))[:, looks // 2]  # at the middle of the rows
    better = np.maximum.accumulate(log_e, axis=1) >= -math.log(settings.alpha * FIRST_WINDOW)
    each = settings.guardrail_alpha / 8
    return better & (total > before), np.maximum.accumulate(harm, axis=1) >= -math.log(each)


def _personalizer(cells: Cells, counts: Vector) -> NDArray[np.bool_]:
    n = counts.sum(axis=2)
    means, lows = [], []
    for values in (cells.weight * cells.reward, cells.reward):
        mean = counts @ values / n
        variance = np.maximum(counts @ values**2 / n - mean**2, 0.0)
        means.append(mean)
        lows.append(mean - stats.norm.isf(0.025) * np.sqrt(variance / n))
    higher: NDArray[np.bool_] = (means[0] > means[1]) & (lows[0] > lows[1])
    return higher


def confidence_sequence() -> Any:
    """vw-estimators' own, None where it isn't installed."""
    try:
        return importlib.import_module("estimators.bandits.cs")
    except ImportError:
        return None


def _vw(cells: Cells, drawn: Index) -> bool:
    """One gate (rounds,). The sums are what `IntervalImpl.add` keeps, row by row in its order."""
    n = len(drawn)
    looks = np.unique(np.geomspace(LOOK, n, VW_LOOKS).astype(int))
    reward = cells.reward[drawn]
    module = confidence_sequence()
    for sums in _vw_sums(cells.weight[drawn], reward, looks):
        interval = module.IntervalImpl(rmin=0, rmax=1, adjust=False)
        for name, value in sums.items():
            setattr(interval, name, value)
        if interval.get(0.05)[0] > reward[: int(sums["t"])].mean():
            return True
    return False


def _vw_sums(w: Vector, r: Vector, looks: Index) -> list[dict[str, float]]:
    before = np.arange(1, len(w) + 1)  # rows before each, and one
    guess_low, guess_high = (
        (np.append(0.0, np.cumsum(value)[:-1]) + 0.5) / before for value in (w * r, w - w * r)
    )
    rows = {
        "sumwsqrsq": (w * r) ** 2,
        "sumwsqr": w**2 * r,
        "sumwsq": w**2,
        "sumwr": w * r,
        "sumw": w,
        "sumwrxhatlow": w * r * guess_low,
        "sumwxhatlow": w * guess_low,
        "sumxhatlowsq": guess_low**2,
        "sumwrxhathigh": w * r * guess_high,
        "sumwxhathigh": w * guess_high,
        "sumxhathighsq": guess_high**2,
    }
    sums = {name: np.cumsum(values) for name, values in rows.items()}
    return [
        {"t": int(n), **{name: float(path[n - 1]) for name, path in sums.items()}}
        for n in looks.tolist()
    ]


def worlds(
    kinds: Sequence[str], shares: Sequence[float], qualities: Sequence[float]
) -> list[World]:
    every = [
        World(kind, share, quality, better)
        for kind, share, quality, better in product(kinds, shares, qualities, HORIZONS)
    ]
    return [world for world in every if world.possible]


def _job(world: World, gates: int, part: tuple[int, int]) -> dict[str, list[bool]]:
    number, parts = part
    return play(world, gates // parts + (number < gates % parts), seed=1_000 + number)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gates", type=int, default=1_000, help="for each line")
    parser.add_argument("--kinds", nargs="+", default=list(PREFERRED), choices=list(PREFERRED))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.0])
    parser.add_argument("--qualities", nargs="+", type=float, default=[0.5, 0.7, 0.9])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    lines = []
    print(_HEAD, flush=True)
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        parts = [(number, given.processes) for number in range(given.processes)]
        for world in worlds(given.kinds, given.shares, given.qualities):
            started = time.perf_counter()
            results = pool.map(partial(_job, world, given.gates), parts)
            passed = {rule: [p for result in results for p in result[rule]] for rule in RULES}
            rates = {rule: float(np.mean(p)) if p else None for rule, p in passed.items()}
            line = {**asdict(world), "rounds": world.rounds, "bound": Cells.of(world).bound}
            lines.append({**line, **rates})
            print(_row(lines[-1]), flush=True)
            print(f"{time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    if given.json:
        given.json.write_text(json.dumps({"gates": given.gates, "lines": lines}, indent=2) + "\n")


_HEAD = (
    "policies  share  quality  better  rounds  bound    ours  guarded  personalizer      vw\n"
    "--------  -----  -------  ------  ------  -----  ------  -------  ------------  ------"
)


def _row(line: dict[str, Any]) -> str:
    rates = ["missing" if line[rule] is None else f"{line[rule]:.1%}" for rule in RULES]
    return (
        f"{line['kind']:<8}  {line['share']:>5.0%}  {line['quality']:>7}  {line['better']:>6}"
        f"  {line['rounds']:>6,}  {line['bound']:>5.0%}  {rates[0]:>6}  {rates[1]:>7}"
        f"  {rates[2]:>12}  {rates[3]:>6}"
    )


if __name__ == "__main__":
    main()

"""How often the gate passes what is better and what is not, over many logs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gate import Cells, World, play
from offline_eval.estimating.intervals import EProcess
from offline_eval.gate.terms import BETS
from offline_eval.log.data import LoggedData
from tests.offline_eval.simulated import judged, logged

OURS = ("ours", "guarded")


def test_what_is_not_better_seldom_passes_however_often_one_asks():
    """300 gates of equal arms, asked after every 100 of 1,000 rounds; 4 standard errors above
    5%."""
    passed = np.mean(play(World("soft", 0.1, 0.7, 0.0), 300, 1, OURS)["guarded"])
    assert passed <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def test_what_is_better_passes():
    """By 0.05, within 2,000 rounds, in at least 90% of 200 gates less 4 standard errors."""
    passed = np.mean(play(World("soft", 0.1, 0.7, 0.05), 200, 1, OURS)["guarded"])
    assert passed >= 0.9 - 4 * math.sqrt(0.9 * 0.1 / 200)


def test_the_benchmarks_cells_are_what_the_gate_folds():
    """Its table of all possible rows has the world's difference as its mean, and its evidence for a
    sequence of rows is the e-process's."""
    world = World("soft", 0.1, 0.7, 0.05)
    cells = Cells.of(world)
    assert cells.probability.sum() == pytest.approx(1)
    assert float(cells.probability @ cells.terms) == pytest.approx(0.05)
    rows = np.random.default_rng(1).choice(len(cells.terms), 300, p=cells.probability)
    test = EProcess(0.0, BETS)
    test.fold(np.expm1(cells.logs[rows]) / BETS.sizes)
    counts = np.bincount(rows, minlength=len(cells.terms))
    assert BETS.log_wealth(counts @ cells.logs) == pytest.approx(test.log_e)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "better", "least", "most"),
    [(0.1, 0.0, 0.0, 0.05), (0.0, 0.0, 0.0, 0.05), (0.1, 0.05, 0.9, 1.0), (0.1, 0.02, 0.9, 1.0)],
)
def test_the_promised_rates_hold(share: float, better: float, least: float, most: float):
    """1,000 gates each, within 4 standard errors."""
    rate = np.mean(play(World("soft", share, 0.7, better), 1_000, 2, OURS)["guarded"])
    slack = 4 * math.sqrt(0.05 * 0.95 / 1_000)
    assert least - slack <= rate <= most + slack


@pytest.mark.slow
def test_the_whole_gate_seldom_passes_what_is_not_better():
    """300 logs of equal arms, each judged at four looks; 4 standard errors above 5%."""
    passed = 0
    for seed in range(300):
        data = logged(1_200, seed=seed)
        looks = [judged(_first(data, n)) for n in (300, 600, 900, 1_200)]
        passed += any(verdict.verdict == "pass" for verdict in looks)
    assert passed / 300 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def _first(data: LoggedData, n: int) -> LoggedData:
    """The log as it was after n rounds."""
    parts = {name: getattr(data, name) for name in data.__slots__ if name not in ("ids", "encoder")}
    return replace(data, **{name: part[:n] for name, part in parts.items()})

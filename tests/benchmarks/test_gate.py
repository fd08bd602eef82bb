"""The benchmarks of gate and intervals run, and print what they write."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import coverage, gate
from benchmarks.coverage import WEIGHTINGS
from benchmarks.gate import World


def test_the_gate_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A line for each difference, under one heading."""
    path = tmp_path / "gate.json"
    world = ["--kinds", "soft", "--qualities", "0.7", "--shares", "0.1"]
    gate.main(["--gates", "2", "--processes", "1", "--json", str(path), *world])
    lines = json.loads(path.read_text())["lines"]
    assert [line["better"] for line in lines] == list(gate.HORIZONS)
    assert lines[0]["bound"] > 0.99
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(lines)


def test_the_coverage_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A line for each kind of weights and size."""
    path = tmp_path / "coverage.json"
    few = ["--runs", "5", "--bootstrap", "1", "--sizes", "500"]
    coverage.main([*few, "--processes", "1", "--json", str(path)])
    assert [line["weights"] for line in json.loads(path.read_text())["lines"]] == list(WEIGHTINGS)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(WEIGHTINGS)


def test_a_world_has_the_difference_that_it_says():
    """Where that asks for a quality beyond 1, it isn't played."""
    world = World("firm", 0.1, 0.7, 0.05)
    challenger, champion, _ = world.pmfs()
    difference = (challenger - champion) @ world.qualities()
    assert difference == pytest.approx([0.1, 0.0])
    assert not World("firm", 0.1, 0.98, 0.05).possible


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_are_what_the_coverage_benchmark_says(name: str):
    """Half lie above the median, with as much of the sum as is said (4 standard errors; of Pareto
    weights those below, as the sum has no variance)."""
    weighting, n = WEIGHTINGS[name], 100_000
    weights = weighting.draw(np.random.default_rng(1), n)
    below = weights <= weighting.median
    assert below.mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(n))
    small = np.where(below, weights, 0.0)
    assert small.mean() == pytest.approx(1 - weighting.above, abs=4 * small.std() / math.sqrt(n))


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_the_deciding_interval_covers(name: str):
    """At 94.5% or more of 1,000 runs of 5,000 rounds, looked at once or always, less 4 standard
    errors."""
    held = coverage.play(name, 5_000, 1_000, 0, seed=3).held
    slack = 4 * math.sqrt(0.055 * 0.945 / 1_000)
    for looks in ("fixed", "peeking"):
        assert np.mean(held[f"betting {looks}"]) >= 0.945 - slack

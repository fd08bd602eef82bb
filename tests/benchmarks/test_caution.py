"""The guarantee on a world made for it, and how the benchmark judges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.caution.runs import Came, Run, fell, figures, named, play
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.result import Hindsight
from policy.arms.catalog import Catalog
from tests.pointsman.sets import arm

MEANS = (0.3, 0.5, 0.6, 0.7)
N = 400


def world() -> OutcomeSet:
    """Four arms that answer right with these chances, whatever is asked."""
    quality = (np.random.default_rng(5).random((N, 4)) < MEANS).astype(np.float64)
    return OutcomeSet(
        name="chances",
        query_ids=tuple(f"q{i}" for i in range(N)),
        texts=("What is 1 + 1?",) * N,
        categories=("math",) * N,
        catalog=Catalog(tuple(arm(name, 1.0) for name in "abcd")),
        quality=quality,
        cost_usd=np.full((N, 4), 0.01),
        latency_ms=np.full((N, 4), np.nan),
    )


def test_a_fall_is_judged_from_the_hundredth_round_on():
    """On sums: what was lost before may have been earned back by then."""
    incumbent = np.ones(200)
    rewards = np.ones(200)
    rewards[:2] = 0.0
    assert not fell(rewards, incumbent, 0.02)  # 98 of 98 by round 100
    assert fell(rewards, incumbent, 0.019)
    rewards[150:158] = 0.0
    assert fell(rewards, incumbent, 0.04)  # 148 by round 158, of 151.68
    assert not fell(rewards, incumbent, 0.07)


def test_incumbents_are_ranked_over_the_set():
    """The best arm, and the one in the middle; the upper one of two."""
    outcomes = world()
    hindsight = Hindsight.of(outcomes, folders.config(outcomes).policies["default"])
    assert (named("best", hindsight), named("median", hindsight)) == (3, 2)


def test_a_row_by_hand():
    """Means over the runs."""
    row = figures([Came(True, 0.1, 0.5, 0.2), Came(False, 0.3, 0.7, 0.4)])
    assert row == pytest.approx(
        {"runs": 2, "fell": 0.5, "gain": 0.2, "captured": 0.6, "captured_se": 0.1, "others": 0.3}
    )


def test_caution_keeps_what_freedom_loses(tmp_path: Path):
    """Beside the best arm the free policy falls below it in most runs, the cautious one in none of
    these, and it still comes to try the others."""
    folders.save(world(), tmp_path)
    free, careful = (
        [play(Run(tmp_path, "best", loss, 0.02, 250, number)) for number in range(4)]
        for loss in (None, 0.02)
    )
    assert sum(one.fell for one in free) >= 3
    assert not any(one.fell for one in careful)
    assert np.mean([one.others for one in careful]) > 0.0

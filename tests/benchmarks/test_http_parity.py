"""A real service beside the same run in process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.http_parity.runs import Served, World, alone, compared, replayed, serve
from pointsman.trying import outcomes as folders
from pointsman.trying.lag import Published
from pointsman.trying.simulate import silent
from tests.pointsman.sets import tiny


@pytest.mark.slow
def test_a_service_takes_the_same_arms_as_the_run_in_process(tmp_path: Path):
    """By snapshots of the same outcomes; by others some differ."""
    delay = 7
    folders.save(tiny(40), tmp_path / "tiny")
    world = World.of(str(tmp_path / "tiny"), 150)
    tried = (serve(world, 3, delay, silent) for _ in range(3))
    served = next(one for one in tried if not one.missed)  # a busy machine may miss a snapshot
    assert served.has[-1] > 0
    assert np.array_equal(served.arms, alone(world, 3, delay, replayed(served.has)))
    assert not np.array_equal(served.arms, alone(world, 3, delay, Published(10_000, 0)))


def test_gaps_and_lateness_by_hand():
    """Ten rounds in a second; snapshots of 1, 4 and 8 outcomes serve from rounds 2, 6 and 9 on."""
    has = np.array([0, 0, 1, 1, 1, 1, 4, 4, 4, 8])
    served = Served(np.zeros(10, dtype=np.intp), has, 0, seconds=1.0)
    assert served.rate == 10.0
    assert served.gap() == pytest.approx(10 / 3)
    assert served.late(0) == pytest.approx((1 + 2 + 1) / 3)
    assert served.late(1) == pytest.approx((0 + 1 + 0) / 3)


def test_a_comparison_by_hand():
    """The error is that of the runs' differences."""
    row = compared(np.array([0.5, 0.7, 0.9]), np.array([0.4, 0.8, 0.6]))
    assert row["difference"] == pytest.approx(0.1)
    assert row["difference_se"] == pytest.approx(0.2 / np.sqrt(3))
    assert row["sd_ratio"] == pytest.approx(1.0)

"""What the benchmark of plans plays, on a small set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.plans.runs import PARTS, Run, _size, load, play, summed
from pointsman.trying import outcomes as folders
from tests.pointsman.sets import tiny


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of outcomes without latencies, and a file of timed requests."""
    folders.save(tiny(10), tmp_path / "set")
    models = ["middling", "fast", "slow"]
    timed = {"model": models * 20, "latency_ms": [500.0, 100.0, 9_000.0] * 20}
    pq.write_table(pa.table(timed), tmp_path / "timed.parquet")
    return tmp_path / "set", tmp_path / "timed.parquet"


def test_an_arms_name_tells_its_size():
    """In billions of parameters; one that doesn't tell is small."""
    names = ("qwen2.5-7b-instruct", "llama-3.1-nemotron-51b-instruct", "super-49b-v1", "big")
    assert [_size(name) for name in names] == [0, 2, 1, 0]


def test_latencies_are_drawn_where_there_are_none(places: tuple[Path, Path]):
    """By size, from the model of that rank; the same each time."""
    load.cache_clear()
    latency_ms = load(*places).latency_ms
    assert set(np.unique(latency_ms)) == {100.0}
    load.cache_clear()
    assert np.array_equal(load(*places).latency_ms, latency_ms)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_played(part: str, places: tuple[Path, Path]):
    """Figures of one shuffle, finite, and joined over shuffles with their standard errors."""
    load.cache_clear()
    found = [play(Run(*places, part, 30, number)) for number in range(2)]
    assert all(np.isfinite(value) for one in found for value in one.values())
    told = summed(found)
    for name, value in found[0].items():
        assert told[name][0] == pytest.approx((value + found[1][name]) / 2)

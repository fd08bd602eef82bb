"""A candidate on a log that needn't fit in memory: `python -m benchmarks.scale [--rounds N]`.

Makes a log of N rounds (five arms, contexts of 16 numbers, a challenger's pmf with each decision;
files of 20,000 rows, a million a day) in a temporary folder and estimates the challenger's value by
each way that there is, each in processes of its own:

streamed   part by part
dask       the same on a local cluster of two processes
in memory  the whole log at once, for up to a million rounds

`peak` is the most memory that a process held, its libraries included (of a cluster, the larger
worker's); `difference` the largest one from what `streamed` found, of all values and standard
errors.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pfs
from numpy.typing import NDArray

from benchmarks.common.tables import Columns, cells, head
from offline_eval.estimating import reward_models, rounds, target
from offline_eval.log.files import put_table
from offline_eval.log.reading import read_log
from offline_eval.log.schema import SCHEMA
from offline_eval.log.writing import ROWS_PER_FILE
from offline_eval.streaming.evaluation import Cluster, evaluate
from offline_eval.streaming.parts import ROWS, cut
from policy.objective import PRESETS, Scales

Vector = NDArray[np.float64]
Figures = dict[str, tuple[float, float]]
"""Estimator -> value, standard error."""

ARMS = ("arm-a", "arm-b", "arm-c", "arm-d", "arm-e")
DIMENSIONS = 16
FLOOR = 0.05
START_MS = 1_700_006_400_000  # midnight
DAY_MS, ROUNDS_A_DAY = 86_400_000, 1_000_000
IN_MEMORY = 1_000_000
WORKERS = 2
SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
WEIGHTS = PRESETS["balanced"]
COLUMNS: Columns = {
    "way": ("way", "10"),
    "seconds": ("seconds", "9.1f"),
    "rounds_per_s": ("rounds/s", "9.0f"),
    "peak_mb": ("peak MB", "8.0f"),
    "difference": ("difference", "10.1e"),
}


def make(path: Path, count: int) -> None:
    """Write a log of `count` rounds."""
    rng = np.random.default_rng(0)
    leaning = rng.standard_normal((3, DIMENSIONS, len(ARMS))) / np.sqrt(DIMENSIONS)
    for first in range(0, count, ROWS_PER_FILE):
        day, at = divmod(first, ROUNDS_A_DAY)
        n = min(ROWS_PER_FILE, count - first)
        date = np.datetime64(START_MS + day * DAY_MS, "ms").astype("datetime64[D]")
        folder = path / "policy=default" / f"day={date}"
        folder.mkdir(parents=True, exist_ok=True)
        made_at_ms = START_MS + day * DAY_MS + (at + np.arange(n)) * DAY_MS // ROUNDS_A_DAY
        columns = _columns(first, made_at_ms, leaning, rng)
        arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in SCHEMA]
        whole = pa.Table.from_arrays(
            [a.cast(f.type) for a, f in zip(arrays, SCHEMA, strict=True)], schema=SCHEMA
        )
        put_table(pfs.LocalFileSystem(), str(folder / f"{at:07}.parquet"), whole)


def _columns(
    first: int, made_at_ms: NDArray[np.int64], leaning: Vector, rng: np.random.Generator
) -> dict[str, Any]:
    """What isn't null, by name."""
    n, k = len(made_at_ms), len(ARMS)
    x = rng.standard_normal((n, DIMENSIONS), dtype=np.float32)
    x[:, 0] = 1.0
    champion, challenger = (_soft(2.0 * x @ leaning[i]) for i in (0, 1))
    arm = (champion.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, k - 1)
    row = np.arange(n)
    mean = 0.5 + 0.1 * (x @ leaning[2])[row, arm] + 0.05 * arm
    names = pa.array(ARMS)
    same: dict[str, Any] = {
        "version": "1",
        "snapshot": 1,
        "catalog": "c",
        "encoder": "e",
        "prompt_tokens": 100,
        "output_tokens": 300,
        "weight_quality": WEIGHTS.quality,
        "weight_latency": WEIGHTS.latency,
        "weight_cost": WEIGHTS.cost,
        "challenger": "2",
        "share": 0.0,
        "stands_for": 1.0,
        "propensity_estimated": False,
        "quality_assumed": False,
        "executed": True,
        "closed": True,
    }
    ids = pc.utf8_lpad(pa.array(first + row).cast(pa.string()), 32, "0")
    return {name: pa.repeat(pa.scalar(value), n) for name, value in same.items()} | {
        "decision_id": ids,
        "made_at_ms": pa.array(made_at_ms),
        "arm": names.take(pa.array(arm)),
        "propensity": pa.array(champion[row, arm]),
        "arms": _lists(names.take(pa.array(np.tile(np.arange(k), n))), k),
        "pmf": _lists(pa.array(champion.ravel()), k),
        "predicted_quality": _lists(pa.array(np.full(n * k, 0.6)), k),
        "predicted_latency_ms": _lists(pa.array(np.full(n * k, 800.0)), k),
        "predicted_cost_usd": _lists(pa.array(np.full(n * k, 0.002)), k),
        "challenger_pmf": _lists(pa.array(challenger.ravel()), k),
        "x": _lists(pa.array(x.ravel()), DIMENSIONS),
        "quality": pa.array((rng.random(n) < mean).astype(np.float64)),
        "latency_ms": pa.array(rng.uniform(200.0, 900.0, n)),
        "cost_usd": pa.array(0.001 * (1.0 + arm)),
    }


def _soft(utility: Vector) -> Vector:
    """(n, k) softmax over a floor."""
    pmf = np.exp(utility - utility.max(axis=1, keepdims=True))
    pmf /= pmf.sum(axis=1, keepdims=True)
    floored: Vector = (1.0 - FLOOR) * pmf + FLOOR / pmf.shape[1]
    return floored


def _lists(flat: Any, size: int) -> Any:
    return pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, size, dtype=np.int32), flat)


def streamed(path: str) -> Figures:
    return _figures(_evaluate(path, None))


def in_memory(path: str) -> Figures:
    data = read_log(path)
    reward = data.rewards(WEIGHTS, SCALES)
    q = reward_models.ridge(data, reward)
    found = rounds.estimates(rounds.of(data, target.challenger(data), reward, q))
    return _figures(found)


def _evaluate(path: str, client: Cluster | None) -> Any:
    """Every estimate, a dot on stderr for each hundredth of the way."""

    def told(done: int, of: int) -> None:
        if done * 100 // of > (done - 1) * 100 // of:
            print(".", end="" if done < of else "\n", file=sys.stderr, flush=True)

    parts = cut(path, rows=ROWS)
    return evaluate(parts, target.challenger, SCALES, WEIGHTS, client=client, progress=told).values


def _figures(found: Any) -> Figures:
    return {name: (one.value, one.se) for name, one in found.items()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(way: Callable[[str], Figures], path: str) -> dict[str, Any]:
    """Seconds, peak memory and figures of a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (way, path))


def _measured(way: Callable[[str], Figures], path: str) -> dict[str, Any]:
    start = time.perf_counter()
    figures = way(path)
    return {"seconds": time.perf_counter() - start, "peak_mb": _peak_mb(), "figures": figures}


def on_dask(path: str) -> dict[str, Any]:
    """As `alone`, of a local cluster."""
    distributed: Any = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(
        n_workers=WORKERS,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # None would take port 8787, of every network
        worker_dashboard_address="127.0.0.1:0",
    )
    with cluster, distributed.Client(cluster) as client:
        start = time.perf_counter()
        figures = _figures(_evaluate(path, client))
        seconds = time.perf_counter() - start
        peaks = client.run(_peak_mb)
    return {"seconds": seconds, "peak_mb": max(peaks.values()), "figures": figures}


def apart(one: Figures, other: Figures) -> float:
    """The largest difference of any figure."""
    return max(abs(a - b) for name in one for a, b in zip(one[name], other[name], strict=True))


def run(count: int) -> list[dict[str, Any]]:
    """A row of the table for each way."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make(Path(folder), count)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        seconds = time.perf_counter() - start
        print(f"{count:,} rounds, {size / 2**20:,.0f} MB, made in {seconds:.0f} s")
        found = {"streamed": alone(streamed, folder), "dask": on_dask(folder)}
        if count <= IN_MEMORY:
            found["in memory"] = alone(in_memory, folder)
    return [
        {
            "way": way,
            "rounds": count,
            "rounds_per_s": count / one["seconds"],
            "difference": apart(one["figures"], found["streamed"]["figures"]),
            **one,
        }
        for way, one in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the table to this file, too")
    given = parser.parse_args()
    rows = run(given.rounds)
    print(head(COLUMNS))
    for row in rows:
        print(cells(row, COLUMNS))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

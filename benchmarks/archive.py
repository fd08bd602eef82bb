"""Archiving and reading a log: `python -m benchmarks.archive [--json FILE]`.

The streams of a real embedded server hold decisions and outcomes that the service and its scripts
have made, and copies of these; one process archives them into a folder. Then the rows are read
as arrays, joined. d = 64, 10 arms.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: what the archiver runs with

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import orjson
import redis

from benchmarks.learner.stream import GROUP, POLICY, make
from benchmarks.serving.running import ARMS, configuration
from offline_eval.log.reading import read_log
from pointsman.archiver import Window, archive_burst
from policy.stored import opened_record, sealed_record
from serving.processes.embedded import Embedded
from serving.store.keys import Keys

ROUNDS = 1_000_000
MADE = 4_000  # by the service; the others are copies
AT_ONCE = 50_000  # rounds that the server holds
WINDOW_MS = 3_600_000


def copy(url: str, start: int, stop: int) -> None:
    """Append copies of the first decision and outcome of the streams, under ids of their own."""
    keys = Keys(POLICY)
    with redis.Redis.from_url(url) as raw:
        decisions = [fields for _, fields in raw.xrange(keys.decisions, count=MADE)]
        outcomes = [fields for _, fields in raw.xrange(keys.outcomes, count=MADE)]
        for first in range(start, stop, GROUP):
            pipeline = raw.pipeline(transaction=False)
            for i in range(first, min(first + GROUP, stop)):
                name = f"copy-{i}"
                made = decisions[i % len(decisions)]
                record = opened_record("decision", made[b"record"], made[b"x"])
                copied = orjson.dumps(record | {"decision_id": name})
                sealed = sealed_record("decision", copied, made[b"x"])
                pipeline.xadd(keys.decisions, made | {b"record": sealed})
                told = outcomes[i % len(outcomes)] | {b"decision_id": name.encode()}
                pipeline.xadd(keys.outcomes, told)
            pipeline.execute()


def benchmark(rounds: int, made: int = MADE) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pointsman.toml"
        config.write_text(configuration(ARMS))
        server = Embedded(Path(folder) / "valkey", fsync="everysec", max_memory_mb=8192)
        server.start()
        path = str(Path(folder) / "log")
        try:
            asyncio.run(make(server.url, config, min(made, rounds)))
            archived, archive_s, cpu_s = 0, 0.0, 0.0
            for start in range(min(made, rounds), rounds + 1, AT_ONCE):
                copy(server.url, start, min(start + AT_ONCE, rounds))
                before, cpu_before = time.perf_counter(), time.process_time()
                archived += sum(
                    archive_burst(server.url, path, {POLICY: Window(WINDOW_MS)})[POLICY].values()
                )
                archive_s += time.perf_counter() - before
                cpu_s += time.process_time() - cpu_before
        finally:
            server.stop()
        before = time.perf_counter()
        data = read_log(path)
        read_s = time.perf_counter() - before
        if len(data) != rounds:
            raise RuntimeError(f"{rounds} decisions made, {len(data)} read")
    return {
        "rounds": rounds,
        "entries_per_s": round(archived / archive_s),
        "entries_per_cpu_s": round(archived / cpu_s),
        "read_s": round(read_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    figures = benchmark(given.rounds)
    print(
        "{entries_per_s:,.0f} entries archived a second, {entries_per_cpu_s:,.0f} a second of "
        "CPU".format(**figures)
    )
    print("{rounds:,.0f} rows read in {read_s} s".format(**figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

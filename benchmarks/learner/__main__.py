"""`python -m benchmarks.learner [--arms 10 ...] [--json FILE]`: the learner beside its targets.

Events a second of CPU, from Redis to sums, snapshots and checkpoints, from a cold start on; what is
written for these; and for how long serving's event loop stands still when it takes one in.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: what the learner runs with

import argparse
import json
from pathlib import Path

from benchmarks.learner import taking
from benchmarks.learner.stream import LATER, benchmark

EVENTS = {10: 200_000, 100: 50_000, 500: 20_000}
PER_S = {10: 20_000, 100: 5_000, 500: 2_000}
STALL_MS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--arms", type=int, nargs="+", default=list(EVENTS))
    parser.add_argument("--events", type=int, help="of the stream; by default more where few arms")
    given = parser.parse_args()
    figures = []
    for arms in given.arms:
        found = benchmark(arms, given.events or EVENTS.get(arms, 20_000))
        figures.append(found)
        target = f" (target {PER_S[arms]:,})" if arms in PER_S else ""
        print(f"{arms} arms, {found['events']:,.0f} events: {found['per_s']:,.0f} a second{target}")
        print("  us an event: read {read_us}, decode {decode_us}, learn {learn_us}".format(**found))
        print("  with snapshots and checkpoints: {whole_per_s:,.0f} a second".format(**found))
        for name in ("snapshot", "checkpoint"):
            kb, later, ms = (found[f"{name}_{of}"] for of in ("kb", "later_kb", "ms"))
            print(f"  a {name}: {kb:,.0f} kB, {LATER} events later {later:,.0f} kB and {ms} ms")
    for model in taking.MODELS:
        for arms in given.arms if model == "linear" else given.arms[:1]:
            stall = taking.benchmark(model, arms)
            figures.append(stall)
            print(
                "{model}, {arms} arms: a snapshot of {kb} kB is taken in in {whole_ms} ms, the "
                "event loop stands still for {stall_ms} ms ({computed_ms} computed); one arm more: "
                "{next_whole_ms}, {next_stall_ms} ({next_computed_ms}) ms; target {target}".format(
                    **stall, target=STALL_MS
                )
            )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


main()

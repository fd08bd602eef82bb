"""Microseconds to profile and encode one query: `python -m benchmarks.encoder [--json FILE]`.

The budget is 200 us in all for a query of 1,000 characters on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query

ROUNDS = 1_000
HINTS = Hints(task_type="code/review", output_tokens=300, labels={"app": "hrm", "team": "x"})
SENTENCES = (
    "Write a Python function that merges two sorted lists without using the sort method.",
    "How many ways are there to choose {} people from a group of {} for the committee?",
    "Summarize the quarterly report number {} and list every open question by department {}.",
    "The delivery of order {} was late, the customer asks for a refund of {} dollars today.",
    "Translate the following paragraph into German, keep names and the figures {} and {}.",
)


def texts(characters: int) -> Iterator[str]:
    """Texts of this length, no two alike."""
    for start in range(10_000_000):
        pieces: list[str] = []
        size = 0
        while size < characters:
            n = start * 31 + len(pieces)
            pieces.append(SENTENCES[n % len(SENTENCES)].format(n, n % 97))
            size += len(pieces[-1]) + 1
        yield " ".join(pieces)[:characters]


def median_us(call: Callable[[Query], object], queries: list[Query]) -> float:
    """The median over single calls; the first tenth only warms up."""
    taken = []
    for query in queries:
        start = time.perf_counter_ns()
        call(query)
        taken.append(time.perf_counter_ns() - start)
    return median(taken[len(taken) // 10 :]) / 1_000


def measure(characters: int) -> dict[str, float]:
    """Medians in microseconds for queries of one length."""
    encoder = Encoder.default()
    queries = [Query(text=text) for text in islice(texts(characters), ROUNDS)]
    known = profile(queries[0], HINTS)
    result = {
        "profile_us": median_us(lambda query: profile(query, HINTS), queries),
        "encode_us": median_us(lambda query: encoder.encode(query, HINTS, known), queries),
        "both_us": median_us(lambda q: encoder.encode(q, HINTS, profile(q, HINTS)), queries),
    }
    return {name: round(value, 1) for name, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    out: Path | None = parser.parse_args().json
    figures = {str(size): measure(size) for size in (180, 1_000, 4_000, 20_000)}
    print("characters  profile   encode     both  (median us)")
    for size, row in figures.items():
        cells = " ".join(f"{value:8.1f}" for value in row.values())
        print(f"{int(size):10,} {cells}")
    if out:
        out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

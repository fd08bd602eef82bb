"""What it costs to take turns for rows: `python -m benchmarks.sessions [--runs N] [--json FILE]`.

A world whose truth is known: sessions of 1 to 20 turns, as likely each; two arms, drawn once per
session with 0.5 each. A session's turns succeed with one probability, that of its user on its arm
(uniform in 0.1 to 0.9 for either arm, so both earn 0.5), so turns of a session are alike. The same
log is read twice: a row per session, with its mean reward, as the service logs it, and a row per
turn with the session's propensity.

`coverage` is how often the 95% interval (Student-t of doubly robust terms) for the value of always
taking one arm holds the truth; `passed` is how often the gate's e-process, asked after every 50
sessions, says that one arm is better than the other, which it is not: at most 5% may.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import tables
from offline_eval.estimating.intervals import student_t
from offline_eval.gate.terms import BETS, Pair, terms_for
from pointsman.commands.settings import progress

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

ALPHA = 0.05
TURNS = 20  # of the longest session
LOW, HIGH = 0.1, 0.9  # of a user's success with an arm
VALUE = 0.5
LOOK = 50  # sessions between two looks


def rows(rng: np.random.Generator, sessions: int) -> tuple[Index, Flags, Vector, Index]:
    """Of each turn its session, whether that drew the first arm, its reward; of each session its
    length."""
    length = rng.integers(1, TURNS + 1, sessions)
    first = rng.random(sessions) < 0.5
    session = np.repeat(np.arange(sessions), length)
    success = rng.uniform(LOW, HIGH, sessions)
    reward = (rng.random(len(session)) < success[session]).astype(np.float64)
    return session, first[session], reward, length


def held(first: Flags, reward: Vector) -> bool:
    """Whether the interval for the first arm's value holds it: every row's propensity is 0.5."""
    return VALUE in student_t(VALUE + first / 0.5 * (reward - VALUE), ALPHA)


def passed(first: Flags, reward: Vector, looks: Index) -> bool:
    """Whether the gate's bets, at any look (rows so far), say that the first arm is the better."""
    n = len(first)
    chosen = np.where(first, 0, 1)
    better, worse = np.tile([1.0, 0.0], (n, 1)), np.tile([0.0, 1.0], (n, 1))
    pair = Pair(better, worse, np.full((n, 2), 0.5), chosen)
    terms = terms_for(pair, reward, np.full((n, 2), VALUE))
    log_e = BETS.log_wealth(np.cumsum(np.log1p(BETS.sizes * terms), axis=0)[looks - 1])
    return bool(log_e.max() >= -np.log(ALPHA))


def play(sessions: int, runs: int, seed: int = 0) -> dict[str, float | int | str | None]:
    """A row of the table."""
    rng, found = np.random.default_rng((seed, sessions)), np.zeros(4)
    with progress(runs) as tick:
        for _ in range(runs):
            session, first, reward, length = rows(rng, sessions)
            ends = np.cumsum(length)
            mean = np.bincount(session, reward) / length
            of_sessions, looks = first[ends - 1], np.arange(LOOK, sessions + 1, LOOK)
            found += (
                held(of_sessions, mean),
                held(first, reward),
                passed(of_sessions, mean, looks),
                passed(first, reward, ends[looks - 1]),
            )
            tick(1)
    names = ("covered", "covered_turns", "passed", "passed_turns")
    return {"sessions": sessions, **dict(zip(names, (found / runs).tolist(), strict=True))}


COLUMNS = {
    "covered": ("coverage, sessions as rows", "27.3f"),
    "covered_turns": ("turns as rows", "14.3f"),
    "passed": ("passed, sessions as rows", "25.3f"),
    "passed_turns": ("turns as rows", "14.3f"),
}


def main() -> None:
    summary = (__doc__ or "").partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sessions", description=summary)
    parser.add_argument("--sessions", nargs="+", type=int, default=[200, 1_000])
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    if min(options.sessions) < LOOK or options.runs < 1:
        parser.error(f"--sessions must be at least {LOOK}, --runs at least 1")
    print(f"{'sessions':<10} {tables.head(COLUMNS)}")
    made = []
    for sessions in options.sessions:
        row = play(sessions, options.runs)
        print(f"{sessions:<10} {tables.cells(row, COLUMNS)}", flush=True)
        made.append(row)
    if options.json:
        options.json.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()

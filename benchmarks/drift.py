"""What changes do to a running policy: `python -m benchmarks.drift FOLDER [--json FILE]`.

A folder of full-information outcomes (see pointsman/trying/outcomes.py) is played for `--rounds`
rounds, its queries as often as that takes, and in the middle something changes:

steady    nothing does: what handling costs
swap      the best single arm and the one of median reward exchange their outcomes
plunge    the best single arm and the worst do
prices    the arm of the best quality costs a tenth; its price in the catalog acts at once
joins     the best single arm is there from now on only
upgrade   the same, of a policy that has but the worse half of the other arms: a clear gain
fails     the best single arm, which by then is the most used, answers with quality 0, at full
          price
degrades  ParetoBandit's failure: after 1,785 rounds of learning and 608 more, mistral-large has a
          mean quality of 0.75 for 608 rounds, at full price, then its old one. Theirs kept 69% of
          those rounds on it, at its loose budget
onboards  ParetoBandit's new model: gemini-2.5-flash joins after 1,785 rounds. Theirs needed 142
          to give it at least 10% of the last 100 rounds for 50 rounds running, at its tight one

(Taberner-Miller 2026, https://arxiv.org/abs/2604.00136, sections on catastrophic failure and model
onboarding, with the protocol of the repository's experiments 03 and 04; ours has no budget. The
last two need that set's arms and are passed over elsewhere.)

Each scene is played by every variant of the policy in `VARIANTS`, in the same orders. Regret is
against the best arm per category of the phase that a round is in. The objective is that of
benchmarks.routing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import tables
from benchmarks.common.scenes import PHASE, SCENES, Phase, Scene, scene
from pointsman.commands.settings import progress
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.routers import Asked, InProcess, Routed, asked
from pointsman.trying.simulate import Traffic, drive, silent
from policy.arms.catalog import Index, Mask, Vector
from policy.config.schema import PolicyConfig
from policy.values import models

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "unhandled": {"notice_changes": False},
    "forgetting .998": {"forgetting": 0.998, "notice_changes": False},
    "forgetting .988": {  # ParetoBandit's 0.997 an event, with four arms
        "forgetting": 0.988,
        "notice_changes": False,
    },
    "no cap": {"new_arm_share": 1.0},  # on the draws of a new arm
    "scale 1": {"scale": 1.0},
}
"""What each changes in the default policy's configuration."""
WITHOUT = "unhandled"  # the variant that handles no change
USUAL = ("default", WITHOUT)

AFTER = 2_000  # rounds after the change, whose regret is told
WINDOW = 50  # rounds, for the shares that tell when an arm was left or taken up
LEFT = 0.1  # of the share it had
TAKEN_UP = 0.5  # of the share that the best rule gives it
BEFORE = 500  # rounds before the change, for the share that an arm had

SUSTAINED, SUSTAINED_WINDOW, SUSTAINED_FOR = 0.1, 100, 50

Figures = dict[str, float | int | None]


class Changing(InProcess):
    """A policy in this process, whose world changes between phases."""

    def __init__(
        self, phases: Sequence[Phase], config: PolicyConfig, queries: Sequence[Asked], run: str
    ) -> None:
        encoder = models.default_encoder(config)
        super().__init__(phases[0].outcomes, config, encoder, queries, run)
        self._coming = list(phases[1:])

    def route(self, rows: Sequence[int]) -> list[Routed]:
        if self._coming and self._rounds >= self._coming[0].start:
            self._learn(len(self._arrived))  # what came in before the change was so then
            self._outcomes = self._coming.pop(0).outcomes
            self.policy = self._publish()
        return super().route(rows)


@dataclass(frozen=True, eq=False)
class Played:
    """m shuffles of n rounds: rewards and what the best rule of the phase earns, arms, (m, n)."""

    rewards: Vector
    rule: Vector
    arms: Index

    @property
    def regret(self) -> Vector:
        return self.rule - self.rewards


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[OutcomeSet, PolicyConfig, list[Asked]]:
    outcomes = folders.load(folder)
    config = folders.config(outcomes).policies["default"]
    queries = asked(outcomes, models.default_encoder(config), True, silent)
    return outcomes, config, queries


def order(n: int, rounds: int, number: int) -> Index:
    """The rows (rounds,) of shuffle `number`: all n queries in some order, and again in another."""
    passes = -(-rounds // n)
    orders = [Traffic(seed=seed).shuffle(n, number)[0] for seed in range(passes)]
    return np.concatenate(orders)[:rounds]


def play(folder: Path, name: str, variant: str, rounds: int, number: int) -> Played:
    """One shuffle of a scene by a variant."""
    outcomes, default, queries = _load(folder)
    told = scene(name, outcomes, default, rounds)
    if told is None:
        raise ValueError(f"{outcomes.name} has not the arms of scene {name!r}")
    config = PolicyConfig(objective=default.objective, **VARIANTS[variant])
    rows = order(len(outcomes), rounds, number)
    router = Changing(told.phases, config, queries, str(number))
    arms = drive(router, rows, np.zeros(rounds, dtype=bool), 0, silent)
    rewards, rule = np.empty(rounds), np.empty(rounds)
    for phase in told.phases:  # each overwrites what the one before said of its rounds
        part = slice(phase.start, None)
        rewards[part] = phase.reward[rows[part], arms[part]]
        rule[part] = phase.reward[rows[part], phase.rule[rows[part]]]
    return Played(rewards[None], rule[None], arms[None])


def figures(told: Scene, played: Played, without: Played | None) -> Figures:
    """A row of the table; null where a figure can't be known or was never reached."""
    after = slice(told.change, told.change + AFTER)
    regret = played.regret[:, after].mean(axis=1)
    row: Figures = {
        "reward": float(played.rewards.mean()),
        "regret": float(regret.mean()),
        "regret_se": _error(regret),
    }
    if without is not None:
        theirs = without.regret[:, after].mean(axis=1)
        gain = (played.rewards - without.rewards).mean(axis=1)
        row |= {
            "regret_ratio": float(regret.mean() / theirs.mean()) if theirs.mean() > 0 else None,
            "gain": float(gain.mean()),
            "gain_se": _error(gain),
        }
    if told.failing is not None:
        row |= _failure(played.arms == told.failing, told)
    if told.rising is not None and told.deserved is not None:
        row |= _rise(played.arms == told.rising, told, told.deserved)
    return row


def _failure(taken: Mask, told: Scene) -> Figures:
    """How soon the failing arm was left, from where (m, n) it was taken."""
    had = taken[:, told.change - BEFORE : told.change].mean(axis=1)
    shares = _trailing(taken, WINDOW)[:, told.change :]
    left = [_first(row < LEFT * before) for row, before in zip(shares, had, strict=True)]
    own = [
        None if steps is None else int(row[told.change : told.change + steps].sum())
        for row, steps in zip(taken, left, strict=True)
    ]
    return {
        "share_before": float(had.mean()),
        "share_after": float(taken[:, told.change : told.change + PHASE].mean()),
        "left_after": _median(left),
        "left_after_own": _median(own),
        "never_left": left.count(None),
    }


def _rise(taken: Mask, told: Scene, deserved: float) -> Figures:
    """How soon the rising arm was taken up."""
    shares = _trailing(taken, WINDOW)[:, told.change :]
    up = [_first(row > TAKEN_UP * deserved) for row in shares]
    wide = _trailing(taken[:, told.change :], SUSTAINED_WINDOW) >= SUSTAINED
    held = [_first_run(row, SUSTAINED_FOR) for row in wide]
    return {
        "deserved": deserved,
        "share_at_end": float(taken[:, -BEFORE:].mean()),
        "taken_up_after": _median(up),
        "never_taken_up": up.count(None),
        "sustained_after": _median(held),
    }


def _trailing(taken: Mask, window: int) -> Vector:
    """(m, n): the share of the last `window` rounds, of fewer at the start."""
    sums = np.cumsum(np.pad(taken.astype(np.float64), ((0, 0), (window, 0))), axis=1)
    counts = np.minimum(np.arange(1, taken.shape[1] + 1), window)
    shares: Vector = (sums[:, window:] - sums[:, :-window]) / counts
    return shares


def _first(flags: Mask) -> int | None:
    """How many rounds it took, the first one that is true included."""
    return int(flags.argmax()) + 1 if flags.any() else None


def _first_run(flags: Mask, length: int) -> int | None:
    """The round, from 1, at which the first run of so many true ones starts."""
    runs = np.convolve(flags, np.ones(length), "valid") >= length - 0.5
    return _first(runs)


def _median(steps: Sequence[int | None]) -> float | None:
    """Of all shuffles, those that never got there last; None where it is one of these."""
    value = float(np.median([np.inf if step is None else step for step in steps]))
    return value if np.isfinite(value) else None


def _error(values: Vector) -> float | None:
    """The standard error of a mean of shuffles; one alone has none."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


@dataclass(frozen=True, slots=True)
class Task:
    """One shuffle of one scene by one variant."""

    folder: Path
    scene: str
    variant: str
    rounds: int
    number: int


def _do(task: Task) -> Played:
    return play(task.folder, task.scene, task.variant, task.rounds, task.number)


def measure(
    folder: Path,
    scenes: Sequence[str],
    variants: Sequence[str],
    rounds: int,
    shuffles: int,
    processes: int,
) -> Iterator[tuple[str, Scene, dict[str, Played]]]:
    """Each scene of the set with the shuffles of every variant, as they get done."""
    outcomes, config, _ = _load(folder)
    found = {name: scene(name, outcomes, config, rounds) for name in scenes}
    tellable = {
        name: told for name, told in found.items() if told is not None and told.change < rounds
    }
    tasks = [
        Task(folder, s, v, rounds, i) for s, v, i in product(tellable, variants, range(shuffles))
    ]
    fresh = multiprocessing.get_context("spawn")  # a child reads the BLAS setting when it starts
    with fresh.Pool(processes) as pool, progress(len(tasks)) as tick:
        parts = pool.imap(_do, tasks)
        for name, told in tellable.items():
            played = {}
            for variant in variants:
                done = []
                for _ in range(shuffles):
                    done.append(next(parts))
                    tick(1)
                played[variant] = _together(done)
            yield name, told, played


def _together(parts: Sequence[Played]) -> Played:
    names = ("rewards", "rule", "arms")
    return Played(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


COLUMNS = {
    "reward": ("reward", "8.4f"),
    "regret": ("regret", "8.4f"),
    "regret_se": ("se", "7.4f"),
    "regret_ratio": ("of that without", "15.2f"),
    "gain": ("gain", "8.4f"),
    "gain_se": ("se", "7.4f"),
    "share_before": ("had", "6.2f"),
    "share_after": ("kept", "6.2f"),
    "left_after": ("left", "6.0f"),
    "left_after_own": ("own", "6.0f"),
    "deserved": ("due", "6.2f"),
    "share_at_end": ("got", "6.2f"),
    "taken_up_after": ("up", "6.0f"),
    "sustained_after": ("10%", "6.0f"),
}
LEGEND = f"""\
regret    per round, in the {AFTER:,} rounds after the change, and in relation to that without
gain      in reward over all rounds, over that without handling
had, kept the failing arm's share of the {BEFORE} rounds before and of the {PHASE} rounds after
left, own rounds (and rounds of its own) until its share of the last {WINDOW} is below
          {LEFT:.0%} of what it had
due, got  the rising arm's share by the best rule, and in the last {BEFORE} rounds
up        rounds until its share of the last {WINDOW} is above half of what is due
10%       round from which it has {SUSTAINED:.0%} of the last {SUSTAINED_WINDOW} rounds for \
{SUSTAINED_FOR} rounds
Medians of the shuffles; - where most never got there, or there is nothing to tell."""


def table(name: str, told: Scene, rows: Mapping[str, Figures]) -> str:
    """One scene for a person to read."""
    ids = told.changed.outcomes.catalog.ids
    arms = [
        f"{ids[i]} {how}"
        for i, how in ((told.failing, "falls"), (told.rising, "rises"))
        if i is not None
    ]
    lines = [f"{name}, from round {told.change:,}: {', '.join(arms) or 'nothing changes'}"]
    lines.append(f"{'':<16} {tables.head(COLUMNS)}")
    lines += [f"{variant:<16} {tables.cells(row, COLUMNS)}" for variant, row in rows.items()]
    return "\n".join(lines)


def main() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    summary = (__doc__ or "").partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=summary)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(USUAL))
    parser.add_argument("--rounds", type=int, default=6_000)
    parser.add_argument("--shuffles", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="regret by round, all scenes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    if min(options.shuffles, options.processes) < 1:
        parser.error("--shuffles and --processes must be at least 1")
    try:
        for folder in [options.folder]:
            folders.load(folder)
    except ValueError as error:
        parser.error(str(error))
    made: dict[str, Any] = {}
    drawn = {}
    print(LEGEND)
    for name, told, played in measure(
        options.folder,
        options.scenes,
        options.variants,
        options.rounds,
        options.shuffles,
        options.processes,
    ):
        without = played.get(WITHOUT)
        made[name] = {v: figures(told, one, without) for v, one in played.items()}
        drawn[name] = (told.change, {v: one.regret for v, one in played.items()})
        print(f"\n{table(name, told, made[name])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(made, indent=2) + "\n")
    if options.plot:
        from pointsman import plots  # noqa: PLC0415 - matplotlib takes half a second to load

        plots.save(plots.regrets(drawn, options.folder.resolve().name), options.plot)


if __name__ == "__main__":
    main()

"""Plays shuffles of real outcomes: policies of ours, peers and the yardstick on the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from benchmarks.common import labels, typos
from benchmarks.common.calibration import Noting
from benchmarks.common.lints import WIDTHS, LinTS
from benchmarks.common.peers import PEERS, PeerRouter
from features.encoder import Encoder
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.result import Hindsight, Result
from pointsman.trying.routers import Asked, InProcess, Router, asked
from pointsman.trying.simulate import Traffic, corpus, drive, silent
from policy.arms.catalog import Index, Mask, Vector
from policy.config.schema import PolicyConfig
from policy.values import models
from policy.values.warm import fitted_encoder, warm_start

POLICIES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "greedy": {"exploration": "greedy"},
    "epsilon_greedy": {"exploration": "epsilon_greedy"},
    "softmax": {"exploration": "softmax"},
    "square_cb": {"exploration": "square_cb"},
    "vw": {"model": "vw"},
    "nearest": {"model": "nearest"},
    "rules": {"model": "rules"},  # as they are without a fit: by price, no quality being known
    "uniform": {"model": "uniform"},
    "best_single": {"model": "fixed", "floor": 0.0},  # of the arm that hindsight finds best
}
"""What each policy changes in the default one's configuration."""

WARM = 500  # queries of which every arm's outcome is known beforehand
STARTS: Mapping[str, int] = {"cold": 0, "warm": WARM}
CONTEXTS: Mapping[str, Mapping[str, Any]] = {
    "hints": {},
    "text": {"hints": False},
    "label": {"hints": False, "warm_labels": False},  # the category, but not as the task type
}
REWARDS: Mapping[str, Mapping[str, Any]] = {
    "at-once": {},
    "delayed": {"delay": 200},
    "missing": {"loss": 0.3},
}
LEARNED = 1_000  # rounds before decisions are timed
TIMED = 500


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the grid."""

    folder: Path
    start: str
    context: str
    rewards: str
    noise_labels: int = 0
    typos: bool = False

    @property
    def traffic(self) -> Traffic:
        return Traffic(warm=STARTS[self.start], **CONTEXTS[self.context], **REWARDS[self.rewards])

    @property
    def outcomes(self) -> OutcomeSet:
        """The set's queries as this cell's callers send them."""
        told = _load(self.folder)[0]
        if self.context == "label":
            told = labels.with_category(told)
        return labels.with_noise(told, self.noise_labels)

    def __str__(self) -> str:
        noise = f", {self.noise_labels} empty labels" if self.noise_labels else ""
        return f"{self.folder.name}, {self.start}, {self.context}{noise}, rewards {self.rewards}"


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """m shuffles of one policy or peer: by round, (m, n), the rewards, the confidence and whether
    the arm is the best of its category; what hindsight makes of the same rounds, how much of that
    was captured, and of how many queries typing errors change the most probable arm in the end,
    (m,) each."""

    rewards: Vector
    confidence: Vector
    right: Mask
    uniform: Vector
    single: Vector
    rule: Vector
    captured: Vector
    flips: Vector

    @classmethod
    def of(cls, result: Result, confidence: Vector, flips: float) -> Played:
        uniform, single, rule = (rewards.mean(axis=1) for rewards in result.in_hindsight)
        best = np.stack([result.hindsight.rule(rows) for rows in result.order])
        right = result.arms == best
        hindsight = (uniform, single, rule, result.captured)
        return cls(result.rewards, confidence, right, *hindsight, np.array([flips]))


def together(parts: Sequence[Played]) -> Played:
    """The shuffles of several parts as one."""
    names = [field.name for field in fields(Played)]
    return Played(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def play(cell: Cell, name: str, number: int) -> Played:
    """One shuffle of a cell, by a policy or a peer."""
    outcomes, hindsight, _ = _load(cell.folder)
    traffic = cell.traffic
    order, lost = traffic.shuffle(len(outcomes), number)
    rows, lost = order[traffic.warm :], lost[traffic.warm :]
    router = _router(cell, name, number)
    noting = Noting(router)
    arms = drive(noting, rows, lost, traffic.delay, silent)
    result = Result(outcomes, hindsight, rows[None], arms[None], 0.0)
    changed = np.nan
    if cell.typos and isinstance(router, InProcess):
        queries = _encoded(*_seen(cell, number))[1]
        changed = typos.flips(router.policy, queries)
    return Played.of(result, np.array(noting.confidence)[None], changed)


def decision_us(folder: Path, name: str) -> float:
    """The median of one decision from x, in microseconds, once there is something learned."""
    outcomes, _, _ = _load(folder)
    router = _router(Cell(folder, "cold", "hints", "at-once"), name, 0)
    order, lost = Traffic().shuffle(len(outcomes), 0)
    learned = min(LEARNED, len(outcomes) // 2)
    drive(router, order[:learned], lost[:learned], 0, silent)
    taken = []
    for row in order[learned : learned + TIMED].tolist():
        start = perf_counter_ns()
        router.route([row])
        taken.append(perf_counter_ns() - start)
    return round(float(np.median(taken)) / 1_000, 1)


def configured(name: str, outcomes: OutcomeSet, hindsight: Hindsight) -> PolicyConfig:
    """The configuration that a policy of the table means on a set."""
    changes = dict(POLICIES[name])
    if changes.get("model") == "fixed":
        changes["arm"] = outcomes.catalog.ids[hindsight.best(np.arange(len(outcomes)))]
    default = folders.config(outcomes).policies["default"]
    return PolicyConfig(objective=default.objective, **changes)


def _router(cell: Cell, name: str, number: int) -> Router:
    """A policy or a peer before the first round that counts."""
    traffic = cell.traffic
    _, hindsight, _ = _load(cell.folder)
    outcomes = cell.outcomes
    known = traffic.shuffle(len(outcomes), number)[0][: traffic.warm]
    if name in WIDTHS:
        return _yardstick(name, hindsight, known, cell.context != "text", number)
    encoder, queries = _encoded(*_seen(cell, number))
    if name in PEERS:
        x = np.stack([query.x for query in queries])
        peer = PEERS[name].make(x.shape[1], hindsight.reward.shape[1], number)
        router = PeerRouter(peer, x, hindsight.reward)
        router.warm(known)
        return router
    config, model = configured(name, outcomes, hindsight), None
    if traffic.warm:
        beforehand = corpus(outcomes, known, traffic.warm_labels)
        _, model = warm_start(config, beforehand, encoder=encoder)
    return InProcess(outcomes, config, encoder, queries, f"{traffic.seed}.{number}", model)


def _yardstick(
    name: str, hindsight: Hindsight, known: Index, hints: bool, number: int
) -> PeerRouter:
    """Where the traffic doesn't tell categories, it has a single one."""
    category = hindsight.category if hints else np.zeros_like(hindsight.category)
    k = hindsight.reward.shape[1]
    peer = LinTS(WIDTHS[name], int(category.max()) + 1, k, number)
    router = PeerRouter(peer, category[:, None].astype(np.float32), hindsight.reward)
    router.warm(known)
    return router


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[OutcomeSet, Hindsight, PolicyConfig]:
    outcomes = folders.load(folder)
    config = folders.config(outcomes).policies["default"]
    return outcomes, Hindsight.of(outcomes, config), config


def _seen(cell: Cell, number: int) -> tuple[Cell, int]:
    """What decides of a cell and a shuffle what its queries look like."""
    return replace(cell, rewards="at-once", typos=False), number if cell.traffic.warm else 0


@lru_cache(maxsize=1)  # a process plays a shuffle by every policy and peer before the next
def _encoded(cell: Cell, number: int) -> tuple[Encoder, list[Asked]]:
    """The queries as policies see them: where they start warm, by the encoder that is fitted in
    this shuffle."""
    outcomes, traffic, config = cell.outcomes, cell.traffic, _load(cell.folder)[2]
    encoder = models.default_encoder(config)
    if traffic.warm:
        known = traffic.shuffle(len(outcomes), number)[0][: traffic.warm]
        encoder = fitted_encoder(config, corpus(outcomes, known, traffic.warm_labels).queries)
    return encoder, asked(outcomes, encoder, traffic.hints, silent)

"""What came of simulated traffic, beside what hindsight would have chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pointsman.trying.outcomes import OutcomeSet
from policy.arms.catalog import Index, Vector
from policy.config.schema import PolicyConfig
from policy.objective import components, reward


@dataclass(frozen=True, eq=False)
class Hindsight:
    """What is known only when every arm's outcomes are: rewards (n, k) and the fixed choices."""

    reward: Vector
    category: Index
    """(n,) the number of each query's category."""

    @classmethod
    def of(cls, outcomes: OutcomeSet, config: PolicyConfig) -> Hindsight:
        """Judge a set by a policy's objective; ValueError where the set lacks what it weighs."""
        outcomes.check(config.weights)
        y = components(
            outcomes.quality.ravel(),
            outcomes.latency_ms.ravel(),
            outcomes.cost_usd.ravel(),
            np.zeros(outcomes.quality.size, dtype=bool),
            config.scales,
        )
        rewards = reward(y, config.weights).reshape(outcomes.quality.shape)
        return cls(rewards, outcomes.category_index)

    def uniform(self, rows: Index) -> Vector:
        """(rows,) the mean reward of all arms."""
        mean: Vector = self.reward[rows].mean(axis=1)
        return mean

    def single(self, rows: Index) -> Vector:
        """(rows,) the rewards of the arm that is best for all of these queries."""
        best: Vector = self.reward[rows, self.best(rows)]
        return best

    def per_category(self, rows: Index) -> Vector:
        """(rows,) the rewards of the arm that is best for all of these queries of a category."""
        best: Vector = self.reward[rows, self.rule(rows)]
        return best

    def best(self, rows: Index) -> int:
        """The arm that is best for all of these queries."""
        return int(self.reward[rows].mean(axis=0).argmax())

    def rule(self, rows: Index) -> Index:
        """(rows,) the arm that is best for all of these queries of a category."""
        sums = np.zeros((int(self.category.max()) + 1, self.reward.shape[1]))
        np.add.at(sums, self.category[rows], self.reward[rows])
        best: Index = sums.argmax(axis=1)[self.category[rows]]
        return best


@dataclass(frozen=True, eq=False)
class Result:
    """m shuffles of the same n rounds: the query and the arm of each round, (m, n)."""

    outcomes: OutcomeSet
    hindsight: Hindsight
    order: Index
    arms: Index
    seconds: float

    @cached_property
    def rewards(self) -> Vector:
        """(m, n) in the order of the rounds."""
        earned: Vector = self.hindsight.reward[self.order, self.arms]
        return earned

    @property
    def mean_reward(self) -> float:
        return float(self.rewards.mean())

    @cached_property
    def in_hindsight(self) -> tuple[Vector, Vector, Vector]:
        """Rewards (m, n) of uniform choice, the best single arm and the best arm per category,
        where all rounds of a shuffle are known."""
        of = self.hindsight
        uniform, single, rule = (
            np.stack([rewards(rows) for rows in self.order])
            for rewards in (of.uniform, of.single, of.per_category)
        )
        return uniform, single, rule

    @property
    def captured(self) -> Vector:
        """(m,) how much of the way from the best single arm to the rule per category was made;
        NaN where there is no such way."""
        _, best, rule = (rewards.mean(axis=1) for rewards in self.in_hindsight)
        way = rule - best
        gained = self.rewards.mean(axis=1) - best
        shares: Vector = np.divide(gained, way, out=np.full(len(way), np.nan), where=way > 1e-12)
        return shares

    def share(self, rounds: slice) -> Vector:
        """(k,) the share that each arm had of some rounds."""
        taken = self.arms[:, rounds]
        shares: Vector = np.bincount(taken.ravel(), minlength=len(self.outcomes.catalog)) / (
            taken.size or 1
        )
        return shares

    def figures(self) -> dict[str, float | int | None]:
        """What `--json` prints; null where a figure can't be known."""
        captured = self.captured
        uniform, best, rule = (float(rewards.mean()) for rewards in self.in_hindsight)
        m = len(captured)
        error = captured.std(ddof=1) / np.sqrt(m) if m > 1 else np.nan
        return {
            "mean_reward": self.mean_reward,
            "best_single": best,
            "best_per_category": rule,
            "uniform": uniform,
            "captured": _known(captured.mean()),
            "captured_se": _known(error),
            "rounds": self.order.shape[1],
            "shuffles": m,
            "seconds": self.seconds,
        }


def together(results: Sequence[Result]) -> Result:
    """The shuffles of several results of one set as one; the time is that of the longest."""
    first = results[0]
    return replace(
        first,
        order=np.concatenate([result.order for result in results]),
        arms=np.concatenate([result.arms for result in results]),
        seconds=max(result.seconds for result in results),
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

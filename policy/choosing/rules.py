"""The router that is written by hand: an ordered decision over the catalog's figures.

It learns nothing, and weighs nothing: a request's objective changes no choice of it. `fit` sets
its figures from a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.lexicon import TASK_TYPES
from features.profile import Profile
from policy.arms.catalog import Catalog
from policy.arms.constraints import LATENCY_CEILING_MS
from policy.choosing.protocol import Index, Ruling
from policy.config.schema import RulesConfig
from policy.objective import Scales, Weights, components, reward
from policy.records import Context, Vector

Table = NDArray[np.float64]  # (k arms, number of task types)
PSEUDO_COUNT = 5.0  # outcomes that an arm's mean counts for beside those of one task type


class Manner(NamedTuple):
    """What a rule looks for: concerns in falling order of weight, and how long an answer may take.

    Each concern in turn keeps the arms within its limit; where none is, the limit moves to the
    arm that comes nearest. So what comes last gives way first. Of the arms that are left, the best
    in the first concern is chosen, and the next ones decide among equals.
    """

    concerns: tuple[str, str, str]
    latency_ms: float


MANNERS: Mapping[str, Manner] = MappingProxyType(
    {
        "ultra_fast": Manner(("latency", "cost", "quality"), LATENCY_CEILING_MS["ultra_fast"]),
        "fast": Manner(("latency", "cost", "quality"), LATENCY_CEILING_MS["fast"]),
        "balanced": Manner(("cost", "quality", "latency"), LATENCY_CEILING_MS["medium"]),
        "quality": Manner(("quality", "cost", "latency"), LATENCY_CEILING_MS["slow"]),
    }
)


class Concern(NamedTuple):
    """What counts against an arm, and how much of it is within the limit: (number of task types, k)
    or (k,), and (number of task types, 1) or a number."""

    badness: Vector
    limit: Vector | float


class Rules:
    """One arm per query: that of its most probable task type.

    An arm's `best` is the probability of the task types for which the rules would choose it: how
    sure it is that the query's task type was told apart far enough to route it.
    """

    def __init__(self, catalog: Catalog, config: RulesConfig) -> None:
        self._catalog = catalog
        self._manner = MANNERS[config.speed]
        self._quality = np.nan_to_num(catalog.priors.T, nan=config.unknown_quality)
        wanted = [config.task_min_quality.get(task, config.min_quality) for task in TASK_TYPES]
        self._min_quality = np.array(wanted)[:, None]
        self._max_cost_usd = np.inf if config.max_cost_usd is None else config.max_cost_usd

    def rule(
        self,
        x: Context,
        index: Index,
        list_cost_usd: Vector,
        weights: Weights,
        known: Sequence[Profile],
    ) -> Ruling:
        each = zip(list_cost_usd, known, strict=True)
        pmf, best, expected = zip(*(self._one(index, cost, of) for cost, of in each), strict=True)
        return Ruling(np.stack(pmf), np.stack(best), np.stack(expected))

    def _one(
        self, index: Index, list_cost_usd: Vector, known: Profile
    ) -> tuple[Vector, Vector, Vector]:
        """pmf and best (k,) for one query, and what is expected (k, 3)."""
        expected = self._catalog.expected(known, index)
        chosen = self._chosen(index, list_cost_usd, expected[:, 1])
        pmf = np.zeros(len(index))
        pmf[chosen[known.task_mix.argmax()]] = 1.0
        best = np.bincount(chosen, weights=known.task_mix, minlength=len(index))
        return pmf, np.minimum(best, 1.0), expected

    def choice(self, index: Index, task: int, prompt_tokens: int, output_tokens: int) -> int:
        """The catalog position of the arm that `rule` would choose among `index` (k,) for a query
        of that most probable task type and those lengths."""
        list_cost_usd = self._catalog.list_cost_usd(prompt_tokens, output_tokens, index)
        latency_ms = self._catalog.latency_ms(prompt_tokens, output_tokens, index)
        return int(index[self._chosen(index, list_cost_usd, latency_ms)[task]])

    def _chosen(self, index: Index, list_cost_usd: Vector, latency_ms: Vector) -> Index:
        """The position (number of task types,) in `index` of the arm for each task type."""
        unknown = np.isnan(latency_ms)
        concerns = {
            "quality": Concern(-self._quality[:, index], -self._min_quality),
            # Unknown is no reason to leave an arm out, and none to call it the fastest.
            "latency": Concern(
                np.where(unknown, self._manner.latency_ms, latency_ms), self._manner.latency_ms
            ),
            "cost": Concern(list_cost_usd, self._max_cost_usd),
        }
        return choose([concerns[name] for name in self._manner.concerns], len(TASK_TYPES))


def chosen_by(known: Profile) -> tuple[int, int, int]:
    """What of a query rules choose by: its most probable task type's position, its prompt and
    output tokens."""
    return int(known.task_mix.argmax()), known.prompt_tokens, known.output_tokens


def choose(concerns: Sequence[Concern], tasks: int) -> Index:
    """The position (tasks,) of the arm for each task type, concerns in falling order of weight."""
    k = concerns[0].badness.shape[-1]
    left = np.ones((tasks, k), dtype=bool)
    for badness, limit in concerns:
        nearest = np.where(left, badness, np.inf).min(axis=1, keepdims=True)
        left &= badness <= np.maximum(limit, nearest)
    for badness, _ in concerns:
        lowest = np.where(left, badness, np.inf).min(axis=1, keepdims=True)
        left &= badness <= lowest
    first: Index = left.argmax(axis=1)
    return first


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """What a log says of n calls, each of one arm that was drawn."""

    task: Index
    """(n,) positions in TASK_TYPES."""
    arm: Index
    """(n,) positions in the catalog."""
    quality: Vector
    """(n,) as latency_ms and cost_usd: NaN where missing."""
    latency_ms: Vector
    cost_usd: Vector
    propensity: Vector
    """(n,) in (0, 1], with which the arm was drawn."""
    error: NDArray[np.bool_]
    """(n,) whether the call failed: its quality is then 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What a log says the rules' figures should be: `priors` (k, number of task types) are for the
    catalog, NaN for an arm without outcomes; `mean_reward` is what the rules would have earned on
    that log, and so flatters them where it is short."""

    rules: RulesConfig
    priors: Table
    mean_reward: float


def fit(
    calls: Calls, k: int, weights: Weights, scales: Scales, pseudo_count: float = PSEUDO_COUNT
) -> Fitted:
    """Expected qualities per arm and task type, and the threshold of the highest mean reward.

    For the manner "balanced": the cheapest arm whose expected quality is at least the threshold,
    else the best. Calls count by 1 / propensity (Horvitz and Thompson 1952), normalised within each
    arm and task type, whose mean is shrunk to the arm's by `pseudo_count` outcomes.
    """
    task, propensity = calls.task, calls.propensity
    if not len(task) or not ((propensity > 0) & (propensity <= 1)).all():
        raise ValueError("fit needs calls, each with a propensity in (0, 1]")
    cells = _Cells(task, calls.arm, 1.0 / propensity, k, pseudo_count)
    y = components(calls.quality, calls.latency_ms, calls.cost_usd, calls.error, scales)
    qualities, costs, rewards = map(cells.means, (y[:, 0], calls.cost_usd, reward(y, weights)))
    seen = np.flatnonzero(~np.isnan(qualities[:, 0]) & ~np.isnan(rewards[:, 0]))
    if not len(seen):
        raise ValueError("fit needs outcomes with a quality and all that the objective weighs")
    share = np.bincount(task, minlength=len(TASK_TYPES)) / len(task)
    badness = -qualities[seen].T
    dear = np.nan_to_num(costs[seen].T, nan=np.inf)
    values = np.unique(qualities[seen])
    best = 0.0, -np.inf
    for threshold in (0.0, *((values[1:] + values[:-1]) / 2)):
        concerns = Concern(dear, np.inf), Concern(badness, -threshold)
        chosen = seen[choose(concerns, len(TASK_TYPES))]
        earned = float(share @ rewards[chosen, np.arange(len(TASK_TYPES))])
        if earned > best[1] + 1e-12:
            best = float(threshold), earned
    typical = float(np.nanmean(qualities[seen] @ share))
    rules = RulesConfig(min_quality=best[0], unknown_quality=typical)
    return Fitted(rules, qualities, best[1])


class _Cells:
    """Weighted means per arm and task type, shrunk to the arm's."""

    def __init__(
        self,
        task: NDArray[np.intp],
        arm: NDArray[np.intp],
        weight: Vector,
        k: int,
        pseudo_count: float,
    ) -> None:
        self._cell = arm * len(TASK_TYPES) + task
        self._shape = k, len(TASK_TYPES)
        self._weight = weight
        self._pseudo_count = pseudo_count

    def means(self, value: Vector) -> Table:
        """(k, number of task types); NaN where an arm has no value at all.

        A cell of weights w counts as (Σ w)^2 / Σ w^2 outcomes (Kish 1965).
        """
        known = ~np.isnan(value)
        weight, value = self._weight[known], value[known]
        w, ww, wy = (self._sums(known, terms) for terms in (weight, weight**2, weight * value))
        with np.errstate(invalid="ignore", divide="ignore"):
            count = np.where(w > 0, w**2 / ww, 0.0)
            mean = np.where(w > 0, wy / w, 0.0)
            of_arm = (wy.sum(axis=1) / w.sum(axis=1))[:, None]
        shrunk: Table = (count * mean + self._pseudo_count * of_arm) / (count + self._pseudo_count)
        return shrunk

    def _sums(self, rows: NDArray[np.bool_], terms: Vector) -> Table:
        k, tasks = self._shape
        sums = np.bincount(self._cell[rows], weights=terms, minlength=k * tasks).astype(np.float64)
        return sums.reshape(k, tasks)

"""From what is expected of arms to the plans that are drawn beside them, each as an action with an
expected reward and a spread of its own. Nothing here draws.

The draw treats an action's expected reward as an independent Gaussian, a plan's among them, so that
its probabilities are the same one-dimensional integral as without plans: exact for this rule, and
over actions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, permutations

import numpy as np

from policy.arms.catalog import Index
from policy.arms.constraints import Limit
from policy.config.plans import PlansConfig
from policy.objective import COMPONENTS, Scales, Weights, reward
from policy.plans.expected import Arms, Expected, expect
from policy.plans.learned import Beyond, PlanValues
from policy.plans.plan import DRAWN, Kind, Plan, Step, plan_id
from policy.records import Vector
from policy.values.protocol import Forecast

BEST, OTHERS = 3, 2  # arms by expected reward, and by each of what else a plan may want of one
EACH = 2  # plans of each kind that are actions
HEDGE_AT = (0.5, 0.7, 0.9, 0.95)  # of the first arm's latencies


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What plans are made under: the eligible arms, the query's most probable task type, the
    objective, and what the request asks for and demands."""

    ids: Sequence[str]
    config: PlansConfig
    kinds: Collection[Kind]
    weights: Weights
    scales: Scales
    task: int
    limits: Sequence[Limit] = ()

    @property
    def deadline_ms(self) -> float | None:
        """By when an answer is wanted, where the request says so."""
        bounds = [limit.bound for limit in self.limits if limit.component == "latency"]
        return min(bounds, default=None)

    @property
    def asked(self) -> list[Kind]:
        """Which kinds are drawn: what the caller can carry out, and the policy allows."""
        return [kind for kind in DRAWN if kind in self.kinds and kind in self.config.kinds]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms by their positions in the action set, and a hedge's quantile or a cascade's
    threshold."""

    kind: Kind
    first: int
    second: int
    level: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Actions:
    """k arms and p plans for one query: the plans, the pairs of arms that they are, and the
    forecast of all (1, k + p)."""

    plans: tuple[Plan, ...]
    pairs: tuple[Pair, ...]
    forecast: Forecast


@dataclass(frozen=True, slots=True, eq=False)
class _Valued:
    """m pairs of one kind: their ids, what is expected of them (`expected`, `components` with what
    was learned beyond it), and the reward of that (m,)."""

    pairs: Sequence[Pair]
    ids: Sequence[str]
    expected: Expected
    beyond: Sequence[Beyond]
    components: Vector
    reward: Vector

    def take(self, some: Index) -> _Valued:
        """Some of the pairs, in this order."""
        at = some.tolist()
        return _Valued(
            [self.pairs[i] for i in at],
            [self.ids[i] for i in at],
            self.expected.take(some),
            [self.beyond[i] for i in at],
            self.components[some],
            self.reward[some],
        )

    @property
    def outcome(self) -> Vector:
        """(m, 3): quality, latency in ms, cost in USD."""
        quality = np.clip(self.components[:, 0], 0.0, 1.0)
        return np.stack([quality, self.expected.latency_ms, self.expected.cost_usd], axis=1)


def actions(
    forecast: Forecast,
    list_cost_usd: Vector,
    setting: Setting,
    values: PlanValues,
) -> Actions:
    """The arms, with the most promising plans of each kind that is asked for and allowed."""
    arms = _arms(forecast, list_cost_usd, setting, values)
    best = int(forecast.utility[0].argmax())
    most_usd = (setting.config.max_cost_ratio or np.inf) * arms.cost_usd[best]
    some = _promising(forecast, arms)
    kept = []
    for kind in setting.asked:
        if pairs := list(_pairs(kind, some, setting.config)):
            valued = _valued(pairs, arms, setting, values)
            if len(few := _best(valued, setting, most_usd)):
                kept.append(valued.take(few))
    return _as_actions(kept, arms, forecast, setting)


def _arms(forecast: Forecast, list_cost_usd: Vector, setting: Setting, values: PlanValues) -> Arms:
    return Arms.of(
        setting.ids,
        forecast,
        list_cost_usd,
        setting.scales,
        values.spreads,
        setting.deadline_ms,
    )


def _best(valued: _Valued, setting: Setting, most_usd: float) -> Index:
    """The few of highest reward, among those that keep all limits."""
    outcome = valued.outcome
    fits = outcome[:, 2] <= most_usd
    for limit in setting.limits:
        if limit.probability is not None:
            fits &= valued.expected.in_time >= limit.probability
        else:
            fits &= limit.met(outcome[:, COMPONENTS.index(limit.component)])
    falling = np.argsort(np.where(fits, -valued.reward, np.inf), kind="stable")
    return falling[: min(EACH, int(fits.sum()))]


def same_actions(
    pairs: Sequence[Pair],
    forecast: Forecast,
    list_cost_usd: Vector,
    setting: Setting,
    values: PlanValues,
) -> Actions:
    """The arms, and plans that are given, grouped by their kind: another policy has chosen them."""
    arms = _arms(forecast, list_cost_usd, setting, values)
    valued = [
        _valued(list(some), arms, setting, values)
        for _, some in groupby(pairs, lambda pair: pair.kind)
    ]
    return _as_actions(valued, arms, forecast, setting)


def _as_actions(
    valued: Sequence[_Valued], arms: Arms, forecast: Forecast, setting: Setting
) -> Actions:
    if not valued:
        return Actions((), (), forecast)
    plans = tuple(_plan(some, i, arms, setting) for some in valued for i in range(len(some.ids)))
    pairs = tuple(pair for some in valued for pair in some.pairs)
    return Actions(plans, pairs, _extended(forecast, valued, setting.weights))


def _promising(forecast: Forecast, arms: Arms) -> list[int]:
    """The best arms by expected reward, quality, cost, latency, and how uncertain they are."""
    spread = forecast.utility_sd
    orders = [
        (-forecast.utility[0], BEST),
        (-arms.quality, OTHERS),
        (arms.cost_usd, OTHERS),
        (arms.log_latency, OTHERS),
        *([(-spread[0], 1)] if spread is not None else []),
    ]
    found = [int(i) for key, n in orders for i in np.argsort(key, kind="stable")[:n]]
    return list(dict.fromkeys(found))


def _pairs(kind: Kind, among: Sequence[int], config: PlansConfig) -> Iterator[Pair]:
    """Hedges and races are of one of the best arms and another; a cascade may end with any."""
    levels: Sequence[float | None] = (None,)
    if kind == "hedge":
        levels = HEDGE_AT
    elif kind == "cascade":
        levels = config.thresholds
    best = among[:BEST]
    for a, b in permutations(among, 2):
        if kind == "hedge" and a not in best:
            continue
        if kind == "race" and not (a < b and (a in best or b in best)):  # its order means nothing
            continue
        yield from (Pair(kind, a, b, level) for level in levels)


def _valued(pairs: Sequence[Pair], arms: Arms, setting: Setting, values: PlanValues) -> _Valued:
    names = [plan_id(p.kind, (arms.ids[p.first], arms.ids[p.second]), p.level) for p in pairs]
    expected = expect(
        pairs[0].kind,
        np.array([pair.first for pair in pairs]),
        np.array([pair.second for pair in pairs]),
        np.array([pair.level or 0.0 for pair in pairs]),
        arms,
        values.slope,
    )
    beyond = [values.beyond(name, setting.task) for name in names]
    components = expected.components + [one.mean for one in beyond]
    return _Valued(pairs, names, expected, beyond, components, reward(components, setting.weights))


def _extended(forecast: Forecast, valued: Sequence[_Valued], weights: Weights) -> Forecast:
    """A forecast (1, k) with the plans' behind it."""
    pairs = [pair for some in valued for pair in some.pairs]
    beyond = [one for some in valued for one in some.beyond]
    first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
    a, b = np.concatenate([some.expected.shares for some in valued]).T
    own = np.array([one.variance for one in beyond]) @ np.square(weights.as_tuple())

    def spread(of_arms: Vector | None) -> Vector | None:
        if of_arms is None:
            return None
        one, two = of_arms[:, first], of_arms[:, second]
        return _beside(of_arms, np.sqrt((a * one) ** 2 + (b * two) ** 2 + own))

    unknown = forecast.unknown
    if unknown is not None:
        of_arms = np.maximum(unknown[:, first], unknown[:, second])
        unknown = _beside(unknown, np.maximum(of_arms, [one.unknown for one in beyond]))
    return Forecast(
        utility=_beside(forecast.utility, *(some.reward[None] for some in valued)),
        utility_sd=spread(forecast.utility_sd),
        outcome=_beside(forecast.outcome, *(some.outcome[None] for some in valued)),
        explored_sd=spread(forecast.explored_sd),
        unknown=unknown,
    )


def _beside(of_arms: Vector, *of_plans: Vector) -> Vector:
    return np.concatenate([of_arms, *of_plans], axis=1)


def _plan(some: _Valued, i: int, arms: Arms, setting: Setting) -> Plan:
    pair, after_ms = some.pairs[i], some.expected.after_ms
    begin: dict[str, float | None] = {"at_ms": 0.0}
    if after_ms is not None:
        begin = {"after_ms": float(after_ms[i])}
    elif pair.kind == "cascade":
        begin = {"quality_below": pair.level}
    first, second = (
        Step(
            arm,
            **when,
            quality=float(arms.quality[at]),
            log_latency=float(arms.log_latency[at]),
            log_latency_sd=arms.spreads[at].sd,
        )
        for arm, at, when in (
            (arms.ids[pair.first], pair.first, {"at_ms": 0.0}),
            (arms.ids[pair.second], pair.second, begin),
        )
    )
    quality, s_latency, s_cost = some.expected.components[i].tolist()
    return Plan(
        some.ids[i],
        pair.kind,
        (first, second),
        setting.deadline_ms,
        (quality, s_latency, s_cost),
        setting.task,
    )

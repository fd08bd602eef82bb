"""The action set of a request, and why each other arm is out. Predictions are given to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from features.capabilities import needed
from features.query import Capabilities, null_is
from policy.arms.arm import Arm, ArmId, Name, distinct
from policy.arms.availability import EVERYTHING, Availability
from policy.arms.catalog import Catalog, Index, Mask, Vector
from policy.objective import COMPONENTS

Excluded = tuple[tuple[str, str], ...]
Speed = Literal["ultra_fast", "fast", "medium", "slow"]
CostTier = Literal["free", "budget", "standard", "premium"]
ContextTier = Literal["short", "medium", "long", "very_long"]
Concern = Literal["quality", "latency", "cost", "context"]
Concerns = Annotated[tuple[Concern, ...], Field(max_length=4), AfterValidator(distinct)]
Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Chance = Annotated[float, Field(strict=True, gt=0, lt=1)]

KEPT = 0.9
LATENCY_CEILING_MS: Mapping[Speed, float] = MappingProxyType(
    {"ultra_fast": 500.0, "fast": 2_000.0, "medium": 10_000.0, "slow": 30_000.0}
)
COST_CEILING_USD: Mapping[CostTier, float] = MappingProxyType(
    {"free": 0.0, "budget": 1e-4, "standard": 1e-3, "premium": math.inf}
)
"""Of one call."""
CONTEXT_TOKENS: Mapping[ContextTier, int] = MappingProxyType(
    {"short": 2_000, "medium": 32_000, "long": 128_000, "very_long": 2_000_000}
)
"""Of prompt and answer together."""
SMALLER: Mapping[ContextTier, ContextTier | None] = MappingProxyType(
    {"short": None, "medium": "short", "long": "medium", "very_long": "long"}
)


class Constraints(BaseModel):
    """What a request demands of an arm; an empty one demands nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context_tokens: Annotated[int, Field(strict=True, ge=0, le=10**9)] | None = None
    """The smallest context window wanted for the prompt; output tokens come on top."""
    context_tier: ContextTier | None = None
    """The smallest context window wanted, by name; with `context_tokens` the larger counts."""
    capabilities: Capabilities = ()
    allow: Annotated[tuple[ArmId, ...], Field(max_length=1000)] | None = None
    """Only these arms; an empty list allows none."""
    deny: Annotated[tuple[ArmId, ...], Field(max_length=1000), null_is((), tuple[ArmId, ...])] = ()
    providers: Annotated[tuple[Name, ...], Field(max_length=1000)] | None = None

    max_cost_usd: Amount | None = None
    """Of this call: by the list price, and by the prediction where there is one."""
    cost_tier: CostTier | None = None
    """The same by name; with `max_cost_usd` the lower one counts."""
    max_latency_ms: Amount | None = None
    speed: Speed | None = None
    """A ceiling on latency by name; with `max_latency_ms` the lower one counts."""
    latency_probability: Annotated[Chance, null_is(KEPT, Chance)] = KEPT
    """With which a call takes no longer than that, where the policy's model can say."""
    min_quality: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None

    relax: Annotated[Concerns, null_is((), Concerns)] = ()
    """Limits that may give way where no arm keeps all, the first of them first: a `context_tier` to
    the next smaller one, the others altogether."""

    def relaxed(self) -> Iterator[tuple[tuple[Concern, ...], Constraints]]:
        """What gives way and what is left: the fewest limits first, then in their order."""
        given = {limit.component for limit in self.limits}
        given |= {"context"} if self.context_tier is not None else set()
        may = [concern for concern in self.relax if concern in given]
        for n in range(1, len(may) + 1):
            for some in combinations(may, n):
                without: dict[str, Any] = {
                    name: None for concern in some for name in _NAMED[concern]
                }
                if "context" in some and self.context_tier is not None:
                    without["context_tier"] = SMALLER[self.context_tier]
                yield some, self.model_copy(update=without)

    @property
    def latency_ceiling_ms(self) -> float | None:
        return _lower(self.max_latency_ms, self.speed, LATENCY_CEILING_MS)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What is demanded of predictions."""
        found = []
        if self.min_quality is not None:
            found.append(Limit("quality", self.min_quality))
        if (bound := self.latency_ceiling_ms) is not None:
            found.append(Limit("latency", bound, self.latency_probability))
        if (bound := _lower(self.max_cost_usd, self.cost_tier, COST_CEILING_USD)) is not None:
            found.append(Limit("cost", bound))
        return tuple(found)


_NAMED: Mapping[Concern, Sequence[str]] = MappingProxyType(
    {
        "quality": ("min_quality",),
        "latency": ("max_latency_ms", "speed"),
        "cost": ("max_cost_usd", "cost_tier"),
        "context": (),
    }
)


def _lower(own: float | None, name: Any, ceilings: Mapping[Any, float]) -> float | None:
    """The lower of a bound and a named one; None where neither bounds anything."""
    bound = min(math.inf if own is None else own, ceilings.get(name, math.inf))
    return None if bound == math.inf else bound


class Limit(NamedTuple):
    """A bound on a predicted component: of quality from below, of the others from above; of latency
    to be kept with a probability."""

    component: str
    bound: float
    probability: float | None = None

    def met(self, predicted: Vector) -> Mask:
        """Which arms keep it; what is unknown (NaN) does."""
        missed = predicted < self.bound if self.component == "quality" else predicted > self.bound
        return ~missed

    def missed(self, word: str, value: float) -> str:
        sign, unit = ("<", "") if self.component == "quality" else (">", UNIT[self.component])
        return f"{word} {self.component} {_figure(value)}{unit} {sign} {_figure(self.bound)}{unit}"


class Spendable(NamedTuple):
    """What a call may cost for the sake of a budget: `bound`, but the cheapest arm what is left."""

    bound: float
    left_usd: float
    until: str
    component: str = "cost"
    probability: float | None = None

    def met(self, predicted: Vector) -> Mask:
        met: Mask = ~(predicted > self.bound)
        if not met.any():
            met = (predicted == predicted.min()) & (predicted <= self.left_usd)
        return met

    def missed(self, word: str, value: float) -> str:
        spend = f"{_figure(self.bound)} USD that the budget has for a call until {self.until}"
        return f"{word} cost {_figure(value)} USD > {spend}"


UNIT: Mapping[str, str] = MappingProxyType({"latency": " ms", "cost": " USD"})

ANYTHING = Constraints()


class Needs(Protocol):
    """What the query itself demands of an arm: a Profile says it."""

    @property
    def capabilities(self) -> frozenset[str]: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def reserved_tokens(self) -> int: ...


Rule = tuple[Mask, Callable[[Arm], str]]
"""Which arms pass, and why an arm that does not is out."""


class NoEligibleArm(Exception):
    """No arm is left; `excluded` says why, arm by arm."""

    def __init__(self, excluded: Excluded) -> None:
        super().__init__("every arm is out: " + "; ".join(f"{arm}: {why}" for arm, why in excluded))
        self.excluded = excluded


@dataclass(frozen=True, eq=False)
class ActionSet:
    """`index` (k,) holds the catalog positions of the eligible arms, rising."""

    index: Index
    _catalog: Catalog = field(repr=False)
    _rules: Sequence[Rule] = field(repr=False)
    _constraints: Constraints = field(repr=False)

    @cached_property
    def excluded(self) -> Excluded:
        """(arm id, reasons) of every other arm in catalog order, then of allowed unknown ids."""
        found = [
            (arm.id, ", ".join(reason(arm) for passes, reason in self._rules if not passes[i]))
            for i, arm in enumerate(self._catalog.arms)
        ]
        unknown = [
            arm_id for arm_id in self._constraints.allow or () if arm_id not in self._catalog
        ]
        return (
            *((arm_id, why) for arm_id, why in found if why),
            *((arm_id, "not in the catalog") for arm_id in dict.fromkeys(unknown)),
        )


def unknown_names(catalog: Catalog, constraints: Constraints) -> list[str]:
    """What the constraints name and the catalog doesn't have, a sentence each: it has no effect,
    and is probably a slip of the pen."""
    providers = {arm.provider for arm in catalog.arms} if constraints.providers else ()
    found = [
        *(("allow", "arm", name) for name in constraints.allow or () if name not in catalog),
        *(("deny", "arm", name) for name in constraints.deny if name not in catalog),
        *(
            ("providers", "provider", name)
            for name in constraints.providers or ()
            if name not in providers
        ),
    ]
    sentences = (f"constraints.{field}: no such {kind}: {name!r}" for field, kind, name in found)
    return list(dict.fromkeys(sentences))


def action_set(
    catalog: Catalog,
    arms_of_policy: Sequence[str] | None,
    needs: Needs,
    constraints: Constraints = ANYTHING,
    available: Availability = EVERYTHING,
) -> ActionSet:
    """The arms that may serve a query; NoEligibleArm when there is none."""
    rules = [
        *_rules(catalog, arms_of_policy, needs, constraints),
        *_callable(catalog, needs, available),
    ]
    eligible = rules[0][0]
    for passes, _ in rules[1:]:
        eligible = eligible & passes
    chosen = ActionSet(np.flatnonzero(eligible), catalog, rules, constraints)
    if not chosen.index.size:
        raise NoEligibleArm(chosen.excluded)
    return chosen


def _rules(
    catalog: Catalog,
    arms_of_policy: Sequence[str] | None,
    needs: Needs,
    constraints: Constraints,
) -> Iterator[Rule]:
    yield catalog.enabled, lambda arm: "disabled"
    if arms_of_policy is not None:
        yield catalog.among(arms_of_policy), lambda arm: "not one of this policy's arms"

    tokens = max(needs.prompt_tokens, constraints.context_tokens or 0) + needs.reserved_tokens
    if constraints.context_tier is not None:
        tokens = max(tokens, CONTEXT_TOKENS[constraints.context_tier])
    yield (
        catalog.context_window_tokens >= tokens,
        lambda arm: f"context window {arm.context_window_tokens} < {tokens} tokens needed",
    )
    for capability in sorted(needed(needs.capabilities, constraints.capabilities)):
        yield catalog.having(capability), partial(_lacks, capability)

    if constraints.allow is not None:
        yield catalog.among(constraints.allow), lambda arm: "not in allow"
    if constraints.deny:
        yield ~catalog.among(constraints.deny), lambda arm: "denied"
    if (providers := constraints.providers) is not None:
        yield (
            np.array([arm.provider in providers for arm in catalog.arms]),
            lambda arm: f"provider {arm.provider} not in providers",
        )

    for limit in constraints.limits:
        if limit.component == "cost":
            yield _by_list_cost(catalog, needs, limit)


def _by_list_cost(catalog: Catalog, needs: Needs, limit: Limit) -> Rule:
    everyone = np.arange(len(catalog))
    cost_usd = catalog.list_cost_usd(needs.prompt_tokens, needs.output_tokens, everyone)
    return limit.met(cost_usd), lambda arm: limit.missed("list", cost_usd[catalog.index(arm.id)])


def _callable(catalog: Catalog, needs: Needs, available: Availability) -> Iterator[Rule]:
    if available.out:
        yield ~catalog.among(available.out), lambda arm: available.out[arm.id]
    if (tokens_left := available.tokens_left) is not None:
        tokens = needs.prompt_tokens + needs.output_tokens
        yield (
            tokens_left >= tokens,
            lambda arm: f"{tokens} tokens > {_left(tokens_left, catalog, arm)} left of its limits",
        )
    if (usd_left := available.usd_left) is not None:
        everyone = np.arange(len(catalog))
        cost_usd = catalog.list_cost_usd(needs.prompt_tokens, needs.output_tokens, everyone)
        yield (
            usd_left >= cost_usd,
            lambda arm: f"costs more than the {_left(usd_left, catalog, arm)} USD left of credits",
        )


def _left(left: Vector, catalog: Catalog, arm: Arm) -> str:
    return _figure(max(float(left[catalog.index(arm.id)]), 0.0))


def within(
    chosen: ActionSet,
    limits: Sequence[Limit | Spendable],
    predicted: Vector,
    expected: Vector,
    latency_ms: Vector | None = None,
) -> ActionSet:
    """The part of an action set that keeps the limits; NoEligibleArm when no arm does.

    `predicted` (k, 3) holds quality, latency_ms and cost_usd; where it is NaN, what is `expected`
    (k, 3) of an arm by its catalog counts, and where that is NaN too the arm stays in. Instead of
    the predicted latency counts `latency_ms` (k,), of which a call stays below with the probability
    of its limit, where that is told.
    """
    rules = [*chosen._rules]
    keeps = np.ones(len(chosen.index), dtype=bool)
    for limit in limits:
        column = COMPONENTS.index(limit.component)
        told, word = predicted[:, column], "predicted"
        if limit.component == "latency" and latency_ms is not None:
            told, word = latency_ms, f"predicted p{100 * (limit.probability or KEPT):g}"
        unknown = np.isnan(told)
        value = np.where(unknown, expected[:, column], told)
        met = limit.met(value)
        keeps &= met
        passes = np.ones(len(chosen._catalog), dtype=bool)
        passes[chosen.index] = met
        words = np.where(unknown, "expected", word)
        rules.append((passes, partial(_misses, chosen, limit, value, words)))
    left = ActionSet(chosen.index[keeps], chosen._catalog, rules, chosen._constraints)
    if not left.index.size:
        raise NoEligibleArm(left.excluded)
    return left


def affordable(
    whole: ActionSet, left: ActionSet, limit: Spendable, predicted: Vector, expected: Vector
) -> tuple[ActionSet, Excluded]:
    """The part of what is `left` of a whole action set (k arms, as in `within`) that a budget
    affords, and why it leaves the others out."""
    among = np.isin(whole.index, left.index)
    paid = within(left, (limit,), predicted[among], expected[among])
    known = {arm for arm, _ in left.excluded}
    return paid, tuple((arm, why) for arm, why in paid.excluded if arm not in known)


def _misses(
    chosen: ActionSet, limit: Limit | Spendable, value: Vector, words: NDArray[np.str_], arm: Arm
) -> str:
    i = np.searchsorted(chosen.index, chosen._catalog.index(arm.id))
    return limit.missed(str(words[i]), value[i])


def _figure(value: float) -> str:
    """Four digits that count, without an exponent."""
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")


def _lacks(capability: str, _: Arm) -> str:
    return f"lacks {capability}"

"""The action set of a request, and why each other arm is out. Knows no prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from policy.catalog import Arm, ArmId, Capability, Catalog, Index, Mask, Name

Excluded = tuple[tuple[str, str], ...]


class Constraints(BaseModel):
    """What a request demands of an arm; an empty one demands nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context_tokens: Annotated[int, Field(strict=True, ge=0, le=10**9)] | None = None
    """The smallest context window wanted for the prompt; output tokens come on top."""
    capabilities: Annotated[tuple[Capability, ...], Field(max_length=64)] = ()
    allow: Annotated[tuple[ArmId, ...], Field(max_length=1000)] | None = None
    """Only these arms; an empty list allows none."""
    deny: Annotated[tuple[ArmId, ...], Field(max_length=1000)] = ()
    providers: Annotated[tuple[Name, ...], Field(max_length=1000)] | None = None


ANYTHING = Constraints()


class Needs(Protocol):
    """What the query itself demands of an arm: a Profile says it."""

    @property
    def capabilities(self) -> frozenset[str]: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


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


def action_set(
    catalog: Catalog,
    arms_of_policy: Sequence[str] | None,
    needs: Needs,
    constraints: Constraints = ANYTHING,
) -> ActionSet:
    """The arms that may serve a query; NoEligibleArm when there is none."""
    rules = list(_rules(catalog, arms_of_policy, needs, constraints))
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

    tokens = max(needs.prompt_tokens, constraints.context_tokens or 0) + needs.output_tokens
    yield (
        catalog.context_window_tokens >= tokens,
        lambda arm: f"context window {arm.context_window_tokens} < {tokens} tokens needed",
    )
    for capability in sorted(needs.capabilities.union(constraints.capabilities)):
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


def _lacks(capability: str, _: Arm) -> str:
    return f"lacks {capability}"

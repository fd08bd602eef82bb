"""A plan: which arms are called for one query, and when. Knows no value and calls nothing.

Hedges, races and cascades are drawn beside single arms, as actions; a fallback is what follows an
arm that was drawn alone. Ids: `hedge:a+b@0.95` (b begins when a has taken longer than in 95% of its
calls), `race:a|b` (both begin at once, the better answer is returned), `cascade:a>b@0.7` (b is
asked where a's answer is judged to be worth less than 0.7), `fallback:a>b>c`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["fallback", "hedge", "race", "cascade"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DRAWN: tuple[Kind, ...] = ("hedge", "race", "cascade")
"""Those that are actions of their own."""
SIGNS: Mapping[str, str] = {"fallback": ">", "hedge": "+", "race": "|", "cascade": ">"}


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a plan; of the times and conditions on which it begins, one is there."""

    arm: str
    at_ms: float | None = None
    after_ms: float | None = None
    """After the step before began, which is still out then."""
    on_error: bool = False
    quality_below: float | None = None
    """Of the answer before, as its caller judges it."""
    quality: float | None = None
    """What was expected of the arm before the draw, likewise ..."""
    log_latency: float | None = None
    """... the logarithm of its latency in ms, ..."""
    log_latency_sd: float | None = None
    """... and by how much it varies."""
    endpoint: str | None = None
    """Where it is called, if the arm has endpoints."""

    def begin(self) -> dict[str, float | bool]:
        """When it begins, as the answer says it."""
        if self.on_error:
            return {"on_error": True}
        times = {name: getattr(self, name) for name in ("at_ms", "after_ms", "quality_below")}
        return {name: value for name, value in times.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, the first of which begins at once.

    `expected` are quality, s(latency) and s(cost) as the arms alone let expect them, and `task` is
    the number of the query's most probable task type: against these the plan's outcome is held.
    Both are None of a fallback.
    """

    id: str
    kind: Kind
    steps: tuple[Step, ...]
    deadline_ms: float | None = None
    expected: tuple[float, float, float] | None = None
    task: int | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(step.arm for step in self.steps)


def plan_id(kind: Kind, arms: tuple[str, ...], level: float | None = None) -> str:
    """The id of an action; `level` is a hedge's quantile or a cascade's threshold.

    >>> plan_id("cascade", ("a", "b"), 0.7)
    'cascade:a>b@0.7'
    """
    at = "" if level is None else f"@{level:g}"
    return f"{kind}:{SIGNS[kind].join(arms)}{at}"


def kind_of(action: str) -> Kind | None:
    """The kind of plan that an action is; None for an arm, whose id has none of the signs."""
    head, colon, rest = action.partition(":")
    for kind in DRAWN:
        if colon and head == kind and SIGNS[kind] in rest:
            return kind
    return None


def arms_of(action: str) -> tuple[str, ...]:
    """The arms of a plan's id in their order; an arm alone is its own.

    >>> arms_of("cascade:a>b@0.7"), arms_of("vendor:a")
    (('a', 'b'), ('vendor:a',))
    """
    kind = kind_of(action)
    if kind is None:
        return (action,)
    arms, _, _ = action[len(kind) + 1 :].partition("@")
    return tuple(arms.split(SIGNS[kind]))


def to_record(plan: Plan) -> dict[str, Any]:
    """A plan as JSON has it; what a step doesn't say is left out."""
    fields = asdict(plan)
    fields["steps"] = [
        {name: value for name, value in step.items() if value is not None and value is not False}
        for step in fields["steps"]
    ]
    return fields


def from_record(fields: Mapping[str, Any]) -> Plan:
    """What `to_record` wrote."""
    steps = tuple(Step(**step) for step in fields["steps"])
    expected = fields["expected"]
    return Plan(
        id=fields["id"],
        kind=fields["kind"],
        steps=steps,
        deadline_ms=fields["deadline_ms"],
        expected=None if expected is None else tuple(expected),
        task=fields["task"],
    )

"""What a caller may say, as keywords and as the dicts of a batch. None is the same as nothing.

`selection` says the same in the words of `select_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from pointsman_client.errors import NotSent

if TYPE_CHECKING:
    from typing_extensions import Required


class CallOptions(TypedDict, total=False):
    """What else `route` and `select_model` take."""

    messages: Sequence[Mapping[str, Any]] | None
    query: Mapping[str, Any] | None
    """Text or messages as the HTTP interface has them, in place of these keywords."""
    output_tokens: int | None
    language: str | None
    capabilities: Sequence[str] | None
    labels: Mapping[str, str] | None
    constraints: Mapping[str, Any] | None
    alternatives: int | None
    """The most that the answer lists; all of them when absent."""
    policy: str | None
    decision_id: str | None


class RouteOptions(CallOptions, total=False):
    """What else `route` takes: hints, an objective, the caller's own choice ..."""

    task_type: str | None
    context_tokens: int | None
    objective: str | Mapping[str, float] | None
    chosen: str | Mapping[str, Any] | None
    """What your own router chose: its arm, or {"arm": ..., "pmf": {arm: probability, ...}}."""
    plans: Sequence[str] | None
    """What you can carry out beside one call: fallback, hedge, race, cascade."""
    session: str | None
    """The chat or agent that this is a turn of: turns stay with the arm that the first one drew."""


class SelectOptions(CallOptions, total=False):
    """What else `select_model` takes."""

    text: str | None


class RouteRequest(RouteOptions, total=False):
    """One of `route_batch`."""

    text: str | None


class RewardOptions(TypedDict, total=False):
    """The components of an outcome, in any parts; tokens stand for a cost."""

    quality: float | None
    latency_ms: float | None
    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    usage: Mapping[str, Any] | None
    """What the provider sent with its answer, as it is."""
    ttft_ms: float | None
    error: str | None
    retry_after_s: float | None
    executed_arm: str | None
    executed: bool | None
    attempts: Sequence[Mapping[str, Any]] | None
    """The calls that were made, in the order in which they began, ..."""
    returned: str | None
    """... and the arm whose answer was used."""
    policy: str | None
    token: str | None
    """Of a decision that wasn't logged. The client that has made it knows it."""


class RewardRequest(RewardOptions, total=False):
    """One of `reward_batch`."""

    decision_id: Required[str]


class CorrectionOptions(TypedDict, total=False):
    """The values that hold instead of those reported; who says so and why."""

    by: Required[str]
    reason: Required[str]
    quality: float | None
    latency_ms: float | None
    cost_usd: float | None
    policy: str | None


class CorrectionRequest(CorrectionOptions, total=False):
    """One of `correct_batch`."""

    decision_id: Required[str]


class Speed(NamedTuple):
    """The longest wait by its name, and which limits give way, the first of them first."""

    ceiling: str
    relax: tuple[str, ...]


SPEEDS: Mapping[str, Speed] = {
    "ultra_fast": Speed("ultra_fast", ("quality", "cost", "latency", "context")),
    "fast": Speed("fast", ("quality", "cost", "latency", "context")),
    "balanced": Speed("medium", ("latency", "quality", "cost", "context")),
    "quality": Speed("slow", ("latency", "cost", "quality", "context")),
}
"""By what is wanted, which is an objective's name too: what matters most gives way last."""


def selection(
    task_type: str,
    context_size: int | str | None,
    speed_requirement: str,
    cost_constraint: float | str | None,
    quality_threshold: float | None,
    fallback: bool,
    others: SelectOptions,
) -> RouteRequest:
    """What `Client.select_model` asks of /route; `others` add to it, and come first."""
    if speed_requirement not in SPEEDS:
        known = ", ".join(SPEEDS)
        what = f"speed_requirement is one of {known}, got {speed_requirement!r}"
        raise NotSent(None, "Not sent", what)
    speed = SPEEDS[speed_requirement]
    tier, tokens = _name_or_number(context_size)
    cost_tier, max_cost_usd = _name_or_number(cost_constraint)
    constraints = {
        "speed": speed.ceiling,
        "context_tier": tier,
        "cost_tier": cost_tier,
        "max_cost_usd": max_cost_usd,
        "min_quality": quality_threshold,
        "relax": speed.relax if fallback else None,
        **(others.get("constraints") or {}),
    }
    asked: RouteRequest = {
        "task_type": task_type,
        "context_tokens": tokens,
        "objective": speed_requirement,
    }
    more = {name: value for name, value in others.items() if value is not None}
    return cast("RouteRequest", {**asked, **more, "constraints": constraints})


def _name_or_number(given: Any) -> tuple[str | None, Any]:
    return (given, None) if isinstance(given, str) else (None, given)

"""What a caller may say, as keywords and as the dicts of a batch. None is the same as nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from typing_extensions import Required


class RouteOptions(TypedDict, total=False):
    """What else `route` takes: hints, constraints, an objective, the policy's name ..."""

    messages: Sequence[Mapping[str, Any]] | None
    query: Mapping[str, Any] | None
    """Text or messages as the HTTP interface has them, in place of these keywords."""
    task_type: str | None
    context_tokens: int | None
    output_tokens: int | None
    language: str | None
    capabilities: Sequence[str] | None
    labels: Mapping[str, str] | None
    constraints: Mapping[str, Any] | None
    objective: str | Mapping[str, float] | None
    chosen: str | Mapping[str, Any] | None
    """What your own router chose: its arm, or {"arm": ..., "pmf": {arm: probability, ...}}."""
    alternatives: int | None
    """The most that the answer lists; all of them when absent."""
    policy: str | None
    decision_id: str | None


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
    policy: str | None


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

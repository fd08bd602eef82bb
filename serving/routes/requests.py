"""Request bodies: where what callers send becomes records. Knows HTTP's names, no Redis."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    model_validator,
)

from features.query import Hints, Query, null_is, whole
from policy.arms.arm import ArmId
from policy.arms.constraints import ANYTHING, Constraints
from policy.objective import PRESETS, Preset, Weights
from policy.plans.plan import DRAWN, Kind
from serving.parsing.usage import MAX_TOKENS, Tokens, tokens

MOST_OF_ERROR = 200  # characters that are kept: some report a whole traceback


def _graded(quality: Any) -> Any:
    return float(quality) if isinstance(quality, bool) else quality


DecisionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")]
PolicyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Policy = Annotated[PolicyName, null_is("default", PolicyName)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Quality = Annotated[
    float,
    Field(strict=True, ge=0, le=1, allow_inf_nan=False),
    BeforeValidator(_graded, json_schema_input_type=Probability | bool),
]
Milliseconds = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
Usd = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(whole), Field(strict=True, ge=0, le=MAX_TOKENS)]
Error = Annotated[str, Field(min_length=1), AfterValidator(lambda said: said[:MOST_OF_ERROR])]
Usage = Annotated[Tokens, PlainValidator(tokens, json_schema_input_type=dict[str, Any])]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectiveWeights(Body):
    """Weights over quality, latency and cost; they are normalised to sum 1."""

    quality: Annotated[Weight, null_is(0.0, Weight)] = 0.0
    latency: Annotated[Weight, null_is(0.0, Weight)] = 0.0
    cost: Annotated[Weight, null_is(0.0, Weight)] = 0.0

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.quality + self.latency + self.cost <= 0:
            raise ValueError("at least one weight must be > 0")
        return self


class Chosen(Body):
    """What the caller's own router chose, and by which probabilities; without them it counts as
    deterministic."""

    arm: ArmId
    pmf: dict[ArmId, Probability] | None = Field(None, min_length=1, max_length=1000)


class RouteRequest(Body):
    """Which arm should answer this query?

    `chosen` is required where the policy's champion is the caller's own router (model `caller`).
    With any other champion it doesn't change the answer, so callers may go on sending it.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": {"text": "Write a SQL query that lists the ten largest invoices."},
                    "hints": {"task_type": "code", "labels": {"app": "billing"}},
                },
                {"hints": {"task_type": "translation", "context_tokens": 1200}},
            ]
        }
    )

    policy: Policy = "default"
    decision_id: DecisionId | None = None
    query: Query | None = None
    hints: Hints | None = None
    constraints: Annotated[Constraints, null_is(ANYTHING, Constraints)] = ANYTHING
    objective: Preset | ObjectiveWeights | None = None
    chosen: Chosen | None = None
    alternatives: Count | None = None
    """The most that the answer lists; all when absent."""
    plans: Annotated[tuple[Kind, ...], Field(max_length=16), null_is((), tuple[Kind, ...])] = ()
    """What the caller can carry out beside one call; without them the answer is one arm."""
    session: SessionId | None = None
    """Turns with one id stay with the arm that the first of them drew."""

    @model_validator(mode="after")
    def _one_arm_a_session(self) -> Self:
        if self.session is not None and (drawn := [kind for kind in self.plans if kind in DRAWN]):
            raise ValueError(f"a session stays with one arm: it can't have plans {drawn}")
        return self

    def weights(self) -> Weights | None:
        """The request's own weights, or None for the policy's."""
        if self.objective is None:
            return None
        if isinstance(self.objective, str):
            return PRESETS[self.objective]
        return Weights.of(self.objective.quality, self.objective.latency, self.objective.cost)


class _Charged(Body):
    """A call's cost, or what it can be computed from."""

    cost_usd: Usd | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    usage: Usage | None = None

    @model_validator(mode="after")
    def _one_cost(self) -> Self:
        if (self.input_tokens is None) != (self.output_tokens is None):
            raise ValueError("give input_tokens and output_tokens together")
        if self.input_tokens is not None and (self.cost_usd is not None or self.usage is not None):
            raise ValueError("give cost_usd, usage or token counts, not several of them")
        return self

    def tokens(self) -> Tokens | None:
        """What the call read and wrote, where its cost is to be computed from that."""
        if self.input_tokens is not None and self.output_tokens is not None:
            return Tokens(self.input_tokens, self.output_tokens)
        return self.usage if self.cost_usd is None else None


class AttemptBody(_Charged):
    """One call of one arm, in the order in which they began. A cancelled one had no answer yet;
    its latency is how long it was out."""

    arm: Annotated[str, Field(min_length=1, max_length=128)]
    quality: Quality | None = None
    latency_ms: Milliseconds | None = None
    error: Error | None = None
    retry_after_s: Seconds | None = None
    cancelled: Annotated[bool, Field(strict=True), null_is(False, bool)] = False

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.error is not None and self.cancelled:
            raise ValueError("a call failed or was cancelled, not both")
        if self.retry_after_s is not None and self.error is None:
            raise ValueError("retry_after_s belongs to an error: give both")
        if self.quality and (self.error is not None or self.cancelled):
            raise ValueError("a call without an answer has no quality")
        return self


class RewardRequest(_Charged):
    """What came of a decision, in any parts; each component is accepted once.

    `usage` is what the provider sent with its answer (OpenAI, Anthropic or Gemini). `error` is
    timeout, connection, server_error, rate_limited, auth, bad_request, content_filter, cancelled,
    or any other word.

    `attempts` are the calls that were made of a plan, or of an arm and others after it, in the
    order in which they began, and `returned` is the arm whose answer was used. Latency and cost of
    the whole are computed from them where they aren't given.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "decision_id": "3f6c",
                    "quality": 0.8,
                    "latency_ms": 812,
                    "cost_usd": 0.00012,
                }
            ]
        }
    )

    policy: Policy = "default"
    decision_id: DecisionId
    quality: Quality | None = None
    latency_ms: Milliseconds | None = None
    ttft_ms: Milliseconds | None = None
    error: Error | None = None
    retry_after_s: Seconds | None = None
    executed_arm: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    executed: Annotated[bool, Field(strict=True)] | None = None
    attempts: Annotated[list[AttemptBody], Field(min_length=1, max_length=16)] | None = None
    returned: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    token: str | None = None
    """That came with an answer which wasn't logged: the decision is logged first."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attempts is None and self.returned is not None:
            raise ValueError("returned belongs to attempts: give both")
        if self.attempts is not None and (
            self.error is not None or self.executed_arm is not None or self.tokens() is not None
        ):
            raise ValueError("with attempts, errors, arms and tokens are said of each of them")
        if self.retry_after_s is not None and self.error is None:
            raise ValueError("retry_after_s belongs to an error: give both")
        parts = (
            self.quality,
            self.latency_ms,
            self.cost_usd,
            self.input_tokens,
            self.usage,
            self.ttft_ms,
            self.error,
            self.attempts,
        )
        reported = any(part is not None for part in parts)
        if self.executed is False:
            if reported or self.executed_arm is not None:
                raise ValueError("a decision that was not executed has no outcome")
        elif not reported:
            raise ValueError(
                "no component: give quality, latency_ms, ttft_ms, cost_usd (or usage) or error"
            )
        if self.error is not None and self.quality:
            raise ValueError("an error means quality 0: leave quality out")
        return self


Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class CorrectionRequest(Body):
    """Overrule what was reported of a decision: the values that hold instead, who says so and why.

    Only what was reported can be overruled, and an error can't.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "decision_id": "3f6c",
                    "quality": 0.2,
                    "by": "ada@example.com",
                    "reason": "the judge model missed that the query deletes rows",
                }
            ]
        }
    )

    policy: Policy = "default"
    decision_id: DecisionId
    quality: Quality | None = None
    latency_ms: Milliseconds | None = None
    cost_usd: Usd | None = None
    by: Words
    reason: Words

    @model_validator(mode="after")
    def _something_to_overrule(self) -> Self:
        if self.quality is None and self.latency_ms is None and self.cost_usd is None:
            raise ValueError("no component: give quality, latency_ms or cost_usd")
        return self


class RouteBatch(Body):
    """Each request is judged by itself: one that is wrong spoils no other."""

    requests: list[Any] = Field(min_length=1)
    defaults: Annotated[dict[str, Any], null_is({}, dict[str, Any])] = {}
    """Fields of all requests that don't give their own; of hints and constraints key by key."""
    budget_usd: Annotated[Usd, Field(gt=0)] | None = None
    """What the chosen arms may cost together, by prediction."""
    baseline: ArmId | None = None
    """An arm: `totals` tell what all would cost there."""


class RewardBatch(Body):
    """Each reward is judged by itself: one that is wrong spoils no other."""

    rewards: list[Any] = Field(min_length=1)


class CorrectionBatch(Body):
    """Each correction is judged by itself: one that is wrong spoils no other."""

    corrections: list[Any] = Field(min_length=1)

"""Request and response bodies: where bytes become records. Knows HTTP's names, no Redis."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from features.query import Hints, Query
from policy.arms.catalog import ArmId
from policy.arms.constraints import Constraints
from policy.objective import PRESETS, Weights

DecisionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
PolicyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Weight = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Quality = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
Usd = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Tokens = Annotated[int, Field(strict=True, ge=0, le=100_000_000)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectiveWeights(Body):
    """Weights over quality, latency and cost; they are normalised to sum 1."""

    quality: Weight = 0.0
    latency: Weight = 0.0
    cost: Weight = 0.0

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

    policy: PolicyName = "default"
    decision_id: DecisionId | None = None
    query: Query | None = None
    hints: Hints | None = None
    constraints: Constraints = Constraints()
    objective: Literal["balanced", "quality", "speed", "cost"] | ObjectiveWeights | None = None
    chosen: Chosen | None = None

    @model_validator(mode="after")
    def _something_to_go_on(self) -> Self:
        if self.query is None and self.hints is None:
            raise ValueError("give a query, hints or both")
        return self

    def weights(self) -> Weights | None:
        """The request's own weights, or None for the policy's."""
        if self.objective is None:
            return None
        if isinstance(self.objective, str):
            return PRESETS[self.objective]
        return Weights.of(self.objective.quality, self.objective.latency, self.objective.cost)


class Predicted(Body):
    """What the policy expects of an arm; null where it doesn't know."""

    quality: float | None
    latency_ms: float | None
    cost_usd: float | None


class Alternative(Body):
    arm: str
    provider: str
    model: str
    propensity: float
    predicted: Predicted


class RouteResponse(Body):
    """The chosen arm, the probability it was drawn with, and all others that were eligible."""

    decision_id: str
    policy: str
    version: str
    snapshot: int
    arm: str
    provider: str
    model: str
    endpoint: str | None
    propensity: float
    confidence: float | None
    predicted: Predicted
    alternatives: list[Alternative]
    logged: bool


class RewardRequest(Body):
    """What came of a decision, in any parts; each component is accepted once."""

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

    policy: PolicyName = "default"
    decision_id: DecisionId
    quality: Quality | None = None
    latency_ms: Milliseconds | None = None
    cost_usd: Usd | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    error: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    executed_arm: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    executed: Annotated[bool, Field(strict=True)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.input_tokens is None) != (self.output_tokens is None):
            raise ValueError("give input_tokens and output_tokens together")
        if self.cost_usd is not None and self.input_tokens is not None:
            raise ValueError("give cost_usd or token counts, not both")
        parts = (self.quality, self.latency_ms, self.cost_usd, self.input_tokens, self.error)
        reported = any(part is not None for part in parts)
        if self.executed is False:
            if reported or self.executed_arm is not None:
                raise ValueError("a decision that was not executed has no outcome")
        elif not reported:
            raise ValueError(
                "no component: give quality, latency_ms, cost_usd (or token counts) or error"
            )
        if self.error is not None and self.quality:
            raise ValueError("an error means quality 0: leave quality out")
        return self


class RewardResponse(Body):
    decision_id: str
    accepted: list[str]
    unchanged: list[str]
    missing: list[str]
    late: bool


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

    policy: PolicyName = "default"
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


class CorrectionResponse(Body):
    """`corrected` holds now as given; what is `unchanged` held already."""

    decision_id: str
    corrected: list[str]
    unchanged: list[str]


class RouteBatch(Body):
    """Each request is judged by itself: one that is wrong spoils no other."""

    requests: list[Any] = Field(min_length=1)


class RewardBatch(Body):
    """Each reward is judged by itself: one that is wrong spoils no other."""

    rewards: list[Any] = Field(min_length=1)


class CorrectionBatch(Body):
    """Each correction is judged by itself: one that is wrong spoils no other."""

    corrections: list[Any] = Field(min_length=1)


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class RouteResults(Body):
    results: list[RouteResponse | Problem]


class RewardResults(Body):
    results: list[RewardResponse | Problem]


class CorrectionResults(Body):
    results: list[CorrectionResponse | Problem]


class ArmBody(BaseModel):
    """An arm of the catalog in force."""

    arm: str
    provider: str
    model: str
    context_window_tokens: int | None
    usd_per_mtok_in: float
    usd_per_mtok_out: float
    capabilities: list[str]
    enabled: bool


class ArmList(Body):
    arms: list[ArmBody]


class FigureBody(Body):
    """An estimated mean, its standard error, and how many decisions it is worth; null where it
    can't be known."""

    value: float | None
    se: float | None
    ess: float


class ComparisonBody(Body):
    """One quantity under both versions; `why` says why the challenger's can't be known."""

    challenger: FigureBody
    champion: FigureBody
    difference: FigureBody
    why: str | None


class EstimatesBody(Body):
    """What was earned, and what the challenger would have earned on the same queries: the reward
    under the challenger's objective, and what it is made of."""

    reward: ComparisonBody
    quality: ComparisonBody
    latency_ms: ComparisonBody
    cost_usd: ComparisonBody


class AgreementBody(Body):
    """How often the challenger would have done as the router that acted: its mean probability of
    the arm that acted, and the share of decisions in which that was its most probable arm."""

    probability: float | None
    most_probable: float | None


class ChallengerBody(Body):
    """A version that learns in shadow. `decisions` had an outcome and count; in `other_arm` more
    the caller executed another arm than was drawn. `covered` is the share of the challenger's
    choices that the acting router could have made."""

    version: str
    model: str
    share: float
    snapshot: int
    events: int
    decisions: int
    other_arm: int
    covered: float | None
    agreement: AgreementBody
    estimates: EstimatesBody


class AlarmBody(Body):
    """The champion is shown to be worse than the version it replaced."""

    champion: str
    previous: str
    reasons: list[str]
    at_ms: int


class PolicyBody(Body):
    """A running policy; `shares` are the parts of the draw that its versions have."""

    policy: str
    champion: str
    model: str
    challenger: ChallengerBody | None
    snapshot: int
    catalog: str
    shares: dict[str, float]
    events: int
    alarm: AlarmBody | None


class PolicyList(Body):
    policies: list[PolicyBody]


class DecisionBody(BaseModel):
    """A stored decision and what has been accepted for it.

    Where a component was corrected, the outcome holds the value that holds now, beside it what was
    reported (`reported_quality` and its like), and of the last correction `corrected_by` and
    `correction_reason`.
    """

    decision: dict[str, Any]
    outcome: dict[str, Any]

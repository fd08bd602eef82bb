"""Answers: what the paths give back. Requests are in requests.py. Knows HTTP's names, no Redis.

What answers a route, a reward and a correction stands in `pointsman_client.answers`: clients read
what is documented here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pointsman_client.answers import Correction, Decision, Logged, Receipt, Totals
from serving.routes.requests import Body


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class RouteResults(Body):
    results: list[Decision | Problem]
    totals: Totals


class RewardResults(Body):
    results: list[Receipt | Problem]


class CorrectionResults(Body):
    results: list[Correction | Problem]


class LoggedResults(Body):
    results: list[Logged | Problem]


class LimitBody(Body):
    """A limit of an endpoint, its arm or its provider; `more_ms` is when more is to be had."""

    limit: str
    left: float
    more_ms: int | None


class PlaceBody(Body):
    """Where an arm is called: `state` is in, out (until `until_ms`) or tried, by one request at a
    time. `failing` is the share of calls that fail there, `under_way` how many outcomes are
    awaited, null where nobody counts."""

    endpoint: str | None
    state: str
    why: str | None
    until_ms: int | None
    failing: float
    under_way: int | None
    limits: list[LimitBody]


class ArmBody(BaseModel):
    """An arm of the catalog in force."""

    arm: str
    provider: str
    model: str
    context_window_tokens: int | None
    maker: str | None
    parameters_b: float | None
    usd_per_mtok_in: float
    usd_per_mtok_out: float
    usd_per_mtok_cached_in: float | None
    usd_per_mtok_cache_write: float | None
    usd_per_request: float
    price_tiers: list[dict[str, Any]]
    price_changes: list[dict[str, Any]]
    capabilities: list[str]
    enabled: bool
    places: list[PlaceBody]


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


class CautionBody(Body):
    """What was earned beyond the incumbent's reward less `max_loss` of it, summed over the outcomes
    (an estimate, with its standard error), and so may be spent on exploration."""

    incumbent: str
    max_loss: float
    earned: float
    error: float


class BudgetBody(Body):
    """What is spent of a budget in the period that goes on until `until_ms`. `pace` is that over
    what was due by now (1: even; null before any decision), `price` what a call that costs
    `unit_usd` above its due loses, in units of reward, `decisions_to_come` as many as are expected.
    """

    usd: float
    per: Literal["hour", "day", "month"]
    hard: bool
    spent_usd: float
    left_usd: float
    until_ms: int
    decisions_to_come: float
    pace: float | None
    price: float
    unit_usd: float
    can_be_kept: bool
    why: str | None


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
    caution: CautionBody | None
    budget: BudgetBody | None


class PolicyList(Body):
    policies: list[PolicyBody]


class IntervalBody(Body):
    """An expected value and its central posterior interval; null where it isn't known."""

    mean: float | None
    low: float | None
    high: float | None


class PointBody(Body):
    """`best`: no other one is at least as good in quality, latency and cost, and better in one."""

    quality: IntervalBody
    latency_ms: IntervalBody
    cost_usd: IntervalBody
    best: bool


class ArmPointBody(PointBody):
    arm: str


class PolicyPointBody(PointBody):
    """The policy under other weights: its own (`own`), an objective's preset, or a trade of quality
    against latency or cost; and the share of the draw that each arm would have."""

    name: str
    weights: dict[str, float]
    shares: dict[str, float]


class TaskFrontierBody(Body):
    task_type: str
    arms: list[ArmPointBody]
    policies: list[PolicyPointBody]


class FrontierBody(Body):
    """What the snapshot expects of queries of which the task type and these lengths are known."""

    policy: str
    version: str
    snapshot: int
    events: int
    probability: float
    context_tokens: int
    output_tokens: int
    task_types: list[TaskFrontierBody]


class ReadyBody(Body):
    """`degraded`: it decides, but can't log, and `why`."""

    status: Literal["ready", "degraded"]
    why: str | None


class DecisionBody(BaseModel):
    """A stored decision and what has been accepted for it.

    Where a component was corrected, the outcome holds the value that holds now, beside it what was
    reported (`reported_quality` and its like), and of the last correction `corrected_by` and
    `correction_reason`. `quality_assumed` marks a quality that nobody reported.
    """

    decision: dict[str, Any]
    outcome: dict[str, Any]

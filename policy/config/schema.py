"""What may be said of arms and policies, validated: one policy, and all that a service runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from policy.arms.arm import ArmId, Share, by_task_type, distinct
from policy.arms.catalog import Catalog
from policy.arms.constraints import Chance
from policy.arms.endpoints import Limits
from policy.choosing.pacing import Budget
from policy.config.gate import GateConfig, Seconds
from policy.config.plans import PlansConfig
from policy.config.sessions import SessionsConfig
from policy.objective import PRESETS, Scales, Weights

Weight = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class ObjectiveConfig(BaseModel):
    """Weights (balanced when none is given, else 0 where absent) and the references they need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality: Weight = 0.0
    latency: Weight = 0.0
    cost: Weight = 0.0
    scale: Literal["linear", "log"] = "linear"
    latency_ref_ms: Positive = 10_000.0
    """The latency that scores 0; longer ones do too."""
    cost_ref_usd: Positive = 0.01
    """The cost of a call that scores 0."""

    @model_validator(mode="before")
    @classmethod
    def _balanced_by_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.keys() & {"quality", "latency", "cost"}:
            quality, latency, cost = PRESETS["balanced"].as_tuple()
            return {**data, "quality": quality, "latency": latency, "cost": cost}
        return data

    @model_validator(mode="after")
    def _some_weight(self) -> ObjectiveConfig:
        if not self.quality + self.latency + self.cost > 0:
            raise ValueError("needs a weight > 0: quality, latency and cost are all 0")
        return self

    @property
    def weights(self) -> Weights:
        return Weights.of(self.quality, self.latency, self.cost)

    @property
    def scales(self) -> Scales:
        return Scales(self.latency_ref_ms, self.cost_ref_usd, self.scale)


class RulesConfig(BaseModel):
    """How model "rules" chooses among the arms, by the catalog's figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    speed: Literal["ultra_fast", "fast", "balanced", "quality"] = "balanced"
    """What it looks for, and how long an answer may take: see policy/choosing/rules.py."""
    min_quality: Share = 0.5
    """The least expected quality of an arm, ..."""
    task_min_quality: Mapping[str, Share] = {}
    """... and for these task types instead."""
    unknown_quality: Share = 0.5
    """What is expected of an arm whose `priors` don't say."""
    max_cost_usd: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    """Of a call, at list prices."""

    @field_validator("task_min_quality")
    @classmethod
    def _of_task_types(cls, values: Mapping[str, float]) -> Mapping[str, float]:
        return by_task_type(values)


PARAMETER_OF: Mapping[str, str] = {
    "thompson": "scale",
    "epsilon_greedy": "epsilon",
    "softmax": "temperature",
    "square_cb": "gamma",
}
"""The one key that each exploration rule reads, but for greedy, which reads none."""
CAUTION = ("incumbent", "max_loss", "under_way")
RULES = "rules"  # as an incumbent: what a policy's own rules would choose
LEARNING = ("exploration", "new_arm_share", "new_arm_events", *CAUTION)
KEYS_OF: Mapping[str, Sequence[str]] = {
    "linear": ("forgetting", "notice_changes", *LEARNING, *PARAMETER_OF.values()),
    "nearest": ("neighbours", "window_events", *LEARNING, *PARAMETER_OF.values()),
    "vw": ("cb_type", *LEARNING, *PARAMETER_OF.values()),
    "rules": ("rules",),
}
"""The keys that only some models read, each by those that do."""
LEARNS = tuple(model for model, keys in KEYS_OF.items() if "exploration" in keys)
NO_POSTERIOR: Mapping[str, Mapping[str, Any]] = {
    "nearest": {"exploration": "square_cb", "gamma": 300.0},  # measured: 100 explores for too long
    "vw": {"exploration": "square_cb", "gamma": 5_000.0},
}
"""Models that can't be explored by thompson, and how they are when nothing is said."""
FLOOR_ALONE: Mapping[str, float] = {"rules": 0.01, "fixed": 0.01}
"""The floor, when nothing is said, of models that nothing else explores."""

MAX_SHARE = 0.5  # of the draw, that a challenger may be given
SWEPT_WITHIN_S = 60  # of the reward window's end, that missing qualities are assumed


class PolicyConfig(BaseModel):
    """One running policy: how it predicts, how it explores, what it values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["linear", "vw", "nearest", "rules", "fixed", "uniform", "caller"] = "linear"
    cb_type: Literal["mtr", "dr", "ips"] = "mtr"
    """How Vowpal Wabbit learns from the one arm that was drawn."""
    arm: ArmId | None = None
    """The one arm of a fixed policy."""
    arms: Annotated[tuple[ArmId, ...], Field(min_length=1)] | None = None
    """The arms it may choose from; all when absent."""

    exploration: Literal["thompson", "greedy", "epsilon_greedy", "softmax", "square_cb"] = (
        "thompson"
    )
    scale: Positive = 0.15
    """Of the posterior, for thompson, once an arm is known; 1 where it isn't."""
    epsilon: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.1
    temperature: Positive = 0.1
    """In units of reward, for softmax."""
    gamma: Positive = 100.0
    """For square_cb: the higher, the greedier."""
    floor: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.003
    """Share of uniform in every pmf."""
    forgetting: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    """What is left of an outcome's weight after another of each arm, on average, ..."""
    notice_changes: Annotated[bool, Field(strict=True)] = True
    """... and whether it loses weight where its arm is seen to have changed."""
    neighbours: Annotated[int, Field(strict=True, ge=1, le=1000)] = 20
    """Outcomes per arm that model "nearest" takes the mean of, ..."""
    window_events: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 4096
    """... from so many last ones of all arms."""
    new_arm_share: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5
    """Cap on a new arm's probability until `new_arm_events` outcomes of it were seen."""
    new_arm_events: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 20

    incumbent: ArmId | None = None
    """The arm that is used today, or "rules": exploration may cost, against it alone, ..."""
    max_loss: Chance = 0.01
    """... this share of its reward, ..."""
    under_way: Annotated[int, Field(strict=True, ge=1, le=10**6)] = 32
    """... when so many decisions are made before the outcome of the first is learned."""

    rules: RulesConfig = RulesConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    reward_window_s: Seconds = 3600
    """After this a row is closed for evaluation with what has arrived."""
    retention_s: Seconds = 604_800
    """Until this a late component is still accepted, and learned."""
    missing_quality: Share | None = None
    """Of a decision whose reward window has closed without a quality."""
    max_rewards_per_key: Annotated[int, Field(strict=True, ge=1, le=10**9)] | None = None
    """That are accepted a day (UTC) of one caller's key; no end when absent."""
    store_text: Annotated[bool, Field(strict=True)] = False
    when_all_out: Literal["serve", "refuse"] = "serve"
    """Where every arm is out for its health: serve the one that comes back soonest, or refuse."""
    keep_share: Annotated[float, Field(strict=True, ge=0, le=MAX_SHARE)] = 0.05
    """Of the draw, that a champion keeps when another version takes over."""
    auto_rollback: Annotated[bool, Field(strict=True)] = False
    """Whether that champion takes over again by itself once it is shown to be better."""
    gate: GateConfig = GateConfig()
    plans: PlansConfig = PlansConfig()
    """What a request may ask to be answered with, other than one arm."""
    sessions: SessionsConfig = SessionsConfig()
    """How long turns that belong together stay with one arm."""
    budget: Budget | None = None
    """What may be spent per period: its price on cost acts beside the objective's weights."""

    @field_validator("arms")
    @classmethod
    def _distinct(cls, arms: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return arms if arms is None else distinct(arms)

    @model_validator(mode="before")
    @classmethod
    def _of_the_model(cls, data: Any) -> Any:
        return usual(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _makes_sense(self) -> PolicyConfig:
        for check in CHECKS:
            check(self)
        return self

    def changed(self, name: str) -> bool:
        """Whether a key differs from its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def weights(self) -> Weights:
        return self.objective.weights

    @property
    def scales(self) -> Scales:
        return self.objective.scales

    @property
    def reward_window_ms(self) -> int:
        return self.reward_window_s * 1000

    @property
    def retention_ms(self) -> int:
        return self.retention_s * 1000

    def fingerprint(self, encoder: str) -> str:
        """12 hex digits over what makes a version; `encoder` is the encoder's fingerprint.

        Prices, arms, the cap on new arms, the time windows and what an operator says of promotions
        are no part of it: they act at once.
        """
        parameter = PARAMETER_OF.get(self.exploration, "")
        content: dict[str, Any] = {
            "encoder": encoder,
            "model": self.model,
            "arm": self.arm,
            "exploration": [self.exploration, getattr(self, parameter, None)],
            "floor": self.floor,
            "forgetting": [self.forgetting, self.notice_changes],
            "scales": [self.scales.scale, self.scales.latency_ref_ms, self.scales.cost_ref_usd],
            "weights": self.weights.as_tuple(),
        }
        if RULES in (self.model, self.incumbent):
            content["rules"] = self.rules.model_dump()
        if self.model == "nearest":
            content["nearest"] = [self.neighbours, self.window_events]
        if self.model == "vw":
            content["cb_type"] = self.cb_type
        if self.incumbent is not None:
            content["caution"] = [getattr(self, name) for name in CAUTION]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=6).hexdigest()


def _check_arms(policy: PolicyConfig) -> None:
    if policy.model == "fixed" and policy.arm is None:
        raise ValueError("model 'fixed' needs arm = \"...\", the arm it always chooses")
    if policy.model != "fixed" and policy.arm is not None:
        raise ValueError(f"arm is for model 'fixed', not {policy.model!r} (arms is a choice)")
    if policy.arm is not None and policy.arms is not None and policy.arm not in policy.arms:
        raise ValueError(f"arm {policy.arm!r} is not among its arms")


def _check_times(policy: PolicyConfig) -> None:
    if policy.retention_s < policy.reward_window_s:
        raise ValueError(
            f"retention_s must be >= reward_window_s ({policy.reward_window_s}), "
            f"got {policy.retention_s}"
        )
    kept_s = policy.reward_window_s + SWEPT_WITHIN_S
    if policy.missing_quality is not None and policy.retention_s < kept_s:
        raise ValueError(
            f"missing_quality needs retention_s >= {kept_s}: decisions must be there "
            f"{SWEPT_WITHIN_S} s after their reward window, got {policy.retention_s}"
        )


def _check_model(policy: PolicyConfig) -> None:
    if policy.model == "vw" and find_spec("vowpal_wabbit_next") is None:
        raise ValueError(
            "model 'vw' needs vowpal-wabbit-next, which isn't installed here "
            "(there are builds for Python 3.11 and 3.12)"
        )
    for name in dict.fromkeys(name for names in KEYS_OF.values() for name in names):
        read = name == "rules" and policy.incumbent == RULES
        if not read and name not in KEYS_OF.get(policy.model, ()) and policy.changed(name):
            models = ", ".join(repr(model) for model, names in KEYS_OF.items() if name in names)
            raise ValueError(f"{name} does nothing with model {policy.model!r}, it is for {models}")


def _check_exploration(policy: PolicyConfig) -> None:
    if policy.exploration == "thompson" and policy.model in NO_POSTERIOR:
        others = ", ".join(name for name in ("greedy", *PARAMETER_OF) if name != "thompson")
        raise ValueError(
            f"exploration 'thompson' needs a posterior, which model {policy.model!r} has not: "
            f"take one of {others}"
        )
    if policy.model == "caller" and policy.changed("floor"):
        raise ValueError("floor does nothing with model 'caller': the caller's router draws")
    for rule, name in PARAMETER_OF.items():
        if rule != policy.exploration and policy.changed(name):
            raise ValueError(f"{name} is for {rule!r}, it does nothing for {policy.exploration!r}")


def _check_caution(policy: PolicyConfig) -> None:
    if policy.incumbent is None:
        for name in CAUTION:
            if policy.changed(name):
                raise ValueError(f"{name} does nothing without an incumbent")
    elif policy.arms is not None and policy.incumbent not in (RULES, *policy.arms):
        raise ValueError(f"incumbent {policy.incumbent!r} is not among its arms")


def _check_plans(policy: PolicyConfig) -> None:
    policy.plans.check(policy.model, policy.incumbent)


def _check_budget(policy: PolicyConfig) -> None:
    if policy.budget is not None and policy.model not in LEARNS:
        models = ", ".join(map(repr, LEARNS))
        raise ValueError(
            f"budget does nothing with model {policy.model!r}, whose choice no price moves: "
            f"it is for {models}"
        )


CHECKS = (
    _check_arms,
    _check_model,
    _check_exploration,
    _check_caution,
    _check_times,
    _check_plans,
    _check_budget,
)


ACTS_AT_ONCE = (
    "arms",
    "new_arm_share",
    "new_arm_events",
    "reward_window_s",
    "retention_s",
    "missing_quality",
    "max_rewards_per_key",
    "store_text",
    "when_all_out",
    "keep_share",
    "auto_rollback",
    "gate",
    "plans",
    "sessions",
    "budget",
)


def usual(settings: Mapping[str, Any]) -> dict[str, Any]:
    """These settings, and what their model has in the place of the usual defaults."""
    model = settings.get("model")
    if isinstance(model, str) and model in FLOOR_ALONE:
        return {"floor": FLOOR_ALONE[model], **settings}
    if isinstance(model, str) and model in NO_POSTERIOR and "exploration" not in settings:
        return {**NO_POSTERIOR[model], **settings}
    return dict(settings)


OF_THE_POLICY = (*ACTS_AT_ONCE, "objective")
"""What a policy and its challenger have in common, or they couldn't be compared."""
CAPS = ("new_arm_share", "new_arm_events")  # as plans, mean something only where a model learns


def inherited(policy: PolicyConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a challenger with these overrides takes over from its policy.

    Another model takes over what is the whole policy's, another exploration rule all but the old
    rule's parameter; what remains unsaid is the default.
    """
    if overrides.get("model", policy.model) != policy.model:
        names = set(OF_THE_POLICY) - {*CAPS, "plans", "budget"}
    else:
        names = set(PolicyConfig.model_fields)
        if overrides.get("exploration", policy.exploration) != policy.exploration:
            names.discard(PARAMETER_OF.get(policy.exploration, ""))
    return {name: getattr(policy, name) for name in names}


def current(version: PolicyConfig, file: PolicyConfig) -> PolicyConfig:
    """A version's configuration, with all that is no part of a version as the file has it now."""
    return version.model_copy(update={name: getattr(file, name) for name in ACTS_AT_ONCE})


@dataclass(frozen=True)
class Config:
    """The arms there are, and the policies that choose among them, by name."""

    arms: Catalog
    policies: Mapping[str, PolicyConfig]
    challengers: Mapping[str, PolicyConfig] = field(default_factory=dict)
    """By the name of their policy: what learns in its shadow."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of the draw, that each challenger is given; acts at once."""
    providers: Mapping[str, Limits] = field(default_factory=dict)
    """How much of a provider may be used, over all of its arms."""

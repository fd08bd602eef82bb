"""A policy decides: (query, action set) -> pmf -> arm. It stores nothing and reads no clock.

`Policy` is one immutable state of a named policy: a version, one of its snapshots and the catalog
of the moment. Serving replaces it whole, so a request sees one consistent state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoder
from features.lexicon import TASK_INDEX
from features.profile import Profile, profile
from features.query import Hints, Query
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.arms.constraints import ANYTHING, Constraints, action_set, within
from policy.choosing import caller, explore
from policy.choosing.caller import Choice
from policy.choosing.drawing import explored, thompson
from policy.choosing.incumbent import START, Caution, Standing
from policy.choosing.protocol import Index, Rule, Ruling
from policy.choosing.rules import Rules
from policy.comparing import Scoreboard
from policy.config.schema import PolicyConfig
from policy.objective import Weights
from policy.records import Context, Decision, Vector
from policy.values.linear.view import LinearValues
from policy.values.protocol import BoundValues, ValuesView

NO_HINTS = Hints()
NO_SCORES = Scoreboard()
ROWS_AT_ONCE = 8_192  # of a log, times arms, that `Bandit.pmfs` works on
SETTLED = 10  # outcomes per arm; an arm that joins a policy before isn't new, all are


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks: a query or hints (or both), constraints, perhaps weights of its own.

    `chosen` is what the caller's own router has made of it: it acts where a policy's model is
    `caller`.
    """

    query: Query | None = None
    hints: Hints = NO_HINTS
    constraints: Constraints = ANYTHING
    weights: Weights | None = None
    chosen: Choice | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always one arm, given by its catalog position; uniform where it isn't eligible."""

    position: int

    def rule(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights, known: Profile
    ) -> Ruling:
        chosen = index == self.position
        pmf = chosen.astype(np.float64) if chosen.any() else np.full(len(index), 1.0 / len(index))
        return Ruling(pmf, None, _unknown(len(index)))


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every eligible arm alike: the logging policy that any other can be judged from."""

    def rule(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights, known: Profile
    ) -> Ruling:
        return Ruling(np.full(len(index), 1.0 / len(index)), None, _unknown(len(index)))


@dataclass(frozen=True, slots=True)
class Caller(Uniform):
    """The caller's own router: the request tells its choice, which takes this ruling's place."""


def _unknown(k: int) -> Vector:
    return np.full((k, 3), np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Bandit:
    """A value model, explored; an arm that joined late is held below a share until it is known."""

    values: BoundValues
    config: PolicyConfig
    is_new: NDArray[np.bool_]  # (number of arms in the catalog,)

    def rule(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights, known: Profile
    ) -> Ruling:
        return self._rule(x, index, list_cost_usd, weights)

    def _rule(self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights) -> Ruling:
        forecast = self.values.forecast(x, index, list_cost_usd, weights)
        pmf, best = explored(self.config, forecast)
        is_new = self.is_new[index]
        if is_new.any():
            pmf = explore.cap_new_arms(pmf, is_new, self.config.new_arm_share)
        return Ruling(pmf, best, forecast.outcome)

    def pmfs(self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights) -> Vector:
        """`rule`'s pmfs (n, k) for contexts (n, d) and list costs (n, k) that share an action set
        and an objective: in batches where the model has them, else one by one."""
        values, config = self.values, self.config
        if not (config.exploration == "thompson" and isinstance(values, LinearValues)):
            both = zip(x, list_cost_usd, strict=True)
            return np.stack([self._rule(row, index, cost, weights).pmf for row, cost in both])
        pmf = np.empty(list_cost_usd.shape)
        at_once = max(ROWS_AT_ONCE // len(index), 1)
        for at in range(0, len(x), at_once):
            some = slice(at, at + at_once)
            forecast = values.forecasts(x[some], index, list_cost_usd[some], weights)
            pmf[some] = thompson(config, forecast)[0]
        is_new = self.is_new[index]
        if is_new.any():
            pmf = np.stack([explore.cap_new_arms(p, is_new, config.new_arm_share) for p in pmf])
        return pmf


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A running policy: `rule` explores, `floor` is mixed in, `u` of the decision id draws.

    A challenger rules over the same action set, which the champion computes, and has `share` of
    the draw. `scores` are what this policy has as a challenger of others. `caution` leaves all of
    this, floor and share included, a part of the draw beside the incumbent's.
    """

    name: str
    version: str
    snapshot: int
    config: PolicyConfig
    encoder: Encoder
    catalog: Catalog
    rule: Rule
    weights: Weights
    challenger: Policy | None = None
    share: float = 0.0
    scores: Scoreboard = NO_SCORES
    caution: Caution | None = None

    @property
    def events(self) -> int:
        """Outcomes that this state's arms have taught."""
        return int(self.rule.values.events.sum()) if isinstance(self.rule, Bandit) else 0

    def beside(self, challenger: Policy | None, share: float) -> Policy:
        """This one with a challenger, built for the same catalog, that has `share` of the draw; a
        caller's router shares with nobody."""
        alone = challenger is None or "caller" in (self.config.model, challenger.config.model)
        return replace(self, challenger=challenger, share=0.0 if alone else share)

    def decide(self, request: Request, decision_id: str, made_at_ms: int) -> Decision:
        """One decision.

        Raises
        ------
        NoEligibleArm
            If the request's constraints leave no arm; it says why each one is out.
        WrongChoice
            If the caller's router acts, and the request doesn't tell its choice or a wrong one.
        """
        known = profile(request.query, request.hints)
        x = self.encoder.encode(request.query, request.hints, known)
        return self.decide_encoded(request, known, x, decision_id, made_at_ms)

    def decide_encoded(
        self, request: Request, known: Profile, x: Context, decision_id: str, made_at_ms: int
    ) -> Decision:
        """`decide`, for a query that this policy's encoder has encoded before."""
        eligible = action_set(self.catalog, self.config.arms, known, request.constraints)
        list_cost_usd = self.catalog.list_cost_usd(
            known.prompt_tokens, known.output_tokens, eligible.index
        )
        weights = request.weights or self.weights
        ruling = self.rule.rule(x, eligible.index, list_cost_usd, weights, known)
        if limits := request.constraints.limits:
            expected = self.catalog.expected(known, eligible.index)
            left = within(eligible, limits, ruling.outcome, expected)
            if len(left.index) < len(eligible.index):
                list_cost_usd = list_cost_usd[np.isin(eligible.index, left.index)]
                ruling = self.rule.rule(x, left.index, list_cost_usd, weights, known)
                eligible = left
        shadow = None
        if self.challenger is not None:
            shadow = self._shadow(self.challenger, request, known, x, eligible.index, list_cost_usd)
        ids = self.catalog.ids
        if isinstance(self.rule, Caller):
            pmf, chosen = caller.reported(request.chosen, ids, eligible)
        else:
            pmf = explore.with_floor(ruling.pmf, self.config.floor)
            if shadow is not None and self.share:
                pmf = (1.0 - self.share) * pmf + self.share * shadow["challenger_pmf"]
            pmf, part = self._held(pmf, x, eligible.index, list_cost_usd)
            if shadow is not None:
                shadow["share"] *= part
            explore.check(pmf)
            chosen = explore.draw(pmf, uniform_draw(self.name, decision_id))
        return Decision(
            decision_id=decision_id,
            policy=self.name,
            version=self.version,
            snapshot=self.snapshot,
            catalog=self.catalog.revision,
            encoder=self.encoder.fingerprint,
            made_at_ms=made_at_ms,
            arm=ids[eligible.index[chosen]],
            propensity=float(pmf[chosen]),
            confidence=None if ruling.best is None else float(ruling.best[chosen]),
            arms=tuple(ids[i] for i in eligible.index),
            pmf=pmf,
            predicted=ruling.outcome,
            prompt_tokens=known.prompt_tokens,
            output_tokens=known.output_tokens,
            weights=weights,
            x=x,
            **(shadow or {}),
        )

    def _held(
        self, pmf: Vector, x: Context, index: Index, list_cost_usd: Vector
    ) -> tuple[Vector, float]:
        """What caution makes of a pmf (k,), and the part of the draw that it leaves it."""
        if self.caution is None or not isinstance(self.rule, Bandit):
            return pmf, 1.0
        forecast = self.rule.values.forecast(x, index, list_cost_usd, self.weights)
        left = self.caution.share(pmf, index, forecast)
        return self.caution.held(pmf, index, left), left

    def _shadow(
        self,
        other: Policy,
        request: Request,
        known: Profile,
        x: Context,
        index: Index,
        list_cost_usd: Vector,
    ) -> dict[str, Any] | None:
        """What a decision logs of its challenger; None where that is a caller's router that
        didn't tell its choice."""
        fields: dict[str, Any] = {"challenger": other.version, "share": self.share}
        if isinstance(other.rule, Caller):
            pmf = caller.tried(request.chosen, self.catalog.ids, index)
            return None if pmf is None else fields | {"challenger_pmf": pmf}
        if other.encoder.fingerprint != self.encoder.fingerprint:
            x = other.encoder.encode(request.query, request.hints, known)
            fields |= {"challenger_encoder": other.encoder.fingerprint, "challenger_x": x}
        weights = request.weights or other.weights
        ruling = other.rule.rule(x, index, list_cost_usd, weights, known)
        pmf = explore.with_floor(ruling.pmf, other.config.floor)
        pmf, _ = other._held(pmf, x, index, list_cost_usd)
        explore.check(pmf)
        return fields | {"challenger_pmf": pmf}


def uniform_draw(policy: str, decision_id: str) -> float:
    """The one number in [0, 1) that draws a decision's arm: never one per user or session, which
    would make decisions correlated and intervals wrong."""
    digest = hashlib.blake2b(decision_id.encode(), key=policy.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: a float below 1


def build(
    name: str,
    version: str,
    snapshot: int,
    *,
    config: PolicyConfig,
    encoder: Encoder,
    catalog: Catalog,
    view: ValuesView | None,
    standing: Standing = START,
) -> Policy:
    """Put a version's configuration, one snapshot of its values and a catalog together."""
    caution = None
    if config.incumbent is not None:
        at = catalog.index(config.incumbent) if config.incumbent in catalog else -1
        caution = Caution(at, config.max_loss, config.under_way, standing)
    return Policy(
        name=name,
        version=version,
        snapshot=snapshot,
        config=config,
        encoder=encoder,
        catalog=catalog,
        rule=_rule(config, encoder, catalog, view),
        weights=config.weights,
        caution=caution,
    )


def _rule(
    config: PolicyConfig, encoder: Encoder, catalog: Catalog, view: ValuesView | None
) -> Rule:
    if config.model == "uniform":
        return Uniform()
    if config.model == "caller":
        return Caller()
    if config.arm is not None:
        return Fixed(catalog.index(config.arm) if config.arm in catalog else -1)
    if config.model == "rules":
        return Rules(catalog, config.rules)
    if view is None:
        raise ValueError(f"model {config.model!r} decides from a view of its values")
    expected = [_expected(arm, encoder) for arm in catalog.arms]
    values = view.bind(catalog.ids, expected, config.weights, catalog)
    late = values.joined >= SETTLED * len(catalog)
    return Bandit(values, config, late & (values.events < config.new_arm_events))


def _expected(arm: Arm, encoder: Encoder) -> dict[int, float]:
    """An arm's priors, by the feature that is 1 for a query of that task type alone."""
    first = encoder.groups["task"].start
    return {first + TASK_INDEX[task]: quality for task, quality in arm.priors.items()}

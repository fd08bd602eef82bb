"""A policy decides: (query, action set) -> pmf -> arm. It stores nothing and reads no clock.

`Policy` is one immutable state of a named policy: a version, one of its snapshots and the catalog
of the moment. Serving replaces it whole, so a request sees one consistent state.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from features.encoder import Encoder
from features.lexicon import TASK_INDEX
from features.profile import profile
from features.query import Hints, Query
from policy import deciding
from policy.arms.arm import Arm
from policy.arms.availability import EVERYTHING, Availability
from policy.arms.catalog import Catalog
from policy.arms.constraints import ANYTHING, Constraints
from policy.choosing.bandit import Bandit
from policy.choosing.caller import Choice
from policy.choosing.constant import Caller, Fixed, Uniform
from policy.choosing.incumbent import START, Caution, Standing
from policy.choosing.pacing import Pace
from policy.choosing.protocol import Rule
from policy.choosing.rules import Rules
from policy.comparing import Scoreboard
from policy.config.schema import PolicyConfig
from policy.deciding import Encoded, NotDecided
from policy.objective import Weights
from policy.plans.learned import PlanValues
from policy.plans.plan import Kind
from policy.records import Decision
from policy.values.protocol import ValuesView

NO_HINTS = Hints()
NO_SCORES = Scoreboard()
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
    plans: Collection[Kind] = ()
    """What the caller can carry out other than one call."""


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A running policy: `rule` explores, `floor` is mixed in, `u` of the decision id draws.

    A challenger rules over the same action set, which the champion computes, and has `share` of
    the draw. `scores` are what this policy has as a challenger of others. `caution` leaves all of
    this, floor and share included, a part of the draw beside the incumbent's. `available` is what
    of the catalog can be called now, `pace` what a budget makes of the moment: its price is in the
    weights, the challenger's too.
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
    available: Availability = EVERYTHING
    pace: Pace | None = None

    @property
    def events(self) -> int:
        """Outcomes that this state's arms have taught."""
        return int(self.rule.values.events.sum()) if isinstance(self.rule, Bandit) else 0

    @property
    def beside_rules(self) -> bool:
        """Whether an outcome must tell what rules choose by: they are the incumbent of this policy
        or of its challenger."""
        both = (self.caution, None if self.challenger is None else self.challenger.caution)
        return any(one is not None and one.rules is not None for one in both)

    def beside(self, challenger: Policy | None, share: float) -> Policy:
        """This one with a challenger, built for the same catalog, that has `share` of the draw; a
        caller's router shares with nobody."""
        alone = challenger is None or "caller" in (self.config.model, challenger.config.model)
        return replace(self, challenger=challenger, share=0.0 if alone else share)

    def given(self, available: Availability) -> Policy:
        """This one, choosing among what can be called now. A caller's own router knows better."""
        if isinstance(self.rule, Caller):
            return self
        challenger = self.challenger and replace(
            self.challenger, rule=_answering(self.challenger.rule, available)
        )
        rule = _answering(self.rule, available)
        return replace(self, rule=rule, challenger=challenger, available=available)

    def expecting(self, plans: PlanValues) -> Policy:
        """This one, with what was learned of plans beyond what their arms let expect."""
        rule = self.rule
        return replace(self, rule=replace(rule, plans=plans)) if isinstance(rule, Bandit) else self

    def decide(self, request: Request, decision_id: str, made_at_ms: int) -> Decision:
        """One decision: `decide_all` of one.

        Raises
        ------
        NoEligibleArm
            If the request's constraints leave no arm; it says why each one is out.
        WrongChoice
            If the caller's router acts, and the request doesn't tell its choice or a wrong one.
        """
        return self.decide_encoded(self.encoded(request, decision_id), made_at_ms)

    def decide_encoded(self, query: Encoded, made_at_ms: int) -> Decision:
        """`decide`, for a query that this policy's encoder has encoded before."""
        (made,) = deciding.decide(self, [query], made_at_ms)
        if not isinstance(made, Decision):
            raise made
        return made

    def decide_all(
        self, asked: Sequence[tuple[Request, str]], made_at_ms: int
    ) -> list[Decision | NotDecided]:
        """A decision for each request and its decision id, or why there is none. None of them
        depends on the others."""
        return deciding.decide(self, [self.encoded(*one) for one in asked], made_at_ms)

    def encoded(self, request: Request, decision_id: str) -> Encoded:
        """A request as this policy sees it."""
        known = profile(request.query, request.hints)
        x = self.encoder.encode(request.query, request.hints, known)
        return Encoded(request, decision_id, known, x)


def _answering(rule: Rule, available: Availability) -> Rule:
    return replace(rule, answered=available.answered) if isinstance(rule, Bandit) else rule


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
    return Policy(
        name=name,
        version=version,
        snapshot=snapshot,
        config=config,
        encoder=encoder,
        catalog=catalog,
        rule=_rule(config, encoder, catalog, view),
        weights=config.weights,
        caution=Caution.of(config, catalog, standing),
    )


def _rule(
    config: PolicyConfig,
    encoder: Encoder,
    catalog: Catalog,
    view: ValuesView | None,
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

"""n queries -> n decisions in one pass: those that share an action set and an objective at once.

One query is n = 1. Nothing of a decision depends on which others it is made with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from features.lexicon import TASK_TYPES
from features.profile import Profile
from policy.arms.catalog import Catalog
from policy.arms.constraints import (
    ActionSet,
    Constraints,
    Excluded,
    Limit,
    NoEligibleArm,
    action_set,
    affordable,
    within,
)
from policy.choosing import caller, explore
from policy.choosing.bandit import Bandit
from policy.choosing.caller import WrongChoice
from policy.choosing.constant import Caller
from policy.choosing.protocol import Index, Rule, Ruling
from policy.choosing.rules import chosen_by
from policy.objective import Weights
from policy.plans.candidates import Actions, Pair, Setting
from policy.plans.fallback import with_fallback
from policy.records import Context, Decision, Vector

if TYPE_CHECKING:
    from policy.policy import Policy, Request

NotDecided = NoEligibleArm | WrongChoice


class Encoded(NamedTuple):
    """A request as a policy sees it: the profile of its query, and the context (d,)."""

    request: Request
    decision_id: str
    known: Profile
    x: Context


class Offered(NamedTuple):
    """The arms that n queries may be given to, by their catalog positions (k,), what they list for
    these (n, k), and the queries' profiles."""

    arms: Index
    list_cost_usd: Vector
    known: Sequence[Profile]


class _Row(NamedTuple):
    """A query that may be decided: its place among those asked, and its action set."""

    at: int
    query: Encoded
    eligible: ActionSet
    dear: Excluded = ()  # arms that a budget leaves out, and why


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """n rows that share an action set, the arms at catalog positions `index` (k,), and an
    objective; contexts (n, d) and list costs (n, k)."""

    rows: Sequence[_Row]
    index: Index
    weights: Weights
    x: Context
    list_cost_usd: Vector

    @classmethod
    def of(cls, catalog: Catalog, rows: Sequence[_Row], weights: Weights) -> _Group:
        index = rows[0].eligible.index
        queries = [row.query for row in rows]
        prompt, output = np.array(
            [(q.known.prompt_tokens, q.known.output_tokens) for q in queries]
        ).T
        list_cost_usd = catalog.list_cost_usd(prompt[:, None], output[:, None], index)
        return cls(rows, index, weights, np.array([q.x for q in queries]), list_cost_usd)

    @property
    def offered(self) -> Offered:
        return Offered(self.index, self.list_cost_usd, [row.query.known for row in self.rows])

    def ruled(self, rule: Rule, weights: Weights, x: Context) -> Ruling:
        index, list_cost_usd, known = self.offered
        return rule.rule(x, index, list_cost_usd, weights, known)

    def take(self, some: list[int]) -> _Group:
        rows = [self.rows[i] for i in some]
        return replace(self, rows=rows, x=self.x[some], list_cost_usd=self.list_cost_usd[some])


def decide(
    policy: Policy, queries: Sequence[Encoded], made_at_ms: int
) -> list[Decision | NotDecided]:
    """A decision for each query, or why there is none.

    Where no arm keeps a request's limits, those that may give way do, as `Constraints.relaxed` has
    it; what it gets for an answer where that is no help either are the reasons before.
    """
    made = _within_all_limits(policy, queries, made_at_ms)
    ways = {
        at: queries[at].request.constraints.relaxed()
        for at, one in enumerate(made)
        if isinstance(one, NoEligibleArm)
    }
    while ways:
        tried = {at: way for at, more in ways.items() if (way := next(more, None)) is not None}
        again = [_asked(queries[at], constraints) for at, (_, constraints) in tried.items()]
        found = _within_all_limits(policy, again, made_at_ms)
        for (at, (gave_way, _)), one in zip(tried.items(), found, strict=True):
            if not isinstance(one, NoEligibleArm):
                made[at] = replace(one, gave_way=gave_way) if isinstance(one, Decision) else one
        ways = {at: ways[at] for at in tried if isinstance(made[at], NoEligibleArm)}
    return made


def _asked(query: Encoded, constraints: Constraints) -> Encoded:
    return query._replace(request=replace(query.request, constraints=constraints))


def _within_all_limits(
    policy: Policy, queries: Sequence[Encoded], made_at_ms: int
) -> list[Decision | NotDecided]:
    made: dict[int, Decision | NotDecided] = {}
    rows = []
    for at, query in enumerate(queries):
        asked = query.request.constraints
        try:
            eligible = action_set(
                policy.catalog, policy.config.arms, query.known, asked, policy.available
            )
        except NoEligibleArm as error:
            made[at] = error
        else:
            rows.append(_Row(at, query, eligible))
    for group, ruling in _ruled(policy, rows, made):
        for part, over_arms, found in _parts(policy, group, ruling):
            drawn = _drawn(policy, part, over_arms, found, made_at_ms)
            for row, decision in zip(part.rows, drawn, strict=True):
                made[row.at] = decision
    return [made[at] for at in range(len(queries))]


def uniform_draw(policy: str, decision_id: str) -> float:
    """The one number in [0, 1) that draws a decision's arm: never one per user or session, which
    would make decisions correlated and intervals wrong."""
    digest = hashlib.blake2b(decision_id.encode(), key=policy.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: a float below 1


def _groups(policy: Policy, rows: Sequence[_Row]) -> Iterator[_Group]:
    alike: dict[tuple[bytes, Weights], list[_Row]] = {}
    for row in rows:
        weights = row.query.request.weights or policy.weights
        if policy.pace is not None:
            weights = policy.pace.weights(weights, policy.config.scales)
        alike.setdefault((row.eligible.index.tobytes(), weights), []).append(row)
    for (_, weights), same in alike.items():
        yield _Group.of(policy.catalog, same, weights)


def _ruled(
    policy: Policy, rows: Sequence[_Row], made: dict[int, Decision | NotDecided]
) -> Iterator[tuple[_Group, Ruling]]:
    """What the policy's rule says of all rows, within their limits on what is predicted; why a row
    has no arm within them goes to `made`."""
    narrowed = []
    for group in _groups(policy, rows):
        ruling = group.ruled(policy.rule, group.weights, group.x)
        latency_ms = _at_most(policy.rule, group)
        whole = []
        for i, row in enumerate(group.rows):
            try:
                left = _within_limits(policy, row, ruling.outcome[i], latency_ms[i])
            except NoEligibleArm as error:
                made[row.at] = error
                continue
            if len(left.eligible.index) < len(group.index):
                narrowed.append(left)
            else:
                whole.append(i)
        if len(whole) == len(group.rows):
            yield group, ruling
        elif whole:
            yield group.take(whole), ruling.take(whole)
    for group in _groups(policy, narrowed):
        yield group, group.ruled(policy.rule, group.weights, group.x)


def _at_most(rule: Rule, group: _Group) -> Sequence[Vector | None]:
    """How long a call takes at most of each arm (k,), with the probability that a row wants its
    limit on latency kept with; None where it has none, or the model can't say."""
    asked = [row.query.request.constraints for row in group.rows]
    if not isinstance(rule, Bandit) or not any(one.latency_ceiling_ms for one in asked):
        return [None] * len(asked)
    probability = np.array([one.latency_probability for one in asked])
    latency_ms = rule.values.latency_quantile(group.x, group.index, probability)
    return [None] * len(asked) if latency_ms is None else list(latency_ms)


def _within_limits(policy: Policy, row: _Row, predicted: Vector, latency_ms: Vector | None) -> _Row:
    """A row with the part of its action set that is predicted (k, 3) to keep its limits, and that
    the policy's budget affords."""
    limits = row.query.request.constraints.limits
    spendable = None if policy.pace is None else policy.pace.limit
    if not limits and spendable is None:
        return row
    expected = policy.catalog.expected(row.query.known, row.eligible.index)
    dear: Excluded = ()
    left = within(row.eligible, limits, predicted, expected, latency_ms)
    if spendable is not None:
        left, dear = affordable(row.eligible, left, spendable, predicted, expected)
    return row._replace(eligible=left, dear=dear)


def _parts(
    policy: Policy, group: _Group, ruling: Ruling
) -> Iterator[tuple[_Group, Ruling, Actions | None]]:
    """A group's rows that are decided over arms alone, and one by one those whose actions include
    plans."""
    asked = [bool(row.query.request.plans) for row in group.rows]
    planning = []
    if any(asked) and isinstance(policy.rule, Bandit):
        rows = enumerate(group.rows)
        planning = [i for i, row in rows if asked[i] and _setting(policy, group, row).asked]
    if not planning:
        yield group, ruling, None
        return
    if others := sorted(set(range(len(asked))) - set(planning)):
        yield group.take(others), ruling.take(others), None
    for i in planning:
        one = group.take([i])
        yield one, *_with_plans(policy, one, one.x, group.weights)


def _with_plans(
    policy: Policy,
    one: _Group,
    x: Context,
    weights: Weights,
    pairs: Sequence[Pair] | None = None,
) -> tuple[Ruling, Actions]:
    assert isinstance(policy.rule, Bandit)
    setting = _setting(policy, one, one.rows[0], weights)
    return policy.rule.with_plans(x, one.index, one.list_cost_usd, setting, pairs)


def _setting(policy: Policy, group: _Group, row: _Row, weights: Weights | None = None) -> Setting:
    """What plans for a row are made under."""
    request, ids = row.query.request, policy.catalog.ids
    limits = request.constraints.limits
    if policy.pace is not None and (spendable := policy.pace.limit) is not None:
        limits = (*limits, Limit("cost", spendable.bound))
    return Setting(
        [ids[i] for i in group.index.tolist()],
        policy.config.plans,
        request.plans,
        weights or group.weights,
        policy.config.scales,
        int(row.query.known.task_mix.argmax()),
        limits,
    )


def _drawn(
    policy: Policy, group: _Group, ruling: Ruling, found: Actions | None, made_at_ms: int
) -> Iterator[Decision | WrongChoice]:
    """The decisions of a group, in order; of one row where there are plans."""
    shadows: Sequence[dict[str, Any] | None] = [None] * len(group.rows)
    if policy.challenger is not None:
        shadows = _shadows(policy, policy.challenger, group, found)
    if isinstance(policy.rule, Caller):
        draws = [_reported(policy.catalog, row) for row in group.rows]
    else:
        pmf = explore.with_floor(ruling.pmf, policy.config.floor)
        if policy.share:
            theirs = np.array([shadow["challenger_pmf"] for shadow in shadows if shadow])
            pmf = (1.0 - policy.share) * pmf + policy.share * theirs
        if policy.caution is not None:
            pmf, part = held(policy, pmf, group.x, group.offered)
            for shadow, left in zip(shadows, part.tolist(), strict=True):
                if shadow is not None:
                    shadow["share"] *= left
        explore.check(pmf)
        u = np.array([uniform_draw(policy.name, row.query.decision_id) for row in group.rows])
        draws = list(zip(pmf, explore.draw(pmf, u).tolist(), strict=True))
    ids = policy.catalog.ids
    available = policy.available
    answered = None if available.answered is None else available.answered[group.index]
    out = tuple(available.out.items())
    k, plans = len(group.index), () if found is None else found.plans
    actions = (*(ids[i] for i in group.index.tolist()), *(plan.id for plan in plans))
    for i, (row, drawn, shadow) in enumerate(zip(group.rows, draws, shadows, strict=True)):
        if isinstance(drawn, WrongChoice):
            yield drawn
            continue
        own, chosen = drawn
        query = row.query
        plan = plans[chosen - k] if chosen >= k else None
        if "fallback" in query.request.plans:
            setting = _setting(policy, group, row)
            outcome = ruling.outcome[i, :k]
            plan = with_fallback(plan, actions[chosen], setting, outcome, own[:k], policy.catalog)
        yield Decision(
            decision_id=query.decision_id,
            policy=policy.name,
            version=policy.version,
            snapshot=policy.snapshot,
            catalog=policy.catalog.revision,
            encoder=policy.encoder.fingerprint,
            made_at_ms=made_at_ms,
            arm=actions[chosen],
            propensity=float(own[chosen]),
            confidence=None if ruling.best is None else float(ruling.best[i, chosen]),
            arms=actions,
            pmf=own,
            predicted=ruling.outcome[i],
            prompt_tokens=query.known.prompt_tokens,
            output_tokens=query.known.output_tokens,
            weights=group.weights,
            x=query.x,
            task=TASK_TYPES[chosen_by(query.known)[0]] if policy.beside_rules else None,
            answered=answered,
            unavailable=(*out, *row.dear) or None,
            plan=plan,
            **(shadow or {}),
        )


def _reported(catalog: Catalog, row: _Row) -> tuple[Vector, int] | WrongChoice:
    """The pmf (k,) and the position of the arm that the caller's own router reports."""
    try:
        return caller.reported(row.query.request.chosen, catalog.ids, row.eligible)
    except WrongChoice as error:
        return error


def held(policy: Policy, pmf: Vector, x: Context, offered: Offered) -> tuple[Vector, Vector]:
    """What caution makes of pmfs (n, k), and the parts (n,) of the draw that it leaves them."""
    if policy.caution is None or not isinstance(policy.rule, Bandit):
        return pmf, np.ones(len(pmf))
    index, list_cost_usd, known = offered
    forecast = policy.rule.forecast(x, index, list_cost_usd, policy.weights)
    own = policy.caution.own(index, known)
    left = policy.caution.share(pmf, own, forecast)
    return policy.caution.held(pmf, own, left), left


def _shadows(
    policy: Policy, other: Policy, group: _Group, found: Actions | None
) -> list[dict[str, Any] | None]:
    """What decisions log of their challenger; None where that is a caller's router that didn't
    tell its choice. Plans that were found are actions of it as well, though some rules choose none.
    """
    fields: dict[str, Any] = {"challenger": other.version, "share": policy.share}
    requests = [row.query.request for row in group.rows]
    if isinstance(other.rule, Caller):
        told = [caller.tried(one.chosen, policy.catalog.ids, group.index) for one in requests]
        return [None if pmf is None else fields | {"challenger_pmf": pmf} for pmf in told]
    x, own = group.x, other.encoder.fingerprint != policy.encoder.fingerprint
    if own:
        known = (row.query.known for row in group.rows)
        both = zip(requests, known, strict=True)
        x = np.array([other.encoder.encode(one.query, one.hints, of) for one, of in both])
    weights = requests[0].weights or other.weights
    if policy.pace is not None:
        weights = group.weights
    if found is not None and isinstance(other.rule, Bandit):
        ruling, _ = _with_plans(other, group, x, weights, found.pairs)
    else:
        ruling = group.ruled(other.rule, weights, x)
    pmf = explore.with_floor(ruling.pmf, other.config.floor)
    if found is not None:
        pmf = np.pad(pmf, ((0, 0), (0, len(group.index) + len(found.plans) - pmf.shape[1])))
    pmf, _ = held(other, pmf, x, group.offered)
    explore.check(pmf)
    if not own:
        return [fields | {"challenger_pmf": row} for row in pmf]
    fields["challenger_encoder"] = other.encoder.fingerprint
    each = zip(pmf, x, strict=True)
    return [fields | {"challenger_pmf": row, "challenger_x": context} for row, context in each]

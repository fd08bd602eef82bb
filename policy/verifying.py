"""What can be checked of a decision that was made elsewhere. No I/O, no clock.

Its context and token counts can't: they come from a query that stays where it was asked. Given
these, an arm that was drawn otherwise than by the decision's id, or probabilities that no version
gives, are found out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from features.lexicon import TASK_INDEX, TASK_TYPES
from features.profile import profile
from policy.arms.availability import Availability
from policy.arms.catalog import Catalog
from policy.choosing import explore
from policy.choosing.constant import Caller
from policy.choosing.protocol import Ruling
from policy.choosing.rules import Rules
from policy.config.schema import MAX_SHARE, RULES, PolicyConfig
from policy.deciding import Offered, held, uniform_draw
from policy.policy import NO_HINTS, Policy
from policy.records import Context, Decision, Vector

Fault = tuple[str, str]  # a field, and what is wrong with it

ROUNDING = 1e-9
OTHER_MACHINE = 1e-3  # how far a pmf may be off where float32 is summed in another order
EARLY_MS = 60_000  # how far ahead of ours the clock of whoever decides may be

_UNKNOWN = profile(None, NO_HINTS)  # stands for a query, for rules that don't look at it


@dataclass(frozen=True, slots=True)
class Registered:
    """What is known of a version that a decision names."""

    config: PolicyConfig
    encoder: str
    d: int
    snapshot: int  # the newest


def faults(
    decision: Decision,
    catalog: Catalog,
    version: Registered,
    other: Registered | None,
    now_ms: int,
) -> Iterator[Fault]:
    """What of a decision can't be, given its catalog, its version and its challenger's, if any.

    All that follows needs arms and pmf to fit each other, so the first fault may be the only one
    that is told.
    """
    k = len(decision.arms)
    positions = [catalog.index(arm) if arm in catalog else -1 for arm in decision.arms]
    if k == 0 or min(positions) < 0 or not (np.diff(positions) > 0).all():
        yield "arms", f"should be arms of catalog {decision.catalog}, in its order"
        return
    if not catalog.enabled[positions].all():
        yield "arms", "holds one that is not enabled"
    if decision.arm not in decision.arms:
        yield "arm", "is not among the arms"
        return
    if decision.pmf.shape != (k,) or decision.predicted.shape != (k, 3):
        yield "pmf", f"should have a probability, and `predicted` a row, for each of {k} arms"
        return
    if not _is_pmf(decision.pmf):
        yield "pmf", "should be probabilities that sum to 1"
        return
    if decision.answered is not None and decision.answered.shape != (k,):
        yield "answered", f"should have a share for each of {k} arms"
        return
    yield from _draw(decision, version)
    yield from _numbers(decision, version, now_ms)
    yield from _challenger(decision, version, other)


def _draw(decision: Decision, version: Registered) -> Iterator[Fault]:
    drawn = decision.arms.index(decision.arm)
    if decision.propensity != decision.pmf[drawn] or not decision.propensity > 0:
        yield "propensity", f"should be what pmf says of the arm, {decision.pmf[drawn]!r}"
    if version.config.model == "caller":  # whose own router draws
        return
    u = uniform_draw(decision.policy, decision.decision_id)
    due = decision.arms[explore.draw(decision.pmf, u)]
    if due != decision.arm:
        yield "arm", f"should be {due!r}: that is what this id draws from this pmf"


def _numbers(decision: Decision, version: Registered, now_ms: int) -> Iterator[Fault]:
    window_ms = version.config.reward_window_ms
    if not now_ms - window_ms <= decision.made_at_ms <= now_ms + EARLY_MS:
        yield "made_at_ms", f"should lie in the last {window_ms} ms: is the caller's clock right?"
    if not 0 <= decision.snapshot <= version.snapshot:
        yield "snapshot", f"of version {decision.version} there is none beyond {version.snapshot}"
    weights = decision.weights.as_tuple()
    if min(weights) < 0 or abs(sum(weights) - 1.0) > ROUNDING:
        yield "weights", "should be >= 0 and sum to 1"
    yield from _context("x", decision.x, decision.encoder, version)


def _challenger(
    decision: Decision, version: Registered, other: Registered | None
) -> Iterator[Fault]:
    shadow, share = decision.challenger_pmf, decision.share
    own = decision.pmf
    if other is None or shadow is None:
        if share or shadow is not None or decision.challenger_x is not None:
            yield "challenger", "is missing, and others of its fields are not"
            return
    else:
        if shadow.shape != own.shape or not _is_pmf(shadow):
            yield "challenger_pmf", "should be probabilities that sum to 1, one for each arm"
            return
        if not 0 <= share <= MAX_SHARE:
            yield "share", f"should be in [0, {MAX_SHARE}]"
            return
        own = (own - share * shadow) / (1.0 - share)
        if decision.challenger_x is not None:
            encoder = decision.challenger_encoder
            yield from _context("challenger_x", decision.challenger_x, encoder, other)
        elif other.config.model != "caller" and other.encoder != version.encoder:
            yield "challenger_x", f"is missing: version {decision.challenger} has its own encoder"
    both = (version, other)
    if decision.task is None and any(one and one.config.incumbent == RULES for one in both):
        yield "task", "is missing: rules are an incumbent, and choose by it"
    free = version.config.model == "caller" or version.config.incumbent is not None
    least = 0.0 if free else version.config.floor / len(own)
    if own.min() < least - ROUNDING:
        yield "pmf", f"leaves an arm less than version {decision.version} does"


def _context(name: str, x: Context, encoder: str | None, version: Registered) -> Iterator[Fault]:
    if encoder != version.encoder:
        yield name, f"should be of encoder {version.encoder}"
    elif x.shape != (version.d,) or not np.isfinite(x).all():
        yield name, f"should be {version.d} finite numbers"


def _is_pmf(pmf: Vector) -> bool:
    try:
        explore.check(pmf)
    except ValueError:
        return False
    return True


def contradicted(policy: Policy, decision: Decision) -> Iterator[Fault]:
    """What `policy`, the very state that is said to have decided, answers otherwise.

    Nothing is said of a rule that looks at the query itself, nor of a draw that wasn't its own;
    what was known of failures, `answered`, is taken as it is told.
    """
    if decision.answered is not None:
        answered = np.ones(len(policy.catalog))
        answered[policy.catalog.among(decision.arms)] = decision.answered
        policy = policy.given(Availability(answered=answered))
    other, shadow = policy.challenger, decision.challenger_pmf
    if other is not None and not isinstance(other.rule, Caller):
        if shadow is None or decision.challenger != other.version or decision.share > policy.share:
            yield "challenger", f"should be {other.version}, with a share of {policy.share}"
            return
        if other.weights == policy.weights:  # else a request's own can't be told from these
            own_x = decision.x if decision.challenger_x is None else decision.challenger_x
            ruling = _again(other, decision, own_x)
            if ruling is not None:
                pmf, _ = _drawn_from(other, decision, own_x, ruling)
                if _apart(pmf, shadow):
                    yield "challenger_pmf", f"isn't what snapshot {other.snapshot} makes of it"
    ruling = _again(policy, decision, decision.x)
    if ruling is None:
        return
    pmf, part = _drawn_from(policy, decision, decision.x, ruling)
    if shadow is not None and abs(decision.share - part * policy.share) > OTHER_MACHINE:
        yield "share", f"should be {part * policy.share}"
    if _apart(pmf, decision.pmf):
        yield "pmf", f"isn't what snapshot {policy.snapshot} makes of it"
    if not np.allclose(ruling.outcome[0], decision.predicted, rtol=OTHER_MACHINE, equal_nan=True):
        yield "predicted", f"isn't what snapshot {policy.snapshot} makes of it"


def _again(policy: Policy, decision: Decision, x: Context) -> Ruling | None:
    """What a policy's rule says of one context (d,), None where that isn't all that it looks at."""
    if isinstance(policy.rule, Rules | Caller):
        return None
    index, list_cost_usd, known = _offered(policy, decision)
    return policy.rule.rule(x[None], index, list_cost_usd, decision.weights, known)


def _drawn_from(
    policy: Policy, decision: Decision, x: Context, ruling: Ruling
) -> tuple[Vector, float]:
    """What a policy with its challenger makes of its rule's pmf, (k,), and the part of the draw
    that caution left."""
    pmf = explore.with_floor(ruling.pmf, policy.config.floor)
    if policy.challenger is not None and decision.challenger_pmf is not None:
        pmf = (1.0 - policy.share) * pmf + policy.share * decision.challenger_pmf
    pmf, part = held(policy, pmf, x[None], _offered(policy, decision))
    return pmf[0], float(part[0])


def _offered(policy: Policy, decision: Decision) -> Offered:
    """The arms of a decision, and of its query what is known: the task type, where rules are an
    incumbent, and the lengths."""
    catalog, lengths = policy.catalog, (decision.prompt_tokens, decision.output_tokens)
    index = np.flatnonzero(catalog.among(decision.arms))
    known = replace(_UNKNOWN, prompt_tokens=lengths[0], output_tokens=lengths[1])
    if decision.task is not None:
        known = replace(known, task_mix=np.eye(len(TASK_TYPES))[TASK_INDEX[decision.task]])
    return Offered(index, catalog.list_cost_usd(*lengths, index)[None], [known])


def _apart(pmf: Vector, other: Vector) -> bool:
    return not float(np.abs(pmf - other).max()) <= OTHER_MACHINE

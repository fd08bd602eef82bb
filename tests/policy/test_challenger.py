"""A challenger's part in a decision, and the choice of a caller's router; without any I/O."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.encoder import Encoder
from features.query import Hints
from policy.arms.constraints import Constraints, action_set
from policy.choosing.caller import Choice, WrongChoice, reported, tried
from policy.config.schema import PolicyConfig
from policy.policy import Policy, Request
from policy.records import from_stored, to_stored
from tests.policy.test_policy import ARMS, ENCODER, arm, make

REQUEST = Request(hints=Hints(task_type="code"))
DEAR = arm("a", 0.1) + arm("b", 30.0)


def beside(champion: Policy, challenger: Policy, share: float) -> Policy:
    """A champion with a challenger."""
    return champion.beside(replace(challenger, version="2"), share)


FIXED = make(DEAR, 'model = "fixed"\narm = "b"\nfloor = 0.2')
LINEAR = make(DEAR)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_pmf_is_the_mixture_of_both_each_with_its_own_floor(share: float):
    """And what the challenger would do is what it does alone."""
    alone = LINEAR.decide(REQUEST, "d", 0)
    decision = beside(FIXED, LINEAR, share).decide(REQUEST, "d", 0)
    assert (decision.version, decision.challenger, decision.share) == ("1", "2", share)
    np.testing.assert_array_equal(decision.challenger_pmf, alone.pmf)
    own = np.array([0.1, 0.9])
    np.testing.assert_allclose(decision.pmf, (1 - share) * own + share * alone.pmf, atol=1e-15)
    assert decision.confidence is None  # the champion's, which has none


def test_a_challenger_chooses_from_the_champions_action_set():
    """Constraints are the round's."""
    request = replace(REQUEST, constraints=Constraints(deny=("a",)))
    decision = beside(FIXED, LINEAR, 0.5).decide(request, "d", 0)
    assert (decision.arms, decision.challenger_pmf.tolist()) == (("b",), [1.0])


def test_a_record_holds_the_challenger_bit_for_bit():
    """With its own context where its encoder is another, and without where it isn't."""
    same = beside(FIXED, LINEAR, 0.25).decide(REQUEST, "d", 0)
    assert same.challenger_encoder is same.challenger_x is None
    encoder = Encoder.default(d=56)
    other = replace(LINEAR, encoder=encoder, rule=FIXED.rule)
    made = beside(FIXED, other, 0.25).decide(REQUEST, "d", 0)
    back = from_stored(to_stored(made), made.x.tobytes(), made.challenger_x.tobytes())
    assert back.challenger_encoder == encoder.fingerprint != ENCODER.fingerprint
    for name in ("challenger", "share"):
        assert getattr(back, name) == getattr(made, name)
    for name in ("challenger_pmf", "challenger_x", "pmf"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))


def test_a_record_without_a_challenger_says_nothing_of_one():
    """Logs don't grow for those who have none."""
    made = FIXED.decide(REQUEST, "d", 0)
    assert b"challenger" not in to_stored(made)
    assert from_stored(to_stored(made), made.x.tobytes()).challenger_pmf is None


def caller_policy() -> Policy:
    return make(DEAR, 'model = "caller"')


def test_a_callers_router_shares_its_draw_with_nobody():
    """What it has chosen is what was done."""
    policy = beside(caller_policy(), LINEAR, 0.5)
    made = policy.decide(replace(REQUEST, chosen=Choice("b")), "d", 0)
    assert (policy.share, made.arm, made.pmf.tolist()) == (0.0, "b", [0.0, 1.0])
    assert made.challenger_pmf is not None


def test_a_choice_that_constraints_exclude_is_refused_with_the_reason():
    """No silent other arm."""
    request = replace(REQUEST, chosen=Choice("a"), constraints=Constraints(deny=("a",)))
    with pytest.raises(WrongChoice, match="'a' is not eligible: denied"):
        caller_policy().decide(request, "d", 0)


def test_a_reported_pmf_may_be_rounded_and_name_what_had_no_chance():
    """It is normalised, so that what is logged sums to 1."""
    eligible = action_set(ARMS, None, Needs())
    pmf, chosen = reported(
        Choice("b", {"a": 0.3333333, "b": 0.6666666, "gone": 0.0}), ARMS.ids, eligible
    )
    assert chosen == 1
    assert pmf.sum() == pytest.approx(1.0, abs=1e-15)
    assert pmf[0] == pytest.approx(1 / 3, abs=1e-6)


def test_a_choice_that_only_watches_is_never_refused():
    """Where it doesn't fit, nothing is said of the router."""
    index = np.arange(2)
    assert tried(None, ARMS.ids, index) is tried(Choice("gone"), ARMS.ids, index) is None
    assert tried(Choice("a"), ARMS.ids, index).tolist() == [1.0, 0.0]


class Needs:
    """A query that needs nothing."""

    capabilities: frozenset[str] = frozenset()
    prompt_tokens = output_tokens = reserved_tokens = 0


def test_a_version_of_a_callers_router_has_a_fingerprint_of_its_own():
    """It is a version like any other."""
    fingerprints = {PolicyConfig(model=m).fingerprint("e") for m in ("caller", "uniform", "linear")}
    assert len(fingerprints) == 3

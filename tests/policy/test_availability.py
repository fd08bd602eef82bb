"""What can be called now, inside the choice: action set, probabilities, and what is logged."""

from __future__ import annotations

import numpy as np
import pytest

from features.query import Hints
from policy import policy as policies
from policy.arms.arm import Arm
from policy.arms.availability import EVERYTHING, Availability
from policy.arms.catalog import Catalog
from policy.arms.constraints import NoEligibleArm
from policy.config.schema import PolicyConfig
from policy.objective import Weights
from policy.policy import Policy, Request
from policy.records import from_stored, to_stored
from policy.values import models
from policy.values.protocol import Forecast

CATALOG = Catalog(
    tuple(
        Arm(id=name, provider="p", model=name, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        for name in ("a", "b", "c")
    )
)
ASKED = Request(hints=Hints(context_tokens=100, output_tokens=400))


def policy(catalog: Catalog = CATALOG, **settings: object) -> Policy:
    config = PolicyConfig.model_validate(settings)
    encoder = models.default_encoder(config)
    view = None if config.model in models.NO_VALUES else models.prior_view(config, encoder)
    return policies.build(
        "default", "1", 0, config=config, encoder=encoder, catalog=catalog, view=view
    )


def test_what_is_out_is_no_arm_of_the_decision():
    """Neither drawn nor in the pmf; the decision says why."""
    here = policy().given(Availability(out={"b": "out until noon"}))
    decision = here.decide(ASKED, "1", 0)
    assert decision.arms == ("a", "c")
    assert decision.unavailable == (("b", "out until noon"),)
    with pytest.raises(NoEligibleArm, match="b: out until noon"):
        here.given(Availability(out=dict.fromkeys("abc", "out until noon"))).decide(ASKED, "1", 0)


def test_what_is_left_must_be_enough_for_the_call():
    """Of tokens for prompt and answer, of credits for the list price."""
    few = Availability(tokens_left=np.array([np.inf, 499.0, 500.0]))
    assert policy().given(few).decide(ASKED, "1", 0).arms == ("a", "c")
    little = Availability(usd_left=np.array([0.0004, 0.0005, np.inf]))
    assert policy().given(little).decide(ASKED, "1", 0).arms == ("b", "c")


def test_a_share_of_failures_costs_as_much_reward():
    """By hand: of 0.6 reward, with half of the calls failing and earning 0.2 for costing nothing,
    0.4 is left; the spread shrinks as much."""
    before = Forecast(np.array([[0.6]]), np.array([[0.1]]), np.array([[[0.5, 1.0, 1.0]]]))
    forecast = before.answered(np.array([0.5]), Weights.of(quality=0.8, cost=0.2))
    assert forecast.utility == pytest.approx(np.array([[0.4]]))
    assert forecast.utility_sd == pytest.approx(np.array([[0.05]]))
    assert forecast.outcome is before.outcome


def test_probabilities_can_be_computed_again():
    """From the snapshot, the query and what is logged of the failures."""
    answered = np.array([1.0, 0.7, 0.9])
    first = policy().given(Availability(answered=answered)).decide(ASKED, "1", 0)
    assert first.pmf[1] < first.pmf[2] < first.pmf[0]
    logged = from_stored(to_stored(first), first.x.tobytes())
    again = policy().given(Availability(answered=logged.answered)).decide(ASKED, "1", 0)
    assert again.pmf.tolist() == logged.pmf.tolist() == first.pmf.tolist()


def test_a_challenger_chooses_among_the_same_arms():
    """And knows of the same failures."""
    both = policy().beside(policy(exploration="greedy"), 0.1)
    here = both.given(Availability({"b": "out"}, answered=np.array([0.5, 1.0, 1.0])))
    decision = here.decide(ASKED, "1", 0)
    assert decision.challenger_pmf is not None
    assert decision.challenger_pmf.argmax() == 1
    assert decision.arms == ("a", "c")


def test_a_callers_own_router_knows_better():
    """What it chose is what happened, whatever is known of health."""
    own = policy(model="caller")
    assert own.given(Availability(out={"a": "out"})) is own
    assert policy().available is EVERYTHING


def test_alone_an_arm_is_what_is_left():
    """Each other one is out, for its own reason where it has one."""
    only = Availability(out={"a": "out", "b": "spent"}, back_ms={"a": 5}).only("a", CATALOG)
    assert only.out == {"b": "spent", "c": "out"}

"""Policy.decide: the parts together, without any I/O."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints
from policy import policy as policies
from policy.arms.constraints import Constraints, NoEligibleArm
from policy.choosing import explore
from policy.choosing.bandit import Bandit
from policy.choosing.drawing import explored
from policy.config.schema import PolicyConfig
from policy.config.toml import parse
from policy.deciding import uniform_draw
from policy.policy import Policy, Request
from policy.records import OutcomeBatch, from_stored, packed, to_stored
from policy.values import models
from policy.values.protocol import Forecast
from tests.policy.one_query import forecast_one, rule_one

ARM = """
[[arms]]
id = "{name}"
provider = "p"
model = "m"
context_window_tokens = 8000
usd_per_mtok_in = {price}
usd_per_mtok_out = {price}
prices_checked = 2026-01-01
prices_source = "made up for tests"
{more}
"""
ENCODER = Encoder.default()


def make(arms: str, policy: str = "", *learned: OutcomeBatch) -> Policy:
    config = parse(arms + "\n[policies.default]\n" + policy, "test")
    wanted = config.policies["default"]
    model = models.new_model(wanted, ENCODER)
    for batch in learned if model is not None else ():
        model.learn(batch)
    view = None if model is None else model.view()
    return policies.build(
        "default", "1", 7, config=wanted, encoder=ENCODER, catalog=config.arms, view=view
    )


def arm(name: str, price: float = 1.0, more: str = "") -> str:
    return ARM.format(name=name, price=price, more=more)


ARMS = parse(arm("a") + arm("b") + "[policies.default]", "test").arms


def pure_code(n: int) -> NDArray[np.float32]:
    """(n, d) contexts of bias and the task type `code`."""
    x = np.zeros((n, ENCODER.d), dtype=np.float32)
    x[:, 0] = x[:, ENCODER.groups["task"].start] = 1.0
    return x


def taught(arm: str, quality: float, n: int) -> OutcomeBatch:
    """n outcomes of one arm for such contexts."""
    nothing = np.full(n, np.nan)
    return OutcomeBatch(
        arms=[arm] * n,
        x=pure_code(n),
        quality=np.full(n, quality),
        latency_ms=nothing,
        cost_usd=nothing,
        error=np.zeros(n, dtype=bool),
        settled=np.zeros((n, 3), dtype=bool),
        list_cost_usd=np.zeros(n),
        propensity=np.full(n, 0.5),
        catalogs=[ARMS] * n,
        eligible=[packed(ARMS.enabled)] * n,
    )


def share(policy: Policy, arm: str, task: str | None = None) -> float:
    decision = policy.decide(Request(hints=Hints(task_type=task)), "any", 0)
    return float(decision.pmf[decision.arms.index(arm)])


def test_equal_arms_share_evenly():
    """Before any outcome, arms of equal prices are alike."""
    policy = make(arm("a") + arm("b"))
    assert share(policy, "a") == pytest.approx(0.5, abs=1e-6)


def test_a_cheaper_arm_leads_before_any_outcome():
    """List prices are known from the start."""
    policy = make(arm("cheap", 0.1) + arm("dear", 100.0))
    assert share(policy, "cheap") > 0.5


def test_expected_quality_leads_where_it_is_expected():
    """`priors` of an arm move its prior for that task type, and for no other."""
    policy = make(arm("a", more="priors = { code = 0.95 }") + arm("b"))
    assert share(policy, "a", "code") > 0.7
    assert share(policy, "a", "translation") == pytest.approx(0.5, abs=0.1)


def quality_of_pure_code(policy: Policy) -> float:
    """What is predicted of the first arm where the context is bias and `code`, nothing else."""
    known = profile(None, Hints(task_type="code"))
    ruling = rule_one(
        policy.rule, pure_code(1)[0], np.array([0]), np.zeros(1), policy.weights, known
    )
    return float(ruling.outcome[0, 0])


def test_a_prior_is_what_an_untaught_arm_is_predicted_at():
    """For a query of that task type alone, the prediction is the prior itself."""
    policy = make(arm("a", more="priors = { code = 0.95 }"), "", taught("other", 0.5, 20))
    assert quality_of_pure_code(policy) == pytest.approx(0.95, abs=1e-5)


def test_outcomes_overrule_a_prior():
    """The more an arm has taught, the less its prior counts."""
    few, many = (
        make(arm("a", more="priors = { code = 0.9 }"), "", taught("a", 0.1, n)) for n in (2, 400)
    )
    assert 0.3 < quality_of_pure_code(few) < 0.9
    assert quality_of_pure_code(many) == pytest.approx(0.1, abs=0.02)


def test_the_scale_is_wide_where_nothing_is_known_and_falls_to_what_was_asked_for():
    """Two arms of gap 0.1 and spread 0.2: v = 1.2, 0.675 and 0.15, where all, half and nothing of
    the variance is left, and a twentieth is drawn from the posterior as it is."""
    mean, sd = np.array([0.6, 0.5]), np.array([0.2, 0.2])
    gap = 0.1 / math.hypot(0.2, 0.2)
    for unknown, scale in ((1.0, 1.2), (0.5, 0.675), (0.0, 0.15)):
        known = Forecast(mean, sd, np.zeros((2, 3)), sd, np.full(2, unknown))
        pmf, best = explored(PolicyConfig(), known)
        assert best is not None
        assert best[0] == pytest.approx(norm.cdf(gap), abs=1e-6)
        assert pmf[0] == pytest.approx(0.95 * norm.cdf(gap / scale) + 0.05 * best[0], abs=1e-6)


def test_of_many_arms_each_is_explored_less():
    """Of 36, four times as many as are few, unknown ones at half the scale."""
    mean, sd = np.append(0.7, np.full(35, 0.5)), np.full(36, 0.2)
    known = Forecast(mean, sd, np.zeros((36, 3)), sd, np.ones(36))
    pmf, best = explored(PolicyConfig(), known)
    assert best is not None
    narrower = explore.thompson(mean[None], 0.6 * sd[None])[0]
    assert pmf == pytest.approx(0.95 * narrower + 0.05 * best, abs=1e-6)


def test_what_is_unknown_falls_with_evidence_of_that_arm_and_query():
    """From 1, before the first outcome, towards 0; that of an arm nobody tried stays."""
    one = make(arm("a") + arm("b"), "", taught("a", 0.5, 50))
    assert isinstance(one.rule, Bandit)
    both, cost = np.arange(2), np.zeros(2)
    known = forecast_one(one.rule.values, pure_code(1)[0], both, cost, one.weights).unknown
    assert known is not None
    assert known[0] < 0.2
    assert known[1] == pytest.approx(1.0, abs=1e-6)


def test_an_arm_that_joins_late_is_capped():
    """At most new_arm_share together, floor aside, until it has been seen."""
    learned = taught("a", 0.2, 500)
    policy = make(arm("a") + arm("late"), "new_arm_share = 0.05\nfloor = 0.0", learned)
    assert share(policy, "late") == pytest.approx(0.05)


def test_arms_of_a_cold_start_are_not_capped():
    """All arms of a young policy are new: holding some of them back would only delay learning."""
    learned = taught("a", 0.2, 15)
    policy = make(arm("a") + arm("b"), "new_arm_share = 0.05", learned)
    assert share(policy, "b") > 0.5


def test_fixed_and_uniform():
    """A fixed policy gives everything but the floor to its arm; uniform means uniform."""
    fixed = make(arm("a") + arm("b"), 'model = "fixed"\narm = "b"')
    assert share(fixed, "b") == pytest.approx(0.99 + 0.005)
    uniform = make(arm("a") + arm("b") + arm("c"), 'model = "uniform"')
    assert share(uniform, "a") == pytest.approx(1 / 3)


def test_the_arm_is_drawn_with_its_propensity():
    """Over many decision ids each arm comes up as often as its pmf says; four standard errors."""
    policy = make(arm("a", 0.1) + arm("b", 4.0) + arm("c", 9.0))
    n = 4000
    decisions = [policy.decide(Request(hints=Hints()), f"d-{i}", 0) for i in range(n)]
    pmf = decisions[0].pmf
    for position, name in enumerate(decisions[0].arms):
        p = float(pmf[position])
        count = sum(d.arm == name for d in decisions)
        assert abs(count - n * p) < 4 * math.sqrt(n * p * (1 - p))
    assert all(d.propensity == pmf[d.arms.index(d.arm)] for d in decisions)


def test_a_decision_depends_on_its_id_alone():
    """The same id draws the same arm, in any process, under one policy."""
    policy = make(arm("a") + arm("b"))
    again = [policy.decide(Request(hints=Hints()), "same", t).arm for t in range(5)]
    assert len(set(again)) == 1
    assert uniform_draw("default", "same") != uniform_draw("other", "same")
    assert 0.0 <= uniform_draw("default", "same") < 1.0


def test_a_record_comes_back_bit_for_bit():
    """What is stored is what was decided."""
    policy = make(arm("a", 0.3) + arm("b", 0.7))
    made = policy.decide(Request(hints=Hints(task_type="code")), "id", 123)
    back = from_stored(to_stored(made), made.x.tobytes())
    for name in ("arm", "propensity", "confidence", "arms", "weights", "made_at_ms", "snapshot"):
        assert getattr(back, name) == getattr(made, name)
    for name in ("pmf", "predicted", "x"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))


SPEEDS = arm("slow", 0.1, "tokens_per_second = 10.0") + arm("quick", 4.0, "tokens_per_second = 1e4")


def asking(**constraints: object) -> Request:
    hints = Hints(task_type="code", output_tokens=100)
    return Request(hints=hints, constraints=Constraints.model_validate(constraints))


def arms_for(policy: Policy, **constraints: object) -> tuple[str, ...]:
    return policy.decide(asking(**constraints), "any", 0).arms


@pytest.mark.parametrize("model", ["linear", "nearest", "rules", "uniform"])
def test_the_pmf_is_over_the_action_set_after_predictions(model: str):
    """Before anything is learned the catalog tells: 100 tokens take 10 s or 10 ms."""
    policy = make(SPEEDS + arm("unknown", 9.0), f'model = "{model}"')
    assert arms_for(policy) == ("slow", "quick", "unknown")
    decision = policy.decide(asking(speed="fast"), "any", 0)
    assert decision.arms == ("quick", "unknown")
    assert decision.pmf.sum() == pytest.approx(1.0)
    assert decision.pmf.min() >= policy.config.floor / 2
    assert decision.predicted.shape == (2, 3)
    assert decision.propensity == decision.pmf[decision.arms.index(decision.arm)]


def test_what_was_learned_outweighs_what_the_catalog_says():
    """An arm that has answered slowly is out, however many tokens it is said to write."""
    slow = replace(taught("quick", 0.9, 50), latency_ms=np.full(50, 5_000.0))
    quick = replace(taught("slow", 0.2, 50), latency_ms=np.full(50, 200.0))
    policy = make(SPEEDS, "", slow, quick)
    assert arms_for(policy, max_latency_ms=1_000.0) == ("slow",)
    assert arms_for(policy, min_quality=0.6) == ("quick",)
    with pytest.raises(NoEligibleArm) as caught:
        policy.decide(asking(min_quality=0.6, max_latency_ms=1_000.0), "any", 0)
    reasons = dict(caught.value.excluded)
    assert re.fullmatch(r"predicted p90 latency [\d.]+ ms > 1000 ms", reasons["quick"])
    assert re.fullmatch(r"predicted quality 0\.\d+ < 0\.6", reasons["slow"])


def test_a_limit_that_every_arm_keeps_changes_nothing():
    """The same pmf as without it."""
    policy = make(SPEEDS)
    plain, limited = (
        policy.decide(asking(**c), "any", 0) for c in ({}, {"max_latency_ms": 60_000.0})
    )
    assert limited.pmf.tolist() == plain.pmf.tolist()
    assert limited.arm == plain.arm


def test_rules_choose_one_arm_and_the_floor_keeps_them_evaluable():
    """All but the floor goes to the arm that the rules choose."""
    policy = make(SPEEDS, 'model = "rules"\nrules.speed = "fast"')
    decision = policy.decide(asking(), "any", 0)
    assert share(policy, "quick") == pytest.approx(0.995)
    assert decision.confidence is not None
    assert 0.0 <= decision.confidence <= 1.0
    assert decision.predicted[:, 1] == pytest.approx([10_000.0, 10.0])


def test_a_requests_own_limits_narrow_the_rules():
    """They choose among what is left."""
    policy = make(SPEEDS, 'model = "rules"')
    cheapest = policy.decide(asking(), "any", 0)
    assert cheapest.arms[int(cheapest.pmf.argmax())] == "slow"
    assert arms_for(policy, speed="medium") == ("slow", "quick")
    assert arms_for(policy, speed="fast") == ("quick",)

"""Plans as actions: what they are expected to come to, which are candidates, and their draw."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from features.encoder import Encoder
from features.query import Hints
from policy import policy as policies
from policy.arms.constraints import Constraints
from policy.choosing.pacing import TAIL, Budget, Pace, Purse
from policy.config.problems import ConfigError
from policy.config.toml import parse, to_toml
from policy.objective import Scales
from policy.plans.expected import Arms, expect
from policy.plans.latencies import USUAL, Latencies, Spread
from policy.plans.plan import DRAWN, arms_of, kind_of, plan_id
from policy.policy import Policy, Request
from policy.records import from_stored, to_stored
from policy.values import models

ENCODER = Encoder.default()
SCALES = Scales(10_000.0, 0.01)
EXACT = Spread(np.zeros(1), np.zeros(1), 0.0)  # every call of an arm takes equally long


def make(policy: str = 'plans = { kinds = ["hedge", "race", "cascade", "fallback"] }') -> Policy:
    arms = "".join(
        f'[[arms]]\nid = "{name}"\nprovider = "{provider}"\nmodel = "m"\n'
        f"usd_per_mtok_in = {price}\nusd_per_mtok_out = {price}\n"
        f"priors = {{ code = {quality} }}\n"
        for name, provider, price, quality in (
            ("cheap", "p", 0.1, 0.6),
            ("strong", "q", 3.0, 0.8),
            ("other", "p", 0.5, 0.7),
        )
    )
    config = parse(f"{arms}\n[policies.default]\n{policy}", "test")
    wanted = config.policies["default"]
    model = models.new_model(wanted, ENCODER)
    view = None if model is None else model.view()
    return policies.build(
        "default", "1", 0, config=wanted, encoder=ENCODER, catalog=config.arms, view=view
    )


def ask(*plans: str, **constraints: object) -> Request:
    return Request(
        hints=Hints(task_type="code"),
        constraints=Constraints.model_validate(constraints),
        plans=plans,  # type: ignore[arg-type]
    )


def two(quality: tuple[float, float], latency_ms: tuple[float, float]) -> Arms:
    """Two arms of 0.001 and 0.004 USD a call."""
    return Arms(
        ("a", "b"),
        np.array(quality),
        np.log(latency_ms),
        np.array([0.001, 0.004]),
        [EXACT, EXACT],
        SCALES,
        1_500.0,
    )


def expected(kind: str, arms: Arms, level: float = 0.0, slope: float = 0.0) -> list[float]:
    at = np.array([0]), np.array([1]), np.array([level])
    found = expect(kind, *at, arms, slope)  # type: ignore[arg-type]
    return [*found.components[0], float(found.latency_ms[0]), float(found.cost_usd[0])]


def test_a_cascade_by_hand():
    """A judge that is right in 8 of 10 lets 0.8 * 0.5 good and 0.2 * 0.5 bad answers pass: half of
    the queries go on to b, of which 0.9 are good."""
    found = expected("cascade", two((0.5, 0.9), (1_000, 2_000)), 0.7)
    quality = 0.8 * 0.5 + 0.5 * 0.9
    assert found == pytest.approx(
        [quality, 0.5 * 0.1 + 0.5 * 0.3, 0.5 * 0.1 + 0.5 * 0.5, 2_000, 0.003]
    )


def test_a_hard_query_is_hard_for_the_second_too():
    """By the slope times what the first one's verdict of 0.2 falls short of 0.5."""
    arms = two((0.5, 0.9), (1_000, 2_000))
    worse = expected("cascade", arms, 0.7, slope=0.5)[0]
    assert worse == pytest.approx(0.8 * 0.5 + 0.5 * (0.9 - 0.5 * 0.3))


def test_a_race_by_hand():
    """The better of 0.5 and 0.9, when both are there, for the price of both; in either order."""
    found = [0.9 + 0.1 * 0.5, 0.2, 0.5, 2_000, 0.005]
    assert expected("race", two((0.5, 0.9), (1_000, 2_000))) == pytest.approx(found)
    assert expected("race", two((0.9, 0.5), (2_000, 1_000))) == pytest.approx(found)


def test_a_hedge_by_hand():
    """a answers within 1 s in 95 of 100 calls, else within 9 s; b takes 1 s and answers first
    then. So b is asked in 5 of 100 calls."""
    levels = np.array([0.0, 0.9499, 0.9501, 1.0])
    spread = Spread(np.log(np.array([1.0, 1.0, 9.0, 9.0])), levels, 1.0)
    arms = two((0.5, 0.9), (1_000, 1_000))
    arms = replace(arms, spreads=[spread, EXACT])
    at = np.array([0]), np.array([1]), np.array([0.9499])
    found = expect("hedge", *at, arms, 0.0)
    assert found.after_ms == pytest.approx([1_000])
    assert found.latency_ms == pytest.approx([0.95 * 1_000 + 0.05 * 2_000], rel=0.001)
    assert found.components[0, 0] == pytest.approx(0.95 * 0.5 + 0.05 * 0.9, abs=0.001)
    assert found.cost_usd == pytest.approx([0.001 + 0.05 * 0.004], rel=0.01)
    assert found.in_time == pytest.approx([0.95], abs=0.001)  # within 1.5 s


def test_an_id_tells_its_kind_and_arms():
    """Whatever an arm may be called, for none may hold a plan's signs."""
    for kind in DRAWN:
        action = plan_id(kind, ("vendor:a/b", "hedge:c"), 0.7)
        assert (kind_of(action), arms_of(action)) == (kind, ("vendor:a/b", "hedge:c"))
    assert (kind_of("hedge:c"), arms_of("hedge:c")) == (None, ("hedge:c",))


def test_the_tail_of_latencies_is_the_arms_own():
    """Of 1,000 calls 30 take 50 times as long: the 99th percentile says so, the median doesn't."""
    seen = Latencies()
    latency_ms = np.where(np.arange(1_000) % 33 == 0, 50_000.0, 1_000.0)
    seen.add(["a"] * 1_000, latency_ms)
    spread = seen.spreads()["a"]
    mean = np.log(latency_ms).mean()
    found = np.exp(mean + spread.at(np.array([0.5, 0.99])))
    assert found == pytest.approx([1_000, 50_000], rel=0.2)
    assert USUAL.at(0.5) == pytest.approx(0.0, abs=0.01)


def test_nobody_gets_a_plan_that_wasnt_asked_for():
    """Without `plans` in the request, and where the policy doesn't allow them, actions are arms."""
    for policy, request in ((make(), ask()), (make(""), ask(*DRAWN))):
        decision = policy.decide(request, "d", 0)
        assert decision.arms == ("cheap", "strong", "other")
        assert decision.plan is None


def test_plans_have_a_place_in_the_pmf():
    """At most two of each kind, behind the arms; each has at least its share of the floor."""
    decision = make().decide(ask(*DRAWN), "d", 0)
    kinds = Counter(kind_of(action) for action in decision.arms[3:])
    assert kinds == {"hedge": 2, "race": 2, "cascade": 2}
    assert len(decision.pmf) == len(decision.predicted) == len(decision.arms) == 9
    assert decision.pmf.sum() == pytest.approx(1.0, abs=1e-9)
    assert decision.pmf.min() >= 0.01 / 9
    assert decision.propensity == decision.pmf[decision.arms.index(decision.arm)]


def test_an_action_is_drawn_as_often_as_its_propensity_says():
    """Over 1,500 ids of the same query; plans and arms alike."""
    policy, request = make(), ask(*DRAWN)
    made = [policy.decide(request, f"id-{i}", 0) for i in range(1_500)]
    first = made[0]
    drawn = Counter(decision.arm for decision in made)
    observed = np.array([drawn[action] for action in first.arms])
    assert chisquare(observed, 1_500 * first.pmf).pvalue > 1e-4
    assert sum(drawn[action] for action in first.arms[3:]) > 180


def test_a_drawn_plan_says_what_to_do():
    """Steps with the first at 0 ms, in the decision's record as well."""
    policy = make()
    for i in range(200):
        decision = policy.decide(ask("cascade"), f"id-{i}", 0)
        if decision.plan is None:
            continue
        assert decision.plan.id == decision.arm
        first, second = decision.plan.steps
        assert first.begin() == {"at_ms": 0.0}
        assert second.begin() == {"quality_below": 0.7}
        assert decision.first_arm == first.arm
        again = from_stored(to_stored(decision), decision.x.tobytes())
        assert again.plan == decision.plan
        return
    raise AssertionError("no cascade was drawn")


def test_a_fallback_asks_other_providers_first():
    """By expected reward among equals; the arm is drawn as ever, and keeps its propensity."""
    policy = make()
    for i in range(50):
        with_plan = policy.decide(ask("fallback"), f"id-{i}", 0)
        alone = policy.decide(ask(), f"id-{i}", 0)
        assert (with_plan.arm, with_plan.propensity) == (alone.arm, alone.propensity)
        assert with_plan.plan is not None
        assert with_plan.plan.deadline_ms is None
        arms = with_plan.plan.arms
        expected_order = {
            "cheap": ("cheap", "strong", "other"),
            "other": ("other", "strong", "cheap"),
            "strong": ("strong", "other", "cheap"),
        }
        assert arms == expected_order[with_plan.arm]
        assert [step.begin() for step in with_plan.plan.steps[1:]] == [{"on_error": True}] * 2


def test_what_follows_a_plan_on_an_error_counts_towards_its_width():
    """A cascade of two arms with width 3 has one more."""
    policy = make()
    plans = [policy.decide(ask("fallback", "cascade"), f"i{i}", 0).plan for i in range(100)]
    cascades = [plan for plan in plans if plan is not None and plan.kind == "cascade"]
    assert cascades
    for plan in cascades:
        assert len(set(plan.arms)) == 3
        assert plan.steps[2].begin() == {"on_error": True}


def test_bounds_are_kept():
    """A plan that is expected to cost more than the ratio allows, or to miss a request's limit, is
    no candidate; the limit on latency is the plan's deadline."""
    cheap = 'plans = { kinds = ["race", "cascade"], max_cost_ratio = 1.0 }'
    decision = make(cheap).decide(ask("race", "cascade"), "d", 0)
    assert len(decision.arms) > 3
    strong = make().catalog.list_cost_usd(decision.prompt_tokens, decision.output_tokens, [1])
    assert decision.predicted[3:, 2].max() <= strong[0]
    policy = make()
    limited = policy.decide(ask(*DRAWN, max_cost_usd=0.0006), "d", 0)
    assert len(limited.arms) > 3
    assert limited.predicted[3:, 2].max() <= 0.0006
    late = [policy.decide(ask("race", max_latency_ms=12_000), f"{i}", 0).plan for i in range(60)]
    assert {plan.deadline_ms for plan in late if plan is not None} == {12_000}


def test_only_arms_with_a_challenger_that_knows_no_plans():
    """A challenger that can't value plans gives them no probability; one that can, some."""
    champion = make()
    for config, total in (('model = "uniform"', 0.0), ("floor = 0.02", None)):
        other = make(config)
        both = champion.beside(other, 0.2)
        decision = both.decide(ask(*DRAWN), "d", 0)
        assert decision.challenger_pmf is not None
        assert decision.challenger_pmf.sum() == pytest.approx(1.0)
        of_plans = float(decision.challenger_pmf[3:].sum())
        assert of_plans == 0.0 if total == 0.0 else of_plans > 0.0


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ('plans = { kinds = ["hegde"] }', "hegde"),
        ("plans = { width = 1 }", "width"),
        ("plans = { thresholds = [1.0] }", "thresholds"),
        ("plans = { thresholds = [0.7, 0.7] }", "must not repeat itself, got 0.7 twice"),
        ("plans = { max_cost_ratio = 0.5 }", "max_cost_ratio"),
        ("plans = { widht = 3 }", "width"),
        ('model = "uniform"\nplans = { kinds = ["race"] }', "expects nothing"),
        ('incumbent = "cheap"\nplans = { kinds = ["race"] }', "incumbent"),
    ],
)
def test_plans_that_make_no_sense_are_refused(policy: str, why: str):
    """In one line, when the file is read."""
    with pytest.raises(ConfigError, match=why) as refused:
        make(policy)
    assert len(refused.value.faults) == 1


def test_a_table_of_plans_is_read_back_as_it_was_written():
    """And is no part of a version: it acts at once."""
    config = parse(
        '[[arms]]\nid = "a"\nprovider = "p"\nmodel = "m"\nusd_per_mtok_in = 1\n'
        "usd_per_mtok_out = 1\n[policies.default.plans]\n"
        'kinds = ["cascade"]\nthresholds = [0.5, 0.8]\n',
        "test",
    )
    policy = config.policies["default"]
    assert policy.plans.thresholds == (0.5, 0.8)
    assert parse(to_toml(config), "again").policies["default"] == policy
    plain = policy.model_copy(update={"plans": type(policy.plans)()})
    assert policy.fingerprint("e") == plain.fingerprint("e")


def test_a_batch_decides_each_query_as_if_alone():
    """With and without plans, side by side, in their order."""
    policy = make()
    requests = [ask(), ask("race"), ask("fallback"), ask("cascade", "hedge"), ask()]
    asked = [(request, f"id-{i}") for i, request in enumerate(requests * 3)]
    together = policy.decide_all(asked, 0)
    for one, (request, decision_id) in zip(together, asked, strict=True):
        alone = policy.decide(request, decision_id, 0)
        assert to_stored(one) == to_stored(alone)  # type: ignore[arg-type]


def test_a_plan_is_within_what_a_budget_has_for_a_call():
    """As an arm is: a race of two costs more than the least that the plans do."""
    policy = make()
    costs = policy.decide(ask(*DRAWN), "d", 0).predicted[3:, 2]
    between = (costs.min() + costs.max()) / 2
    pace = Pace.of(Budget(usd=TAIL * between), Purse(), 0)
    assert pace.most_usd == pytest.approx(between)
    paced = replace(policy, pace=pace).decide(ask(*DRAWN), "d", 0)
    of_plans = [kind_of(action) is not None for action in paced.arms]
    assert any(of_plans)
    assert paced.predicted[of_plans, 2].max() <= between

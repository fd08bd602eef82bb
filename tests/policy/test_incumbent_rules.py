"""Rules as the incumbent: their choice for each query is what a policy is careful beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from features.encoder import Encoder
from features.lexicon import TASK_INDEX
from features.query import Hints
from policy import policy as policies
from policy.arms.catalog import Catalog
from policy.arms.constraints import Constraints
from policy.choosing.incumbent import LARGEST, START, Ledger, Standing
from policy.config.schema import ObjectiveConfig, PolicyConfig, RulesConfig
from policy.policy import Policy, Request
from policy.records import Decision, OutcomeBatch, packed
from policy.values import models
from tests.policy.test_catalog import arm

# The cheapest that is good enough: small for questions, strong for code.
ARMS = Catalog(
    (
        arm("small", usd_per_mtok_out=1.0, priors={"code": 0.4, "qa": 0.8}),
        arm("strong", usd_per_mtok_out=30.0, priors={"code": 0.9, "qa": 0.9}),
    )
)
CONFIG = PolicyConfig(
    incumbent="rules",
    rules=RulesConfig(min_quality=0.6),
    max_loss=0.1,
    objective=ObjectiveConfig(quality=1.0),
)
ENCODER = Encoder.default()
QA, CODE = TASK_INDEX["qa"], TASK_INDEX["code"]


def built(standing: Standing, config: PolicyConfig = CONFIG) -> Policy:
    return policies.build(
        "default",
        "1",
        1,
        config=config,
        encoder=ENCODER,
        catalog=ARMS,
        view=models.prior_view(config, ENCODER),
        standing=standing,
    )


def decide(policy: Policy, task: str, **constraints: Any) -> Decision:
    request = Request(hints=Hints(task_type=task), constraints=Constraints(**constraints))
    return policy.decide(request, "any", 0)


@pytest.mark.parametrize(("task", "pmf"), [("qa", [1.0, 0.0]), ("code", [0.0, 1.0])])
def test_a_new_policy_does_what_the_rules_say(task: str, pmf: list[float]):
    """As the policy of model "rules" would without its floor, and its decision tells the task."""
    decision = decide(built(START), task)
    assert decision.pmf.tolist() == pmf
    assert decision.task == task
    rules = PolicyConfig(model="rules", rules=CONFIG.rules, floor=0.0)
    assert decide(built(START, rules), task).pmf.tolist() == pmf


def test_rules_choose_among_what_a_request_allows():
    """Nothing is without an incumbent where any arm is left."""
    assert decide(built(START), "code", deny=["strong"]).pmf.tolist() == [1.0]


def test_what_was_earned_is_shared_with_the_rules_choice():
    """The rest of the draw is that arm's, for each task type."""
    held = built(Standing(earned=LARGEST + 1.0, variance=0.0, noise=0.1))
    free = built(Standing(earned=1_000.0, variance=0.0, noise=0.1))
    for task, other in (("qa", 1), ("code", 0)):
        assert 0.0 < decide(held, task).pmf[other] < decide(free, task).pmf[other]


def test_only_decisions_beside_rules_tell_their_task():
    """Others need not store it; a challenger's rules count too."""
    alone = built(START, PolicyConfig())
    assert decide(alone, "qa").task is None
    assert decide(alone.beside(built(START), 0.0), "qa").task == "qa"


def outcomes(arms: list[str], quality: list[float], asked: Any) -> OutcomeBatch:
    n = len(arms)
    nothing = np.full(n, np.nan)
    return OutcomeBatch(
        arms=arms,
        x=np.eye(2, dtype=np.float32)[np.zeros(n, dtype=np.intp)],
        quality=np.array(quality),
        latency_ms=nothing,
        cost_usd=nothing,
        error=np.zeros(n, dtype=bool),
        settled=np.zeros((n, 3), dtype=bool),
        list_cost_usd=np.zeros(n),
        propensity=np.full(n, 0.5),
        catalogs=[ARMS] * n,
        eligible=[packed(ARMS.enabled)] * n,
        asked=None if asked is None else np.array(asked),
    )


def standing(config: PolicyConfig, *batches: OutcomeBatch) -> Standing:
    ledger = Ledger.of(config, 2)
    assert ledger is not None
    for batch in batches:
        ledger.add(batch)
    return ledger.standing()


def test_the_ledger_counts_the_rules_choice_as_the_incumbent():
    """As a policy beside one arm counts, where each event's arm is or isn't that arm."""
    asked = [[QA, 10, 100], [CODE, 10, 100], [QA, 10, 100], [CODE, 10, 100]]
    beside_rules = outcomes(["small", "strong", "strong", "small"], [1.0, 0.5, 0.0, 1.0], asked)
    beside_small = outcomes(["small", "small", "strong", "strong"], [1.0, 0.5, 0.0, 1.0], None)
    one_arm = CONFIG.model_copy(update={"incumbent": "small", "rules": RulesConfig()})
    assert standing(CONFIG, beside_rules) == standing(one_arm, beside_small)
    own = outcomes(["small", "strong"], [1.0, 0.5], asked[:2])
    assert standing(CONFIG, own).earned == pytest.approx(0.1 * 1.5)


def test_what_does_not_tell_what_rules_choose_by_is_not_counted():
    """A whole batch without, or some of its events."""
    asked = [[QA, 10, 100], [QA, 10, 100]]
    known = outcomes(["small", "strong"], [1.0, 0.0], asked)
    unknown = outcomes(["strong"] * 2, [0.0, 0.0], None)
    mixed = outcomes(["small", "strong", "strong"], [1.0, 0.0, 0.0], [*asked, [-1, -1, -1]])
    expected = standing(CONFIG, known)
    assert standing(CONFIG, known, unknown) == expected
    assert standing(CONFIG, mixed) == expected


def test_rules_belong_to_the_version():
    """Other rules begin a ledger anew; without such an incumbent they would do nothing."""
    other = CONFIG.model_copy(update={"rules": RulesConfig(min_quality=0.7)})
    assert other.fingerprint("e") != CONFIG.fingerprint("e")
    assert PolicyConfig(incumbent="rules", arms=("small",)).incumbent == "rules"

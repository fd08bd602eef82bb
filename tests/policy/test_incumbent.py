"""Caution: what may be spent, and what the ledger counts."""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.encoder import Encoder
from features.query import Hints
from policy import policy as policies
from policy.arms.catalog import Catalog
from policy.arms.constraints import Constraints
from policy.choosing.incumbent import LARGEST, START, Caution, Ledger, Standing, Z, affordable
from policy.config.schema import ObjectiveConfig, PolicyConfig
from policy.objective import Weights
from policy.policy import Policy, Request
from policy.records import CorrectionBatch, OutcomeBatch, packed
from policy.values import models
from policy.values.protocol import Forecast
from tests.pointsman.sets import arm

ARMS = Catalog((arm("old", 1.0), arm("new", 1.0), arm("other", 1.0)))
CONFIG = PolicyConfig(
    incumbent="old", max_loss=0.1, under_way=4, objective=ObjectiveConfig(quality=1.0)
)
RICH = Standing(earned=1_000.0, variance=1.0, noise=0.1)
OWN = np.array([[True, False]])  # one query's incumbent among two arms
some = st.floats(0.0, 50.0)


def left(standing: Standing, loss: float, under_way: int, noise: float, share: float) -> float:
    wide = math.sqrt(standing.variance + share * under_way * noise)
    return standing.earned - LARGEST - Z * wide - share * under_way * loss


@given(
    earned=st.floats(-20.0, 200.0),
    variance=some,
    noise=st.floats(0.0, 4.0),
    loss=st.floats(-1.0, 1.0),
    under_way=st.integers(1, 1_000),
)
@example(earned=LARGEST, variance=0.0, noise=0.0, loss=0.0, under_way=1)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_more_is_spent_than_there_is_and_no_less(
    earned: float, variance: float, noise: float, loss: float, under_way: int
):
    """The share keeps the bound, and a larger one wouldn't; it is 0 where not even 0 keeps it."""
    standing = Standing(earned, variance, noise)
    share = affordable(standing, loss, under_way, noise)
    assert 0.0 <= share <= 1.0
    if left(standing, loss, under_way, noise, 0.0) < 0.0:
        assert share == 0.0
        return
    assert left(standing, loss, under_way, noise, share) >= -1e-6
    if share < 1.0:
        more = min(share + 1e-3, 1.0)
        assert left(standing, loss, under_way, noise, more) < 1e-9


def test_what_is_earned_buys_more():
    """The share grows with what was earned, and falls with doubt, loss and what is under way."""
    usual = Standing(earned=4.0, variance=0.5, noise=0.1)
    share = affordable(usual, 0.1, 32, 0.1)
    assert 0.0 < share < 1.0
    assert affordable(replace(usual, earned=5.0), 0.1, 32, 0.1) > share
    assert affordable(replace(usual, variance=1.0), 0.1, 32, 0.1) < share
    assert affordable(usual, 0.2, 32, 0.1) < share
    assert affordable(usual, 0.1, 64, 0.1) < share


def forecast(mean: list[float], sd: list[float] | None) -> Forecast:
    """Of one query."""
    spread = None if sd is None else np.array([sd])
    return Forecast(np.array([mean]), spread, np.full((1, len(mean), 3), np.nan))


def test_an_exploration_that_pays_for_sure_is_free():
    """What loses nothing even at the pessimistic end takes no more than its noise."""
    pmf = np.array([[0.1, 0.9]])
    standing = Standing(earned=6.0, variance=0.0, noise=0.01)
    caution = Caution(0, 0.01, 32, standing)
    assert caution.share(pmf, OWN, forecast([0.5, 0.9], [0.01, 0.01])) == 1.0
    assert caution.share(pmf, OWN, forecast([0.5, 0.9], [0.3, 0.3])) < 1.0


def test_an_arm_without_a_posterior_may_earn_nothing():
    """Where a model can't say how sure it is, the other arms are taken for the worst."""
    pmf = np.array([[0.5, 0.5]])
    caution = Caution(0, 0.01, 32, Standing(earned=4.0, variance=0.0, noise=0.01))
    unsure = caution.share(pmf, OWN, forecast([0.5, 0.9], None))
    assert unsure == caution.share(pmf, OWN, forecast([0.5, 0.0], [0.0, 0.0]))


def outcomes(arms: list[str], quality: Any, **given: Any) -> OutcomeBatch:
    n = len(arms)
    x = np.zeros((n, 2), dtype=np.float32)
    x[:, 0] = 1.0
    nothing = np.full(n, np.nan)
    columns: dict[str, Any] = {
        "arms": arms,
        "x": x,
        "quality": np.array(quality),
        "latency_ms": nothing,
        "cost_usd": nothing,
        "error": np.zeros(n, dtype=bool),
        "settled": np.zeros((n, 3), dtype=bool),
        "list_cost_usd": np.zeros(n),
        "propensity": np.full(n, 0.5),
        "catalogs": [ARMS] * n,
        "eligible": [packed(ARMS.enabled)] * n,
    }
    return OutcomeBatch(**columns | given)


def ledger(*batches: OutcomeBatch) -> Ledger:
    made = Ledger.of(CONFIG, 2)
    assert made is not None
    for batch in batches:
        made.add(batch)
    return made


def test_the_incumbent_earns_its_own_share():
    """Each outcome of its own leaves max_loss of it, known without error."""
    standing = ledger(outcomes(["old"] * 3, [1.0, 0.0, 0.5])).standing()
    assert standing.earned == pytest.approx(0.1 * 1.5)
    assert standing.variance == 0.0


def test_another_arm_is_measured_by_what_the_incumbent_is_expected_to_earn():
    """With many outcomes of the incumbent that is their mean, and the error that of one outcome of
    each decision, to what the prior and the regression's own doubt add."""
    n = 10_000
    known = outcomes(["old"] * n, [0.75, 0.25] * (n // 2))
    before = ledger(known).standing()
    after = ledger(known, outcomes(["new"] * 4, [1.0] * 4)).standing()
    assert after.earned - before.earned == pytest.approx(4 * (1.0 - 0.9 * 0.5), abs=1e-3)
    assert after.variance == pytest.approx(4 * 0.9**2 * 0.0625, rel=0.01)
    assert after.noise == pytest.approx(0.9**2 * 0.0625, rel=0.01)


@pytest.mark.parametrize(
    "given",
    [
        {"propensity": np.full(2, np.nan)},
        {"eligible": [packed(np.array([False, True, True]))] * 2},
        {"catalogs": [Catalog((arm("new", 1.0),))] * 2, "eligible": [packed(np.array([True]))] * 2},
        {"quality": np.full(2, np.nan)},
        {"settled": np.ones((2, 3), dtype=bool)},
    ],
    ids=["another arm executed", "not eligible", "not in the catalog", "no quality", "settled"],
)
def test_what_risked_nothing_is_not_counted(given: dict[str, Any]):
    """Neither what the policy didn't choose, nor what the incumbent couldn't have answered."""
    known = outcomes(["old"] * 4, [1.0] * 4)
    assert ledger(known, outcomes(["new"] * 2, **{"quality": np.zeros(2), **given})).standing() == (
        ledger(known).standing()
    )


def test_a_ledger_is_a_function_of_the_events_alone():
    """Wherever the stream is cut; and a checkpoint's text gives the same ledger back."""
    rng = np.random.default_rng(3)
    arms = rng.choice(["old", "new", "other"], 60).tolist()
    batch = outcomes(arms, rng.random(60).tolist())
    whole, cut = ledger(batch), ledger(*(batch.take(r) for r in np.split(np.arange(60), [7, 30])))
    assert astuple(whole.standing()) == pytest.approx(astuple(cut.standing()), abs=1e-9)
    again = ledger()
    again.restore(whole.to_record())
    assert again.standing() == whole.standing()
    assert again.to_record() == whole.to_record()
    with pytest.raises(ValueError, match="expected arrays"):
        Ledger(3, CONFIG).restore(whole.to_record())


def test_a_correction_leaves_what_the_truth_would_have():
    """The same sums as if the new values had come in the first place; none for what came before
    the ledger's first event."""
    arms = ["old", "new", "old", "new"]
    wrong, right = outcomes(arms, [1.0, 1.0, 0.5, 0.0]), outcomes(arms, [0.0, 0.5, 0.5, 0.0])
    rows = np.array([0, 1])
    since = np.array([[3, 3, 3], [2, 2, 2]])
    corrected = ledger(wrong)
    corrected.correct(CorrectionBatch(wrong.take(rows), right.take(rows), since))
    assert astuple(corrected.standing()) == pytest.approx(astuple(ledger(right).standing()))
    untouched = ledger(wrong)
    untouched.correct(CorrectionBatch(wrong.take(rows), right.take(rows), since + 4))
    assert untouched.standing() == ledger(wrong).standing()


ENCODER = Encoder.default()


def built(standing: Standing, **settings: Any) -> Policy:
    config = PolicyConfig(**{"incumbent": "old", "floor": 0.3, **settings})
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


def asked(policy: Policy, **constraints: Any) -> dict[str, float]:
    request = Request(hints=Hints(task_type="code"), constraints=Constraints(**constraints))
    decision = policy.decide(request, "any", 0)
    assert decision.propensity == decision.pmf[decision.arms.index(decision.arm)]
    return dict(zip(decision.arms, decision.pmf.tolist(), strict=True))


def test_a_new_policy_is_the_incumbent():
    """Nothing was earned, so nothing is spent, the floor least of all."""
    assert asked(built(START)) == {"old": 1.0, "new": 0.0, "other": 0.0}


def test_a_policy_that_has_earned_enough_is_free():
    """It decides as one without an incumbent does."""
    assert asked(built(RICH)) == asked(built(START, incumbent=None))


def test_the_pmf_is_a_mixture_of_both():
    """The rest of the draw is the incumbent's, exactly."""
    standing = Standing(earned=3.0, variance=0.0, noise=0.1)
    free, held = asked(built(RICH)), asked(built(standing))
    share = held["new"] / free["new"]
    assert 0.0 < share < 1.0
    assert held["other"] == pytest.approx(share * free["other"])
    assert held["old"] == pytest.approx(share * free["old"] + 1.0 - share)


@pytest.mark.parametrize("gone", [{"deny": ["old"]}, {"allow": ["new", "other"]}])
def test_without_the_incumbent_there_is_nothing_to_lose(gone: dict[str, list[str]]):
    """A request that rules it out is decided freely."""
    assert asked(built(START), **gone) == asked(built(START, incumbent=None), **gone)


def test_a_challengers_share_is_held_too():
    """What is logged as its share is the share that it had of the draw."""
    config = PolicyConfig(model="fixed", arm="other", floor=0.0)
    challenger = policies.build(
        "default", "2", 1, config=config, encoder=ENCODER, catalog=ARMS, view=None
    )
    request = Request(hints=Hints(task_type="code"))
    for standing in (START, Standing(earned=3.0, variance=0.0, noise=0.1), RICH):
        champion = built(standing, floor=0.0).beside(challenger, 0.4)
        decision = champion.decide(request, "any", 0)
        assert decision.challenger_pmf is not None
        rest = decision.pmf - decision.share * decision.challenger_pmf
        assert rest.min() >= -1e-12
        assert rest.sum() == pytest.approx(1.0 - decision.share)
        assert (decision.share == 0.0) == (standing is START)
    assert decision.share == 0.4


def test_own_weights_change_no_loss():
    """Caution is about the policy's objective, whatever a request values."""
    standing = Standing(earned=3.0, variance=0.0, noise=0.1)
    policy = built(standing)
    assert policy.caution is not None
    for own in (None, Weights.of(cost=1.0)):
        request = Request(hints=Hints(task_type="code"), weights=own)
        decision = policy.decide(request, "any", 0)
        free = replace(policy, caution=None).decide(request, "any", 0)
        index = np.arange(3)
        cost = ARMS.list_cost_usd(decision.prompt_tokens, decision.output_tokens, index)
        values = policy.rule.values.forecast(  # type: ignore[union-attr]
            decision.x[None], index, cost[None], policy.weights
        )
        old = np.array([[True, False, False]])
        share = policy.caution.share(free.pmf[None], old, values)
        held = policy.caution.held(free.pmf[None], old, share)
        np.testing.assert_allclose(decision.pmf, held[0])

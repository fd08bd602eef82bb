"""The hand-written router, decided on paper; and what a log makes of its figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.lexicon import TASK_INDEX, TASK_TYPES
from features.profile import Profile, profile
from features.query import Hints, Query
from policy.arms.catalog import Catalog
from policy.choosing.protocol import Ruling
from policy.choosing.rules import MANNERS, PSEUDO_COUNT, Calls, Fitted, Rules, fit
from policy.config.schema import RulesConfig
from policy.objective import Scales, Weights
from tests.policy.one_query import rule_one
from tests.policy.test_catalog import arm

# For 1,000 tokens out: small 10 s and 0.001 USD, quick 2 s and 0.002 USD, strong 20 s and 0.03 USD.
ARMS = Catalog(
    (
        arm(
            "small",
            usd_per_mtok_in=0.0,
            usd_per_mtok_out=1.0,
            tokens_per_second=100.0,
            priors={"code": 0.4, "qa": 0.8},
        ),
        arm(
            "quick",
            usd_per_mtok_in=0.0,
            usd_per_mtok_out=2.0,
            tokens_per_second=500.0,
            priors={"code": 0.6, "qa": 0.7},
        ),
        arm(
            "strong",
            usd_per_mtok_in=0.0,
            usd_per_mtok_out=30.0,
            tokens_per_second=50.0,
            priors={"code": 0.9, "qa": 0.9},
        ),
    )
)


def asked(task: str, output_tokens: int = 1000) -> Profile:
    return profile(None, Hints(task_type=task, output_tokens=output_tokens, context_tokens=0))


def ruling(known: Profile, catalog: Catalog = ARMS, **settings: Any) -> Ruling:
    index = np.arange(len(catalog))
    costs = catalog.list_cost_usd(known.prompt_tokens, known.output_tokens, index)
    rule = Rules(catalog, RulesConfig(**settings))
    return rule_one(rule, np.zeros(64, np.float32), index, costs, Weights.of(quality=1.0), known)


def choice(task: str, output_tokens: int = 1000, catalog: Catalog = ARMS, **settings: Any) -> str:
    pmf = ruling(asked(task, output_tokens), catalog, **settings).pmf
    assert sorted(pmf) == [0.0] * (len(pmf) - 1) + [1.0]
    return catalog.ids[int(pmf.argmax())]


def test_balanced_takes_the_cheapest_that_is_good_enough():
    """For code 0.4 is too little and 0.6 enough; for questions the cheapest will do."""
    assert choice("code", min_quality=0.5) == "quick"
    assert choice("qa", min_quality=0.5) == "small"
    assert choice("code", 100, min_quality=0.7) == "strong"


def test_a_task_type_may_have_a_threshold_of_its_own():
    """Instead of the general one, above or below it."""
    assert choice("qa", 100, min_quality=0.5, task_min_quality={"qa": 0.85}) == "strong"
    assert choice("code", min_quality=0.9, task_min_quality={"code": 0.3}) == "small"


def test_fast_takes_the_fastest_and_quality_the_best():
    """Whatever it costs, within the limits."""
    assert choice("qa", speed="fast") == "quick"
    assert choice("qa", speed="ultra_fast", output_tokens=400) == "quick"
    assert choice("qa", speed="quality") == "strong"


def test_a_cost_limit_leaves_out_the_dear():
    """The best that is affordable."""
    assert choice("code", speed="quality", max_cost_usd=0.01) == "quick"


def test_a_long_answer_takes_longer():
    """2,000 tokens take `small` 20 s, more than balanced waits; `quick` takes 4 s."""
    assert choice("qa", output_tokens=1000) == "small"
    assert choice("qa", output_tokens=2000) == "quick"


def test_what_comes_last_gives_way_first():
    """Nobody is better than 0.65 within 10 s at this length but for latency: balanced waits."""
    assert MANNERS["balanced"].concerns == ("cost", "quality", "latency")
    assert choice("code", 1000, min_quality=0.65) == "strong"
    # Nor affordable: quality gives way before cost, to the best that is affordable.
    assert choice("code", 1000, min_quality=0.65, max_cost_usd=0.01) == "quick"
    # Nobody is affordable: the cheapest.
    assert choice("code", 1000, min_quality=0.65, max_cost_usd=0.0) == "small"
    # In a hurry quality gives way before latency.
    assert choice("code", 1000, speed="fast", min_quality=0.95) == "quick"


def test_what_nobody_said_is_the_default():
    """Without priors all arms have `unknown_quality`, and without a speed none is the fastest."""
    plain = Catalog((arm("a", usd_per_mtok_out=2.0), arm("b", usd_per_mtok_out=1.0)))
    assert choice("code", catalog=plain) == "b"
    assert choice("code", catalog=plain, min_quality=0.9, speed="fast") == "b"
    told = Catalog((*plain.arms, arm("c", usd_per_mtok_out=5.0, tokens_per_second=1000.0)))
    assert choice("code", catalog=told, speed="fast") == "c"
    good = Catalog((*plain.arms, arm("d", usd_per_mtok_out=5.0, priors={"code": 0.8})))
    assert choice("code", catalog=good, min_quality=0.6) == "d"
    assert choice("code", catalog=good, min_quality=0.6, unknown_quality=0.7) == "b"


def test_confidence_is_the_probability_of_the_task_types_that_lead_to_the_same_arm():
    """Sure of `code`: all but the share of other types; where types don't matter: 1."""
    known = asked("code")
    best = ruling(known, min_quality=0.5).best
    assert best is not None
    assert best.sum() == pytest.approx(1.0)
    assert best[1] == pytest.approx(known.task_mix[TASK_INDEX["code"]])
    same = ruling(known, Catalog((arm("a"), arm("b")))).best
    assert same is not None
    assert same.tolist() == pytest.approx([1.0, 0.0])


def test_outcomes_are_what_the_catalog_says():
    """The priors over the task mix, tokens per second, list prices; NaN where nothing is said."""
    known = asked("qa")
    outcome = ruling(known).outcome
    assert outcome[:, 0] == pytest.approx([0.8, 0.7, 0.9], abs=0.03)
    assert outcome[:, 1] == pytest.approx([10_000.0, 2_000.0, 20_000.0])
    assert outcome[:, 2] == pytest.approx([0.001, 0.002, 0.03])
    assert np.isnan(ruling(known, Catalog((arm("a"),))).outcome[0, :2]).all()
    assert np.isnan(ruling(asked("translation")).outcome[:, 0]).all()


def test_a_prompt_is_read_a_hundred_times_as_fast_as_an_answer_is_written():
    """10,000 tokens of context cost the time of 100 tokens of answer."""
    query = profile(Query(text="x"), Hints(context_tokens=10_000, output_tokens=100))
    assert ARMS.expected(query, np.array([0]))[0, 1] == pytest.approx(2_000.0)


# Two arms in two task types. The cheap one is right on questions only, the dear one on both.
CODE, QA = TASK_INDEX["code"], TASK_INDEX["qa"]
LOG = Calls(
    task=np.array([CODE, CODE, QA, QA] * 10),
    arm=np.array([0, 1, 0, 1] * 10),
    quality=np.array([0.0, 1.0, 1.0, 1.0] * 10),
    latency_ms=np.full(40, np.nan),
    cost_usd=np.array([0.0, 0.01, 0.0, 0.01] * 10),
    propensity=np.full(40, 0.5),
    error=np.zeros(40, dtype=bool),
)
MOSTLY_QUALITY = Weights.of(quality=0.9, cost=0.1)


def fitted(
    weights: Weights = MOSTLY_QUALITY, pseudo_count: float = PSEUDO_COUNT, **changes: Any
) -> Fitted:
    """The rules' figures from LOG, but for these columns."""
    return fit(replace(LOG, **changes), 3, weights, Scales(1_000.0, 0.01), pseudo_count)


def test_expected_qualities_are_shrunk_to_the_arms_mean():
    """Ten outcomes of 0 and five of the arm's mean of 0.5 are (0 + 2.5) / 15; unseen arms: NaN."""
    priors = fitted().priors
    assert priors.shape == (3, len(TASK_TYPES))
    assert priors[0, CODE] == pytest.approx(2.5 / 15)
    assert priors[0, QA] == pytest.approx(12.5 / 15)
    assert priors[1] == pytest.approx(np.ones(len(TASK_TYPES)))
    assert priors[0, TASK_INDEX["chat"]] == pytest.approx(0.5)
    assert np.isnan(priors[2]).all()


def test_the_threshold_earns_the_most():
    """Dear for code and cheap for questions: 0.9 and, no longer shrunk, 1.0."""
    made = fitted(pseudo_count=0.01)
    assert 0.01 < made.rules.min_quality < 0.99
    assert made.mean_reward == pytest.approx((0.9 + 1.0) / 2, abs=0.01)
    # Where cost is all that counts no quality is worth a price; where quality is, nothing is saved.
    assert fitted(weights=Weights.of(cost=1.0)).rules.min_quality == 0.0
    costly = fitted(cost_usd=np.array([0.01, 0.0] * 20), weights=Weights.of(quality=1.0))
    assert costly.mean_reward == pytest.approx(1.0, abs=1e-9)


def test_a_fit_routes_as_it_was_judged():
    """Rules with these figures send code to the dear arm and questions to the cheap one."""
    made = fitted(pseudo_count=0.01)
    table = [dict(zip(TASK_TYPES, row.tolist(), strict=True)) for row in made.priors[:2]]
    catalog = Catalog(
        tuple(
            arm(name, usd_per_mtok_out=price, priors=priors)
            for name, price, priors in zip(("cheap", "dear"), (0.0, 9.0), table, strict=True)
        )
    )
    settings = made.rules.model_dump()
    assert choice("code", catalog=catalog, **settings) == "dear"
    assert choice("qa", catalog=catalog, **settings) == "cheap"


def test_calls_count_by_the_inverse_of_their_propensity():
    """A success drawn with 0.1 and a failure drawn with 0.9 mean 10 / (10 + 10/9) = 0.9."""
    made = fitted(
        task=np.array([CODE, CODE]),
        arm=np.array([0, 0]),
        quality=np.array([1.0, 0.0]),
        latency_ms=np.full(2, np.nan),
        cost_usd=np.zeros(2),
        propensity=np.array([0.1, 0.9]),
        error=np.zeros(2, dtype=bool),
        pseudo_count=0.0001,
    )
    assert made.priors[0, CODE] == pytest.approx(0.9)


def test_missing_outcomes_teach_no_quality():
    """They are left out, not counted as 0; where all are, it is an error."""
    some = np.where(np.arange(40) < 20, LOG.quality, np.nan)
    assert fitted(quality=some).priors[1] == pytest.approx(np.ones(len(TASK_TYPES)))
    with pytest.raises(ValueError, match="quality"):
        fitted(quality=np.full(40, np.nan))


@pytest.mark.parametrize("propensity", [0.0, 1.5, np.nan])
def test_a_fit_needs_propensities(propensity: float):
    """Without them nobody knows what was not tried."""
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        fitted(propensity=np.full(40, propensity))


def test_a_failed_call_counts_as_quality_0():
    """An arm that fails most of the time is no good arm, however good its other answers are."""
    failing = np.tile([True, False, False, False], 10)
    quality = np.where(failing, np.nan, LOG.quality)
    assert fitted(quality=quality, error=failing).priors[0, CODE] < 0.5
    assert fitted(quality=quality).priors[0, CODE] > 0.9

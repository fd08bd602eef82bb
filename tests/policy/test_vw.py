"""Vowpal Wabbit as a value model: what it expects of arms, by what they did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policy.arms.catalog import Catalog
from policy.objective import Weights
from policy.records import CorrectionBatch, packed
from tests.policy.one_query import forecast_one

pytest.importorskip("vowpal_wabbit_next", reason="no build of vowpal-wabbit-next here")

from policy.values.vw.model import VwModel
from policy.values.vw.regressors import CB_TYPES
from tests.policy.vw_model import (
    CATALOG,
    GROUPS,
    NAMES,
    QUALITY,
    SCALES,
    arm,
    bound,
    context,
    events,
    outcome,
    part,
    taught,
)


def test_what_was_never_taught_is_middling_and_unknown():
    """Before any event: quality 0.5, half the reference latency and the list cost in the utility,
    NaN in the outcomes."""
    forecast = forecast_one(
        bound(VwModel(GROUPS, SCALES)),
        context(1.0),
        np.arange(3),
        np.array([0.0, 0.005, 0.01]),
        Weights.of(1.0, 1.0, 2.0),
    )
    assert forecast.utility == pytest.approx([0.75, 0.5, 0.25])
    assert forecast.utility_sd is None
    assert np.isnan(forecast.outcome).all()


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_it_learns_which_arm_is_best(cb_type: str):
    """Three arms of quality 0.2, 0.5 and 0.8 are ranked as they are."""
    learned = outcome(taught(events(600), cb_type=cb_type), context(1.0))
    assert learned[:, 0].argsort().tolist() == [0, 1, 2]
    if cb_type == "mtr":
        assert learned[:, 0] == pytest.approx([0.2, 0.5, 0.8], abs=0.1)
        assert learned[:, 1] == pytest.approx(np.full(3, 500.0), rel=0.2)
        assert learned[:, 2] == pytest.approx(np.full(3, 0.005), rel=0.2)


@pytest.mark.parametrize("cb_type", ["mtr", "dr"])
def test_constant_outcomes_are_predicted_as_they_are(cb_type: str):
    """VW clips to the labels seen so far; an overshoot beyond the smallest would stay for ever."""
    batch = events(3_000)
    quality = np.array([0.3 if name == "a" else 0.95 for name in batch.arms])
    batch = replace(batch, quality=quality, latency_ms=np.full(3_000, 500.0))
    expected = outcome(taught(batch, cb_type=cb_type), context(1.0))
    assert expected[:, 0] == pytest.approx([0.3, 0.95, 0.95], abs=0.06)
    assert expected[:, 1] == pytest.approx([500.0] * 3, abs=80.0)


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_corrections_draw_towards_the_right_values(cb_type: str):
    """A fifth of the qualities was reported the wrong way round: each that is overruled teaches
    what is right beside what was wrong, and predictions come nearer to what the right ones teach.
    No correction counts as an outcome."""
    n = 1_000
    right = events(n)
    wrong = np.flatnonzero(np.arange(n) % 5 == 0)
    reported = right.quality.copy()
    reported[wrong] = 1.0 - reported[wrong]
    batch = replace(right, quality=reported)
    uncorrected, corrected = (taught(batch, cb_type=cb_type) for _ in range(2))
    alone = {name: np.full(len(wrong), np.nan) for name in ("latency_ms", "cost_usd")}
    since = np.repeat(n - 1 - wrong[:, None], 3, axis=1)
    old, new = (replace(some.take(wrong), **alone) for some in (batch, right))
    corrected.correct(CorrectionBatch(old, new, since))
    xs = [context(1.0, a, b) for a in (-0.3, 0.3) for b in (-0.3, 0.3)]
    aim = taught(right, cb_type=cb_type)

    def off(model: VwModel) -> float:
        gaps = [outcome(model, x)[:, 0] - outcome(aim, x)[:, 0] for x in xs]
        return float(np.sqrt(np.mean(np.square(gaps))))

    assert off(corrected) < off(uncorrected)
    assert corrected.events == n
    assert corrected.view().events.tolist() == aim.view().events.tolist()


def test_a_correction_of_what_was_never_learned_teaches_nothing():
    """Its event came before this model's first."""
    model = taught(events(20))
    before = model.to_parts()
    one = part(events(1, seed=5), 0, 1)
    model.correct(CorrectionBatch(one, one, np.full((1, 3), 20)))
    assert model.to_parts() == before


def test_an_arm_is_known_by_its_id_wherever_it_stands():
    """Predictions belong to arms, not to positions: another catalog order, the same forecast."""
    model = taught(events(300))
    turned = Catalog(CATALOG.arms[::-1])
    x = context(1.0, 0.3)
    np.testing.assert_allclose(outcome(model, x, turned)[::-1], outcome(model, x), atol=1e-6)


def test_a_new_arm_is_judged_by_its_traits():
    """One that nobody has drawn is expected to be more like its provider's other arms."""
    known = (arm("a", provider="good"), arm("b", provider="bad"), arm("c", provider="good"))
    batch = events(600)
    quality = np.array([0.2 if name == "b" else 0.8 for name in batch.arms])
    learned = taught(replace(batch, quality=quality, catalogs=[Catalog(known)] * 600))
    new = Catalog((*known, arm("good-new", provider="good"), arm("bad-new", provider="bad")))
    forecast = outcome(learned, context(1.0), new)
    assert forecast[3, 0] > forecast[4, 0] + 0.05
    assert bound(learned, new).joined[3:].tolist() == [600, 600]


def test_an_arm_whose_window_nobody_has_told_is_judged_by_the_rest():
    """An unknown trait is absent; the prediction is still a number, near that of an arm alike."""
    told, untold = arm("told"), arm("untold", context_window_tokens=None)
    forecast = outcome(taught(events(600)), context(1.0), Catalog((*CATALOG.arms, told, untold)))
    assert np.isfinite(forecast[:, 0]).all()
    assert forecast[4, 0] == pytest.approx(forecast[3, 0], abs=0.3)


def test_a_price_acts_at_once():
    """Cost is learned relative to the list cost: a list price that doubles is predicted at once."""
    batch = events(300)
    model = taught(replace(batch, cost_usd=batch.list_cost_usd))
    forecast = forecast_one(
        bound(model), context(1.0), np.arange(3), np.array([0.002, 0.005, 0.01]), QUALITY
    )
    assert forecast.outcome[:, 2] == pytest.approx([0.002, 0.005, 0.01], abs=1e-4)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_saturated_score_means_the_reference_or_more(scale: Any):
    """Beyond the references nothing is told apart: the reference, or a list cost above it."""
    batch = events(400)
    model = VwModel(GROUPS, replace(SCALES, scale=scale))
    model.learn(replace(batch, latency_ms=np.full(400, 9e9), cost_usd=np.full(400, 9e9)))
    forecast = forecast_one(bound(model), context(1.0), np.arange(3), np.full(3, 0.02), QUALITY)
    assert forecast.outcome[:, 1] == pytest.approx(np.full(3, 1_000.0), rel=0.1)
    assert forecast.outcome[:, 2] == pytest.approx(np.full(3, 0.02))


def test_missing_and_settled_components_are_not_learned():
    """An event teaches what it brings: here quality alone."""
    batch = events(50)
    settled = np.zeros((50, 3), dtype=bool)
    settled[:, 1] = True
    model = taught(replace(batch, cost_usd=np.full(50, np.nan), settled=settled))
    assert np.isnan(outcome(model, context(1.0))[:, 1:]).all()
    assert bound(model).events.sum() == 50


def test_an_arm_that_nobody_drew_counts_once():
    """Where a caller executed another arm there is no propensity: importance 1, and it may be one
    that wasn't eligible."""
    batch = events(60)
    executed = replace(
        batch,
        arms=["c"] * 60,
        propensity=np.full(60, np.nan),
        eligible=[packed(np.array([True, True, False]))] * 60,
        quality=np.full(60, 1.0),
    )
    sure = replace(executed, propensity=np.ones(60), eligible=[packed(np.ones(3, dtype=bool))] * 60)
    x = context(1.0)
    np.testing.assert_allclose(outcome(taught(executed), x), outcome(taught(sure), x), atol=1e-3)
    assert outcome(taught(executed), x)[2, 0] > 0.9


@pytest.mark.parametrize("place", [0, 2])
def test_the_logged_propensity_counts_wherever_the_arm_stands(place: int):
    """A rarer choice teaches more, for the first arm as for the last."""
    batch = replace(events(40), arms=[NAMES[place]] * 40, quality=np.arange(40) % 2.0)
    x = context(1.0)
    good_was_rare, bad_was_rare = (
        outcome(taught(replace(batch, propensity=np.where(batch.quality == of, 0.3, 0.9))), x)
        for of in (1.0, 0.0)
    )
    assert good_was_rare[place, 0] > bad_was_rare[place, 0] + 0.1


def test_an_expected_quality_fades_as_outcomes_arrive():
    """What an operator expects moves a new arm's quality, and hardly that of a known one."""
    expected = ({1: 0.9}, {}, {})
    x = context(1.0, 1.0)

    def moved(model: VwModel) -> float:
        args = (x, np.arange(3), np.full(3, 0.005), QUALITY)
        plain = forecast_one(bound(model), *args).utility
        return float((forecast_one(bound(model, expected=expected), *args).utility - plain)[0])

    assert moved(VwModel(GROUPS, SCALES)) == pytest.approx(0.4)
    assert 0.0 < moved(taught(events(600))) < 0.05


def test_a_start_counts_as_at_most_so_many_outcomes():
    """What was known before the first event is thinned evenly; live outcomes overrule it."""
    batch = events(300)
    model = VwModel(GROUPS, SCALES)
    model.start(batch, at_most=20.0)
    assert bound(model).events.tolist() == [20, 20, 20]
    assert outcome(model, context(1.0))[:, 0].argsort().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="before the first event"):
        model.start(batch, at_most=20.0)

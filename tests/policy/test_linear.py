"""The linear value model as a fold of its events: sums, by hand and however they are cut."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from policy.records import CorrectionBatch, OutcomeBatch
from policy.values.linear.model import LinearModel
from tests.policy.linear_model import (
    GROUPS,
    QUALITY,
    SCALES,
    all_of,
    context,
    events,
    one,
    part,
    taught,
    values,
)
from tests.policy.one_query import forecast_one

cuts = st.lists(st.integers(0, 300), max_size=6)


@settings(max_examples=25, deadline=None)
@given(cuts)
def test_batches_may_be_cut_anywhere(borders: list[int]):
    """state = fold(events): sums, variances and counts don't depend on the batches, to 1e-12."""
    batch = events(300, missing=0.3)
    whole = taught(batch, forgetting=0.99)
    edges = [0, *sorted(borders), 300]
    parts = [part(batch, a, b) for a, b in pairwise(edges)]
    pieces = taught(*parts, forgetting=0.99)
    assert (pieces.events, pieces.arms) == (300, whole.arms)
    for name, value in whole.sums().items():
        np.testing.assert_allclose(pieces.sums()[name], value, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(pieces._spread.arm, whole._spread.arm, rtol=1e-9)
    assert pieces._learned.joined.tolist() == whole._learned.joined.tolist()


def overruled(
    batch: OutcomeBatch, rows: NDArray[np.intp], learned: int, seed: int
) -> tuple[OutcomeBatch, CorrectionBatch]:
    """The batch with other values in these rows, and the correction from one to the other when
    `learned` of its events have been."""
    rng = np.random.default_rng(seed)
    chosen = np.isin(np.arange(len(batch)), rows)
    other = {
        name: np.where(chosen, getattr(batch, name) * rng.random(len(batch)), getattr(batch, name))
        for name in ("quality", "latency_ms", "cost_usd")
    }
    right = replace(batch, **other)
    since = np.repeat(learned - 1 - rows[:, None], 3, axis=1)
    return right, CorrectionBatch(batch.take(rows), right.take(rows), since)


@pytest.mark.parametrize("forgetting", [1.0, 0.998, 0.9])
@pytest.mark.parametrize("start", [0, 50])
def test_corrected_sums_are_those_of_the_right_values(forgetting: float, start: int):
    """To 1e-9, with forgetting and while arms join, whenever the corrections come, twice
    corrected ones among them: the age of an event is known exactly."""
    known = np.full(2_000, False)
    wrong = replace(events(2_000, k=6, seed=2, missing=0.3), error=known)
    order = np.argsort([arm in ("arm-4", "arm-5") for arm in wrong.arms], kind="stable")
    wrong = wrong.take(np.concatenate([order[:1_200], np.sort(order[1_200:])]))
    rows = np.random.default_rng(4).choice(1_500, 60, replace=False)
    once, first = overruled(wrong, rows, 1_500, seed=1)
    right, second = overruled(once, rows[:30], 2_000, seed=2)

    corrected, direct = (LinearModel(GROUPS, SCALES, forgetting) for _ in range(2))
    for model in (corrected, direct):
        if start:
            model.start(events(start, k=2, seed=9), at_most=10.0)
    corrected.learn(part(wrong, 0, 1_500))
    corrected.correct(first)
    corrected = LinearModel.from_parts(corrected.to_parts())
    corrected.learn(part(wrong, 1_500, 2_000))
    corrected.correct(second)
    direct.learn(right)
    for name, value in direct.sums().items():
        np.testing.assert_allclose(corrected.sums()[name], value, rtol=1e-9, atol=1e-9)


def test_a_correction_by_hand():
    """What is left of the weight of an event that two others followed, one arm and then two:
    0.9 * sqrt(0.9)."""
    model = taught(
        one("a", quality=1.0), one("a", latency_ms=1.0), one("b", quality=0.5), forgetting=0.9
    )
    was, now = one("a", quality=1.0), one("a", quality=0.2)
    model.correct(CorrectionBatch(was, now, np.array([[2, 0, 0]])))
    left = 0.9 * math.sqrt(0.9)
    assert model.sums()["xy"][0, 0, 0] == pytest.approx(0.2 * left)
    assert model.sums()["yy"][0, 0] == pytest.approx(0.04 * left)
    assert model.sums()["weight"][0, 0] == pytest.approx(left)


def test_after_a_correction_the_variances_are_learned_anew():
    """They go on from what the old values had made of them, and soon are as they would be."""
    wrong = events(2_000, seed=6)
    right, correction = overruled(wrong, np.arange(0, 2_000, 2), 2_000, seed=3)
    corrected, direct = taught(wrong), taught(right)
    corrected.correct(correction)
    assert abs(corrected._spread.noise[0] / direct._spread.noise[0] - 1.0) > 0.01
    for _ in range(5):
        for model in (corrected, direct):
            model._tune(len(model.arms))
    np.testing.assert_allclose(corrected._spread.noise, direct._spread.noise, rtol=1e-3)


def test_forgetting_counts_events_of_all_arms():
    """After as many further events as there are arms, anybody's, one weighs `forgetting`."""
    model = taught(
        one("a", quality=1.0), one("b", quality=0.0), one("b", quality=0.0), forgetting=0.9
    )
    assert model.sums()["weight"][:, 0] == pytest.approx([0.9, 1.0 + math.sqrt(0.9)])
    assert model.sums()["xx"][0, 0, 0, 0] == pytest.approx(0.9)


def test_an_arm_not_played_becomes_uncertain_again():
    """Its evidence fades while others are played."""
    model = taught(*[one("a", quality=0.5)] * 50, forgetting=0.99)
    before = forecast_one(values(model, "a"), context(1.0), all_of(1), np.zeros(1), QUALITY)
    for _ in range(600):
        model.learn(one("b", quality=0.5))
    # the same variances as before: only the evidence counts here
    model._spread = taught(*[one("a", quality=0.5)] * 50, forgetting=0.99)._spread
    after = forecast_one(values(model, "a"), context(1.0), all_of(1), np.zeros(1), QUALITY)
    assert before.utility_sd is not None
    assert after.utility_sd is not None
    assert after.utility_sd[0] > 2 * before.utility_sd[0]


def test_a_missing_component_touches_only_others():
    """Latency alone teaches latency and its log; quality and cost keep their sums."""
    model = taught(one("a", latency_ms=500.0))
    sums = model.sums()
    assert sums["weight"].tolist() == [[0.0, 1.0, 0.0]]
    assert sums["xy"][0, :, 0] == pytest.approx([0.0, 0.5, 0.0, math.log(501.0), 0.0])
    assert not sums["xx"][0, [0, 2]].any()


def test_an_event_without_any_component_only_ages_the_others():
    """It counts as an event and teaches nothing."""
    model = taught(one("a", quality=1.0), one("a"), forgetting=0.5)
    assert model.events == 2
    assert model.sums()["taught"].tolist() == [[1.0, 0.0, 0.0]]
    assert model.sums()["yy"][0, 0] == pytest.approx(0.5)


def test_parts_teach_as_much_as_the_whole():
    """Quality now and the rest later leave the same sums as all at once, forgetting aside."""
    batch, nothing = events(50), np.full(50, math.nan)
    rest = replace(batch, quality=nothing)
    parts = taught(replace(batch, latency_ms=nothing, cost_usd=nothing), rest).sums()
    for name in ("xx", "xy", "yy"):
        np.testing.assert_allclose(parts[name], taught(batch).sums()[name], rtol=1e-9)


def test_an_error_teaches_the_worst():
    """Quality 0, the reference latency, and no cost where the list said 0.004 of 0.01 USD."""
    sums = taught(one("a", error=1.0, list_cost_usd=0.004)).sums()
    assert sums["xy"][0, :, 0] == pytest.approx([0.0, 1.0, -0.4, math.log(1_001.0), 0.0])
    assert sums["weight"].tolist() == [[1.0, 1.0, 1.0]]


def test_an_error_keeps_what_was_reported_with_it():
    """A latency that came with the error is the latency."""
    sums = taught(one("a", error=1.0, latency_ms=250.0)).sums()
    assert sums["xy"][0, 1, 0] == pytest.approx(0.25)


def test_what_was_settled_is_not_taught_again():
    """An error after the quality leaves the quality as it was."""
    sums = taught(one("a", error=1.0, settled_0=1.0)).sums()
    assert sums["weight"].tolist() == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_context_that_is_not_finite_stops_learning(bad: float):
    """Loudly: it would spoil the sums for ever."""
    with pytest.raises(ValueError, match="finite"):
        taught(one("a", (1.0, bad), quality=0.5))


def test_a_context_of_another_length_is_refused():
    """An encoder that changed must not be learned from."""
    batch = events(3)
    with pytest.raises(ValueError, match="shape"):
        taught(replace(batch, x=batch.x[:, :-1]))


@pytest.mark.parametrize("forgetting", [0.0, -1.0, 1.1, math.nan])
def test_forgetting_has_a_range(forgetting: float):
    """Nothing is remembered at 0, and nothing grows."""
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        LinearModel(GROUPS, SCALES, forgetting)

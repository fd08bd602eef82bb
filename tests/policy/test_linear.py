"""The linear value model: against dense algebra, by hand, and as a fold of its events."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from policy.objective import Scales, Weights
from policy.records import CorrectionBatch, OutcomeBatch
from policy.values.linear import model as linear
from policy.values.linear import pooling
from policy.values.linear.model import LinearModel
from policy.values.linear.view import LinearValues, LinearView

GROUPS = {"bias": slice(0, 1), "hints": slice(1, 5), "text": slice(5, 8)}
D = 8
SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
QUALITY = Weights.of(quality=1.0)
MIXED = Weights.of(quality=0.7, latency=0.2, cost=0.1)


def unseen(n: int) -> dict[str, Any]:
    """What this model doesn't look at: how the arms were drawn, and from which."""
    return {"propensity": np.full(n, np.nan), "catalogs": [None] * n, "eligible": [b""] * n}


def events(n: int, k: int = 3, seed: int = 0, missing: float = 0.0) -> OutcomeBatch:
    """n outcomes of k arms that differ, some components missing, some errors."""
    rng = np.random.default_rng(seed)
    arms = rng.integers(k, size=n)
    x = (rng.standard_normal((n, D)) / 3).astype(np.float32)
    x[:, 0] = 1.0

    def some(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(rng.random(n) < missing, np.nan, values)

    return OutcomeBatch(
        arms=[f"arm-{a}" for a in arms],
        x=x,
        quality=some(np.clip(0.3 + 0.1 * arms + 0.2 * rng.standard_normal(n), 0.0, 1.0)),
        latency_ms=some(rng.lognormal(6.0, 0.4, n)),
        cost_usd=some(rng.lognormal(-6.0, 0.4, n)),
        error=rng.random(n) < 0.1 * missing,
        settled=rng.random((n, 3)) < 0.1 * missing,
        list_cost_usd=rng.lognormal(-6.0, 0.4, n),
        **unseen(n),
    )


def one(arm: str = "a", x: Sequence[float] = (1.0,), **known: float) -> OutcomeBatch:
    """One outcome event; what isn't given is missing."""
    context = np.zeros((1, D), dtype=np.float32)
    context[0, : len(x)] = x

    def column(name: str, default: float = math.nan) -> NDArray[np.float64]:
        return np.array([known.get(name, default)])

    return OutcomeBatch(
        arms=[arm],
        x=context,
        quality=column("quality"),
        latency_ms=column("latency_ms"),
        cost_usd=column("cost_usd"),
        error=np.array([bool(known.get("error"))]),
        settled=np.array([[bool(known.get(f"settled_{c}")) for c in range(3)]]),
        list_cost_usd=column("list_cost_usd", 0.0),
        **unseen(1),
    )


def part(batch: OutcomeBatch, at: int, to: int) -> OutcomeBatch:
    return OutcomeBatch(**{n: getattr(batch, n)[at:to] for n in OutcomeBatch.__slots__})


def taught(*batches: OutcomeBatch, forgetting: float = 1.0) -> LinearModel:
    model = LinearModel(GROUPS, SCALES, forgetting)
    for batch in batches:
        model.learn(batch)
    return model


def values(model: LinearModel, *arms: str) -> LinearValues:
    return model.view().bind(arms or model.arms)


def all_of(k: int) -> NDArray[np.intp]:
    return np.arange(k)


def context(*x: float) -> NDArray[np.float32]:
    made = np.zeros(D, dtype=np.float32)
    made[: len(x)] = x
    return made


def test_the_posterior_is_that_of_the_joint_gaussian():
    """θ_a = m + δ_a with Gaussian m and δ: the same means as one dense solve over all of them."""
    batch = events(7, k=2)  # fewer than the variances are learned from
    model = taught(batch)
    guess = pooling.guess(tuple(GROUPS))
    group = np.repeat([0, 1, 2], [1, 4, 3])
    prior = np.concatenate([guess.pooled[0, group], guess.arm[0, group], guess.arm[0, group]])
    rows = np.zeros((7, 3 * D))
    for i, arm in enumerate(batch.arms):
        at = D * (1 + model.arms.index(arm))
        rows[i, :D] = rows[i, at : at + D] = batch.x[i]
    precision = np.diag(1.0 / prior) + rows.T @ rows / guess.noise[0]
    centred = batch.quality - 0.5
    joint = np.linalg.solve(precision, rows.T @ centred / guess.noise[0])
    joint[0] += 0.5
    view = model.view()
    for i in range(2):
        expected = joint[:D] + joint[D * (1 + i) : D * (2 + i)]
        assert view.mean[i, 0] == pytest.approx(expected, abs=1e-5)
    assert view.fresh_mean[0] == pytest.approx(joint[:D], abs=1e-5)


def test_the_spread_is_that_of_one_regression_given_the_shared_mean():
    """V = σ² (X'X + σ² T^-1)^-1, against dense algebra."""
    batch = events(7, k=1)
    guess = pooling.guess(tuple(GROUPS))
    group = np.repeat([0, 1, 2], [1, 4, 3])
    x = batch.x.astype(np.float64)
    precision = x.T @ x / guess.noise[0] + np.diag(1.0 / guess.arm[0, group])
    query = context(1.0, 0.4, -0.3, 0.2)
    forecast = values(taught(batch)).forecast(query, all_of(1), np.zeros(1), QUALITY)
    expected = math.sqrt(query @ np.linalg.solve(precision, query.astype(np.float64)))
    assert forecast.utility_sd == pytest.approx([expected], rel=1e-5)


def test_many_outcomes_give_the_mean_of_each_arm():
    """With much data the prior no longer counts."""
    rng = np.random.default_rng(3)
    n = 4_000
    batch = events(n, seed=3)
    quality = np.array([0.3, 0.5, 0.9])[[int(arm[-1]) for arm in batch.arms]]
    noisy = np.clip(quality + 0.1 * rng.standard_normal(n), 0.0, 1.0)
    x = np.zeros((n, D), dtype=np.float32)
    x[:, 0] = 1.0
    model = taught(replace(batch, x=x, quality=noisy))
    forecast = values(model, "arm-0", "arm-1", "arm-2").forecast(
        context(1.0), all_of(3), np.zeros(3), QUALITY
    )
    assert forecast.utility_sd is not None
    observed = [noisy[[arm == f"arm-{a}" for arm in batch.arms]].mean() for a in range(3)]
    assert (np.abs(forecast.utility - observed) < 0.5 * forecast.utility_sd).all()
    assert forecast.utility_sd == pytest.approx(np.full(3, 0.1 / math.sqrt(n / 3)), rel=0.15)


def test_noise_and_spreads_are_learned():
    """On outcomes drawn from the model itself the variances come out: the noise within four
    standard errors, an arm's within a quarter, for the guess is still a fifth of it."""
    rng = np.random.default_rng(5)
    k, n = 40, 20_000
    coefficients = rng.standard_normal((k, D)) * np.sqrt(np.repeat([0.01, 0.04, 0.001], [1, 4, 3]))
    batch = events(n, k, seed=5)
    arms = np.array([int(arm[4:]) for arm in batch.arms])
    mean = 0.5 + (coefficients[arms] * batch.x).sum(axis=1)
    quality = mean + 0.1 * rng.standard_normal(n)
    model = taught(replace(batch, quality=quality))
    spread = model._spread
    drawn = coefficients.var(axis=0)
    true = [drawn[:1].mean(), drawn[1:5].mean(), drawn[5:].mean()]
    assert spread.noise[0] == pytest.approx(0.01, rel=4 * math.sqrt(2 / n))
    assert spread.arm[0] == pytest.approx(true, rel=0.25)


def test_guesses_follow_the_noise():
    """Where outcomes scatter a tenth as much, arms are guessed to differ a tenth as much."""
    wide, narrow = (pooling.guess(tuple(GROUPS), np.full(5, noise)) for noise in (0.1, 0.01))
    np.testing.assert_allclose(wide.arm, 10 * narrow.arm)
    assert wide.pooled[0, 0] == narrow.pooled[0, 0]  # of the bias: an open question either way


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
    corrected = LinearModel.from_bytes(corrected.to_bytes())
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
            model._tune()
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
    before = values(model, "a").forecast(context(1.0), all_of(1), np.zeros(1), QUALITY)
    for _ in range(600):
        model.learn(one("b", quality=0.5))
    # the same variances as before: only the evidence counts here
    model._spread = taught(*[one("a", quality=0.5)] * 50, forgetting=0.99)._spread
    after = values(model, "a").forecast(context(1.0), all_of(1), np.zeros(1), QUALITY)
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


def test_a_new_arm_starts_from_what_the_others_share():
    """Where every arm is good at something, so is one never seen; but less surely."""
    good = [one(arm, (1.0, 1.0), quality=0.95) for arm in "abcdef"] * 20
    bad = [one(arm, (1.0, -1.0), quality=0.15) for arm in "abcdef"] * 20
    bound = values(taught(*good, *bad), "a", "new")
    at_good, at_bad = (
        bound.forecast(context(1.0, x), all_of(2), np.zeros(2), QUALITY) for x in (1.0, -1.0)
    )
    assert at_good.utility[1] > 0.8
    assert at_bad.utility[1] < 0.3
    assert at_good.utility_sd is not None
    assert at_good.utility_sd[1] > 2 * at_good.utility_sd[0]
    assert bound.events.tolist() == [40, 0]
    assert bound.joined.tolist() == [0, 240]


def test_a_price_acts_at_once():
    """An arm that costs twice its list price goes on to, at a new list price."""
    batches = [one("a", cost_usd=0.002, list_cost_usd=0.001, quality=0.5)] * 200
    bound = values(taught(*batches), "a")
    for list_cost_usd in (0.001, 0.003):
        forecast = bound.forecast(context(1.0), all_of(1), np.array([list_cost_usd]), MIXED)
        assert forecast.outcome[0, 2] == pytest.approx(2 * list_cost_usd, rel=0.1)


def test_a_free_arm_stays_free():
    """A list price of 0 and a cost of 0 predict a cost of 0."""
    bound = values(taught(*[one("a", cost_usd=0.0)] * 50), "a")
    forecast = bound.forecast(context(1.0), all_of(1), np.zeros(1), QUALITY)
    assert forecast.outcome[0, 2] == pytest.approx(0.0, abs=1e-6)


def test_predicted_latency_is_about_the_observed_mean():
    """Log-normal latencies of median 400 and mean 442 ms; within four standard errors of 4%."""
    rng = np.random.default_rng(7)
    slow = rng.lognormal(math.log(400.0), 0.45, 400).tolist()
    bound = values(taught(*[one("a", latency_ms=latency) for latency in slow]), "a")
    forecast = bound.forecast(context(1.0), all_of(1), np.zeros(1), QUALITY)
    assert forecast.outcome[0, 1] == pytest.approx(np.mean(slow), rel=0.16)


def test_what_nobody_taught_is_unknown():
    """NaN, never a guess in milliseconds."""
    bound = values(taught(one("a", quality=0.5)), "a")
    outcome = bound.forecast(context(1.0), all_of(1), np.zeros(1), QUALITY).outcome
    assert np.isnan(outcome[0]).tolist() == [False, True, True]


def test_before_any_event_there_is_a_forecast():
    """All arms alike, but for their list cost."""
    bound = LinearModel(GROUPS, SCALES).view().bind(["a", "b"])
    weights = Weights.of(quality=0.5, cost=0.5)
    forecast = bound.forecast(context(1.0), all_of(2), np.array([0.0, 0.01]), weights)
    assert forecast.utility == pytest.approx([0.75, 0.25], abs=1e-6)
    assert np.isnan(forecast.outcome).all()


@pytest.mark.parametrize("weights", [QUALITY, MIXED, Weights.of(latency=1.0)])
def test_usual_weights_are_only_faster(weights: Weights):
    """The same forecast with and without them."""
    view = taught(events(500)).view()
    x = events(1, seed=9).x[0]
    costs = np.full(3, 0.002)
    plain = view.bind(view.arms).forecast(x, all_of(3), costs, weights)
    fast = view.bind(view.arms, usual=weights).forecast(x, all_of(3), costs, weights)
    assert fast.utility.tolist() == plain.utility.tolist()
    assert fast.utility_sd == pytest.approx(plain.utility_sd, rel=1e-6)


def test_utility_is_the_reward_of_the_mean_and_spreads_add_by_squared_weight():
    """sd² = Σ w² sd_c² over independent components."""
    bound = values(taught(events(500)))
    x, costs = events(1, seed=9).x[0], np.full(3, 0.002)
    alone = [
        bound.forecast(x, all_of(3), costs, Weights.of(**{name: 1.0}))
        for name in ("quality", "latency", "cost")
    ]
    mixed = bound.forecast(x, all_of(3), costs, MIXED)
    w = np.array(MIXED.as_tuple())
    assert mixed.utility == pytest.approx(sum(a * f.utility for a, f in zip(w, alone, strict=True)))
    assert mixed.utility_sd is not None
    variances = [np.square(f.utility_sd) for f in alone if f.utility_sd is not None]
    assert np.square(mixed.utility_sd) == pytest.approx(w**2 @ variances, rel=1e-5)


def test_an_action_set_is_a_part_of_the_catalog():
    """Arms that aren't eligible change nothing for those that are."""
    bound = values(taught(events(300)))
    x, costs = events(1, seed=9).x[0], np.array([0.001, 0.002, 0.003])
    everyone = bound.forecast(x, all_of(3), costs, MIXED)
    some = bound.forecast(x, np.array([2, 0]), costs[[2, 0]], MIXED)
    assert some.utility.tolist() == everyone.utility[[2, 0]].tolist()
    assert some.outcome.tolist() == everyone.outcome[[2, 0]].tolist()


def test_forecasts_are_calibrated():
    """Where outcomes come from the model's own kind, z scores of the truth have a spread near 1;
    four standard errors of a standard deviation over 300 correlated predictions."""
    rng = np.random.default_rng(8)
    k, n = 10, 600
    truth = rng.standard_normal((k, D)) * np.sqrt(np.repeat([0.01, 0.02, 0.005], [1, 4, 3]))
    batch = events(n, k, seed=8)
    arms = np.array([int(arm[4:]) for arm in batch.arms])
    quality = 0.5 + (truth[arms] * batch.x).sum(axis=1) + 0.2 * rng.standard_normal(n)
    learned = replace(batch, quality=quality)
    bound = values(taught(learned), *(f"arm-{a}" for a in range(k)))
    z = []
    for x in events(30, seed=80).x:
        forecast = bound.forecast(x, all_of(k), np.zeros(k), QUALITY)
        assert forecast.utility_sd is not None
        z += ((0.5 + truth @ x - forecast.utility) / forecast.utility_sd).tolist()
    assert np.std(z) == pytest.approx(1.0, abs=0.35)


def test_model_bytes_round_trip():
    """Bit for bit, and learning goes on as if nothing had happened, to 1e-12."""
    model = taught(events(200, missing=0.2), forgetting=0.999)
    again = LinearModel.from_bytes(model.to_bytes())
    assert again.to_bytes() == model.to_bytes()
    for each in (model, again):
        each.learn(events(200, seed=1))
    for name, value in model.sums().items():
        np.testing.assert_allclose(again.sums()[name], value, rtol=1e-12, atol=1e-12)


def test_view_bytes_round_trip():
    """The same forecast on the other side."""
    view = taught(events(200)).view()
    again = LinearView.from_bytes(view.to_bytes())
    assert again.to_bytes() == view.to_bytes()
    x, costs = events(1, seed=9).x[0], np.full(3, 0.002)
    one_side, other_side = (
        v.bind(v.arms).forecast(x, all_of(3), costs, MIXED) for v in (view, again)
    )
    assert one_side.utility.tolist() == other_side.utility.tolist()


def test_nothing_learned_round_trips():
    """A model and a view without arms."""
    model = LinearModel(GROUPS, SCALES)
    assert LinearModel.from_bytes(model.to_bytes()).to_bytes() == model.to_bytes()
    view = model.view()
    assert LinearView.from_bytes(view.to_bytes()).to_bytes() == view.to_bytes()


def altered(body: bytes, **changes: object) -> bytes:
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length]) | changes
    head = json.dumps(header).encode()
    return struct.pack("<I", len(head)) + head + body[4 + length :]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda body: b"",
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: b"\xff" * len(body),
        lambda body: altered(body, arms=["a"]),
        lambda body: altered(body, arrays={}),
        lambda body: altered(body, arrays={"xx": ["|O", [3]]}),
        lambda body: altered(body, arrays={"xx": ["<f8", [10**12]]}),
        lambda body: altered(body, arrays={"xx": ["<f8", [-1]]}),
        lambda body: altered(body, sizes={"bias": 10**9}, scales={}),
        lambda body: body[:-8] + struct.pack("<d", math.nan),
    ],
)
def test_damaged_bytes_are_refused(wrong):
    """With a ValueError, whatever they are, and without allocating what they claim."""
    model = taught(events(50))
    for body, read in (
        (model.to_bytes(), LinearModel.from_bytes),
        (model.view().to_bytes(), LinearView.from_bytes),
    ):
        with pytest.raises(ValueError, match=r"."):
            read(wrong(body))


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


def test_variances_are_learned_ever_more_rarely():
    """Early often, later each TUNE_EVERY events at most: by the count alone."""
    due = [linear._next_tuning(0)]
    while due[-1] < 200_000:
        due.append(linear._next_tuning(due[-1]))
    gaps = np.diff(due)
    assert due[0] == linear.TUNE_FIRST
    assert (gaps > 0).all()
    assert gaps.max() == linear.TUNE_EVERY
    assert all(linear._next_tuning(n - 1) == n for n in due)

"""Policies run over a log: frozen, learning by rejection, learning with doubly robust terms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from offline_eval.estimating import replay, reward_models, target
from offline_eval.estimating.intervals import student_t
from offline_eval.estimating.replay import Acceptance, Candidate, Replay, Vector
from offline_eval.log.data import LoggedData
from policy.config.toml import parse
from policy.objective import PRESETS
from policy.records import OutcomeBatch, packed
from policy.values import models
from tests.offline_eval.simulated import SCALES, logged
from tests.policy.test_policy import ENCODER, arm

UNIFORM = (1 / 3, 1 / 3, 1 / 3)
QUALITY = np.array([[0.8, 0.2, 0.4], [0.1, 0.7, 0.4]])  # of each arm, in two kinds of context
NOISE = 0.1
EVERY, LENGTH, RUNS = 40, 200, 30


def candidate(settings: str = "objective = { quality = 1.0 }") -> Candidate:
    config = parse(f"{arm('a')}{arm('b')}{arm('c')}[policies.default]\n{settings}", "test")
    return Candidate.of("new", config.policies["default"], config.arms)


LEARNS = candidate()


def contexts(kind: Vector) -> Vector:
    """Of bias and one of two task types."""
    x = np.zeros((len(kind), ENCODER.d), dtype=np.float32)
    x[:, 0] = 1.0
    x[np.arange(len(kind)), ENCODER.groups["task"].start + kind] = 1.0
    return x


def world(n: int, seed: int, pmf: tuple[float, ...] = UNIFORM) -> LoggedData:
    """A log of arms drawn from `pmf`, their quality depending on the kind of context."""
    data = logged(n, seed=seed, champion=pmf, challenger=pmf, share=0.0)
    rng = np.random.default_rng([seed, 1])
    kind = rng.integers(0, 2, n)
    quality = QUALITY[kind, data.arm] + NOISE * rng.uniform(-1, 1, n)
    outcomes = np.stack([quality, data.outcomes[:, 1], data.outcomes[:, 2]], axis=1)
    return replace(data, contexts=contexts(kind), encoder=ENCODER.fingerprint, outcomes=outcomes)


def rewards(data: LoggedData) -> Vector:
    return data.rewards(PRESETS["quality"], SCALES)


def live(length: int, seed: int) -> float:
    """What the candidate really earns in its first rounds, in the same world, learning on."""
    rng = np.random.default_rng([seed, 2])
    model = models.new_model(LEARNS.config, LEARNS.encoder)
    assert model is not None
    earned = 0.0
    for _ in range(length // EVERY):
        kind = rng.integers(0, 2, EVERY)
        data = replace(world(EVERY, seed), contexts=contexts(kind))
        pmf = target.of_policy(data, LEARNS.policy(model))
        drawn = (pmf.cumsum(axis=1) < rng.random((EVERY, 1))).sum(axis=1)
        quality = QUALITY[kind, drawn] + NOISE * rng.uniform(-1, 1, EVERY)
        earned += quality.sum()
        model.learn(batch(data.contexts, drawn, quality))
    return earned / length


def batch(x: Vector, drawn: Vector, quality: Vector) -> OutcomeBatch:
    n, catalog = len(x), LEARNS.catalog
    return OutcomeBatch(
        arms=[catalog.ids[i] for i in drawn],
        x=x,
        quality=quality,
        latency_ms=np.full(n, 500.0),
        cost_usd=np.full(n, 0.005),
        error=np.zeros(n, dtype=bool),
        settled=np.zeros((n, 3), dtype=bool),
        list_cost_usd=catalog.list_cost_usd(100, 300, drawn),
        propensity=np.full(n, 1 / 3),
        catalogs=[catalog] * n,
        eligible=[packed(catalog.enabled)] * n,
    )


@pytest.fixture(scope="module")
def truth() -> tuple[float, float]:
    """The candidate's mean reward in its first rounds, and the standard error of knowing it."""
    earned = np.array([live(LENGTH, seed) for seed in range(RUNS)])
    return float(earned.mean()), float(earned.std(ddof=1)) / math.sqrt(RUNS)


def on_its_way(found: Replay, data: LoggedData) -> float:
    """What the replayed policy is really worth in the rounds that value it."""
    kind = data.contexts[found.at, ENCODER.groups["task"].start + 1].astype(int)
    pmf = found.pmf[np.searchsorted(found.rows, found.at)]
    return float(np.average((pmf * QUALITY[kind]).sum(axis=1), weights=found.counts_as))


@pytest.fixture(scope="module", params=[UNIFORM, (0.25, 0.3, 0.45)])
def replayed(request: pytest.FixtureRequest) -> Vector:
    """Of as many logs, uniform and not: what rejection and doubly robust replay say of about as
    many rounds, and how far each is from what it should have said of its way, (RUNS, 4)."""
    found = []
    bound = 1 / min(request.param)
    n = round(bound * LENGTH)
    for seed in range(RUNS):
        data = world(n + 300, seed, request.param)
        reward = rewards(data)
        exact = replay.by_rejection(data, LEARNS, reward, seed=seed, every=EVERY, length=LENGTH)
        assert exact.accepted.sum() == LENGTH
        some, reward = data.take(np.arange(n)), reward[:n]
        q = reward_models.ridge(some, reward)
        robust = replay.doubly_robust(
            some, LEARNS, reward, q, seed=seed, every=EVERY, acceptance=Acceptance(0.0, 1 / bound)
        )
        said = np.array([exact.estimate.value, robust.estimate.value], dtype=float)
        found.append([*said, *said - [on_its_way(exact, data), on_its_way(robust, some)]])
    return np.array(found)


def test_rejection_is_unbiased_for_a_policy_that_learns(
    truth: tuple[float, float], replayed: Vector
):
    """It finds what the policy earns live in so many rounds, within four standard errors."""
    exact = replayed[:, 0]
    se = math.hypot(truth[1], exact.std(ddof=1) / math.sqrt(RUNS))
    assert abs(exact.mean() - truth[0]) < 4 * se
    assert truth[0] > QUALITY.mean() + 4 * se  # it has learned something


def test_doubly_robust_agrees_and_varies_less(truth: tuple[float, float], replayed: Vector):
    """It learns from as many rows, and is valued on some times as many."""
    robust = replayed[:, 1]
    se = math.hypot(truth[1], robust.std(ddof=1) / math.sqrt(RUNS))
    assert abs(robust.mean() - truth[0]) < 4 * se
    exact_error, robust_error = replayed[:, 2:].std(axis=0)
    assert robust_error < 0.8 * exact_error


def test_frozen_replay_of_the_logging_policy_is_the_logs_mean():
    """Its weights are all 1."""
    data = world(400, seed=0)
    reward = rewards(data)
    policy = candidate('model = "uniform"').policy(None)
    found = replay.frozen(data, policy, reward)
    assert found.estimate.value == pytest.approx(reward.mean())
    assert found.estimate.terms == pytest.approx(reward)
    assert found.pmf == pytest.approx(data.pmf)


def test_rejection_of_a_fixed_arm_by_hand():
    """On a uniform log it accepts just the rows of that arm, whatever is drawn."""
    data = world(300, seed=1)
    always_b = candidate('model = "fixed"\narm = "b"\nfloor = 0.0')
    found = replay.by_rejection(data, always_b, rewards(data), seed=5)
    assert (found.accepted == (data.arm == 1)).all()
    assert found.estimate.value == pytest.approx(rewards(data)[data.arm == 1].mean())
    assert (found.learned, found.cut) == (0, 0.0)
    assert (found.at == np.flatnonzero(data.arm == 1)).all()


def test_rejection_accepts_one_row_in_bound():
    """A log that drew an arm with probability 0.05 has a bound of 20."""
    data = world(20_000, seed=2, pmf=(0.05, 0.15, 0.8))
    found = replay.by_rejection(data, candidate('model = "uniform"'), rewards(data))
    accepted = found.accepted.mean()
    assert abs(accepted - 1 / 20) < 4 * math.sqrt(0.05 * 0.95 / 20_000)
    shares = np.bincount(data.arm[found.at]) / len(found.at)
    assert abs(shares - 1 / 3).max() < 4 * math.sqrt(2 / 9 / len(found.at))
    bold = replay.by_rejection(data, candidate('model = "uniform"'), rewards(data), bound=2.0)
    assert bold.cut == pytest.approx((data.arm < 2).mean())


def test_the_multiplier_follows_the_ratios():
    """A fixed arm that was drawn with 0.8 has a ratio p / π of 0.8; at most `multiplier`."""
    data = world(500, seed=3, pmf=(0.05, 0.15, 0.8))
    always_c = candidate('model = "fixed"\narm = "c"\nfloor = 0.0')
    found = replay.doubly_robust(data, always_c, rewards(data))
    assert found.counts_as == pytest.approx(0.8)
    assert (found.accepted == (data.arm == 2)).all()
    capped = replay.doubly_robust(
        data, always_c, rewards(data), acceptance=Acceptance(multiplier=0.1)
    )
    assert capped.counts_as == pytest.approx(0.1)
    assert found.estimate.value == pytest.approx(capped.estimate.value)
    as_ips = replay.frozen(data, always_c.policy(None), rewards(data))
    assert found.estimate.value == pytest.approx(as_ips.estimate.value)


def test_the_same_seed_gives_the_same_way():
    """And another one another."""
    data = world(600, seed=4)
    ways = [
        replay.doubly_robust(
            data, LEARNS, rewards(data), seed=s, every=50, acceptance=Acceptance(multiplier=0.5)
        )
        for s in (1, 1, 2)
    ]
    assert (ways[0].pmf == ways[1].pmf).all()
    assert not (ways[0].pmf == ways[2].pmf).all()
    assert ways[0].learned % 50 == 0
    assert 50 <= ways[0].learned <= ways[0].accepted.sum()


def test_blocks_change_nothing_of_what_is_met(monkeypatch: pytest.MonkeyPatch):
    """Rows are met one after the other, however many are asked about at once."""
    data = world(300, seed=5)
    whole = replay.by_rejection(data, LEARNS, rewards(data), every=30)
    monkeypatch.setattr(replay, "LEAST_BLOCK", 300)
    other = replay.by_rejection(data, LEARNS, rewards(data), every=30)
    assert (whole.accepted == other.accepted).all()
    assert whole.pmf == pytest.approx(other.pmf, abs=1e-9)


def test_a_curve_is_made_of_the_terms():
    """Its parts together are the whole, and intervals are made of them."""
    data = world(900, seed=6)
    found = replay.doubly_robust(data, LEARNS, rewards(data), every=30)
    parts = found.curve(3)
    assert [len(rows) for rows, _ in parts] == [300, 300, 300]
    weights = found.counts_as.reshape(3, 300).sum(axis=1)
    values = [part.value for _, part in parts]
    assert np.average(np.array(values, dtype=float), weights=weights) == pytest.approx(
        found.estimate.value
    )
    assert student_t(found.estimate.terms).warning is None
    assert found.shares(data, 3).sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "settings",
    [
        "",
        'model = "nearest"',
        'model = "uniform"',
        'model = "fixed"\narm = "c"',
        'exploration = "softmax"',
    ],
)
def test_whatever_decides_from_a_context_is_replayed(settings: str):
    """Every method has a value for it, with terms."""
    data, one = world(200, seed=7), candidate(settings)
    for found in (
        replay.frozen(data, one.policy(one.taught(data.take(np.arange(0)))), rewards(data)),
        replay.by_rejection(data, one, rewards(data), every=20),
        replay.doubly_robust(data, one, rewards(data), every=20),
    ):
        assert found.estimate.value is not None
        assert found.estimate.value == pytest.approx(found.estimate.terms.mean())


def test_vw_is_replayed():
    """Where it is installed."""
    pytest.importorskip("vowpal_wabbit_next")
    data = world(150, seed=8)
    one = candidate('model = "vw"')
    assert replay.by_rejection(data, one, rewards(data), every=20).learned > 0


@pytest.mark.parametrize("settings", ['model = "rules"', 'model = "caller"'])
def test_what_decides_from_more_is_refused(settings: str):
    """By the message that frozen replay has for it."""
    data = world(20, seed=9)
    for method in (replay.by_rejection, replay.doubly_robust):
        with pytest.raises(ValueError, match="decides from more than a context"):
            method(data, candidate(settings), rewards(data))


def test_another_encoder_is_refused_before_anything_is_learned():
    """The contexts would be of another kind."""
    data = replace(world(20, seed=9), encoder="another")
    with pytest.raises(ValueError, match="the log's contexts are of another"):
        LEARNS.taught(data)
    with pytest.raises(ValueError, match="the log's contexts are of another"):
        replay.doubly_robust(data, LEARNS, rewards(data))


def test_rows_without_a_reward_are_not_met():
    """They are left out and counted; a log without any says so."""
    data = world(200, seed=10)
    reward = rewards(data)
    reward[:150] = np.nan
    found = replay.doubly_robust(data, candidate('model = "uniform"'), reward)
    assert (found.rows == np.arange(150, 200)).all()
    nothing = replay.by_rejection(data, LEARNS, np.full(200, np.nan))
    assert nothing.estimate.value is None
    assert nothing.estimate.why == "there are no rows"


def test_an_arm_that_was_never_tried_has_no_value():
    """The log can't answer for it, whichever way it is replayed."""
    data = world(300, seed=11, pmf=(0.5, 0.5, 0.0))
    always_c = candidate('model = "fixed"\narm = "c"')
    found = replay.doubly_robust(data, always_c, rewards(data))
    assert found.estimate.value is None
    assert "never tried" in str(found.estimate.why)


def test_rows_under_the_usual_weights_are_asked_under_the_candidates():
    """A request's own weights stay."""
    data = world(4, seed=12)
    weights = np.array([PRESETS["balanced"].as_tuple()] * 2 + [PRESETS["cheap"].as_tuple()] * 2)
    found = LEARNS.asked(replace(data, weights=weights), PRESETS["balanced"]).weights
    assert found[0].tolist() == [1.0, 0.0, 0.0]
    assert (found[2:] == weights[2:]).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"every": 0}, "every must be >= 1, got 0"), ({"bound": 0.0}, "bound must be > 0, got 0.0")],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, float], says: str):
    """With its value."""
    data = world(20, seed=13)
    with pytest.raises(ValueError, match=says):
        replay.by_rejection(data, LEARNS, rewards(data), **arguments)  # type: ignore[arg-type]

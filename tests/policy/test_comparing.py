"""What answers to the same query teach: their difference, with less noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from policy.records import OutcomeBatch
from policy.values.linear.comparing import HALF, SHARE, SHARE_WEIGHT, Compared
from policy.values.linear.model import LinearModel
from tests.policy.linear_model import events, taught

NOISE = np.full(3, 0.04)


def residuals(*of_quality: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of answers whose latency and cost were not expected, with their spreads: the noise alone."""
    residual = np.full((len(of_quality), 3), np.nan)
    residual[:, 0] = of_quality
    return residual, np.where(np.isnan(residual), np.nan, 0.2)


def test_what_two_answers_have_in_common_by_hand():
    """ρσ² = 0.012, v = 0.028: V = 0.012 / (1 + 24 / 28), ĉ = V (0.1 + 0.3) / 0.028; half of it is
    taken out. The third answer is to another query."""
    compared = Compared()
    common, worth = compared.take_out(np.array([7, 7, 8]), *residuals(0.1, 0.3, 0.3), NOISE)
    left = 0.012 / (1.0 + 24 / 28)
    assert common[:, 0] == pytest.approx([HALF * left * 0.4 / 0.028] * 2 + [0.0])
    more = HALF * (0.04 / (0.028 + left) - 1.0)
    assert worth[:, 0] == pytest.approx([1.0 + more, 1.0 + more, 1.0])
    assert not common[:, 1:].any()
    assert (worth[:, 1:] == 1.0).all()


def test_a_doubtful_arm_leaves_more_to_learn():
    """Where an arm is hardly known, what its answer was off by is its own."""
    query, (residual, sd) = np.zeros(2, dtype=np.intp), residuals(0.2, 0.2)
    known, _ = Compared().take_out(query, residual, sd, NOISE)
    doubtful, _ = Compared().take_out(query, residual, 5.0 * sd, NOISE)
    assert 0.0 < doubtful[0, 0] < known[0, 0]


def test_how_much_is_common_is_learned():
    """From products of residuals, in units of their spread; of answers that go apart, nothing."""
    compared = Compared()
    query = np.repeat(np.arange(200), 2)
    alike, apart = np.tile([0.2, 0.2], 200), np.tile([0.2, -0.2], 200)
    compared.take_out(query, *residuals(*alike), NOISE)
    assert compared.share[0] == pytest.approx(
        min((200 + SHARE * SHARE_WEIGHT) / (200 + SHARE_WEIGHT), 0.9)
    )
    assert compared.share[1] == pytest.approx(SHARE)
    other = Compared()
    other.take_out(query, *residuals(*apart), NOISE)
    assert other.share[0] == 0.0
    common, worth = other.take_out(query, *residuals(*alike), NOISE)
    assert not common[:2].any()
    assert worth[:2] == pytest.approx(1.0)


def paired(n: int, missing: float = 0.0) -> OutcomeBatch:
    """Every two events answer the same query, by arms that may be the same."""
    batch = events(n, missing=missing)
    x = np.repeat(batch.x[::2], 2, axis=0)
    return replace(batch, x=x, query=np.arange(n) // 2)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 120), max_size=5))
def test_batches_may_be_cut_between_queries(borders: list[int]):
    """The same sums, to 1e-12, and the same share, wherever the stream is cut."""
    batch = paired(240, missing=0.2)
    whole, pieces = taught(batch), taught()
    edges = [0, *sorted(2 * border for border in borders), 240]
    for at, to in pairwise(edges):
        if at < to:
            pieces.learn(batch.take(np.arange(at, to)))
    for name, value in whole.sums().items():
        np.testing.assert_allclose(pieces.sums()[name], value, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(pieces.compared.pairs, whole.compared.pairs)


def test_a_checkpoint_keeps_what_was_compared():
    """Bit for bit, and learning goes on as if nothing had happened, to 1e-12."""
    batch = paired(200)
    model = taught(batch)
    again = LinearModel.from_parts(model.to_parts())
    assert model.compared.pairs[0, 1] > 50
    assert again.to_parts() == model.to_parts()
    for each in (model, again):
        each.learn(batch)
    for name, value in model.sums().items():
        np.testing.assert_allclose(again.sums()[name], value, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(again.compared.pairs, model.compared.pairs)


def test_queries_of_one_answer_are_events_like_any_others():
    """To rounding."""
    batch = events(100)
    alone = replace(batch, query=np.arange(100))
    np.testing.assert_allclose(
        taught(alone).sums()["xy"], taught(batch).sums()["xy"], rtol=1e-12, atol=1e-12
    )


def test_a_comparison_teaches_the_difference_sooner():
    """Where queries differ much more than arms, the arms' difference is nearer the truth than where
    the same answers are taken one by one: in most of 12 worlds, and in the mean."""
    errors = np.array([[_error(seed, compare) for compare in (True, False)] for seed in range(12)])
    better = errors[:, 0] < errors[:, 1]
    assert better.sum() >= 9
    assert errors[:, 0].mean() < 0.9 * errors[:, 1].mean()


def _error(seed: int, compare: bool) -> float:
    """How far the difference of two arms' expected quality is from 0.1, after 150 pairs of answers
    whose arms are drawn from three."""
    rng = np.random.default_rng(seed)
    n = 150
    arms = np.argsort(rng.random((n, 3)), axis=1)[:, :2].ravel()
    hardness = np.repeat(rng.normal(0.0, 0.25, n), 2)
    quality = np.clip(0.4 + 0.1 * arms + hardness + rng.normal(0.0, 0.05, 2 * n), 0.0, 1.0)
    batch = replace(
        events(2 * n, seed=seed),
        arms=[f"arm-{arm}" for arm in arms],
        quality=quality,
        x=np.tile(np.eye(1, 8, dtype=np.float32), (2 * n, 1)),
        query=np.arange(2 * n) // 2 if compare else None,
    )
    model = taught(*(batch.take(np.arange(at, at + 10)) for at in range(0, 2 * n, 10)))
    mean = model.view().mean[:, 0, 0]
    by_arm = dict(zip(model.arms, mean.tolist(), strict=True))
    return abs(by_arm["arm-1"] - by_arm["arm-0"] - 0.1) + abs(
        by_arm["arm-2"] - by_arm["arm-1"] - 0.1
    )

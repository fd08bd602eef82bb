"""Noticing changes: what an alarm does to evidence, when it comes, and when none may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy.records import CorrectionBatch, OutcomeBatch
from policy.values.linear import changes
from policy.values.linear.model import LinearModel
from tests.policy.linear_model import GROUPS, SCALES, events, part, taught


def shifted(batch: OutcomeBatch, arm: str, by: float, since: int) -> OutcomeBatch:
    """One arm's quality moves by so much from an event on."""
    moved = (np.array(batch.arms) == arm) & (np.arange(len(batch)) >= since)
    return replace(batch, quality=np.where(moved, batch.quality + by, batch.quality))


def test_nothing_is_forgotten_where_nothing_changes():
    """Of 20,000 outcomes of six arms each counts in full, and no alarm comes."""
    model = taught(events(20_000, k=6, seed=1))
    assert model.watch.alarms.tolist() == []
    assert model.sums()["weight"][:, 0].sum() == pytest.approx(20_000.0)


def test_an_arm_that_falls_is_noticed_soon():
    """By one spread of its residuals, within 60 outcomes of its own, in that component alone; of
    its evidence 5% is left, of the others' 30%."""
    batch = shifted(events(3_000, k=3, seed=3), "arm-1", -0.2, since=2_000)
    model = taught(part(batch, 0, 2_000))
    before = model.sums()["weight"].copy()
    at = 2_000
    while not len(model.watch.alarms):
        model.learn(part(batch, at, at + 1))
        at += 1
    own = sum(arm == "arm-1" for arm in batch.arms[2_000:at])
    assert own < 60
    assert model.watch.alarms.tolist() == [[at, 0, model.arms.index("arm-1")]]
    counts = [sum(arm == name for arm in batch.arms[2_000:at]) for name in model.arms]
    kept = np.array([0.05 if name == "arm-1" else 0.3 for name in model.arms])
    assert model.sums()["weight"][:, 0] == pytest.approx(kept * (before[:, 0] + counts))
    assert model.sums()["weight"][:, 1] == pytest.approx(before[:, 1] + counts)


def test_what_changed_is_learned_anew():
    """300 outcomes of each arm after the change, its mean is the new one; unnoticed, it is between
    the old one and that."""
    batch = shifted(events(3_900, k=3, seed=3), "arm-1", -0.3, since=3_000)
    deaf = LinearModel(GROUPS, SCALES, notice=False)
    deaf.learn(batch)
    means = []
    for model in (taught(batch), deaf):
        view = model.view()
        means.append(float(view.mean[model.arms.index("arm-1"), 0, 0]))
    assert means[0] == pytest.approx(0.1, abs=0.04)
    assert means[1] > 0.25


def test_batches_may_be_cut_anywhere_around_a_change():
    """The same alarms and sums, an arm that joins in the middle of a batch among them."""
    batch = shifted(events(2_000, k=4, seed=5), "arm-2", -0.4, since=1_000)
    late = np.argsort([arm == "arm-3" for arm in batch.arms[:700]], kind="stable")
    batch = batch.take(np.concatenate([late, np.arange(700, 2_000)]))
    whole = taught(batch)
    assert len(whole.watch.alarms)
    for size in (1, 7, 333):
        pieces = taught(*(part(batch, at, at + size) for at in range(0, 2_000, size)))
        assert pieces.watch.alarms.tolist() == whole.watch.alarms.tolist()
        for name, value in whole.sums().items():
            np.testing.assert_allclose(pieces.sums()[name], value, rtol=1e-9, atol=1e-9)


def test_a_model_read_back_goes_on_as_it_would_have():
    """In the middle of a test that then gives an alarm, to the bit."""
    batch = shifted(events(2_000, k=3, seed=5), "arm-1", -0.4, since=1_000)
    model = taught(part(batch, 0, 1_030))
    again = LinearModel.from_parts(model.to_parts())
    for one in (model, again):
        one.learn(part(batch, 1_030, 2_000))
    assert len(model.watch.alarms)
    assert again.to_parts() == model.to_parts()


def test_corrections_know_what_alarms_have_left():
    """To 1e-9 the sums are those of the right values, of events before an alarm and after it."""
    wrong = shifted(events(2_000, k=3, seed=5), "arm-1", -0.4, since=1_000)
    rows = np.array([10, 500, 900, 1_900])
    quality = wrong.quality.copy()
    quality[rows] += 0.01
    right = replace(wrong, quality=quality)
    corrected, direct = taught(wrong), taught(right)
    assert len(direct.watch.alarms)
    assert corrected.watch.alarms.tolist() == direct.watch.alarms.tolist()
    since = np.repeat(1_999 - rows[:, None], 3, axis=1)
    corrected.correct(CorrectionBatch(wrong.take(rows), right.take(rows), since))
    for name, value in direct.sums().items():
        np.testing.assert_allclose(corrected.sums()[name], value, rtol=1e-9, atol=1e-9)


def test_alarms_rest():
    """However wildly an arm swings, no component gives an alarm within REST events of another."""
    batch = events(4_000, k=2, seed=7)
    swing = np.where(np.arange(4_000) // 100 % 2, 0.9, 0.1)
    model = taught(replace(batch, quality=swing))
    assert len(model.watch.alarms) > 1
    assert np.diff(model.watch.alarms[:, 0]).min() > changes.REST

"""The linear value model's bytes: read again, or refused."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from policy.values.linear.model import LinearModel
from policy.values.linear.view import LinearView
from policy.values.parts import VALUES, Parts
from tests.policy.damaged import altered, claiming, damaged
from tests.policy.linear_model import (
    GROUPS,
    MIXED,
    SCALES,
    all_of,
    events,
    part,
    taught,
)
from tests.policy.one_query import forecast_one


def test_model_bytes_round_trip():
    """Bit for bit, and learning goes on as if nothing had happened, to 1e-12."""
    model = taught(events(200, missing=0.2), forgetting=0.999)
    again = LinearModel.from_parts(model.to_parts())
    assert again.to_parts() == model.to_parts()
    for each in (model, again):
        each.learn(events(200, seed=1))
    for name, value in model.sums().items():
        np.testing.assert_allclose(again.sums()[name], value, rtol=1e-12, atol=1e-12)


def test_view_bytes_round_trip():
    """The same forecast on the other side."""
    view = taught(events(200)).view()
    again = LinearView.from_parts(view.to_parts())
    assert again.to_parts() == view.to_parts()
    x, costs = events(1, seed=9).x[0], np.full(3, 0.002)
    one_side, other_side = (
        forecast_one(v.bind(v.arms), x, all_of(3), costs, MIXED) for v in (view, again)
    )
    assert one_side.utility.tolist() == other_side.utility.tolist()


def test_nothing_learned_round_trips():
    """A model and a view without arms."""
    model = LinearModel(GROUPS, SCALES)
    assert LinearModel.from_parts(model.to_parts()).to_parts() == model.to_parts()
    view = model.view()
    assert LinearView.from_parts(view.to_parts()).to_parts() == view.to_parts()


SPOILED = struct.pack("<d", math.nan)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda parts: claiming(parts, arms=["a"]),
        lambda parts: claiming(parts, arrays={}),
        lambda parts: claiming(parts, arrays={"yy": ["|O", [3]]}),
        lambda parts: claiming(parts, arrays={"yy": ["<f8", [10**12]]}),
        lambda parts: claiming(parts, arrays={"yy": ["<f8", [-1]]}),
        lambda parts: claiming(parts, sizes={"bias": 10**9}, scales={}),
        lambda parts: altered(parts, VALUES, lambda body: body[:-8] + SPOILED),
        lambda parts: altered(parts, "arm:1", lambda body: body[:-4]),
    ],
)
def test_damaged_parts_are_refused(wrong):
    """With a ValueError, whatever they are, and without allocating what they claim."""
    model = taught(events(50))
    for parts, read in (
        (model.to_parts(), LinearModel.from_parts),
        (model.view().to_parts(), LinearView.from_parts),
    ):
        for broken in (wrong(parts), *damaged(parts)):
            with pytest.raises(ValueError, match=r"."):
                read(broken)


def test_sums_that_are_not_finite_are_refused():
    """They would spoil what is learned for ever; so would such covariances what is decided."""
    model = taught(events(50))
    sums = altered(model.to_parts(), "arm:1", lambda body: body[:-8] + SPOILED)
    with pytest.raises(ValueError, match="finite"):
        LinearModel.from_parts(sums)
    spoiled = altered(model.view().to_parts(), "arm:1", lambda body: body[:-4] + b"\xff" * 4)
    view = LinearView.from_parts(spoiled)
    with pytest.raises(ValueError, match="finite"):
        view.bind(view.arms)


def changed(before: Parts, after: Parts) -> set[str]:
    return {name for name, part in after.items() if before.get(name) != part}


def test_what_has_not_learned_is_the_part_that_it_was():
    """Of a model and of its view: one event changes its arm's part, and what is of all arms; only
    where the variances are learned anew do all covariances change."""
    model = taught(events(1_000, k=20))
    sums, view = model.to_parts(), model.view().to_parts()
    one = events(1_000, k=20, seed=3)
    rows = [one.arms.index("arm-7")]
    assert model.events + 1 < model._due
    model.learn(one.take(np.array(rows)))
    arm = f"arm:{model.arms.index('arm-7')}"
    assert changed(sums, model.to_parts()) == {"values", arm}
    assert changed(view, model.view().to_parts()) == {"values", arm}
    sums = model.to_parts()
    model._tune(20)
    assert changed(sums, model.to_parts()) == {"values", "reference"}
    assert changed(view, model.view().to_parts()) == set(view)


def test_parts_are_the_same_whenever_they_were_asked_for():
    """What is kept between snapshots and checkpoints changes neither: bit for bit."""
    batch = events(600, k=6, missing=0.2)
    asked, silent = (LinearModel(GROUPS, SCALES, forgetting=0.999) for _ in range(2))
    for model in (asked, silent):
        model.start(events(60, k=4, seed=2), at_most=10.0)
    for at in range(0, 600, 50):
        asked.learn(part(batch, at, at + 50))
        silent.learn(part(batch, at, at + 50))
        asked.to_parts(), asked.view().to_parts()
    assert asked.to_parts() == silent.to_parts()
    assert asked.view().to_parts() == silent.view().to_parts()

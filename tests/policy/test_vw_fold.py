"""Vowpal Wabbit as a fold of its events: cut, stored, read again, and asked in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("vowpal_wabbit_next", reason="no build of vowpal-wabbit-next here")

from policy.values.vw.model import VwModel
from policy.values.vw.regressors import CB_TYPES
from policy.values.vw.view import VwView
from tests.policy.one_query import forecast_one
from tests.policy.vw_model import (
    CATALOG,
    NAMES,
    QUALITY,
    bound,
    context,
    events,
    part,
    taught,
)


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_where_the_stream_is_cut_changes_nothing(cb_type: str):
    """One batch, or five: the same bytes."""
    batch = events(200, missing=0.3)
    whole = taught(batch, cb_type=cb_type)
    cuts = (0, 1, 50, 51, 130, 200)
    pieces = [part(batch, a, b) for a, b in pairwise(cuts)]
    assert taught(*pieces, cb_type=cb_type).to_parts() == whole.to_parts()


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_learning_goes_on_after_a_reload_as_if_there_had_been_none(cb_type: str):
    """And storing a model, or looking at it, leaves no trace."""
    batch = events(400, missing=0.3)
    uninterrupted = taught(batch, cb_type=cb_type)
    model = taught(part(batch, 0, 150), cb_type=cb_type)
    for at in range(150, 400, 50):
        forecast_one(bound(model), context(1.0), np.arange(3), np.full(3, 0.01), QUALITY)
        model = VwModel.from_parts(model.to_parts())
        model.learn(part(batch, at, at + 50))
    assert model.to_parts() == uninterrupted.to_parts()
    assert model.view().to_parts() == uninterrupted.view().to_parts()


def test_a_view_survives_its_bytes():
    """The same forecast, the same bytes."""
    view = taught(events(100)).view()
    again = VwView.from_parts(view.to_parts())
    assert again.to_parts() == view.to_parts()
    args = (context(1.0, 0.5), np.arange(3), np.full(3, 0.005), QUALITY)
    one, other = (forecast_one(v.bind(NAMES, catalog=CATALOG), *args) for v in (view, again))
    np.testing.assert_array_equal(one.outcome, other.outcome)
    assert again.bind(NAMES, catalog=CATALOG).events.sum() == 100


def test_predicting_changes_neither_the_next_prediction_nor_the_model():
    """A workspace is read a thousand times and still answers as at first."""
    model = taught(events(100))
    values, stored = bound(model), model.to_parts()
    args = (context(1.0, 0.5), np.array([2, 0]), np.full(2, 0.005), QUALITY)
    first = forecast_one(values, *args).utility
    for _ in range(1_000):
        forecast_one(values, context(1.0, 1.0), np.arange(3), np.full(3, 0.005), QUALITY)
    np.testing.assert_array_equal(forecast_one(values, *args).utility, first)
    assert model.to_parts() == stored


def test_decisions_at_the_same_time_do_not_mix():
    """Four threads that ask one view get what one thread gets."""
    values = bound(taught(events(200)))
    contexts = [x / 2 for x in events(200, seed=1).x]

    def utility(x: NDArray[np.float32]) -> list[float]:
        return forecast_one(values, x, np.arange(3), np.full(3, 0.005), QUALITY).utility.tolist()

    alone = [utility(x) for x in contexts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(utility, contexts)) == alone


def test_a_model_is_small():
    """Publishing it ten times a second is no burden."""
    parts = taught(events(600)).to_parts().values()
    assert sum(len(part.data) for part in parts) < 100_000

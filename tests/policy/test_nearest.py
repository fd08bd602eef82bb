"""The nearest outcomes, by hand; what every value model must do is in test_values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policy.objective import Scales, Weights
from policy.records import CorrectionBatch, OutcomeBatch
from policy.values.nearest import NearestModel, NearestView
from policy.values.protocol import Forecast
from tests.policy.damaged import claiming
from tests.policy.linear_model import D, context, events, one
from tests.policy.one_query import forecast_one

SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
QUALITY = Weights.of(quality=1.0)


def taught(*batches: Any, neighbours: int = 2, window: int = 100) -> NearestModel:
    model = NearestModel(D, SCALES, neighbours, window)
    for batch in batches:
        model.learn(batch)
    return model


def at(
    model: NearestModel,
    arms: Sequence[str],
    x: NDArray[np.float32],
    expected: Sequence[dict[int, float]] = (),
    list_cost_usd: float = 0.0,
) -> Forecast:
    k = len(arms)
    bound = model.view().bind(arms, expected)
    return forecast_one(bound, x, np.arange(k), np.full(k, list_cost_usd), QUALITY)


def joined(batches: Sequence[OutcomeBatch]) -> OutcomeBatch:
    named = {n: [getattr(batch, n) for batch in batches] for n in OutcomeBatch.__slots__}
    columns = {name: parts for name, parts in named.items() if parts[0] is not None}
    return OutcomeBatch(
        **{
            name: np.concatenate(parts)
            if isinstance(parts[0], np.ndarray)
            else [value for part in parts for value in part]
            for name, parts in columns.items()
        }
    )


def test_the_mean_of_the_nearest_is_shrunk_to_the_arms_mean_by_one():
    """Of 1, 0.8 and 0 the two nearest are 1 and 0.8; the only arm's mean, shrunk to itself, is
    0.6: (1 + 0.8 + 0.6) / 3."""
    model = taught(
        one("a", (1.0, 0.1), quality=1.0),
        one("a", (1.0, 0.2), quality=0.8),
        one("a", (1.0, 3.0), quality=0.0),
    )
    assert at(model, ["a"], context(1.0, 0.0)).utility == pytest.approx([0.8])


@pytest.mark.parametrize(("since", "expected"), [(2, [0.5, 0.0, 0.0]), (3, [1.0, 0.0, 0.0])])
def test_a_correction_finds_its_event_while_it_is_remembered(since: int, expected: list[float]):
    """By its number; of three events that are remembered, the one before them is gone."""
    model = taught(
        one("a", quality=0.9), one("a", quality=1.0), *[one("a", quality=0.0)] * 2, window=3
    )
    was, now = one("a", quality=1.0), one("a", quality=0.5)
    model.correct(CorrectionBatch(was, now, np.full((1, 3), since)))
    assert model.view().y[:, 0].tolist() == expected


def test_neighbours_are_of_the_same_arm():
    """What another arm did nearby counts only for the mean that an arm's own is shrunk to.

    Arm means 1 and 0 have the mean 0.5; a's own is (1 + 0.5) / 2 = 0.75, so (1 + 0.75) / 2.
    """
    model = taught(one("a", (1.0, 3.0), quality=1.0), one("b", (1.0, 0.0), quality=0.0))
    made = at(model, ["a", "b", "new"], context(1.0, 0.0))
    assert made.utility == pytest.approx([0.875, 0.125, 0.5])


def test_arms_are_averaged_alike_however_often_they_were_played():
    """An arm never seen is thought to be as a typical arm is, not as the favourite."""
    model = taught(*[one("a", quality=1.0)] * 30, one("b", quality=0.0))
    assert at(model, ["new"], context(1.0)).utility == pytest.approx([0.5])


def test_of_equally_near_events_the_newest_count():
    """Where a query repeats itself, what came of it lately is what is expected."""
    model = taught(*[one("a", quality=0.0)] * 50, *[one("a", quality=1.0)] * 2)
    mean = (2 / 52 * 52 + 2 / 52) / 53
    assert at(model, ["a"], context(1.0)).utility == pytest.approx([(2 + mean) / 3])


def test_only_the_last_events_are_remembered():
    """In a window of 3 the fourth event takes the place of the first; counts go on."""
    batches = [one(arm, quality=q) for arm, q in (("a", 0.0), ("b", 1.0), ("b", 1.0), ("b", 1.0))]
    model = taught(*batches, window=3)
    view = model.view()
    assert model.events == 4
    assert [view.arms[i] for i in view.arm] == ["b", "b", "b"]
    assert view.events.tolist() == [1, 3]
    assert at(model, ["a"], context(1.0)).utility == pytest.approx([1.0])


@pytest.mark.parametrize("window", [1, 7, 60])
def test_a_window_slides_however_the_batch_is_cut(window: int):
    """The same bytes, and the same view: the oldest remembered event first."""
    batch = events(60)
    whole = taught(batch, window=window)
    singles = [batch.take(np.array([i])) for i in range(60)]
    pieces = taught(*singles, window=window)
    assert pieces.to_parts() == whole.to_parts()
    view = whole.view()
    np.testing.assert_array_equal(view.x, batch.x[-window:])
    assert view.to_parts() == pieces.view().to_parts()


def test_a_start_remembers_of_each_arm_alike():
    """Two outcomes each in a window of 5 for two arms; evenly spread, in the order they came."""
    rows = [("a", 0.0), ("a", 0.1), ("a", 0.2), ("a", 0.3), ("b", 0.4)]
    batch = joined([one(arm, quality=q) for arm, q in rows])
    model = taught(window=5)
    model.start(batch, at_most=100.0)
    assert model.view().y[:, 0] == pytest.approx([0.0, 0.2, 0.4])
    assert model.events == 3
    few = taught(window=5)
    few.start(batch, at_most=1.0)
    assert few.view().y[:, 0] == pytest.approx([0.0, 0.4])


def test_an_expected_quality_counts_as_one_outcome():
    """A prior of 0.9 where x[3] is 1 stands for an arm never seen, and half for one seen once."""
    expected = [{3: 0.9}, {3: 0.9}]
    x = context(1.0, 0.0, 0.0, 1.0)
    nothing = at(taught(), ["a", "b"], x, expected)
    assert nothing.utility == pytest.approx([0.9, 0.9])
    model = taught(one("a", (1.0, 0.0, 0.0, 1.0), quality=0.1))
    made = at(model, ["a", "b"], x, expected)
    assert made.utility == pytest.approx([(0.1 + (0.1 + 0.9) / 2) / 2, 0.9])
    elsewhere = at(model, ["b"], context(1.0), expected[1:])
    assert elsewhere.utility == pytest.approx([0.1])


def test_each_component_has_neighbours_of_its_own():
    """An event without a latency is no neighbour for latency."""
    model = taught(
        one("a", (1.0, 0.0), quality=1.0),
        one("a", (1.0, 2.0), latency_ms=400.0),
        one("a", (1.0, 3.0), latency_ms=600.0),
    )
    made = at(model, ["a"], context(1.0))
    assert made.outcome[0, :2] == pytest.approx([1.0, 500.0])
    assert np.isnan(made.outcome[0, 2])


def test_there_is_no_posterior():
    """So no exploration that needs one."""
    assert at(taught(events(10)), ["arm-0"], context(1.0)).utility_sd is None


@pytest.mark.parametrize(
    "changes",
    [{"arms": ["arm-0"]}, {"d": 10**9}, {"window": 10**9}, {"events": 7}, {"scales": {}}, {"d": 7}],
    ids=str,
)
def test_a_claim_that_does_not_fit_the_arrays_is_refused(changes: dict[str, object]):
    """Without allocating what it claims."""
    parts = taught(events(20)).to_parts()
    with pytest.raises(ValueError, match=r"."):
        NearestModel.from_parts(claiming(parts, **changes))
    if "arms" in changes:
        view = taught(events(20)).view().to_parts()
        with pytest.raises(ValueError, match=r"."):
            NearestView.from_parts(claiming(view, **changes))


def test_a_context_of_another_length_is_refused():
    """An encoder that changed must not be learned from."""
    batch = events(3)
    with pytest.raises(ValueError, match="shape"):
        taught(replace(batch, x=batch.x[:, :-1]))

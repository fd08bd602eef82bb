"""From a log and a target to what estimators take: what counts, what is refused, and support."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline_eval.estimating import rounds, target
from offline_eval.log.data import LoggedData
from offline_eval.log.reading import read_log
from offline_eval.log.writing import write_log
from policy.objective import PRESETS, Scales
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import row

SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
MODEL = ["ips", "clipped_ips", "snips", "dm", "dr", "sndr", "switch_dr", "dros"]


def read(path: Path, *rows: LoggedDecision) -> LoggedData:
    write_log(rows, str(path))
    return read_log(str(path))


def rewards(data: LoggedData) -> Any:
    return data.rewards(PRESETS["quality"], SCALES)


@pytest.fixture
def data(tmp_path: Path) -> LoggedData:
    """Five rows of arms a, b, c, drawn with 0.6, 0.3, 0.1; the fourth of a and b alone."""
    two = {"arms": ("a", "b"), "pmf": np.array([0.4, 0.6]), "predicted": np.ones((2, 3))}
    return read(
        tmp_path,
        row("d1", Outcome(quality=1.0)),
        row("d2", Outcome(quality=0.5), arm="a", propensity=0.6),
        row("d3", Outcome()),
        row("d4", Outcome(quality=0.2), **two, propensity=0.6),
        row("d5", Outcome(quality=0.9, executed_arm="c")),
    )


def test_weights_by_hand(data: LoggedData):
    """The uniform target's 1/3 over 0.3 and 0.6, and its 1/2 over 0.6."""
    made = rounds.of(data, target.uniform(data), rewards(data))
    assert made.weights == pytest.approx([1 / 0.9, 1 / 1.8, 0.5 / 0.6])
    assert made.reward == pytest.approx([1.0, 0.5, 0.2])
    assert made.at.tolist() == [0, 1, 3]
    assert made.stands_for is None


def test_what_is_left_out_is_counted(data: LoggedData):
    """A reward that is missing, and an arm that wasn't the one drawn; neither is a 0."""
    made = rounds.of(data, target.uniform(data), rewards(data))
    assert made.dropped == {
        "executed another arm than was drawn, or none": 1,
        "have no reward": 1,
    }


def test_a_models_value_by_hand(data: LoggedData):
    """q of the logged arm, and its mean under the target; what lies beyond a set is NaN."""
    q = np.array([[0.9, 0.6, 0.3]] * 5)
    q[3, 2] = np.nan
    made = rounds.of(data, target.uniform(data), rewards(data), q)
    assert made.q_logged == pytest.approx([0.6, 0.9, 0.6])
    assert made.v_target == pytest.approx([0.6, 0.6, 0.75])


def test_every_estimator_is_there(data: LoggedData):
    """Those with a model where there is one; each with its value and terms."""
    q = np.full((5, 3), 0.5)
    q[3, 2] = np.nan
    found = rounds.estimates(rounds.of(data, target.uniform(data), rewards(data), q))
    assert list(found) == MODEL
    assert all(one.value is not None and len(one.terms) == 3 for one in found.values())
    without = rounds.estimates(rounds.of(data, target.uniform(data), rewards(data)))
    assert list(without) == MODEL[:3]


def test_without_support_nothing_is_evaluable(tmp_path: Path):
    """Where the logging policy never tried what the target would do, not even a model may say."""
    greedy = {"pmf": np.array([0.0, 1.0, 0.0]), "propensity": 1.0}
    data = read(tmp_path, *(row(f"d{i}", Outcome(quality=1.0), **greedy) for i in range(20)))
    made = rounds.of(data, target.uniform(data), rewards(data), np.full((20, 3), 0.5))
    assert made.unsupported == pytest.approx(2 / 3)
    for one in rounds.estimates(made).values():
        assert one.value is None
        assert one.why is not None
        assert "66.67% of the target's choices" in one.why
    assert rounds.estimates(made, tolerance=0.7)["snips"].value == pytest.approx(1.0)


def test_a_little_that_was_never_tried_is_tolerated(tmp_path: Path):
    """Up to one per cent."""
    greedy = {"pmf": np.array([0.0, 1.0, 0.0]), "propensity": 1.0}
    data = read(tmp_path, *(row(f"d{i}", Outcome(quality=1.0), **greedy) for i in range(4)))
    pmf = np.tile([0.009, 0.991, 0.0], (4, 1))
    assert rounds.estimates(rounds.of(data, pmf, rewards(data)))["snips"].value == pytest.approx(
        1.0
    )


def test_no_row_that_counts_is_not_evaluable(tmp_path: Path):
    """It says what happened to them."""
    data = read(tmp_path, row("d1", Outcome()), row("d2", Outcome()))
    found = rounds.estimates(rounds.of(data, target.uniform(data), rewards(data)))
    assert found["ips"].value is None
    assert found["ips"].why == "no row counts: 2 have no reward"


def test_rows_that_stand_for_others_are_weighted(tmp_path: Path):
    """One that three like it were dropped for counts as four."""
    four = replace(row("d2", Outcome(quality=0.0)), stands_for=4.0)
    data = read(tmp_path, row("d1", Outcome(quality=1.0)), four)
    found = rounds.estimates(rounds.of(data, target.logged(data), rewards(data)))
    assert found["snips"].value == pytest.approx(0.2)
    assert found["ips"].value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensity": None}, "must be given: row 1"),
        ({"propensity": 0.0}, r"must be in \(0, 1\]: row 1"),
        ({"propensity": 1.5}, r"must be in \(0, 1\]: row 1"),
        ({"arm": "z"}, "must hold the chosen arm, once: row 1"),
        ({"pmf": np.array([0.6, 0.3, 0.2])}, "must sum to 1: row 1"),
    ],
)
def test_a_bad_log_is_refused(tmp_path: Path, change: dict[str, Any], says: str):
    """With what is wrong, at which rows."""
    data = read(tmp_path, row("d1"), row("d2", **change))
    with pytest.raises(ValueError, match=says):
        rounds.of(data, target.uniform(data), rewards(data))


@pytest.mark.parametrize(
    ("pmf", "says"),
    [
        ([0.5, 0.6, -0.1], "must be >= 0: row 3"),
        ([0.5, 0.6, 0.0], "must sum to 1: row 3"),
        ([0.5, 0.4, 0.1], "must be 0 beyond the action set: row 3"),
        ([0.5, np.nan, 0.5], "must be >= 0: row 3"),
    ],
)
def test_a_bad_target_is_refused(data: LoggedData, pmf: list[float], says: str):
    """The fourth row's action set is a and b alone."""
    given = target.uniform(data)
    given[3] = pmf
    with pytest.raises(ValueError, match=says):
        rounds.of(data, given, rewards(data))


def test_a_target_of_another_shape_is_refused(data: LoggedData):
    """It belongs to another log."""
    with pytest.raises(ValueError, match=r"expected a pmf of shape \(5, 3\), got \(5, 2\)"):
        rounds.of(data, np.full((5, 2), 0.5), rewards(data))

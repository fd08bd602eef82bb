"""The benchmark of the estimators, small."""

from __future__ import annotations

from benchmarks import estimators


def test_it_times_every_estimator():
    """Beside obp where that is installed, which then agrees."""
    rows = estimators.measure(200, 3)
    assert [row["estimator"] for row in rows] == list(estimators.OBP)
    assert all(row["ms"] > 0 for row in rows)
    assert all(row["difference"] is None or row["difference"] < 1e-12 for row in rows)


def test_it_times_what_comes_before():
    """Reward model, rounds, and all estimates with their tuning."""
    assert set(estimators.measure_once_per_log(200, 3, 4)) == {"model_s", "rounds_s", "estimates_s"}

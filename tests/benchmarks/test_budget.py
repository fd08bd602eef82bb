"""What a budget's benchmark compares with, and one run of it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import budget
from tests.benchmarks.test_caution import world


def test_a_mixture_spends_what_is_given_and_no_more():
    quality = np.array([[0.2, 0.6, 0.8]] * 2)
    cost = np.array([[1.0, 2.0, 6.0]] * 2)
    assert budget.mixture(quality, cost, 2.0) == pytest.approx(0.6)
    assert budget.mixture(quality, cost, 4.0) == pytest.approx(0.7)
    assert budget.mixture(quality, cost, 9.0) == pytest.approx(0.8)


def test_a_day_keeps_its_budget(monkeypatch: pytest.MonkeyPatch):
    """Four arms at the same price: half of what all would cost serves half of the queries."""
    monkeypatch.setattr(budget, "ROUNDS", 200)
    run = budget.Run(world(), "steady", 0.005, warm=0, number=0)
    day = next(run.days(1))
    assert -0.05 < day.over <= 1e-9
    assert 90 <= day.refused <= 110

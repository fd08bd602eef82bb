"""Sessions as rows keep what the statistics promise; turns as rows don't."""

from __future__ import annotations

from benchmarks.sessions import play


def test_turns_as_rows_break_coverage_and_gate():
    """On a world whose truth is known."""
    row = play(200, runs=200)
    assert float(row["covered"] or 0) >= 0.92
    assert float(row["passed"] or 0) <= 0.05
    assert float(row["covered_turns"] or 0) < 0.85
    assert float(row["passed_turns"] or 0) > float(row["passed"] or 0)

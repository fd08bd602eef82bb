"""The benchmark of the learner folds every event; its figures are not judged here."""

from __future__ import annotations

from benchmarks import learner


def test_all_events_are_read_and_folded():
    """Some made by the service, the others copied."""
    figures = learner.benchmark(events=300, made=100)
    assert figures["events"] == 300
    assert figures["per_s"] > 0

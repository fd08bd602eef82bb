"""The benchmark of the learner folds every event and takes snapshots in; its figures are not judged
here."""

from __future__ import annotations

import pytest

from benchmarks.learner import stream, taking


def test_all_events_are_read_and_folded():
    """Some made by the service, the others copied; once by a fold, once by the learner, which
    writes a snapshot and a checkpoint at least."""
    figures = stream.benchmark(arms=12, events=320, made=100)
    assert figures["events"] == 320
    assert figures["per_s"] > 0
    assert figures["whole_per_s"] > 0
    assert figures["snapshot_kb"] > figures["snapshot_later_kb"] > 0
    assert figures["checkpoint_kb"] > figures["checkpoint_later_kb"] > 0


@pytest.mark.parametrize("model", taking.MODELS)
def test_a_snapshot_is_taken_in_while_the_loop_is_watched(
    model: str, monkeypatch: pytest.MonkeyPatch
):
    """The first one whole; then one in which one arm has learned since."""
    if model == "vw":
        pytest.importorskip("vowpal_wabbit_next")
    monkeypatch.setattr(taking, "TIMES", 2)
    monkeypatch.setattr(taking, "OUTCOMES", 50)
    figures = taking.benchmark(model, 3)
    assert figures["whole_ms"] >= figures["stall_ms"] >= 0
    assert figures["next_whole_ms"] >= figures["next_stall_ms"] >= 0

"""Which rows of a log the gate may judge a version on."""

from __future__ import annotations

from pathlib import Path

from offline_eval.gate.rows import Window
from offline_eval.log.writing import write_log
from tests.offline_eval.rows import NOON, row


def test_what_is_logged_only_because_it_was_reported_is_not_judged(tmp_path: Path):
    """Of decisions that a token brought to the log those without a report are missing, and which
    these are may hang on the outcome."""
    rows = [row("d1"), row("d2", made_at_ms=NOON + 1, logged_by="token"), row("d3")]
    write_log(rows, str(tmp_path))
    judged = Window.last(str(tmp_path), "default").table
    assert sorted(judged["decision_id"].to_pylist()) == ["d1", "d3"]

"""The benchmark of the archive reads back every round; its figures are not judged here."""

from __future__ import annotations

from benchmarks import archive


def test_all_rounds_are_archived_and_read():
    """Some made by the service, the others copied."""
    figures = archive.benchmark(rounds=300, made=100)
    assert figures["rounds"] == 300
    assert figures["entries_per_s"] > 0

"""Features of other services as ours."""

from __future__ import annotations

from features.query import Hints
from offline_eval.importing import context


def test_labels_are_bounded():
    """64 characters, where long values stay distinct; 32 labels, the first ones."""
    long = context.labels({"u": "x" * 99 + "1", "v": "x" * 99 + "2", "w" * 99: 1.5, "n": None})
    assert all(len(text) <= 64 for pair in long.items() for text in pair)
    assert len(set(long.values())) == 3
    many = context.labels({f"f{i}": i for i in range(99)})
    assert list(many) == [f"f{i}" for i in range(32)]
    Hints(labels={**long})
    Hints(labels=many)

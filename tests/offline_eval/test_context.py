"""Features of other services as ours."""

from __future__ import annotations

from features.query import Hints
from offline_eval.importing import context


def test_labels_are_what_hints_may_have():
    """The first 32 of them, of any length; null is none."""
    long = context.labels({"u": "x" * 299 + "1", "v": "x" * 299 + "2", "w" * 299: 1.5, "n": None})
    assert len(set(Hints(labels={**long}).labels.values())) == 3
    many = context.labels({f"f{i}": i for i in range(99)})
    assert list(many) == [f"f{i}" for i in range(32)]
    Hints(labels=many)

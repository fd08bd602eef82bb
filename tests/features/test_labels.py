"""Codes of callers' labels: one for the task, and a slot for each of three others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pytest

from features.encoder import Encoder
from features.labels import SLOTS, code, task_code
from features.profile import profile
from features.query import Hints

ENCODER = Encoder.default()
M = ENCODER.groups["hints"].stop - ENCODER.groups["hints"].start


def slots(labels: Mapping[str, str], language: str | None = None) -> np.ndarray:
    """(slots, features of each)."""
    return code(labels, language).reshape(SLOTS, -1)


def test_a_task_label_has_norm_one_and_others_less() -> None:
    """The others together weigh 0.7 of the task label, so norms stay bounded."""
    assert np.linalg.norm(task_code("gsm8k", M)) == pytest.approx(1.0, rel=1e-6)
    assert np.linalg.norm(task_code("code/review", M)) < 1.3
    assert np.linalg.norm(code({"app": "hrm"})) == pytest.approx(0.7, rel=1e-6)
    assert np.linalg.norm(code({"a": "1", "b": "2", "c": "3"})) == pytest.approx(0.7, rel=1e-6)
    assert np.linalg.norm(code({f"key{i}": "v" for i in range(32)})) < 1.4
    assert not code({}).any()


def test_a_context_holds_both() -> None:
    """The task label in its own features, the others in the slots, the language among them."""
    hints = Hints(task_type="math", labels={"app": "hrm"}, language="DE")
    x = ENCODER.encode(None, hints, profile(None, hints))
    assert np.array_equal(x[ENCODER.groups["hints"]], task_code("math", M))
    told = np.concatenate([x[ENCODER.groups[f"label{slot}"]] for slot in range(SLOTS)])
    assert np.array_equal(told, code({"app": "hrm"}, "de"))


def test_labels_are_keyed_and_unordered() -> None:
    """`a: b=c` is not `a=b: c`, and the order of JSON keys says nothing."""
    assert not np.array_equal(code({"a": "b=c"}), code({"a=b": "c"}))
    assert not np.array_equal(code({"language": "de"}), code({}, "de"))
    assert np.array_equal(code({"a": "1", "b": "2"}), code({"b": "2", "a": "1"}))


@pytest.mark.parametrize("number", [2, 3])
def test_labels_that_come_together_have_slots_of_their_own(number: int) -> None:
    """Whatever their names: another value of one leaves the slot of each other as it is."""
    for start in range(60):
        names = [f"key{start + i}" for i in range(number)]
        labels = dict.fromkeys(names, "a")
        unchanged = [np.all(slots(labels) == slots(labels | {name: "b"}), axis=1) for name in names]
        held = ~np.array(unchanged)  # (labels, slots)
        assert held.any(axis=1).all()
        assert (held.sum(axis=0) == 1).all()


def test_a_label_alone_has_all_slots() -> None:
    """So that more of its values can be told apart."""
    assert (slots({"app": "a"}) != slots({"app": "b"})).all(axis=1).all()


def test_more_labels_than_slots_share() -> None:
    """Each still shows, and each slot has about as many."""
    labels = dict.fromkeys("abcdefg", "1")
    for name in labels:
        changed = (slots(labels) != slots(labels | {name: "2"})).any(axis=1)
        assert changed.sum() == 1


def test_a_subtype_is_like_its_type() -> None:
    """`code/review` has the cosine 0.7 / sqrt(1.49) with `code` on average, unrelated labels 0.

    Over 200 labels the standard error is 1 / sqrt(21 * 200).
    """
    whole = task_code("code", M)
    kin = [whole @ task_code(f"code/{i}", M) for i in range(200)]
    other = [whole @ task_code(f"label{i}", M) for i in range(200)]
    assert np.mean(kin) == pytest.approx(0.573, abs=4 / 64)
    assert np.mean(other) == pytest.approx(0.0, abs=4 / 64)


def test_values_stay_separable() -> None:
    """Forty task labels: none collide, and a linear model tells twenty of them apart exactly; of a
    label alone, fifteen values."""
    codes = np.array([task_code(f"task-{i}", M) for i in range(40)])
    assert max(abs(a @ b) for a, b in combinations(codes, 2)) < 0.9
    assert np.linalg.matrix_rank(codes[:20]) == 20
    values = np.array([code({"app": f"{i}"}) for i in range(15)])
    assert np.linalg.matrix_rank(values) == 15

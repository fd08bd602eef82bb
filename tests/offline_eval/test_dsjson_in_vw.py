"""VW reads the dsjson that we write, and learns from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offline_eval.importing import to_dsjson
from policy.records import Outcome
from tests.offline_eval.rows import row
from tests.offline_eval.test_dsjson_examples import EXAMPLES, READ, needs_examples, rows_of
from tests.offline_eval.test_to_dsjson import EXPORTED

vw = pytest.importorskip("vowpal_wabbit_next")


def parsed(model: Any, text: str) -> list[Any]:
    return vw.DSJsonFormatParser(model).parse_json(text)


def test_vw_reads_what_was_exported():
    """Action, cost, probability and weight are those of the row; without a reward, no label."""
    model = vw.Workspace(["--cb_adf", "--quiet"])
    d1, _, d3, d4, d5, _ = (parsed(model, text) for text in to_dsjson.write(EXPORTED))
    labels = [example.get_label() for example in d1]
    assert labels[0].shared
    assert [one.label is not None for one in labels] == [False, False, True, False]
    assert labels[2].label[1:] == pytest.approx((-0.8, 0.3))
    assert [one.get_label().weight for one in d4[1:]] == pytest.approx([4.0] * 3)
    for example in (*d3, *d5):
        assert example.get_label().label is None


def test_vw_learns_from_what_was_exported():
    """With arm "c" good and "a" bad, it prefers "c", whose cost it predicts to be the lowest."""
    earned = {"a": 0.1, "b": 0.5, "c": 0.9}
    rows = [
        row(f"d{i}", Outcome(quality=quality), arm=arm, propensity=p, pmf=np.full(3, 1 / 3))
        for i in range(100)
        for arm, quality, p in ((name, earned[name], 1 / 3) for name in earned)
    ]
    model = vw.Workspace(["--cb_adf", "--quiet", "--cb_type", "ips"])
    texts = list(to_dsjson.write(rows))
    for text in texts:
        model.learn_one(parsed(model, text))
    scores = dict(model.predict_one(parsed(model, texts[0])))
    assert min(scores, key=lambda position: scores[position]) == 2
    assert max(scores, key=lambda position: scores[position]) == 0


@needs_examples
@pytest.mark.parametrize("name", READ)
def test_vw_sees_the_same_label_in_our_export(name: str):
    """Cost, probability and weight of the action, as it sees them in the original."""
    model = vw.Workspace(["--cb_adf", "--quiet"])

    def seen(text: str) -> list[Any]:
        found = [example.get_label() for example in parsed(model, text)]
        return [(i, *one.label[1:], one.weight) for i, one in enumerate(found) if one.label]

    ours = list(to_dsjson.write(rows_of(name)[:50]))
    theirs = [text for text in (EXAMPLES / name).read_text().splitlines() if text.strip()][:50]
    for mine, other in zip(ours, theirs, strict=True):
        ((position, *numbers),) = seen(mine)
        ((position_there, *numbers_there),) = seen(other)
        assert position == position_there
        assert numbers == pytest.approx(numbers_there, rel=1e-6)

"""dsjson written: it comes back bit for bit, and says no more than the row does."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from offline_eval.importing import to_dsjson
from offline_eval.importing.dsjson import Reader
from policy.arms.catalog import Catalog
from policy.objective import Scales
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import NOON, row
from tests.pointsman.sets import arm

EXPORTED = [
    row("d1"),
    row("d2", Outcome(quality=0.25, closed=True), made_at_ms=NOON + 1),
    row("d3", Outcome(executed=False, closed=True)),
    replace(row("d4", Outcome(quality=1.0, closed=True), arm="c", propensity=0.1), stands_for=4.0),
    row("d5", Outcome()),
    row("d6", Outcome(error="timeout", closed=True), policy="other"),
]


def test_what_was_exported_is_imported_again():
    """Arms, action sets, propensities, contexts and rewards, bit for bit."""
    back = list(Reader().read(to_dsjson.write(EXPORTED)))
    assert len(back) == len(EXPORTED)
    for one, was in zip(back, EXPORTED, strict=True):
        assert isinstance(one, LoggedDecision), one
        for name in ("decision_id", "version", "snapshot", "encoder", "made_at_ms", "arm", "arms"):
            assert getattr(one.decision, name) == getattr(was.decision, name)
        assert one.decision.propensity == was.decision.propensity
        assert one.decision.pmf.tolist() == was.decision.pmf.tolist()
        assert one.decision.x.tobytes() == was.decision.x.tobytes()
        quality = 0.0 if was.outcome.error else was.outcome.quality
        assert one.outcome.quality == quality
        assert one.outcome.executed == was.outcome.executed
        assert one.outcome.closed == was.outcome.closed
        assert one.stands_for == was.stands_for


def test_a_version_may_hold_anything():
    """Imported ones are model ids such as "a/b"; the context still comes back as it was."""
    was = row(version="a/b/7\n/c")
    (back,) = Reader().read(to_dsjson.write([was]))
    assert isinstance(back, LoggedDecision)
    assert back.decision.version == "a/b/7\n/c"
    assert back.decision.x.tobytes() == was.decision.x.tobytes()


def test_the_cost_is_the_negative_reward():
    """Of the row's own objective, with its policy's references; of quality without any."""
    scales = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
    (plain,) = to_dsjson.write([row()])
    assert json.loads(plain)["_label_cost"] == -0.8
    (whole,) = to_dsjson.write([row()], scales={"default": scales})
    assert json.loads(whole)["_label_cost"] == pytest.approx(-0.725)
    (partly,) = to_dsjson.write([row("d", Outcome(quality=0.8))], scales={"default": scales})
    assert "_label_cost" not in json.loads(partly)
    with pytest.raises(ValueError, match="are given for policy 'default'"):
        list(to_dsjson.write([row()], scales={}))


def test_what_nobody_could_learn_from_is_refused():
    """Without a propensity a line weighs nothing: no file of them is written."""
    was = row()
    unknown = replace(was, decision=replace(was.decision, propensity=math.nan))
    with pytest.raises(ValueError, match="has no propensity"):
        list(to_dsjson.write([unknown]))


def test_nobody_learns_from_an_outcome_of_another_arm():
    """Its propensity isn't known."""
    (text,) = to_dsjson.write([row("d", Outcome(quality=1.0, executed_arm="c"))])
    exported = json.loads(text)
    assert exported["_skipLearn"] is True
    assert "_label_cost" not in exported


def test_the_catalog_adds_features_to_arms():
    """An arm that has left it keeps its id."""
    (text,) = to_dsjson.write([row()], catalog=Catalog((arm("a", 1.0),)))
    first, second, _ = json.loads(text)["c"]["_multi"]
    assert first["j"] == {
        "provider": "maker",
        "model": "a-model",
        "usd_per_mtok_in": 1.0,
        "usd_per_mtok_out": 2.0,
    }
    assert second == {"_tag": "b", "i": {"constant": 1, "id": "b"}}

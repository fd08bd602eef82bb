"""dsjson: what each field means, what is refused and why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query
from offline_eval.importing.dsjson import Reader
from offline_eval.importing.rows import Range, Skipped
from policy.records import LoggedDecision, Outcome

COFFEE: dict[str, Any] = {
    "_label_cost": -1.0,
    "_label_probability": 0.2,
    "_label_Action": 3,
    "_labelIndex": 2,
    "o": [{"v": 1.0, "EventId": "e1", "ActionTaken": False}],
    "Timestamp": "2021-02-04T16:31:29.2460000Z",
    "Version": "1",
    "EventId": "e1",
    "a": [3, 1, 2],
    "c": {
        "FromUrl": [{"weather": "Sunny", "age": 30}],
        "_multi": [
            {"_tag": "Latte", "i": {"constant": 1, "id": "latte-1"}, "j": [{"sku": 7}]},
            {"_tag": "Mocha", "i": {"constant": 1, "id": "mocha-1"}, "j": [{"sku": 8}]},
            {"_tag": "Cold brew", "i": {"constant": 1, "id": "cold-1"}, "j": [{"sku": 9}]},
        ],
    },
    "p": [0.2, 0.7, 0.1],
    "VWState": {"m": "a model"},
    "_original_label_cost": -1.0,
}


def line(drop: tuple[str, ...] = (), **changes: Any) -> str:
    return json.dumps({k: v for k, v in {**COFFEE, **changes}.items() if k not in drop})


def read(text: str, reader: Reader | None = None) -> LoggedDecision:
    (one,) = (reader or Reader()).read([text])
    assert isinstance(one, LoggedDecision), one
    return one


def reason(text: str, reader: Reader | None = None) -> str:
    (one,) = (reader or Reader()).read([text])
    assert isinstance(one, Skipped), one
    return one.reason


def multi(*actions: Any) -> dict[str, Any]:
    return {"c": {**COFFEE["c"], "_multi": list(actions)}}


def test_a_line_by_hand():
    """Action 3 of 3 was taken; `p` follows the ranking `a`, the row follows `_multi`."""
    one = read(line(), Reader(policy="coffee"))
    decision = one.decision
    assert decision.decision_id == "e1"
    assert decision.policy == "coffee"
    assert decision.version == "a model"
    assert decision.made_at_ms == 1_612_456_289_246
    assert decision.arms == ("Latte", "Mocha", "Cold brew")
    assert decision.pmf.tolist() == [0.7, 0.1, 0.2]
    assert (decision.arm, decision.propensity) == ("Cold brew", 0.2)
    assert one.outcome == Outcome(quality=1.0, closed=True)
    assert one.stands_for == 1.0


def test_shared_features_become_labels_and_text_the_query():
    """So that x is what our encoder would have made of the same request."""
    encoder = Encoder.default()
    hints = Hints(labels={"FromUrl.weather": "Sunny", "FromUrl.age": "30"})
    plain = read(line()).decision
    assert plain.x.tolist() == encoder.encode(None, hints, profile(None, hints)).tolist()
    assert plain.encoder == encoder.fingerprint
    query = Query(text="Which coffee?")
    told = read(line(c={**COFFEE["c"], "_text": "Which coffee?"})).decision
    assert told.x.tolist() == encoder.encode(query, hints, profile(query, hints)).tolist()


@pytest.mark.parametrize(
    ("pointer", "arms"),
    [
        (None, ("Latte", "Mocha", "Cold brew")),
        ("/i/id", ("latte-1", "mocha-1", "cold-1")),
        ("/j/0/sku", ("7", "8", "9")),
    ],
)
def test_a_pointer_names_the_arm(pointer: str | None, arms: tuple[str, ...]):
    """Else `_tag`, else an id."""
    assert read(line(), Reader(arm_id=pointer)).decision.arms == arms


def test_an_action_without_an_id_is_known_by_its_features():
    """The order of keys is none of them; what looks the same is told apart by its place."""
    actions = ({"j": {"x": 1, "y": 2}}, {"j": {"y": 2, "x": 1}}, {"j": {"x": 1, "y": 3}})
    first, second, third = read(line(**multi(*actions))).decision.arms
    assert second == f"{first}#2"
    assert third not in (first, second)
    again = read(line(**multi(*actions[::-1]))).decision.arms
    assert again == (third, first, second)


def test_ids_may_lie_in_a_namespace():
    """`id`, one within a namespace, or `__aid`, which VW uses to leave repeated features out."""
    ids = read(line(**multi({"id": 7}, {"f": 1, "i": {"id": "b"}}, {"__aid": 12}))).decision.arms
    assert ids == ("7", "b", "12")


def test_actions_may_be_counted_from_0():
    """Simulators do; a 0 in `a` tells."""
    assert read(line(a=[2, 0, 1])).decision.pmf.tolist() == [0.7, 0.1, 0.2]


def test_actions_that_are_not_ranked_are_not_in_the_action_set():
    """They could not be drawn."""
    one = read(line(a=[3, 1], p=[0.2, 0.8])).decision
    assert one.arms == ("Latte", "Cold brew")
    assert one.pmf.tolist() == [0.8, 0.2]


def test_without_an_id_or_a_time_the_line_number_serves():
    """Which keeps the order. Blank lines count, and give nothing."""
    text = line(drop=("EventId", "Timestamp"))
    second, fourth = Reader().read(["", text, " \n", text], source="old")
    assert isinstance(second, LoggedDecision)
    assert isinstance(fourth, LoggedDecision)
    assert second.decision.decision_id == "old-2"
    assert (fourth.decision.decision_id, fourth.decision.made_at_ms) == ("old-4", 4)


def test_a_time_without_a_zone_is_utc():
    """As the services write it."""
    assert read(line(Timestamp="2021-04-26T17:23:28.1726275")).decision.made_at_ms % 1_000 == 173


def test_a_repeated_event_is_skipped():
    """A row must not count twice, even when it comes from another file."""
    seen: set[str] = set()
    first, again = Reader().read([line(), line()], seen=seen)
    (elsewhere,) = Reader().read([line()], seen=seen)
    assert isinstance(first, LoggedDecision)
    assert again == Skipped(2, "EventId 'e1' has been there before")
    assert isinstance(elsewhere, Skipped)


def test_a_decision_that_was_never_activated_was_not_executed():
    """`_skipLearn` in a joined log, a deferred action without an observation in a raw one."""
    for text in (line(_skipLearn=True), line(DeferredAction=True, o=[])):
        assert read(text).outcome == Outcome(executed=False, closed=True)
    assert read(line(DeferredAction=True)).outcome.executed


def test_a_thinned_log_says_how_many_each_row_stands_for():
    """1 / (1 - pdrop). Older converters put 1 - pdrop into the label's probability as well."""
    for said in (0.2, 0.05):
        one = read(line(pdrop=0.75, _label_probability=said))
        assert one.stands_for == 4.0
        assert one.decision.propensity == 0.2


def test_a_line_without_a_label_has_no_outcome():
    """The first ranked action was taken; what it earned is missing, not 0."""
    label = ("_label_cost", "_label_probability", "_label_Action", "_labelIndex")
    one = read(line(drop=(*label, "_original_label_cost")))
    assert one.decision.arm == "Cold brew"
    assert one.outcome == Outcome()


def test_the_label_may_be_an_object():
    """VW takes both, in any case of letters."""
    label = {"Cost": -0.5, "Probability": 0.2, "Action": 3}
    drop = ("_label_cost", "_label_probability", "_label_Action", "_original_label_cost")
    one = read(line(drop=drop, _label=label))
    assert one.outcome.quality == 0.5


def test_probabilities_written_as_float32_sum_to_1_again():
    """A third times three is 1.00000003 there."""
    third = [0.333333343] * 3
    decision = read(line(p=third, _label_probability=0.333333343)).decision
    assert decision.pmf.sum() == pytest.approx(1.0, abs=1e-15)
    assert decision.propensity == decision.pmf[2]


def test_rewards_are_put_to_0_to_1_where_a_range_is_given():
    """And refused where none is: a clipped reward would be another."""
    both = {"_label_cost": 3.0, "_original_label_cost": 3.0}
    assert reason(line(**both)) == "reward -3 is outside 0 to 1: give its range"
    assert read(line(**both), Reader(rewards=Range(-5.0, 5.0))).outcome.quality == 0.2
    with pytest.raises(ValueError, match="needs MIN < MAX"):
        Range(1.0, 1.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[CHECKPOINT INFO LINE]", "not JSON: "),
        ("[1, 2]", "not a JSON object"),
        ('{"RewardValue": 1.0, "Observations": []}', "an outcome without its decision"),
        ('{"_multi": [{}], "_label_Cost": 1}', "VW's plain JSON format, not dsjson"),
        ('{"EventId": "e"}', "no context `c`"),
        (line(c=7), "the context `c` must be an object"),
        (line(c={"_multi": []}), "`c._multi` must be a list"),
        (line(c={**COFFEE["c"], "_slots": [{}]}), "conditional contextual bandit"),
        (line(c={"_multi": [{"_slot_id": 0}], "_slots": [{}]}), "slates"),
        (line(o=[{"v": {"v=click": 1}, "_definitely_bad": False}]), "interaction-grounded"),
        ('{"_label_ca": {"action": 1.5}, "c": {"f": 1}}', "continuous actions"),
        (line(_original_label_cost=-0.0), "the label's cost is not the original one"),
        (line(drop=("a",)), "`a` must list the actions"),
        (line(a=["x"]), "`a` must list the actions"),
        (line(drop=("p",)), "`p` must list the probabilities"),
        (line(p=[0.5, 0.5]), "`a` has 3 actions, `p` has 2 probabilities"),
        (line(a=[3, 1, 1]), "`a` must name each of 3 actions at most once"),
        (line(a=[4, 1, 2]), "`a` must name each of 3 actions at most once"),
        (line(p=[0.2, 0.7, 0.2]), "`p` must be >= 0 and sum to 1, got a sum of 1.1"),
        (line(p=[0.0, 0.9, 0.1]), "the action that was taken has probability 0"),
        (line(_label_probability=0.7), "_label_probability is 0.7, but `p` says 0.2"),
        (line(_labelIndex=1), "_labelIndex 1 and _label_Action 3 are not the same action"),
        (line(_labelIndex=9, _label_Action=10), "_labelIndex must be one of 3 actions, got 9"),
        (line(a=[1, 2], p=[0.5, 0.5]), "action 3 was taken, but `a` doesn't hold it"),
        (line(_label_cost="0", _original_label_cost="0"), "_label_cost must be a number, finite"),
        (line(pdrop=1.0), "pdrop 1: such a row can't have been kept"),
        (line(pdrop=2.0), "pdrop must be a number, in [0, 1], got 2.0"),
        (line(Timestamp="yesterday"), "Timestamp must be ISO 8601, got 'yesterday'"),
    ],
)
def test_a_line_that_is_no_row_says_why(text: str, why: str):
    """Nothing is dropped in silence, nothing stops the reading."""
    assert reason(text).startswith(why)


def test_a_pointer_to_nothing_says_so():
    """On the line that lacks it; a pointer that can't be one is a fault of the call."""
    assert reason(line(), Reader(arm_id="/i/sku")) == "an action has nothing at /i/sku"
    assert reason(line(), Reader(arm_id="/j")) == "an action has no plain value at /j"
    with pytest.raises(ValueError, match="starts with '/'"):
        Reader(arm_id="i.id")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.sampled_from([*COFFEE, "_text", "_multi", "x"]), JSON, st.booleans())
def test_no_line_stops_the_reading(key: str, value: Any, ours: bool):
    """Whatever stands in a field, the line gives a row or a reason."""
    changed: dict[str, Any] = {key: value} if key in COFFEE else {"c": {**COFFEE["c"], key: value}}
    if ours:
        changed = {"VWState": {"m": "pointsman/3/42/e1"}, **changed}
    (one,) = Reader().read([line(**changed)])
    assert isinstance(one, Skipped) == (not isinstance(one, LoggedDecision))

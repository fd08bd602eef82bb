"""dsjson: what each field means, what is refused and why, and that VW reads what we write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vowpal_wabbit_next as vw
from hypothesis import given
from hypothesis import strategies as st

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query
from offline_eval.importing import dsjson
from offline_eval.importing.dsjson import Reader, Skipped
from offline_eval.log.checking import check_log
from offline_eval.log.reading import read_log, read_rows
from offline_eval.log.writing import write_log
from policy.arms.catalog import Catalog
from policy.objective import PRESETS, Scales
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import NOON, row
from tests.pointsman.sets import arm

EXAMPLES = Path(__file__).parents[2] / "../shared/data/vw_examples"
needs_examples = pytest.mark.skipif(not EXAMPLES.exists(), reason="needs the shared vw_examples")

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


def test_labels_are_bounded():
    """64 characters, where long values stay distinct; 32 labels, the first ones."""
    long = dsjson.labels({"u": "x" * 99 + "1", "v": "x" * 99 + "2", "w" * 99: 1.5, "n": None})
    assert all(len(text) <= 64 for pair in long.items() for text in pair)
    assert len(set(long.values())) == 3
    many = dsjson.labels({f"f{i}": i for i in range(99)})
    assert list(many) == [f"f{i}" for i in range(32)]
    Hints(labels={**long})
    Hints(labels=many)


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
    assert read(line(**both), Reader(reward_range=(-5.0, 5.0))).outcome.quality == 0.2
    with pytest.raises(ValueError, match="needs MIN < MAX"):
        Reader(reward_range=(1.0, 1.0))


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
    back = list(Reader().read(dsjson.write(EXPORTED)))
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
    (back,) = Reader().read(dsjson.write([was]))
    assert isinstance(back, LoggedDecision)
    assert back.decision.version == "a/b/7\n/c"
    assert back.decision.x.tobytes() == was.decision.x.tobytes()


def test_the_cost_is_the_negative_reward():
    """Of the row's own objective, with its policy's references; of quality without any."""
    scales = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
    (plain,) = dsjson.write([row()])
    assert json.loads(plain)["_label_cost"] == -0.8
    (whole,) = dsjson.write([row()], scales={"default": scales})
    assert json.loads(whole)["_label_cost"] == pytest.approx(-0.725)
    (partly,) = dsjson.write([row("d", Outcome(quality=0.8))], scales={"default": scales})
    assert "_label_cost" not in json.loads(partly)
    with pytest.raises(ValueError, match="are given for policy 'default'"):
        list(dsjson.write([row()], scales={}))


def test_nobody_learns_from_an_outcome_of_another_arm():
    """Its propensity isn't known."""
    (text,) = dsjson.write([row("d", Outcome(quality=1.0, executed_arm="c"))])
    exported = json.loads(text)
    assert exported["_skipLearn"] is True
    assert "_label_cost" not in exported


def test_the_catalog_adds_features_to_arms():
    """An arm that has left it keeps its id."""
    (text,) = dsjson.write([row()], catalog=Catalog((arm("a", 1.0),)))
    first, second, _ = json.loads(text)["c"]["_multi"]
    assert first["j"] == {
        "provider": "maker",
        "model": "a-model",
        "usd_per_mtok_in": 1.0,
        "usd_per_mtok_out": 2.0,
    }
    assert second == {"_tag": "b", "i": {"constant": 1, "id": "b"}}


def parsed(model: vw.Workspace[Any], text: str) -> list[Any]:
    return vw.DSJsonFormatParser(model).parse_json(text)


def test_vw_reads_what_was_exported():
    """Action, cost, probability and weight are those of the row; without a reward, no label."""
    model = vw.Workspace(["--cb_adf", "--quiet"])
    d1, _, d3, d4, d5, _ = (parsed(model, text) for text in dsjson.write(EXPORTED))
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
    texts = list(dsjson.write(rows))
    for text in texts:
        model.learn_one(parsed(model, text))
    scores = dict(model.predict_one(parsed(model, texts[0])))
    assert min(scores, key=lambda position: scores[position]) == 2
    assert max(scores, key=lambda position: scores[position]) == 0


REFUSED = {
    "cats_room_temp.json": "continuous actions",
    "cats_train.json": "continuous actions",
    "cb_features_w_zero_vals.dsjson": "the label's cost is not the original one",
    "cb_test.json": "VW's plain JSON format",
    "cb_test256.json": "VW's plain JSON format",
    "ccb_automl.dsjson": "conditional contextual bandit",
    "ccb_data.json": "conditional contextual bandit",
    "ccb_reuse_medium.dsjson": "conditional contextual bandit",
    "igl.dsjson": "interaction-grounded",
    "slates_simple_unlabeled.dsjson": "slates",
}
READ = {
    "cb_simple.json": 1,
    "datascience_cb_1000_0.json": 1_000,
    "datascience_cb_1000_1.json": 1_000,
    "datascience_cb_100_0.json": 100,
    "decisionservice.json": 3,
    "dsjson_cb.json": 23,
    "dsjson_cb_default_ns.json": 4,
    "dsjson_cb_part1.json": 12,
    "dsjson_cb_part2.json": 11,
    "no_shared_features.json": 1,
}


def example(name: str) -> list[LoggedDecision | Skipped]:
    with (EXAMPLES / name).open("rb") as lines:
        return list(Reader().read(lines))


def rows_of(name: str) -> list[LoggedDecision]:
    return [one for one in example(name) if isinstance(one, LoggedDecision)]


@needs_examples
def test_every_example_is_known():
    """A new one must be put among those that are read or those that are refused."""
    files = {p.name for p in EXAMPLES.iterdir() if p.suffix in (".json", ".dsjson")}
    assert files == REFUSED.keys() | READ.keys()


@needs_examples
@pytest.mark.parametrize("name", REFUSED)
def test_examples_of_other_problems_are_refused(name: str):
    """Each line, for the right reason."""
    for one in example(name):
        assert isinstance(one, Skipped)
        assert one.reason.startswith(REFUSED[name])


@needs_examples
@pytest.mark.parametrize("name", READ)
def test_examples_are_read_whole_and_are_valid(tmp_path: Path, name: str):
    """No line is skipped, and the log of them passes its check, exported and imported again too."""
    rows = rows_of(name)
    assert len(rows) == len(example(name)) == READ[name]
    write_log(rows, str(tmp_path / "first"))
    check_log(read_log(str(tmp_path / "first")))
    rows = list(read_rows(str(tmp_path / "first")))
    again = [r for r in Reader().read(dsjson.write(rows)) if isinstance(r, LoggedDecision)]
    assert [r.decision.version for r in again] == [r.decision.version for r in rows]
    assert [r.decision.x.tobytes() for r in again] == [r.decision.x.tobytes() for r in rows]
    assert [r.decision.pmf.tolist() for r in again] == [r.decision.pmf.tolist() for r in rows]
    assert [r.outcome.quality for r in again] == [r.outcome.quality for r in rows]


@needs_examples
@pytest.mark.parametrize("name", READ)
def test_vw_sees_the_same_label_in_our_export(name: str):
    """Cost, probability and weight of the action, as it sees them in the original."""
    model = vw.Workspace(["--cb_adf", "--quiet"])

    def seen(text: str) -> list[Any]:
        found = [example.get_label() for example in parsed(model, text)]
        return [(i, *one.label[1:], one.weight) for i, one in enumerate(found) if one.label]

    ours = list(dsjson.write(rows_of(name)[:50]))
    theirs = [text for text in (EXAMPLES / name).read_text().splitlines() if text.strip()][:50]
    for mine, other in zip(ours, theirs, strict=True):
        ((position, *numbers),) = seen(mine)
        ((position_there, *numbers_there),) = seen(other)
        assert position == position_there
        assert numbers == pytest.approx(numbers_there, rel=1e-6)


@needs_examples
def test_a_regression_of_vw_is_ours_to_know():
    """A decision that was never used, six outcomes without a decision, a line of no JSON."""
    used, *others = example("b1848_dsjson_parser_regression.txt")
    assert isinstance(used, LoggedDecision)
    assert not used.outcome.executed
    reasons = [one.reason for one in others if isinstance(one, Skipped)]
    assert reasons[:6] == ["an outcome without its decision"] * 6
    assert reasons[6].startswith("not JSON")


@needs_examples
def test_ips_of_the_policy_that_logged_is_the_mean_reward(tmp_path: Path):
    """Each weight pmf[arm] / propensity is 1; 473 of the 1,000 costs in the file are -1."""
    name = "datascience_cb_1000_0.json"
    write_log(rows_of(name), str(tmp_path))
    logged = read_log(str(tmp_path))
    check_log(logged)
    rewards = logged.rewards(PRESETS["quality"], Scales(1.0, 1.0))
    chosen = logged.actions == logged.arm[:, None]
    ratio = logged.pmf[chosen] / logged.propensity
    assert (ratio * rewards).mean() == rewards.mean() == 0.473
    lines = (EXAMPLES / name).read_text().splitlines()
    costs = [json.loads(text)["_label_cost"] for text in lines]
    assert sum(costs) == -473
    # The policy that always takes the arm of the first row, by IPS: 4 where it was taken.
    first = logged.arm == logged.arm[0]
    by_hand = sum(4 * -cost for cost, taken in zip(costs, first, strict=True) if taken) / 1_000
    assert np.where(first, 1 / logged.propensity, 0.0) @ rewards / 1_000 == pytest.approx(by_hand)

"""Tables: what each column means, what is refused and why, and what is made of what isn't said."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query
from offline_eval.importing import columns
from offline_eval.importing.rows import Range, Skipped
from offline_eval.importing.table import Given, Reader
from policy.objective import Weights
from policy.records import LoggedDecision, Outcome

ROW: dict[str, Any] = {
    "decision_id": "d1",
    "time": "2026-01-31T12:00:00Z",
    "arm": "a",
    "quality": "0.75",
    "latency_ms": "812",
    "cost_usd": "0.0012",
    "propensity": "0.25",
    "app": "hrm",
    "seats": 7,
    "text": "Write a haiku",
    "task_type": "writing",
}
LABELS = {"labels": ("app", "seats")}


def read(
    *records: Any, reader: Reader | None = None, seen: set[str] | None = None
) -> list[LoggedDecision | Skipped]:
    reader = reader or Reader(given=LABELS)
    found = list(reader.read(iter(records), "log", set() if seen is None else seen))
    rows = reader.rows([one for one in found if isinstance(one, Given)])
    return [one if isinstance(one, Skipped) else next(rows) for one in found]


def row(reader: Reader | None = None, **changes: Any) -> LoggedDecision:
    """Beside one of another arm."""
    other = {**ROW, **changes, "decision_id": "d2", "arm": "b"}
    one, _ = read({**ROW, **changes}, other, reader=reader)
    assert isinstance(one, LoggedDecision), one
    return one


def reason(reader: Reader | None = None, **changes: Any) -> str:
    (one,) = read({**ROW, **changes}, reader=reader)
    assert isinstance(one, Skipped), one
    return one.reason


@pytest.mark.parametrize("nothing", ["", "nan", "NaN", "NA", "N/A", "<NA>", "NULL", "None", None])
def test_a_number_that_is_said_to_be_missing_is_missing(nothing: str | None):
    """As pandas, R and SQL write it: the row stays, for what lacks its latency isn't wrong, and
    leaving such rows out would bias what is left."""
    one = row(latency_ms=nothing)
    assert one.outcome.latency_ms is None
    assert one.outcome.quality == 0.75
    assert "must be in (0, 1]" in reason(propensity=nothing)


def test_a_row_by_hand():
    """Columns that are called like what they mean need no word of it; labels are named."""
    one = row()
    assert one.decision.decision_id == "d1"
    assert one.decision.made_at_ms == 1_769_860_800_000
    assert (one.decision.arm, one.decision.propensity) == ("a", 0.25)
    assert one.decision.weights == Weights(1.0, 0.0, 0.0)
    assert one.outcome == Outcome(quality=0.75, latency_ms=812.0, cost_usd=0.0012, closed=True)
    assert not one.propensity_estimated
    query, hints = Query(text="Write a haiku"), Hints(labels={"app": "hrm", "seats": "7"})
    hints = hints.model_copy(update={"task_type": "writing"})
    encoder = Encoder.default()
    assert one.decision.encoder == encoder.fingerprint
    assert one.decision.x.tolist() == encoder.encode(query, hints, profile(query, hints)).tolist()


@pytest.mark.parametrize(
    "at",
    [
        "2026-01-31 12:00:00",
        "2026-01-31T13:00:00+01:00",
        1_769_860_800,
        "1769860800",
        1_769_860_800.0,
        1_769_860_800_000,
        1_769_860_800_000_000,
        1_769_860_800_000_000_000,
        datetime(2026, 1, 31, 12),
        datetime(2026, 1, 31, 12, tzinfo=UTC),
    ],
)
def test_times_are_read_as_people_write_them(at: Any):
    """ISO 8601, UTC without a zone, or seconds, milli-, micro- or nanoseconds since 1970."""
    assert row(time=at).decision.made_at_ms == 1_769_860_800_000


@pytest.mark.parametrize("value", ["1", 1, 1.0, True, "true", Decimal(1), np.float32(1.0)])
def test_a_reward_may_be_a_number_or_a_truth(value: Any):
    """As CSV, JSON and Parquet have them: a click is 1."""
    assert row(quality=value).outcome.quality == 1.0


@pytest.mark.parametrize("value", [None, "", math.nan])
def test_what_is_empty_is_missing_and_not_0(value: Any):
    """A reward that never came has no value."""
    assert row(quality=value).outcome.quality is None


def test_rewards_have_the_range_that_is_given():
    """Five stars are 1, one star is 0."""
    reader = Reader(given={"reward": "stars"}, rewards=Range(1.0, 5.0))
    assert row(reader, stars="5").outcome.quality == 1.0
    assert row(reader, stars=2).outcome.quality == 0.25
    assert reason(reader, stars=0) == "reward 0 is outside 1 to 5: give its range"


def test_an_error_is_one():
    """It scores 0, whatever else there is."""
    assert row(error="timeout").outcome.error == "timeout"


def test_without_an_id_or_a_time_the_place_serves():
    """Which keeps the order."""
    bare = {"arm": "a", "reward": 1}
    first, second = read(bare, bare, reader=Reader())
    assert isinstance(first, LoggedDecision)
    assert isinstance(second, LoggedDecision)
    assert (first.decision.decision_id, first.decision.made_at_ms) == ("log-1", 1)
    assert (second.decision.decision_id, second.decision.made_at_ms) == ("log-2", 2)


def test_a_repeated_decision_is_skipped():
    """A row must not count twice, even when it comes from another file."""
    _, again, _ = read(ROW, ROW, {**ROW, "decision_id": "d2", "arm": "b"})
    assert again == Skipped(2, "decision 'd1' has been there before")


def test_a_column_for_each_arm_is_the_whole_pmf():
    """An empty cell is an arm that wasn't eligible, a 0 one that was."""
    of_arms = {"p_a": 0.25, "p_b": "0.75", "p_c": None, "p_d": 0.0}
    made = row(Reader(given={"propensity": "p_*"}), **of_arms).decision
    assert made.arms == ("a", "b", "d")
    assert made.pmf.tolist() == [0.25, 0.75, 0.0]
    assert made.propensity == 0.25
    named = Reader(given={"propensity": {"a": "p_a", "b": "p_b"}})
    assert row(named, **of_arms).decision.arms == ("a", "b")


def test_what_one_propensity_leaves_is_shared_out_among_the_others():
    """By how often each was chosen: half to b, which was as often as c; weights use none of it."""
    records = [{**ROW, "decision_id": str(i), "arm": arm} for i, arm in enumerate("abc")]
    first, *_ = read(*records)
    assert isinstance(first, LoggedDecision)
    assert first.decision.arms == ("a", "b", "c")
    assert first.decision.pmf.tolist() == [0.25, 0.375, 0.375]


def test_one_arm_alone_was_certain():
    """A lower propensity speaks of arms that no row names."""
    (one,) = read({**ROW, "propensity": 1})
    assert isinstance(one, LoggedDecision)
    assert one.decision.pmf.tolist() == [1.0]
    with pytest.raises(ValueError, match=r"every row chose 'a', with a propensity of 0\.25"):
        read(ROW)


def test_without_propensities_they_are_unknown():
    """Not 1, not a share: nobody knows."""
    records = [{"arm": arm, "reward": 1} for arm in "ab"]
    for one in read(*records, reader=Reader()):
        assert isinstance(one, LoggedDecision)
        assert one.decision.arms == ("a", "b")
        assert math.isnan(one.decision.propensity)
        assert np.isnan(one.decision.pmf).all()
        assert not one.propensity_estimated


def test_estimated_propensities_are_marked_in_each_row():
    """Without any context, they are the arms' shares."""
    records = [{"arm": arm, "reward": 1} for arm in "aaab" * 200]
    rows = read(*records, reader=Reader(estimate=True))
    for one in rows:
        assert isinstance(one, LoggedDecision)
        assert one.propensity_estimated
        assert one.decision.pmf.tolist() == pytest.approx([0.75, 0.25], abs=0.01)
        assert one.decision.propensity == one.decision.pmf["ab".index(one.decision.arm)]
    assert not row(Reader(estimate=True)).propensity_estimated  # its column holds them


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"arm": None}, "arm is missing: no arm"),
        ({"time": None}, "time is missing: no time"),
        ({"time": "yesterday"}, "time must be ISO 8601 or a number of seconds since 1970, got"),
        ({"quality": "good"}, "quality must be a number, finite, got 'good'"),
        ({"quality": 1.5}, "reward 1.5 is outside 0 to 1: give its range"),
        ({"latency_ms": -1}, "latency_ms must be a number, in [0, inf], got -1"),
        ({"cost_usd": "inf"}, "cost_usd must be a number, in [0, inf], got inf"),
        ({"propensity": None}, "propensity must be in (0, 1], got None"),
        ({"propensity": 0}, "propensity must be in (0, 1], got 0"),
        ({"propensity": 1.5}, "propensity must be a number, in [0, 1], got 1.5"),
    ],
)
def test_a_row_that_is_none_says_why(changes: dict[str, Any], why: str):
    """Nothing is dropped in silence, nothing stops the reading."""
    assert reason(**changes).startswith(why)


def test_probabilities_that_are_none_say_why():
    """The chosen arm must have one, and they must sum to 1."""
    reader = Reader(given={"propensity": "p_*"})
    assert reason(reader, p_a=None, p_b=1.0) == "'a' was chosen, and has no probability > 0"
    assert reason(reader, p_a=0.5, p_b=0.4).startswith("the arms' probabilities must be >= 0 and")


@pytest.mark.parametrize(
    ("said", "names", "why"),
    [
        ({}, ["model", "reward"], "there is no column 'arm'; found model, reward"),
        ({"labels": ("app",)}, ["arm", "reward"], "there is no column 'app'; found arm, reward"),
        ({}, ["arm", "text"], "no column says what came of a choice: name one as reward, quality"),
        ({"propensity": "p_*"}, ["arm", "reward"], "no column is called like 'p_*'; found"),
        ({}, ["arm", "reward", "quality"], "reward and quality say the same"),
    ],
)
def test_columns_that_say_too_little_are_refused(said: dict[str, Any], names: list[str], why: str):
    """Naming what there is."""
    with pytest.raises(columns.ColumnError) as told:
        columns.chosen(said, names)
    assert str(told.value).startswith(why)


def test_a_toml_says_the_same_as_options():
    """One label or a list of them, one column of propensities or one for each arm."""
    text = 'arm = "model"\nlabels = ["app", "team"]\n[propensity]\na = "p_a"\n'
    assert columns.parse("\ufeff" + text, "columns.toml") == {
        "arm": "model",
        "labels": ("app", "team"),
        "propensity": {"a": "p_a"},
    }
    options = columns.options(["arm=model", "label=app", "labels=team,size", "propensity=p_*"])
    assert options == {"arm": "model", "labels": ("app", "team", "size"), "propensity": "p_*"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('amr = "x"', "columns.toml: unknown key 'amr'; did you mean 'arm'?"),
        ("arm = 7", "columns.toml: arm: expected a column's name, got 7"),
        ("labels = [7]", "columns.toml: labels: expected a list of columns' names, got [7]"),
        ("arm = ", "columns.toml: Invalid value"),
    ],
)
def test_a_toml_that_is_wrong_says_where(text: str, why: str):
    """File, key, what was expected."""
    with pytest.raises(ValueError, match=r"columns\.toml") as told:
        columns.parse(text, "columns.toml")
    assert str(told.value).startswith(why)


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        ("arm", "--column: expected ROLE=COLUMN, got 'arm'"),
        ("nobody=x", "--column: unknown key 'nobody' (known: arm, decision_id"),
    ],
)
def test_an_option_that_is_wrong_says_so(pair: str, why: str):
    """As in a TOML; a role has one column."""
    with pytest.raises(ValueError, match="--column") as told:
        columns.options([pair])
    assert str(told.value).startswith(why)
    with pytest.raises(ValueError, match="--column: arm is given twice"):
        columns.options(["arm=a", "arm=b"])


CELL = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.datetimes()
)


@given(st.sampled_from([*ROW]), CELL | st.lists(CELL, max_size=3))
def test_no_cell_stops_the_reading(name: str, value: Any):
    """Whatever stands in a cell, the row is one or says why it is none."""
    others = ({**ROW, "decision_id": arm, "arm": arm} for arm in "bc")
    one, *_ = read({**ROW, name: value}, *others)
    assert isinstance(one, Skipped) == (not isinstance(one, LoggedDecision))

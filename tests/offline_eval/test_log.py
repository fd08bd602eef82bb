"""The log: what is written is read, by policy and time, as records and as arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offline_eval.log.checking import check_log
from offline_eval.log.data import LoggedData
from offline_eval.log.reading import fingerprint, range_of, read_log, read_rows
from offline_eval.log.writing import write_log
from policy.objective import PRESETS, Scales, Weights
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import DAY_MS, NOON, decision, row, same

SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
FULL = LoggedDecision(
    decision(
        query="What is 1 + 1?",
        logged_by="token",
        challenger="4",
        challenger_pmf=np.array([0.2, 0.3, 0.5]),
        share=0.1,
        challenger_encoder="e2",
        challenger_x=np.array([1.0, -0.3], dtype=np.float32),
    ),
    Outcome(0.0, 120.0, None, "timeout", "c", False, True, NOON + 5, reported_by="4b1d"),
    stands_for=4.0,
)


def data(tmp_path: Path, *rows: LoggedDecision) -> LoggedData:
    write_log(rows, str(tmp_path / "log"))
    return read_log(str(tmp_path / "log"))


@pytest.mark.parametrize(
    "one", [row(), FULL, row(outcome=Outcome())], ids=["usual", "full", "none"]
)
def test_a_row_comes_back_bit_for_bit(tmp_path: Path, one: LoggedDecision):
    """All of the decision, the outcome and the challenger; what is missing stays missing."""
    assert write_log([one], str(tmp_path)) == 1
    (back,) = read_rows(str(tmp_path))
    assert same(back, one)


def test_files_lie_by_policy_and_day(tmp_path: Path):
    """As hive partitions; a policy's name may hold anything."""
    path = str(tmp_path)
    write_log([row("x", policy="a/b c"), row("y", made_at_ms=NOON + DAY_MS)], path)
    folders = {str(file.parent.relative_to(tmp_path)) for file in tmp_path.rglob("*.parquet")}
    assert folders == {"policy=a%2Fb%20c/day=2024-10-04", "policy=default/day=2024-10-05"}
    assert [one.decision.decision_id for one in read_rows(path, policy="a/b c")] == ["x"]


def test_rows_come_in_the_order_they_were_made(tmp_path: Path):
    """Over files and days, and by id where two were made in the same millisecond."""
    for i, at in enumerate((NOON + DAY_MS, NOON + 1, NOON, NOON)):
        write_log([row(f"d{i}", made_at_ms=at)], str(tmp_path))
    assert read_log(str(tmp_path)).decision_ids == ("d2", "d3", "d1", "d0")


def test_a_time_range_holds_its_start_and_not_its_end(tmp_path: Path):
    """As ranges do."""
    made = [row(f"d{i}", made_at_ms=NOON + i * DAY_MS) for i in range(4)]
    write_log(made, str(tmp_path))
    some = read_log(str(tmp_path), from_ms=NOON + DAY_MS, to_ms=NOON + 3 * DAY_MS)
    assert some.decision_ids == ("d1", "d2")
    assert len(read_log(str(tmp_path), from_ms=NOON + 9 * DAY_MS)) == 0


def test_writing_the_same_rows_again_replaces_them(tmp_path: Path):
    """A writer that crashed writes its batch again: no row may count twice."""
    for _ in range(2):
        write_log([row("d1"), row("d2")], str(tmp_path))
        write_log([row("d3")], str(tmp_path), name="stream-7")
    assert len(read_log(str(tmp_path))) == 3


def test_a_file_that_is_not_complete_is_not_read(tmp_path: Path):
    """It gets its name when it is."""
    write_log([row()], str(tmp_path))
    (file,) = tmp_path.rglob("*.parquet")
    file.with_name(".torn.writing").write_bytes(file.read_bytes()[:100])
    assert len(read_log(str(tmp_path))) == 1


def test_a_uri_names_a_log_too(tmp_path: Path):
    """Any that pyarrow, or fsspec where it is installed, knows."""
    write_log([row()], tmp_path.as_uri())
    assert len(read_log(tmp_path.as_uri())) == 1
    with pytest.raises(ValueError, match="nosuch://there"):
        read_log("nosuch://there")


def test_no_log_and_other_files_are_refused(tmp_path: Path):
    """In one line that names the path."""
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="there is no log at"):
            read_log(str(path))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: expected a log of .*, got other files"):
        read_log(str(tmp_path))


def test_arrays_by_hand(tmp_path: Path):
    """Arms are positions among all ids of the log; short rows are padded."""
    two = decision("d2", arms=("z", "b"), pmf=np.array([0.5, 0.5]), predicted=np.zeros((2, 3)))
    two = replace(two, arm="z", propensity=0.5, made_at_ms=NOON + 1, version="4")
    both = data(
        tmp_path,
        row("d1", challenger="9", challenger_pmf=np.array([0.0, 1.0, 0.0]), share=0.2),
        LoggedDecision(two, Outcome(error="timeout", executed_arm="b")),
    )
    assert both.ids == ("a", "b", "c", "z")
    assert both.decision_ids == ("d1", "d2")
    assert both.versions == ("3", "4")
    assert both.arm.tolist() == [1, 3]
    assert both.actions.tolist() == [[0, 1, 2], [3, 1, -1]]
    assert both.counts.tolist() == [3, 2]
    assert both.pmf.tolist() == [[0.6, 0.3, 0.1], [0.5, 0.5, 0.0]]
    assert both.propensity.tolist() == [0.3, 0.5]
    assert both.contexts.dtype == np.float32
    assert both.contexts.shape == (2, 3)
    assert both.predicted[0, 0].tolist() == [0.9, 800.0, 0.01]
    assert np.isnan(both.predicted[1, 2]).all()
    assert both.challengers == ("9", None)
    assert both.challenger_pmf[0].tolist() == [0.0, 1.0, 0.0]
    assert np.isnan(both.challenger_pmf[1]).all()
    assert both.share.tolist() == [0.2, 0.0]
    assert both.outcomes[0].tolist() == [0.8, 500.0, 0.004]
    assert np.isnan(both.outcomes[1]).all()
    assert both.error.tolist() == [False, True]
    assert both.executed.tolist() == [True, False]
    assert both.closed.tolist() == [True, False]
    check_log(both)


def test_a_decision_that_was_withdrawn_was_not_executed(tmp_path: Path):
    """Nor was one whose caller took another arm; the same arm said aloud is no other."""
    ends = [Outcome(executed=False), Outcome(executed_arm="c"), Outcome(executed_arm="b")]
    rows = [row(f"d{i}", outcome) for i, outcome in enumerate(ends)]
    assert data(tmp_path, *rows).executed.tolist() == [False, False, True]


def test_rewards_by_hand(tmp_path: Path):
    """0.7 * 0.8 + 0.15 * (1 - 0.5) + 0.15 * (1 - 0.4) = 0.725; missing is NaN, an error quality 0,
    s(latency) 1 and s(cost) 0."""
    some = data(
        tmp_path,
        row("d1"),
        row("d2", Outcome(quality=0.8)),
        row("d3", Outcome(error="timeout")),
        row("d4", Outcome(quality=0.8), weights=PRESETS["quality"]),
    )
    own = some.rewards(None, SCALES)
    assert own == pytest.approx(np.array([0.725, np.nan, 0.15, 0.8]), nan_ok=True)
    quality = some.rewards(PRESETS["quality"], SCALES)
    assert quality == pytest.approx(np.array([0.8, 0.8, 0.0, 0.8]))


def test_a_frame_has_a_row_per_decision(tmp_path: Path):
    """Readable columns, arms by their names; what is missing or wasn't offered is NaN."""
    two = decision("d2", arms=("z", "b"), pmf=np.array([0.5, 0.5]), predicted=np.zeros((2, 3)))
    two = replace(two, arm="z", propensity=0.5, made_at_ms=NOON + 1)
    corrected = Outcome(quality=0.2, reported_quality=0.9)
    some = data(tmp_path, row("d1"), LoggedDecision(two, corrected))
    frame = some.frame().set_index("decision_id")
    assert frame["arm"].tolist() == ["b", "z"]
    assert str(frame["made_at"].iloc[0]) == "2024-10-04 12:00:00+00:00"
    assert frame["quality"].tolist() == [0.8, 0.2]
    assert frame["reported_quality"].tolist() == pytest.approx([np.nan, 0.9], nan_ok=True)
    assert frame["latency_ms"].isna().tolist() == [False, True]
    assert frame["p[a]"].tolist() == pytest.approx([0.6, np.nan], nan_ok=True)
    assert frame["p[z]"].tolist() == pytest.approx([np.nan, 0.5], nan_ok=True)
    assert frame["predicted_quality[b]"].tolist() == [0.7, 0.0]
    assert not [name for name in frame.columns if name.startswith("challenger_p[")]
    assert not [name for name in some.frame(per_arm=False).columns if "[" in name]
    rewards = frame.assign(reward=some.rewards(PRESETS["quality"], SCALES))["reward"]
    assert rewards.groupby(frame["arm"]).mean().to_dict() == {"b": 0.8, "z": 0.2}


def test_predicted_rewards_by_hand(tmp_path: Path):
    """0.7 * 0.9 + 0.15 * (1 - 0.8) + 0.15 * (1 - 1) = 0.66; what wasn't predicted is NaN."""
    some = data(tmp_path, row("d1"), row("d2", weights=PRESETS["quality"]))
    own = some.predicted_rewards(None, SCALES)
    expected = np.array([[0.66, np.nan, np.nan], [0.9, 0.7, 0.5]])
    assert own == pytest.approx(expected, nan_ok=True)
    quality = some.predicted_rewards(PRESETS["quality"], SCALES)
    assert quality == pytest.approx(np.array([[0.9, 0.7, 0.5]] * 2))


def test_contexts_of_two_encoders_do_not_mix(tmp_path: Path):
    """The same numbers mean other things."""
    with pytest.raises(ValueError, match=r"contexts of 2 encoders \(e1, e2\)"):
        data(tmp_path, row("d1"), row("d2", encoder="e2"))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"propensity": float("nan")}, "propensities must be given: row 1"),
        ({"propensity": 0.0}, r"propensities must be in \(0, 1\]: row 1"),
        ({"propensity": 1.5}, r"propensities must be in \(0, 1\]: row 1"),
        ({"arm": "z"}, "action sets must hold the chosen arm, once: row 1"),
        ({"arms": ("b", "b", "c")}, "action sets must hold the chosen arm, once: row 1"),
        ({"pmf": np.array([0.6, 0.3, 0.2])}, "pmfs must sum to 1: row 1"),
        ({"pmf": np.array([0.7, 0.3])}, "pmfs must sum to 1: row 1"),
        ({"pmf": np.array([0.9, 0.3, -0.2])}, "pmfs must be >= 0: row 1"),
        ({"pmf": np.array([0.6, 0.31, 0.09])}, "propensities must be the pmf at the chosen arm"),
        ({"outcome": Outcome(quality=1.2)}, r"qualities must be in \[0, 1\]: row 1"),
        ({"outcome": Outcome(latency_ms=-1.0)}, "latencies and costs must be >= 0"),
        ({"outcome": Outcome(cost_usd=np.inf)}, "latencies and costs must be >= 0 and finite"),
        ({"weights": Weights(0.0, 0.0, 0.0)}, "weights must be >= 0, and not all 0: row 1"),
    ],
)
def test_check_names_what_is_wrong_and_where(tmp_path: Path, changes: dict[str, Any], fault: str):
    """Rows are counted from 0, as arrays are."""
    both = data(tmp_path, row("d1"), row("d2", **changes))
    with pytest.raises(ValueError, match=fault):
        check_log(both)


def test_a_row_stands_for_a_positive_number_of_decisions(tmp_path: Path):
    """0 would be no row, and less makes no sense."""
    two = data(tmp_path, row("d1"), row("d2"))
    for wrong in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="stand for a positive number of decisions: row 1"):
            check_log(replace(two, stands_for=np.array([1.0, wrong])))


def test_contexts_of_unlike_lengths_are_refused(tmp_path: Path):
    """Though there are as many numbers in all as there should be."""
    uneven = [np.zeros(d, dtype=np.float32) for d in (2, 3, 1)]
    with pytest.raises(ValueError, match="contexts must all have 2 numbers: rows 1, 2"):
        data(tmp_path, *(row(f"d{i}", x=x) for i, x in enumerate(uneven)))


def test_check_refuses_a_decision_that_is_there_twice(tmp_path: Path):
    """Written under two names, say."""
    for name in ("one", "other"):
        write_log([row()], str(tmp_path), name=name)
    with pytest.raises(ValueError, match="decision ids must not repeat: row 1"):
        check_log(read_log(str(tmp_path)))


def test_check_names_the_first_rows_only(tmp_path: Path):
    """And how many more there are."""
    some = data(tmp_path, *(row(f"d{i}") for i in range(9)))
    with pytest.raises(ValueError, match=r"rows 0, 1, 2, 3, 4 and 4 more \(from decision d0 on\)$"):
        check_log(replace(some, propensity=np.zeros(9)))


def test_a_range_says_which_rows_were_used(tmp_path: Path):
    """Reading it again gives the same rows, or another digest."""
    path = str(tmp_path)
    write_log([row(f"d{i}", made_at_ms=NOON + i) for i in range(10)], path)
    used = fingerprint(read_log(path, from_ms=NOON + 2, to_ms=NOON + 7), path)
    assert (used.rows, used.from_ms, used.to_ms) == (5, NOON + 2, NOON + 7)
    assert range_of(path, from_ms=used.from_ms, to_ms=used.to_ms) == used
    write_log([row("late", made_at_ms=NOON + 3)], path)
    assert range_of(path, from_ms=used.from_ms, to_ms=used.to_ms).digest != used.digest
    assert range_of(path, to_ms=NOON).rows == 0


def test_some_rows_of_a_log(tmp_path: Path):
    """In the order asked for, all columns alike; the arms stay those of the whole log."""
    write_log([row("d1", arm="a", propensity=0.6), row("d2"), row("d3")], str(tmp_path))
    data = read_log(str(tmp_path))
    some = data.take(np.array([2, 0]))
    assert (len(some), some.decision_ids) == (2, ("d3", "d1"))
    assert [some.ids[i] for i in some.arm] == ["b", "a"]
    assert some.propensity.tolist() == [0.3, 0.6]
    assert (some.ids, some.encoder) == (data.ids, data.encoder)
    check_log(some)

"""The archive: streams in, the log's rows out; what counts, what is joined, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from offline_eval.log import archive, events, files, segments
from offline_eval.log.archive import Archive
from offline_eval.log.checking import check_log
from offline_eval.log.reading import read_log, read_rows, read_table
from offline_eval.log.segments import POSITION, Id, Position, Segment, file_names
from offline_eval.log.writing import write_log
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import DAY_MS, NOON, decision, row, same
from tests.offline_eval.streams import MIDNIGHT, decided, outcome_of, told, write


@pytest.fixture(params=["folder", "file", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for an archive: a folder, or a URI that pyarrow or only fsspec knows."""
    uris = {
        "folder": str(tmp_path / "log"),
        "file": (tmp_path / "log").as_uri(),
        "memory": f"memory://{tmp_path.name}/log",
    }
    return uris[request.param]


def test_a_row_comes_back_bit_for_bit(path: str):
    """Wherever the archive lies: the decision, its outcome and what its challenger saw."""
    made = decision(
        query="What is 1 + 1?",
        challenger="4",
        challenger_pmf=np.array([0.2, 0.3, 0.5]),
        share=0.1,
        challenger_encoder="e2",
        challenger_x=np.array([1.0, -0.3], dtype=np.float32),
    )
    parts = {"quality": "0.8", "latency_ms": "500.0", "cost_usd": "0.004"}
    write(path, [decided("1-0", made)], [told("1-1", **parts)], closed=NOON + 1)
    outcome = Outcome(0.8, 500.0, 0.004, closed=True, at_ms=NOON + 9)
    (back,) = read_rows(path)
    assert same(back, LoggedDecision(made, outcome))
    assert read_log(path).catalogs == ("c0ffee",)


def test_events_come_back_to_the_byte(path: str):
    """Also what no column can hold exactly, and fields that nobody has heard of."""
    strange = told("7-1", quality="1", latency_ms="1e3", error="", x=b"abc", new="\u00e9", late="2")
    correction = told(
        "7-2",
        correction="1",
        by="ann",
        reason="wrong",
        quality="0.25",
        old_quality="1.0",
        old_cost_usd="",
        taught="7-1",
        shadow='{"version": "4"}',
        challenger_x=b"\0\0\x80?",
    )
    write(path, [], [told("7-0"), strange, correction])
    assert [one for some in archive.events(path, "default") for one in some] == [
        told("7-0"),
        strange,
        correction,
    ]
    assert [one for some in archive.events(path, "default", after="7-1") for one in some] == [
        correction
    ]
    assert events.from_table(events.to_table([])) == []


def test_events_of_several_days_come_in_stream_order(tmp_path: Path):
    """Files lie under the day of the decision, and a late outcome's day is an old one."""
    path = str(tmp_path)
    days = [NOON, NOON + DAY_MS, NOON + 2 * DAY_MS]
    every = [told(f"{i}-0", made_at_ms=str(days[i * 7 % 3])) for i in range(1, 40)]
    for start in range(0, 39, 5):
        write(path, [], every[start : start + 5])
    assert [one for some in archive.events(path, "default") for one in some] == every
    before = [one for some in archive.events(path, "default", before_ms=20) for one in some]
    assert before == every[:19]


def test_a_crash_leaves_nothing_that_counts(path: str):
    """Files beyond the position are passed over, removed by the next writer and written again."""
    write(path, [decided("1-0", decision("d1"))], [])
    Archive(path, "default").add([decided("2-0", decision("d2"))], [told("2-0", quality="0.5")])
    assert read_log(path).decision_ids == ("d1",)
    assert list(archive.events(path, "default")) == []
    both = [decided("2-0", decision("d2")), decided("3-0", decision("d3"))]
    write(path, both, [told("2-0", quality="0.5")])
    assert read_log(path).decision_ids == ("d1", "d2", "d3")


def test_a_crash_between_two_files_of_a_batch_repeats_nothing(tmp_path: Path):
    """A batch around midnight has one per day; either may be missing."""
    early = decided("1-0", decision("d1", made_at_ms=MIDNIGHT - 1))
    late = decided("2-0", decision("d2", made_at_ms=MIDNIGHT))
    for day in ("2024-10-04", "2024-10-05"):
        path = tmp_path / day
        Archive(str(path), "default").resume({})
        Archive(str(path), "default").add([early, late], [])
        (lost,) = path.rglob(f"day={day}/*.parquet")
        lost.unlink()
        write(str(path), [early, late], [])
        assert read_log(str(path)).decision_ids == ("d1", "d2")


def small_files(path: str, n: int) -> Archive:
    """n batches of one decision and its outcome each."""
    target = Archive(path, "default")
    target.resume({})
    for i in range(1, n + 1):
        made = [decided(f"{i}-0", decision(f"d{i:02}", made_at_ms=NOON + i))]
        target.add(made, [told(f"{i}-1", f"d{i:02}", quality="0.5")])
        target.commit(Position(f"{i}-0", f"{i}-1"))
    return target


def test_small_files_of_a_day_become_one(path: str):
    """With the same rows and events, also while an archive is read that is merged meanwhile."""
    target = small_files(path, archive.MERGED)
    every = read_table(path)
    reading = archive.events(path, "default")
    first = next(reading)
    target.merge()
    on, root = files.filesystem(path)
    names = {name.rpartition("/")[2] for name in file_names(on, root)}
    merged = {"1-0_32-0_0.parquet", "1-1_32-1_0.parquet", POSITION}
    assert names == merged
    assert read_table(path).equals(every)
    told_before = [entry for some in (first, *reading) for entry, _ in some]
    told_after = [entry for some in archive.events(path, "default") for entry, _ in some]
    assert told_before == told_after == [f"{i}-1" for i in range(1, archive.MERGED + 1)]


def test_a_crash_while_merging_repeats_nothing(tmp_path: Path):
    """The file that spans others counts, and they don't; the next writer removes them."""
    target = small_files(str(tmp_path), archive.MERGED)
    parts = {file: file.read_bytes() for file in tmp_path.rglob("*.parquet")}
    target.merge()
    for file, content in list(parts.items())[::3]:
        file.write_bytes(content)
    assert len(read_log(str(tmp_path))) == archive.MERGED
    assert sum(map(len, archive.events(str(tmp_path), "default"))) == archive.MERGED
    Archive(str(tmp_path), "default").resume({}, token=1)
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_a_writer_that_was_overtaken_removes_nothing_of_its_successors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Though it found the leftovers of a crash first, and its successor wrote the same entries."""
    path, batch = str(tmp_path), [decided("1-0", decision("d1", made_at_ms=NOON))]
    crashed = Archive(path, "default")
    crashed.resume({}, token=1)
    crashed.add(batch, [])
    late, successor = Archive(path, "default"), Archive(path, "default")

    def slow(names: Sequence[str], limit: Id) -> list[Segment]:
        monkeypatch.undo()
        successor.resume({}, token=3)
        successor.add(batch, [])
        successor.commit(Position("1-0"))
        return counting(names, limit)

    counting = segments.that_count
    monkeypatch.setattr(archive, "that_count", slow)
    late.resume({}, token=2)
    assert [row.decision.decision_id for row in read_rows(path)] == ["d1"]


def test_the_log_of_another_service_is_left_alone(tmp_path: Path):
    """Its versions and stream ids mean other things."""
    Archive(str(tmp_path), "default").resume({}, token=1, origin="one")
    Archive(str(tmp_path), "default").resume({}, token=2, origin="one")
    with pytest.raises(ValueError, match="belongs to another service"):
        Archive(str(tmp_path), "default").resume({}, token=3, origin="other")


def test_files_that_overlap_repeat_nothing(tmp_path: Path):
    """An archiver that had been overtaken wrote a batch with other bounds, in its last breath."""
    small_files(str(tmp_path), 4)
    late = [told(f"{i}-1", f"d{i:02}", quality="0.5") for i in (2, 3)]
    Archive(str(tmp_path), "default").add([], late)
    Archive(str(tmp_path), "default").add([], [told("3-1", "d03", quality="0.5"), *late[2:]])
    assert [e for some in archive.events(str(tmp_path), "default") for e, _ in some] == [
        f"{i}-1" for i in range(1, 5)
    ]
    some = [told(f"{i}-1", f"d{i:02}", quality="0.5") for i in (3, 4)]
    Archive(str(tmp_path), "default").add([], some)
    assert read_log(str(tmp_path)).outcomes[:, 0].tolist() == [0.5] * 4


def test_an_outcome_after_midnight_finds_its_decision(tmp_path: Path):
    """It lies under the decision's day, so a day is joined without looking at another."""
    made = decision(made_at_ms=MIDNIGHT - 1)
    event = told("2-0", made_at_ms=str(MIDNIGHT - 1), at_ms=str(MIDNIGHT + 5), quality="0.5")
    write(str(tmp_path), [decided("1-0", made)], [event])
    assert outcome_of(str(tmp_path)).quality == 0.5
    days = {file.parent.name for file in tmp_path.rglob("*.parquet")}
    assert days == {"day=2024-10-04"}
    assert archive.days(str(tmp_path)) == ["2024-10-04"]


def test_rows_are_filtered_by_policy_and_time(tmp_path: Path):
    """As those of a joined log, in the order they were made."""
    path = str(tmp_path)
    made = [decision(f"d{i}", made_at_ms=NOON + i * DAY_MS) for i in (2, 0, 1)]
    write(path, [decided(f"{i}-0", one) for i, one in enumerate(made, start=1)], [])
    other = Archive(path, "a/b c")
    other.resume({})
    other.add([decided("1-0", decision("x", policy="a/b c"))], [])
    other.commit(Position("1-0"))
    assert archive.policies(path) == ["a/b c", "default"]
    assert read_log(path, policy="default").decision_ids == ("d0", "d1", "d2")
    assert read_log(path).decision_ids == ("d0", "x", "d1", "d2")
    assert read_log(path, "default", NOON + 1, NOON + 2 * DAY_MS).decision_ids == ("d1",)
    assert read_log(path, to_ms=NOON).decision_ids == ()
    assert read_table(path, columns=["quality", "policy"]).column_names == ["quality", "policy"]


def test_components_that_come_one_by_one_are_one_row(tmp_path: Path):
    """Each from the event that brought it; the last one says when."""
    parts = [
        told("1-1", latency_ms="120.0"),
        told("1-2", quality="0.5", earlier="latency_ms ", at_ms=str(NOON + 20)),
        told("1-3", error="timeout", at_ms=str(NOON + 30)),
    ]
    write(str(tmp_path), [decided("1-0", decision())], parts)
    expected = Outcome(0.5, 120.0, None, "timeout", at_ms=NOON + 30)
    assert outcome_of(str(tmp_path)) == expected


def test_what_came_late_is_not_evaluated(tmp_path: Path):
    """After the reward window a component is learned from; the row is closed without it."""
    late = told("1-2", quality="1.0", error="late", late="1", at_ms=str(NOON + 99))
    write(str(tmp_path), [decided("1-0", decision())], [told("1-1", latency_ms="120.0"), late])
    assert outcome_of(str(tmp_path)) == Outcome(latency_ms=120.0, at_ms=NOON + 9)


def test_other_arms_and_withdrawals_are_told(tmp_path: Path):
    """Neither is evaluable: the outcome isn't that of the arm that was drawn."""
    other = told("1-1", "d1", arm="c", quality="1.0")
    withdrawn = told("1-2", "d2", executed="0")
    made = [decided("1-0", decision("d1")), decided("2-0", decision("d2"))]
    write(str(tmp_path), made, [other, withdrawn])
    first, second = (one.outcome for one in read_rows(str(tmp_path)))
    assert (first.executed_arm, first.executed, first.quality) == ("c", True, 1.0)
    assert (second.executed_arm, second.executed) == (None, False)
    assert read_log(str(tmp_path)).executed.tolist() == [False, False]


def test_a_correction_replaces_a_value_and_shows_both(tmp_path: Path):
    """The last one counts, whenever it came; what was reported is what it was at first."""
    parts = [
        told("1-1", quality="1.0", cost_usd="0.004"),
        told("1-2", correction="1", quality="0.5", old_quality="1.0", by="ann", reason="r1"),
        told(
            "1-3",
            correction="1",
            quality="0.25",
            old_quality="0.5",
            by="bob",
            reason="r2",
            late="1",
            at_ms=str(NOON + 99),
        ),
    ]
    write(str(tmp_path), [decided("1-0", decision())], parts)
    assert outcome_of(str(tmp_path)) == Outcome(
        quality=0.25,
        cost_usd=0.004,
        at_ms=NOON + 9,
        reported_quality=1.0,
        corrected_by="bob",
        correction_reason="r2",
    )
    data = read_log(str(tmp_path))
    np.testing.assert_array_equal(data.reported, [[1.0, np.nan, np.nan]])


def test_the_key_of_the_last_report_is_in_the_row(tmp_path: Path):
    """Not that of who corrected it; null where there was none."""
    parts = [
        told("1-1", quality="0.5", reported_by="4b1d"),
        told("1-2", latency_ms="9.0", reported_by="77aa"),
        told("1-3", correction="1", quality="0.1", old_quality="0.5", by="a", reported_by="0000"),
        told("1-4", "d2", quality="0.5"),
    ]
    write(str(tmp_path), [decided("1-0", decision("d1")), decided("1-1", decision("d2"))], parts)
    assert [row.outcome.reported_by for row in read_rows(str(tmp_path))] == ["77aa", None]


def test_a_correction_of_what_came_late_changes_nothing(tmp_path: Path):
    """The value it corrects isn't evaluated either."""
    parts = [
        told("1-1", quality="1.0", late="1"),
        told("1-2", correction="1", quality="0.5", old_quality="1.0", by="ann", late="1"),
    ]
    write(str(tmp_path), [decided("1-0", decision())], parts)
    assert outcome_of(str(tmp_path)) == Outcome()


def test_a_decision_made_again_under_its_id_is_one_row(tmp_path: Path):
    """The server lost the first after it was archived; the caller was answered the second."""
    made = [decision("d1"), decision("d1", arm="c", propensity=0.1, made_at_ms=NOON + 5)]
    write(str(tmp_path), [decided(f"{i}-0", one) for i, one in enumerate(made, 1)], [])
    check_log(data := read_log(str(tmp_path)))
    assert [data.ids[i] for i in data.arm] == ["c"]


def test_rows_close_with_the_position(tmp_path: Path):
    """A decision made before what the position says is closed."""
    made = [decided(f"{i}-0", decision(f"d{i}", made_at_ms=NOON + i)) for i in (1, 2)]
    write(str(tmp_path), made, [], closed=NOON + 2)
    assert read_log(str(tmp_path)).closed.tolist() == [True, False]


def test_catalogs_are_kept_by_revision(path: str):
    """Each once; one that is not there is named."""
    target = Archive(path, "default")
    target.resume({})
    assert target.add([decided("1-0", decision())], []) == {"c0ffee"}
    target.put_catalog("c0ffee", b'{"arms": []}')
    assert target.add([decided("2-0", decision())], []) == set()
    with pytest.raises(LookupError, match="has no catalog 'other'"):
        archive.catalog(path, "default", "other")


def test_what_cant_be_read_is_named(tmp_path: Path):
    """Torn files, other files, and a position that says nothing."""
    write(str(tmp_path), [decided("1-0", decision())], [told("1-1", quality="1.0")])
    (file,) = tmp_path.glob("outcomes/**/*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=f"{file.parent}: can't be read"):
        read_log(str(tmp_path))
    file.write_bytes(whole)
    position = tmp_path / "policy=default" / POSITION
    for torn in ("", "{}x", '{"nothing": 1}'):
        position.write_text(torn)
        with pytest.raises(ValueError, match=f"{position}: doesn't say what is archived"):
            read_log(str(tmp_path))
    position.unlink()
    with pytest.raises(ValueError, match="is missing, which says"):
        Archive(str(tmp_path), "default").resume({})


def test_imported_rows_do_not_mix_with_an_archive(tmp_path: Path):
    """They would be read as neither."""
    write(str(tmp_path), [decided("1-0", decision())], [])
    with pytest.raises(ValueError, match="archive of a running service"):
        write_log([row()], str(tmp_path))

"""A log in parts says what it says whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline_eval.estimating import (
    estimators,
    intervals,
    reward_models,
    rounds,
    target,
    tuning,
)
from offline_eval.log.reading import read_log
from offline_eval.log.writing import write_log
from offline_eval.streaming.evaluation import evaluate
from offline_eval.streaming.parts import Part, cut, read
from policy.objective import PRESETS, Weights
from policy.records import Outcome
from tests.offline_eval.long_logs import (
    SCALES,
    WEIGHTS,
    agree,
    alike,
    in_files,
    rows,
)
from tests.offline_eval.rows import DAY_MS, NOON, row
from tests.offline_eval.streams import decided as archived
from tests.offline_eval.streams import told, write
from tests.offline_eval.test_target import LINEAR, TAUGHT, THREE, decided, make


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return in_files(tmp_path_factory.mktemp("log"), rows(), 40)


@pytest.mark.parametrize("size", [11, 64, 149, 1_000])
def test_it_agrees_with_the_log_in_memory(path: str, size: int):
    """To 1e-9, however it is cut; parts needn't have the same arms."""
    found = evaluate(cut(path, rows=size), target.uniform, SCALES, WEIGHTS)
    data = read_log(path)
    agree(found, data, target.uniform(data), WEIGHTS)


@pytest.mark.parametrize(
    "made", [target.logged, target.challenger, target.uniform, partial(target.one_arm, arm="b")]
)
@pytest.mark.parametrize("weights", [None, PRESETS["balanced"]])
def test_any_target_under_any_objective(path: str, made: Any, weights: Weights | None):
    """Each row's own objective, too."""
    data = read_log(path)
    found = evaluate(cut(path, rows=70), made, SCALES, weights)
    agree(found, data, made(data), weights)


def test_a_target_may_name_an_arm_that_a_part_has_not(path: str):
    """Uniform there, as in memory; one that no part has is refused."""
    data, parts = read_log(path), cut(path, rows=150)
    of_d = partial(target.one_arm, arm="d")
    agree(evaluate(parts, of_d, SCALES, WEIGHTS), data, of_d(data), WEIGHTS)
    with pytest.raises(ValueError, match="'z' is in no action set"):
        evaluate(parts, partial(target.one_arm, arm="z"), SCALES, WEIGHTS)


def test_rows_that_stand_for_others(tmp_path: Path):
    """Weigh as much in parts; but a confidence sequence has none of them."""
    made = [replace(one, stands_for=1.0 + i % 3) for i, one in enumerate(rows())]
    path = in_files(tmp_path, made, 100)
    data, parts = read_log(path), cut(path, rows=60)
    found = evaluate(parts, target.uniform, SCALES, WEIGHTS)
    agree(found, data, target.uniform(data), WEIGHTS)
    with pytest.raises(ValueError, match="stand for several"):
        evaluate(parts, target.uniform, SCALES, WEIGHTS, sequence=True)


def test_the_confidence_sequence_is_that_of_all_rows(path: str):
    """Rows come in the order they were decided, though files overlap."""
    found = evaluate(cut(path, rows=50), target.uniform, SCALES, WEIGHTS, sequence=True)
    data = read_log(path)
    whole = rounds.of(data, target.uniform(data), data.rewards(WEIGHTS, SCALES))
    expected = intervals.value_sequence(whole.weights, whole.reward)
    assert found.sequence == pytest.approx(expected, rel=0, abs=1e-9)


def test_parts_follow_each_other(path: str):
    """Together all rows in order, each part within its size and of one day."""
    parts = cut(path, rows=64)
    assert [part.rows for part in parts] == [64, 64, 22] * 3
    ids = [i for part in parts for i in read(part).decision_ids]
    assert ids == list(read_log(path).decision_ids)


def test_parts_of_a_stretch_of_a_policy(path: str):
    """As `read_log` takes them."""
    from_ms, to_ms = NOON + DAY_MS, NOON + DAY_MS + 900_000
    parts = cut(path, "default", from_ms, to_ms, rows=10)
    data = read_log(path, "default", from_ms, to_ms)
    assert sum(part.rows for part in parts) == len(data) > 0
    found = evaluate(parts, target.uniform, SCALES, WEIGHTS)
    agree(found, data, target.uniform(data), WEIGHTS)
    assert cut(path, "another") == []


def test_an_archive_comes_in_parts_too(tmp_path: Path):
    """Each decision with what came of it, and without its neighbours' outcomes."""
    path = str(tmp_path)
    made = [one.decision for one in rows()]
    quality = [str(i % 10 / 10) for i in range(len(made))]
    write(
        path,
        [archived(f"{i}-0", one) for i, one in enumerate(made, 1)],
        [
            told(
                f"{i}-1",
                one.decision_id,
                quality=quality[i - 1],
                arm=one.arm,
                decided_arm=one.arm,
                made_at_ms=str(one.made_at_ms),
            )
            for i, one in enumerate(made, 1)
        ],
        closed=NOON + 9 * DAY_MS,
    )
    data, parts = read_log(path), cut(path, "default", rows=40)
    assert sum(part.rows for part in parts) == len(data) == len(made)
    found = evaluate(parts, target.uniform, SCALES, WEIGHTS)
    agree(found, data, target.uniform(data), WEIGHTS)


def test_rows_of_a_millisecond_stay_together(tmp_path: Path):
    """A part may be larger for it."""
    made = [row(f"d{i}", made_at_ms=NOON + at) for i, at in enumerate([0, 1, 1, 1, 1, 2, 3])]
    parts = cut(in_files(tmp_path, made, 3), rows=2)
    assert [part.rows for part in parts] == [1, 4, 2]


def test_a_part_of_no_rows_is_refused(path: str):
    """And so is one of less."""
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        cut(path, rows=0)


def test_parts_may_be_empty(path: str):
    """A stretch of time without decisions changes nothing, and neither does one that counts for
    nothing."""
    parts = cut(path, rows=64)
    nothing = Part(path, None, 0, 1, 0)
    among = [nothing, *parts[:2], nothing, *parts[2:]]
    found = evaluate(among, target.uniform, SCALES, WEIGHTS)
    assert found == evaluate(parts, target.uniform, SCALES, WEIGHTS)


@pytest.mark.parametrize("parts", [[], [Part("", None, 0, 1, 0)]])
def test_no_rows_are_no_zero(path: str, parts: list[Part]):
    """Nothing is said of them, with the reason."""
    parts = [replace(part, path=path) for part in parts]
    found = evaluate(parts, target.uniform, SCALES, WEIGHTS)
    assert {(one.value, one.why) for one in found.values.values()} == {(None, "there are no rows")}


def test_without_support_nothing_is_evaluable(tmp_path: Path):
    """As in memory."""
    greedy: dict[str, Any] = {"pmf": np.array([0.0, 1.0, 0.0]), "propensity": 1.0}
    path = in_files(tmp_path, [row(f"d{i}", made_at_ms=NOON + i, **greedy) for i in range(9)], 3)
    found = evaluate(cut(path, rows=4), target.uniform, SCALES, WEIGHTS)
    assert found.unsupported == pytest.approx(2 / 3)
    for one in found.values.values():
        assert one.value is None
        assert "66.67% of the target's choices" in str(one.why)


def test_where_the_target_was_never_drawn_only_a_model_speaks(tmp_path: Path):
    """As in memory: each estimator that weighs says why it can't."""
    path = in_files(tmp_path, [row(f"d{i}", made_at_ms=NOON + i) for i in range(9)], 3)
    made = partial(target.one_arm, arm="c")
    found = evaluate(cut(path, rows=4), made, SCALES, WEIGHTS)
    data = read_log(path)
    agree(found, data, made(data), WEIGHTS)
    assert [name for name, one in found.values.items() if one.value is not None] == ["dm"]
    assert found.clip is None


@pytest.mark.parametrize("quality", [0.0, 0.7449])
def test_rewards_that_do_not_differ_are_doubted_as_in_memory(tmp_path: Path, quality: float):
    """Where the target goes none does, and only the model spreads the terms."""
    alike = Outcome(quality, 500.0, 0.004)
    made = [
        replace(one, outcome=alike) if one.decision.arm == "b" else one for one in rows(of_day=400)
    ]
    path = in_files(tmp_path, made, 200)
    of_b = partial(target.one_arm, arm="b")
    found = evaluate(cut(path, rows=150), of_b, SCALES, WEIGHTS)
    data = read_log(path)
    agree(found, data, of_b(data), WEIGHTS)
    told = {name: str(one.interval.warning) for name, one in found.values.items()}
    assert "its rewards differ in 0 effective" in told["dr"]
    assert "the terms don't differ" in told["snips"]
    assert told["dros"] == estimators.BIASED["dros"]


def test_what_was_tuned_is_told(path: str):
    """Clip, threshold and shrinkage, as tuned on all rows in memory."""
    found = evaluate(cut(path, rows=64), target.uniform, SCALES, WEIGHTS)
    data = read_log(path)
    reward = data.rewards(WEIGHTS, SCALES)
    whole = rounds.of(data, target.uniform(data), reward, reward_models.ridge(data, reward))
    w, r, q, v = whole.weights, whole.reward, whole.q_logged, whole.v_target
    assert q is not None
    assert v is not None
    tuned, each = tuning.tuned, estimators
    assert found.clip == tuned(tuning.THRESHOLDS, w, r, 0.0, 0.0, np.minimum)
    assert found.threshold == tuned(tuning.THRESHOLDS, w, r, q, v, each.switched)
    assert found.shrinkage == tuned(tuning.SHRINKAGES, w, r, q, v, each.shrunk)


def test_a_bad_row_is_refused_with_its_part(tmp_path: Path):
    """The row's number counts within it."""
    made = [row(f"d{i}", made_at_ms=NOON + i) for i in range(9)]
    made[7] = row("d7", made_at_ms=NOON + 7, propensity=None)
    parts = cut(in_files(tmp_path, made, 3), rows=5)
    says = "4 rows made from 2024-10-04T12:00:00.005.* must be given: row 2"
    with pytest.raises(ValueError, match=says):
        evaluate(parts, target.uniform, SCALES, WEIGHTS)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"encoder": "e2"}, r"of 2 encoders \(e1, e2\)"), ({"challenger": "5"}, r"versions \(4, 5\)")],
)
def test_parts_must_go_together(tmp_path: Path, change: dict[str, Any], says: str):
    """What one part can't see: contexts of several encoders, several challengers."""
    own = {"challenger": "4", "challenger_pmf": np.array([0.2, 0.3, 0.5])}
    made = [row("d1", **own), row("d2", **(own | change), made_at_ms=NOON + 5)]
    parts = cut(in_files(tmp_path, made, 3), rows=1)
    with pytest.raises(ValueError, match=says):
        evaluate(parts, target.challenger, SCALES, WEIGHTS)


def test_a_log_that_changes_is_refused(tmp_path: Path):
    """Its sums would be of different rows."""
    path = in_files(tmp_path, [row(f"d{i}", made_at_ms=NOON + i) for i in range(4)], 4)
    parts = cut(path)
    write_log([row("late", made_at_ms=NOON + 1)], path)
    with pytest.raises(ValueError, match="the log has changed: 5 rows are there now"):
        evaluate(parts, target.uniform, SCALES, WEIGHTS)


def test_progress_is_told(path: str):
    """Each part is read three times."""
    told: list[tuple[int, int]] = []
    parts = cut(path, rows=150)
    evaluate(parts, target.uniform, SCALES, WEIGHTS, progress=lambda *done: told.append(done))
    assert told == [(i, 9) for i in range(1, 10)]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes on this machine, reachable from it alone."""
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    patient = {f"distributed.comm.timeouts.{what}": "120s" for what in ("connect", "tcp")}
    dask.config.set(patient)  # of a busy machine
    cluster = distributed.LocalCluster(
        n_workers=2,
        processes=True,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # None would take port 8787, of every network
        worker_dashboard_address="127.0.0.1:0",
    )
    with cluster, distributed.Client(cluster, timeout=60) as client:
        yield client


def test_a_cluster_gives_the_same(path: str, client: Any):
    """Whichever worker reads a part; and it tells its progress."""
    parts = cut(path, rows=60)
    given = (parts, target.uniform, SCALES, WEIGHTS)
    told: list[int] = []
    here = evaluate(*given, sequence=True)
    there = evaluate(
        *given, sequence=True, client=client, progress=lambda done, _: told.append(done)
    )
    alike(there, here)
    assert there.sequence == pytest.approx(here.sequence, rel=0, abs=1e-9)
    assert told == list(range(1, 3 * len(parts) + 1))


def test_a_cluster_is_sent_a_policy(tmp_path: Path, client: Any):
    """One state of it, posterior included."""
    data = decided(tmp_path, LINEAR)
    parts = cut(str(tmp_path), rows=20)
    taught = partial(target.of_policy, policy=make(THREE, "scale = 2.0", *TAUGHT))
    there = evaluate(parts, taught, SCALES, WEIGHTS, client=client)
    alike(there, evaluate(parts, taught, SCALES, WEIGHTS))
    agree(there, data, taught(data), WEIGHTS)


def test_a_fault_comes_back_from_a_cluster(tmp_path: Path, client: Any):
    """As it is told here."""
    path = in_files(tmp_path, [row("d1"), row("d2", propensity=None)], 1)
    with pytest.raises(ValueError, match=r"2 rows made from .* must be given: row 1"):
        evaluate(cut(path), target.uniform, SCALES, WEIGHTS, client=client)


def test_dask_is_not_needed():
    """Whoever has no cluster doesn't load it."""
    code = "import sys, offline_eval.streaming.evaluation; print('distributed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

"""Folders of full-information outcomes: what is read, what is left out, what is refused."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pointsman.trying import outcomes
from policy.config.toml import parse, to_toml
from policy.objective import Weights
from tests.pointsman.sets import tiny

DATA = Path(__file__).parents[3] / "shared" / "data"

Columns = dict[str, list[object]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    outcomes.save(tiny(), tmp_path / "tiny")
    return tmp_path / "tiny"


def rewrite(path: Path, change: Callable[[Columns], object]) -> None:
    """Change a Parquet file's columns in place."""
    columns = pq.read_table(path).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


def test_what_is_saved_is_loaded(folder: Path):
    """Texts, categories, arms with prices and their source, and every outcome."""
    read, made = outcomes.load(folder), tiny()
    assert (read.name, read.left_out) == ("tiny", 0)
    for name in ("query_ids", "texts", "categories", "catalog"):
        assert getattr(read, name) == getattr(made, name)
    for name in ("quality", "cost_usd", "latency_ms"):
        assert np.array_equal(getattr(read, name), getattr(made, name), equal_nan=True)


def test_the_built_in_objective_scales_by_the_dearest_arm(folder: Path):
    """Quality 0.9, cost 0.1, linear, cost_ref the largest mean cost of an arm."""
    config = outcomes.config(outcomes.load(folder))
    policy = config.policies["default"]
    assert policy.weights.as_tuple() == pytest.approx((0.9, 0.0, 0.1))
    assert policy.scales.cost_ref_usd == pytest.approx(0.02)
    assert policy.scales.scale == "linear"
    assert parse(to_toml(config), "written") == config


@pytest.mark.parametrize("how", ["absent", "empty"])
def test_without_costs_the_objective_is_quality_alone(folder: Path, how: str):
    """A column that isn't there, or says nothing, leaves no query out."""

    def change(columns: Columns) -> None:
        columns.pop("latency_ms")
        if how == "absent":
            columns.pop("cost_usd")
        else:
            columns["cost_usd"] = [None] * 8

    rewrite(folder / "outcomes.parquet", change)
    read = outcomes.load(folder)
    assert (len(read), read.left_out) == (4, 0)
    assert read.missing == ("latency_ms", "cost_usd")
    policy = outcomes.config(read).policies["default"]
    assert policy.weights.as_tuple() == (1.0, 0.0, 0.0)
    read.check(policy.weights)
    with pytest.raises(ValueError, match="weighs cost, which tiny doesn't have"):
        read.check(Weights(0.9, 0.0, 0.1))


def test_queries_that_an_arm_has_not_answered_are_left_out(folder: Path):
    """A missing row and a null quality alike."""

    def change(columns: Columns) -> None:
        columns["quality"][2] = None  # q1 of big
        for values in columns.values():
            del values[7]  # q3 of small

    rewrite(folder / "outcomes.parquet", change)
    read = outcomes.load(folder)
    assert read.query_ids == ("q0", "q2")
    assert read.left_out == 2
    assert read.quality.tolist() == [[1, 0], [0, 1]]


def test_outcomes_of_unknown_queries_are_passed_over(folder: Path):
    """Rows of queries.parquet say which queries count."""
    rewrite(folder / "queries.parquet", lambda c: [values.pop(0) for values in c.values()])
    assert outcomes.load(folder).query_ids == ("q1", "q2", "q3")


def test_types_may_be_those_of_other_writers(folder: Path):
    """Dictionary columns, whole-number ids, single precision: as pandas and others write them."""
    queries = pq.read_table(folder / "queries.parquet").to_pydict()
    queries["query_id"] = list(range(4))
    pq.write_table(pa.table(queries), folder / "queries.parquet")
    rows = pq.read_table(folder / "outcomes.parquet").to_pydict()
    table = {
        "query_id": pa.array([int(name[1:]) for name in rows["query_id"]]),
        "arm": pa.array(rows["arm"]).dictionary_encode(),
        "quality": pa.array(rows["quality"], pa.float32()),
        "cost_usd": pa.array(rows["cost_usd"]),
        "latency_ms": pa.array(rows["latency_ms"], pa.float32()),
    }
    pq.write_table(pa.table(table), folder / "outcomes.parquet")
    assert np.array_equal(outcomes.load(folder).quality, tiny().quality)


def test_arms_without_a_source_are_honest_about_it(folder: Path):
    """No provider is made up; prices were those of the file, when the file was written."""
    path = folder / "arms.csv"
    path.write_text("arm,price_in_per_m,price_out_per_m\nbig,2,4\nsmall,1,2\n")
    arm = outcomes.load(folder).catalog.arm("big")
    assert (arm.provider, arm.model) == ("unknown", "big")
    assert arm.prices_source == "tiny/arms.csv"
    assert arm.prices_checked == datetime.date.fromtimestamp(path.stat().st_mtime)


def test_some_latencies_may_be_known(folder: Path, tmp_path: Path):
    """Null stays unknown, it is not 0."""
    latency_ms = np.full((4, 2), 100.0)
    latency_ms[0, 1] = np.nan
    outcomes.save(replace(tiny(), latency_ms=latency_ms), tmp_path)
    read = outcomes.load(tmp_path)
    assert np.array_equal(read.latency_ms, latency_ms, equal_nan=True)
    assert "latency_ms" in read.missing


def without(column: str) -> Callable[[Columns], object]:
    return lambda columns: columns.pop(column)


def with_value(column: str, row: int, value: object) -> Callable[[Columns], object]:
    return lambda columns: columns[column].__setitem__(row, value)


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("queries.parquet", without("category"), "column 'category' is missing"),
        ("outcomes.parquet", without("quality"), "column 'quality' is missing"),
        ("queries.parquet", with_value("query_id", 0, "q1"), "query_id must not repeat"),
        ("queries.parquet", with_value("text", 0, None), "text must not be null"),
        ("queries.parquet", with_value("category", 0, "c" * 65), "at most 64 characters"),
        ("outcomes.parquet", with_value("query_id", 0, "q1"), "two outcomes of one query"),
        ("outcomes.parquet", with_value("arm", 0, "huge"), "arm 'huge' is not in arms.csv"),
        ("outcomes.parquet", with_value("quality", 0, 1.5), r"quality must be in \[0, 1\], got"),
        ("outcomes.parquet", with_value("quality", 0, -0.1), r"quality must be in \[0, 1\], got"),
        ("outcomes.parquet", with_value("cost_usd", 0, -1.0), "cost_usd must be >= 0 and finite"),
        ("outcomes.parquet", with_value("cost_usd", 0, float("inf")), "cost_usd must be >= 0"),
        ("outcomes.parquet", with_value("latency_ms", 0, -1.0), "latency_ms must be >= 0"),
        (
            "outcomes.parquet",
            lambda columns: columns.update(quality=["good"] * 8),
            "quality must be a number",
        ),
        (
            "outcomes.parquet",
            lambda columns: columns.update(quality=[None, 1.0] * 4),
            "no query has quality and cost_usd of every arm: there is no quality of big",
        ),
        (
            "outcomes.parquet",
            lambda columns: columns.update(cost_usd=[None, 1.0] * 4),
            "no query has quality and cost_usd of every arm: there is no cost_usd of big",
        ),
        (
            "outcomes.parquet",
            lambda columns: columns.update({name: values[::2] for name, values in columns.items()}),
            "arm 'small' of arms.csv has no outcome",
        ),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(
    folder: Path, file: str, change: Callable[[Columns], object], expected: str
):
    """The line names the file and the fault."""
    rewrite(folder / file, change)
    with pytest.raises(ValueError, match=expected) as caught:
        outcomes.load(folder)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("arm,price_in_per_m\nbig,1\n", "column 'price_out_per_m' is missing"),
        ("arm,price_in_per_m,price_out_per_m\n", "holds no arm"),
        ("arm,price_in_per_m,price_out_per_m\nbig,cheap,1\n", "must be a number, got 'cheap'"),
        ("arm,price_in_per_m,price_out_per_m\nbig,-1,1\n", "usd_per_mtok_in -1.0"),
        ("arm,price_in_per_m,price_out_per_m\na b,1,1\n", "id 'a b'"),
        ("arm,price_in_per_m,price_out_per_m\nbig,1,1\nbig,1,1\n", "'big' is given twice"),
        ("arm,price_in_per_m,price_out_per_m,prices_checked\nbig,1,1,May\n", "got 'May'"),
        ("\x00", "arms.csv"),
    ],
)
def test_wrong_arms_are_refused_in_one_line(folder: Path, text: str, expected: str):
    """The line names the file and the fault."""
    (folder / "arms.csv").write_text(text)
    with pytest.raises(ValueError, match=expected) as caught:
        outcomes.load(folder)
    assert "arms.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["queries.parquet", "outcomes.parquet", "arms.csv"])
def test_a_missing_or_mangled_file_is_named(folder: Path, file: str):
    """Neither a traceback nor a guess."""
    (folder / file).write_bytes(b"\xff\xfe nonsense")
    with pytest.raises(ValueError, match=file):
        outcomes.load(folder)
    (folder / file).unlink()
    with pytest.raises(ValueError, match=f"{file}: can't be read"):
        outcomes.load(folder)


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not part of the repository")
@pytest.mark.parametrize(
    ("name", "n", "k", "left_out"),
    [("llmrouter_14tasks", 5989, 9, 0), ("paretobandit_k4", 3559, 4, 1420)],
)
def test_real_sets_are_read(name: str, n: int, k: int, left_out: int):
    """The sizes that their notes give."""
    read = outcomes.load(DATA / name)
    assert (read.quality.shape, read.left_out) == ((n, k), left_out)
    assert "latency_ms" in read.missing

"""A folder of full-information outcomes: what every arm did with the same queries.

Three files, as in RouterBench and its kin: queries.parquet (query_id, text, category),
outcomes.parquet (query_id, arm, quality, and where they are known cost_usd and latency_ms) and
arms.csv (arm, price_in_per_m, price_out_per_m, and where they are known maker and size, such as 8B
or 8x7B). Knows no policy's state and drives nothing.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from policy.arms.arm import Arm
from policy.arms.catalog import Catalog, Index, Vector
from policy.config.schema import Config, ObjectiveConfig, PolicyConfig
from policy.objective import Weights

QUERIES, OUTCOMES, ARMS = "queries.parquet", "outcomes.parquet", "arms.csv"
PRICES = ("price_in_per_m", "price_out_per_m")
CONTEXT_WINDOW_TOKENS = 1_000_000  # these sets don't say; every arm did answer every query
MAX_LABEL = 64  # what a task hint may have


@dataclass(frozen=True, eq=False)
class OutcomeSet:
    """n queries that all k arms of the catalog have answered; arrays are (n, k)."""

    name: str
    query_ids: tuple[str, ...]
    texts: tuple[str, ...]
    categories: tuple[str, ...]
    catalog: Catalog
    quality: Vector  # in [0, 1]
    cost_usd: Vector  # >= 0, NaN throughout where unknown
    latency_ms: Vector  # >= 0, NaN where unknown
    left_out: int = 0  # queries that some arm has no outcome for
    labels: tuple[Mapping[str, str], ...] = ()  # what else a caller tells of each query

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Index) -> OutcomeSet:
        """Some of the queries, in this order."""
        return replace(
            self,
            query_ids=tuple(self.query_ids[i] for i in rows),
            texts=tuple(self.texts[i] for i in rows),
            categories=tuple(self.categories[i] for i in rows),
            quality=self.quality[rows],
            cost_usd=self.cost_usd[rows],
            latency_ms=self.latency_ms[rows],
            labels=tuple(self.labels[i] for i in rows) if self.labels else (),
        )

    def labels_of(self, row: int) -> Mapping[str, str]:
        """The labels of a query; none where the set has none."""
        return self.labels[row] if self.labels else {}

    def of_arms(self, columns: Sequence[int], catalog: Catalog) -> OutcomeSet:
        """Some of the arms only, which `catalog` has as well: its prices and traits hold."""
        ids = [self.catalog.ids[i] for i in columns]
        return replace(
            self,
            catalog=Catalog(tuple(catalog.arm(arm) for arm in ids)),
            quality=self.quality[:, columns],
            cost_usd=self.cost_usd[:, columns],
            latency_ms=self.latency_ms[:, columns],
        )

    @cached_property
    def category_index(self) -> Index:
        """(n,) the number of each query's category."""
        return np.unique(np.array(self.categories), return_inverse=True)[1]

    @property
    def missing(self) -> tuple[str, ...]:
        """The components that not every outcome has: no objective may weigh them."""
        parts = {"latency_ms": self.latency_ms, "cost_usd": self.cost_usd}
        return tuple(name for name, values in parts.items() if np.isnan(values).any())

    def check(self, weights: Weights) -> None:
        """ValueError where the set lacks what these weigh."""
        weighed = {"latency_ms": weights.latency, "cost_usd": weights.cost}
        for name in self.missing:
            if weighed[name]:
                component = name.partition("_")[0]
                raise ValueError(
                    f"the objective weighs {component}, which {self.name} doesn't have: {OUTCOMES}"
                    f" has no {name} of every outcome"
                )


def config(outcomes: OutcomeSet) -> Config:
    """The set's arms, and a policy `default` with the objective that routing benchmarks use:
    quality 0.9, cost 0.1, linear, the dearest arm's mean cost as reference. Where costs are unknown
    it is quality alone."""
    if "cost_usd" in outcomes.missing:
        quality = PolicyConfig(objective=ObjectiveConfig(quality=1.0))
        return Config(outcomes.catalog, {"default": quality})
    cost_ref_usd = float(outcomes.cost_usd.mean(axis=0).max())
    objective = ObjectiveConfig(
        quality=0.9, cost=0.1, cost_ref_usd=cost_ref_usd if cost_ref_usd > 0 else 1.0
    )
    return Config(outcomes.catalog, {"default": PolicyConfig(objective=objective)})


def load(folder: Path) -> OutcomeSet:
    """Read a folder; queries that some arm has no quality for are left out, and so are those
    without some arm's cost, unless there are no costs at all.

    Raises
    ------
    ValueError
        Naming the file and what is wrong with it.
    """
    catalog = _catalog(folder / ARMS)
    query_ids, texts, categories = _queries(folder / QUERIES)
    quality, cost_usd, latency_ms = _outcomes(folder / OUTCOMES, query_ids, catalog)
    needed = {"quality": quality}
    if not np.isnan(cost_usd).all():
        needed["cost_usd"] = cost_usd
    complete = ~np.any([np.isnan(values).any(axis=1) for values in needed.values()], axis=0)
    if not complete.any():
        raise ValueError(f"{folder / OUTCOMES}: {_none_complete(needed, catalog)}")
    everything = OutcomeSet(
        name=folder.resolve().name,
        query_ids=query_ids,
        texts=texts,
        categories=categories,
        catalog=catalog,
        quality=quality,
        cost_usd=cost_usd,
        latency_ms=latency_ms,
        left_out=int((~complete).sum()),
    )
    return everything.take(np.flatnonzero(complete))


def _none_complete(needed: Mapping[str, Vector], catalog: Catalog) -> str:
    """What is missing, where no query has all that is needed."""
    never = [
        f"no {name} of {arm}"
        for name, values in needed.items()
        for arm, column in zip(catalog.ids, values.T, strict=True)
        if np.isnan(column).all()
    ]
    why = f": there is {', '.join(never)}" if never else ""
    return f"no query has {' and '.join(needed)} of every arm{why}"


def save(outcomes: OutcomeSet, folder: Path) -> None:
    """Write a folder that `load` reads back."""
    folder.mkdir(parents=True, exist_ok=True)
    n, k = outcomes.quality.shape
    queries = {
        "query_id": outcomes.query_ids,
        "text": outcomes.texts,
        "category": outcomes.categories,
    }
    pq.write_table(pa.table(queries), folder / QUERIES)
    rows = {
        "query_id": np.repeat(np.array(outcomes.query_ids), k),
        "arm": np.tile(np.array(outcomes.catalog.ids), n),
        "quality": outcomes.quality.ravel(),
        "cost_usd": outcomes.cost_usd.ravel(),
        "latency_ms": pa.array(outcomes.latency_ms.ravel(), from_pandas=True),  # NaN is null
    }
    pq.write_table(pa.table(rows), folder / OUTCOMES)
    with (folder / ARMS).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("arm", "source_model_id", *PRICES, "price_source", "prices_checked"))
        for arm in outcomes.catalog.arms:
            prices = (arm.usd_per_mtok_in, arm.usd_per_mtok_out)
            source = (arm.prices_source, arm.prices_checked)
            table.writerow((arm.id, f"{arm.provider}/{arm.model}", *prices, *source))


def _catalog(path: Path) -> Catalog:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            rows = list(table)
            _require(path, table.fieldnames or (), ("arm", *PRICES))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: can't be read: {_line(error)}") from error
    if not rows:
        raise ValueError(f"{path}: holds no arm")
    modified = datetime.date.fromtimestamp(path.stat().st_mtime)
    try:
        return Catalog(tuple(_arm(path, row, modified) for row in rows))
    except ValidationError as error:
        fault = error.errors()[0]
        where = f"{fault['loc'][0]} {fault['input']!r}"
        raise ValueError(f"{path}: {where}: {_line(fault['msg'])}") from None
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def _arm(path: Path, row: Mapping[str, str | None], modified: datetime.date) -> Arm:
    name = row["arm"] or ""
    prices = [_price(path, name, column, row[column]) for column in PRICES]
    provider, slash, model = (row.get("source_model_id") or "").partition("/")
    return Arm(
        id=name,
        provider=provider if slash else "unknown",
        model=model or name,
        context_window_tokens=CONTEXT_WINDOW_TOKENS,
        maker=row.get("maker") or None,
        parameters_b=_size(row.get("size")),
        usd_per_mtok_in=prices[0],
        usd_per_mtok_out=prices[1],
        prices_checked=_date(path, row.get("prices_checked")) or modified,
        prices_source=row.get("price_source") or f"{path.parent.resolve().name}/{path.name}",
    )


def _price(path: Path, arm: str, column: str, given: str | None) -> float:
    try:
        return float(given or "")
    except ValueError:
        raise ValueError(
            f"{path}: {column} of arm {arm!r} must be a number, got {given!r}"
        ) from None


def _size(given: str | None) -> float | None:
    """Billions of parameters; None where what is given says no number of them."""
    said = re.fullmatch(r"(?:(\d+)x)?(\d+(?:\.\d+)?)b", (given or "").strip().lower())
    return float(said[1] or 1) * float(said[2]) if said else None


def _date(path: Path, given: str | None) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(given) if given else None
    except ValueError:
        raise ValueError(f"{path}: prices_checked must be like 2026-01-31, got {given!r}") from None


def _queries(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    columns = _table(path, ("query_id", "text", "category"))
    query_ids, texts, categories = (_strings(path, columns, name) for name in columns.column_names)
    if len(set(query_ids)) < len(query_ids):
        raise ValueError(f"{path}: query_id must not repeat itself")
    longest = max(categories, key=len, default="")
    if len(longest) > MAX_LABEL:
        raise ValueError(f"{path}: a category has at most {MAX_LABEL} characters, got {longest!r}")
    return query_ids, texts, categories


def _outcomes(
    path: Path, query_ids: Sequence[str], catalog: Catalog
) -> tuple[Vector, Vector, Vector]:
    """quality, cost_usd and latency_ms, each (number of queries, k), NaN where there is none."""
    table = _table(path, ("query_id", "arm", "quality"), ("cost_usd", "latency_ms"))
    arm = _positions(table["arm"], catalog.ids)
    if (arm < 0).any():
        unknown = table["arm"][int(np.argmax(arm < 0))].as_py()
        raise ValueError(f"{path}: arm {unknown!r} is not in {ARMS}")
    for i, arm_id in enumerate(catalog.ids):
        if not (arm == i).any():
            raise ValueError(f"{path}: arm {arm_id!r} of {ARMS} has no outcome")
    query = _positions(table["query_id"], query_ids)
    known = query >= 0
    cells = query * len(catalog) + arm
    if len(np.unique(cells[known])) < known.sum():
        raise ValueError(f"{path}: an arm has two outcomes of one query")
    read = {"quality": 1.0, "cost_usd": np.inf, "latency_ms": np.inf}  # the most it may be
    made = []
    for name, most in read.items():
        dense = np.full(len(query_ids) * len(catalog), np.nan)
        if name in table.column_names:
            dense[cells[known]] = _numbers(path, table, name, most)[known]
        made.append(dense.reshape(len(query_ids), len(catalog)))
    return made[0], made[1], made[2]


def _table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    try:
        found = pq.read_schema(path).names
        _require(path, found, columns)
        return pq.read_table(path, columns=[*columns, *(n for n in optional if n in found)])
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: can't be read: {_line(error)}") from error


def _require(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    for column in wanted:
        if column not in found:
            raise ValueError(f"{path}: column {column!r} is missing, found {', '.join(found)}")


def _strings(path: Path, table: pa.Table, name: str) -> tuple[str, ...]:
    column = table[name]
    if column.null_count and name != "category":
        raise ValueError(f"{path}: {name} must not be null")
    return tuple(value or "" for value in column.cast(pa.large_string()).to_pylist())


def _positions(column: pa.ChunkedArray, among: Sequence[str]) -> NDArray[np.int64]:
    """Where each value stands in `among`; -1 for those that don't."""
    value_set = pa.array(list(among), pa.large_string())
    found = pc.index_in(column.cast(pa.large_string()), value_set=value_set)
    positions: NDArray[np.int64] = found.fill_null(-1).to_numpy().astype(np.int64)
    return positions


def _numbers(path: Path, table: pa.Table, name: str, most: float) -> Vector:
    """A column as float64, NaN for null; ValueError for what isn't in [0, most] or infinite."""
    try:
        values: Vector = table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise ValueError(f"{path}: {name} must be a number: {_line(error)}") from error
    wrong = (values < 0) | (values > most) | np.isinf(values)
    if wrong.any():
        bounds = "in [0, 1]" if most == 1.0 else ">= 0 and finite"
        raise ValueError(f"{path}: {name} must be {bounds}, got {values[np.argmax(wrong)]!r}")
    return values


def _line(error: object) -> str:
    """The first line of what a library says, or what is wrong with a file."""
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or str(error).partition("\n")[0]

"""The log: decisions joined with their outcomes, in the order they were made.

`SCHEMA` is its one description. It lies under policy=NAME/day=YYYY-MM-DD as Parquet, where it was
imported, or is joined from the archive of a running service: who reads it here needn't know which.
How a decision was made, and what an estimator does with it, is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pyarrow.fs as pfs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from offline_eval.log import archive, files, problems, schema
from offline_eval.log.schema import FORMAT, PREDICTED, day
from policy import objective
from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights
from policy.records import Context, LoggedDecision, OutcomeBatch, packed

if TYPE_CHECKING:
    import pandas as pd

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

SCHEMA = schema.SCHEMA
ROWS_PER_FILE = 20_000
TOLERANCE = 1e-6

_PARTITIONS = pds.partitioning(
    pa.schema([("policy", pa.string()), ("day", pa.string())]), flavor="hive"
)
_UNREAD = ("query", "challenger_encoder", "challenger_x")  # what no array of `LoggedData` holds
_OUTCOMES = ("quality", "latency_ms", "cost_usd")


def write(rows: Iterable[LoggedDecision], path: str, name: str | None = None) -> int:
    """Add rows to the log at `path` (a folder, or any URI that pyarrow or fsspec knows).

    A file's name is `name` with a number, by default a digest of its decision ids: writing the
    same rows again replaces them. A file appears under its name when it is complete. Returns how
    many rows were written.
    """
    if archive.is_archive(path):
        raise ValueError(f"{path} is the archive of a running service: rows of others go elsewhere")
    filesystem, root = files.filesystem(path)
    written, rest, part = 0, iter(rows), 0
    while chunk := list(islice(rest, ROWS_PER_FILE)):
        for (policy, of_day), some in _by_partition(chunk).items():
            ids = (row.decision.decision_id for row in some)
            stem = _digest(ids) if name is None else f"{name}-{part}"
            folder = f"{root}/policy={quote(policy, safe='')}/day={of_day}"
            with files.completed(filesystem, f"{folder}/{stem}.parquet") as hidden:
                pq.write_table(
                    schema.table(some), hidden, filesystem=filesystem, compression="zstd"
                )
        written, part = written + len(chunk), part + 1
    return written


def table(
    path: str,
    policy: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The log's rows made in [from_ms, to_ms), in the order they were made, with `policy`.

    Raises
    ------
    ValueError
        If there is no log at `path`, or one of another format.
    """
    names = list(columns or (*SCHEMA.names, "policy"))
    if archive.is_archive(path):
        empty = pa.schema([*SCHEMA, ("policy", pa.string())]).empty_table().select(names)
        return pa.concat_tables([empty, *archive.tables(path, policy, from_ms, to_ms, names)])
    dataset = _dataset(path)
    order = [name for name in ("made_at_ms", "decision_id") if name not in names]
    read = dataset.to_table(columns=[*names, *order], filter=_filter(policy, from_ms, to_ms))
    keys = [("made_at_ms", "ascending"), ("decision_id", "ascending")]
    return read.sort_by(keys).select(names)


def rows(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> Iterator[LoggedDecision]:
    """The log's rows as records, in the order they were made; of an archive, a day at a time."""
    if archive.is_archive(path):
        parts = archive.tables(path, policy, from_ms, to_ms)
    else:
        parts = iter([table(path, policy, from_ms, to_ms)])
    for part in parts:
        for batch in part.to_batches(max_chunksize=1_000):
            yield from map(schema.record, batch.to_pylist())


def read(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> LoggedData:
    """The log as arrays. All rows must have contexts of one encoder.

    Raises
    ------
    ValueError
        If there is no log at `path`, or its rows come from several encoders.
    """
    names = [name for name in (*SCHEMA.names, "policy") if name not in _UNREAD]
    return LoggedData.of(table(path, policy, from_ms, to_ms, names))


def times(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> Iterator[Index]:
    """When each row was made, ascending: a day at a time, with as little else read as can be."""
    if archive.is_archive(path):
        for made in archive.tables(path, policy, from_ms, to_ms, ["made_at_ms"]):
            yield made["made_at_ms"].to_numpy()
        return
    dataset, within = _dataset(path), _filter(policy, from_ms, to_ms)
    for name in sorted({_day_of(fragment) for fragment in dataset.get_fragments(within)}):
        of_day = pc.field("day") == name
        wanted = of_day if within is None else of_day & within
        yield np.sort(dataset.to_table(columns=["made_at_ms"], filter=wanted)[0].to_numpy())


@dataclass(frozen=True, slots=True, eq=False)
class LoggedData:
    """n logged decisions as arrays, in the order they were made.

    Arms are positions in `ids`. `actions` and what runs parallel to it is padded to the width
    `kmax` of the largest action set: row i holds `counts[i]` arms, then -1 (pmf: 0, else NaN).
    """

    ids: tuple[str, ...]  # of every arm in the log
    decision_ids: tuple[str, ...]
    policies: tuple[str, ...]  # (n,)
    versions: tuple[str, ...]  # (n,)
    catalogs: tuple[str, ...]  # (n,) the revision that each decision chose from
    encoder: str  # that made all the contexts
    made_at_ms: Index  # (n,)
    contexts: Context  # (n, d)
    arm: Index  # (n,), the arm that was drawn
    actions: Index  # (n, kmax)
    counts: Index  # (n,)
    propensity: Vector  # (n,) of the arm that was drawn
    pmf: Vector  # (n, kmax)
    predicted: Vector  # (n, kmax, 3): quality, latency_ms, cost_usd, as predicted before the draw
    challengers: tuple[str | None, ...]  # (n,)
    challenger_pmf: Vector  # (n, kmax)
    share: Vector  # (n,)
    tokens: Vector  # (n, 2): of the prompt and the output, as estimated before the call
    weights: Vector  # (n, 3), of the row's own objective
    stands_for: Vector  # (n,)
    outcomes: Vector  # (n, 3): quality, latency_ms, cost_usd; NaN is missing
    reported: Vector  # (n, 3): what a correction has replaced in `outcomes`, else NaN
    error: Mask  # (n,)
    executed: Mask  # (n,), the arm that was drawn was used: only then the outcome is its own
    closed: Mask  # (n,)

    def __len__(self) -> int:
        return len(self.decision_ids)

    @classmethod
    def of(cls, log: pa.Table) -> LoggedData:
        """From a table of the log's schema."""
        log = log.combine_chunks()
        encoders = pc.unique(log["encoder"]).to_pylist()
        expect_one_encoder(encoders)
        counts = _numbers(pc.list_value_length(log["arms"])).astype(np.int64)
        ids = tuple(sorted(set(_flat(log["arms"]).unique().to_pylist()) | _distinct(log["arm"])))
        held = np.arange(counts.max(initial=1)) < counts[:, None]
        actions = np.full(held.shape, -1)
        actions[held] = _positions(_flat(log["arms"]), ids)
        executed_arm = log["executed_arm"].fill_null(log["arm"])
        return cls(
            ids=ids,
            decision_ids=tuple(log["decision_id"].to_pylist()),
            policies=tuple(log["policy"].to_pylist()),
            versions=tuple(log["version"].to_pylist()),
            catalogs=tuple(log["catalog"].to_pylist()),
            encoder=encoders[0] if encoders else "",
            made_at_ms=_numbers(log["made_at_ms"]).astype(np.int64),
            contexts=_contexts(log["x"]),
            arm=_positions(log["arm"], ids),
            actions=actions,
            counts=counts,
            propensity=_numbers(log["propensity"]),
            pmf=_padded(log["pmf"], held, 0.0),
            predicted=np.stack([_padded(log[name], held, np.nan) for name in PREDICTED], axis=2),
            challengers=tuple(log["challenger"].to_pylist()),
            challenger_pmf=_padded(log["challenger_pmf"], held, np.nan),
            share=_numbers(log["share"]),
            tokens=np.stack([_numbers(log[f"{c}_tokens"]) for c in ("prompt", "output")], axis=1),
            weights=np.stack([_numbers(log[f"weight_{c}"]) for c in objective.COMPONENTS], axis=1),
            stands_for=_numbers(log["stands_for"]),
            outcomes=np.stack([_numbers(log[name]) for name in _OUTCOMES], axis=1),
            reported=np.stack([_numbers(log[f"reported_{name}"]) for name in _OUTCOMES], axis=1),
            error=log["error"].is_valid().to_numpy(),
            executed=pc.and_(log["executed"], pc.equal(executed_arm, log["arm"])).to_numpy(),
            closed=log["closed"].to_numpy(),
        )

    def take(self, rows: Index) -> LoggedData:
        """Some of the rows (m,), in this order; `ids` stay those of the whole log."""
        columns: dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                columns[field.name] = column[rows]
            elif isinstance(column, tuple) and field.name != "ids":
                columns[field.name] = tuple(column[i] for i in rows)
        return replace(self, **columns)

    def frontier(self) -> int:
        """How many rows from the start may be used: up to the first that may still change, in the
        order of decisions. Taking rows as they arrive would favour arms that answer, or fail, fast.
        """
        complete = self.error | ~np.isnan(self.outcomes).any(axis=1) | ~self.executed
        waiting = np.flatnonzero(~(self.closed | complete))
        return int(waiting[0]) if len(waiting) else len(self)

    def rewards(self, weights: Weights | None, scales: Scales) -> Vector:
        """(n,) in [0, 1], NaN while a component that has weight is missing; None takes each row's
        own weights."""
        quality, latency_ms, cost_usd = self.outcomes.T
        y = objective.components(quality, latency_ms, cost_usd, self.error, scales)
        return self._scored(y, weights)

    def predicted_rewards(self, weights: Weights | None, scales: Scales) -> Vector:
        """(n, kmax): what was predicted of each arm before the draw, scored as by `rewards`; NaN
        where nothing was, and beyond the action set."""
        quality, latency_ms, cost_usd = self.predicted.reshape(-1, 3).T
        no_error = np.zeros(len(quality), dtype=bool)
        y = objective.components(quality, latency_ms, cost_usd, no_error, scales)
        return self._scored(y.reshape(self.predicted.shape), weights)

    def frame(self, *, per_arm: bool = True) -> pd.DataFrame:
        """One row per decision, in their order; what is missing is NaN.

        With `per_arm`, columns such as p[ARM], challenger_p[ARM] and predicted_quality[ARM] hold
        what was offered and predicted, NaN where the arm was not in the action set.

        Raises
        ------
        ModuleNotFoundError
            If pandas isn't installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - only those who want frames need it
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("a data frame needs pandas: pip install pandas") from error
        ids = np.array(self.ids, dtype=object)
        columns: dict[str, Any] = {
            "decision_id": self.decision_ids,
            "policy": self.policies,
            "made_at": pd.to_datetime(self.made_at_ms, unit="ms", utc=True),
            "version": self.versions,
            "catalog": self.catalogs,
            "arm": ids[self.arm],
            "propensity": self.propensity,
            **dict(zip(_OUTCOMES, self.outcomes.T, strict=True)),
            **{f"reported_{n}": v for n, v in zip(_OUTCOMES, self.reported.T, strict=True)},
            "error": self.error,
            "executed": self.executed,
            "closed": self.closed,
            "challenger": self.challengers,
            "share": self.share,
            "prompt_tokens": self.tokens[:, 0],
            "output_tokens": self.tokens[:, 1],
            **{f"weight_{c}": w for c, w in zip(objective.COMPONENTS, self.weights.T, strict=True)},
            "stands_for": self.stands_for,
        }
        return pd.DataFrame(columns | (self._by_arm() if per_arm else {}))

    def _by_arm(self) -> dict[str, Vector]:
        """A column (n,) per figure and arm, for the figures that any row has."""
        pmf = np.where(self.actions >= 0, self.pmf, np.nan)
        figures = {"p": pmf, "challenger_p": self.challenger_pmf}
        figures |= {name: self.predicted[:, :, i] for i, name in enumerate(PREDICTED)}
        row, column = np.nonzero(self.actions >= 0)
        found: dict[str, Vector] = {}
        for name, values in figures.items():
            if np.isnan(values).all():
                continue
            wide = np.full((len(self), len(self.ids)), np.nan)
            wide[row, self.actions[row, column]] = values[row, column]
            found |= {f"{name}[{arm}]": wide[:, i] for i, arm in enumerate(self.ids)}
        return found

    def _scored(self, y: Vector, weights: Weights | None) -> Vector:
        """The reward of components (n, ..., 3)."""
        if weights is not None:
            return objective.reward(y, weights)
        total = np.full(y.shape[:-1], np.nan)
        for own in np.unique(self.weights, axis=0):
            same = (self.weights == own).all(axis=1)
            total[same] = objective.reward(y[same], Weights(*own.tolist()))
        return total


def expect_one_encoder(encoders: Sequence[str]) -> None:
    """Refuse contexts that don't compare."""
    if len(encoders) > 1:
        raise ValueError(
            f"the rows have contexts of {len(encoders)} encoders ({', '.join(encoders)}), which"
            " don't compare: narrow them down by policy or time"
        )


def events(data: LoggedData, catalog: Catalog) -> OutcomeBatch:
    """The log's outcomes as a value model learns them, in the order of the decisions.

    Left out are rows without an outcome, those whose arm wasn't used, and arms that `catalog`,
    whose prices count, doesn't have.
    """
    position = np.array([catalog.index(arm) if arm in catalog else -1 for arm in data.ids])
    told = data.error | ~np.isnan(data.outcomes).all(axis=1)
    rows = np.flatnonzero(told & data.executed & (position[data.arm] >= 0))
    arm = position[data.arm[rows]]
    list_cost_usd = catalog.list_cost_usd(
        data.tokens[rows, :1], data.tokens[rows, 1:], np.arange(len(catalog))
    )
    quality, latency_ms, cost_usd = data.outcomes[rows].T
    return OutcomeBatch(
        arms=[catalog.ids[i] for i in arm],
        x=data.contexts[rows],
        quality=quality,
        latency_ms=latency_ms,
        cost_usd=cost_usd,
        error=data.error[rows],
        settled=np.zeros((len(rows), 3), dtype=bool),
        list_cost_usd=list_cost_usd[np.arange(len(rows)), arm],
        propensity=data.propensity[rows],
        catalogs=[catalog] * len(rows),
        eligible=[_eligible(data.actions[row], position, len(catalog)) for row in rows],
    )


def _eligible(actions: Index, position: Index, arms: int) -> bytes:
    mask = np.zeros(arms, dtype=bool)
    at = position[actions[actions >= 0]]
    mask[at[at >= 0]] = True
    return packed(mask)


@dataclass(frozen=True, slots=True)
class Range:
    """Which rows of a log were used: those made in [from_ms, to_ms), and a digest of their ids."""

    path: str
    rows: int
    from_ms: int
    to_ms: int
    digest: str


def fingerprint(data: LoggedData, path: str) -> Range:
    """Of rows that were read from `path`: reading its range again must give the same digest."""
    return _range(path, data.decision_ids, data.made_at_ms)


def range_of(
    path: str, policy: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> Range:
    """The same of what `read` would give, without reading more than two columns."""
    found = table(path, policy, from_ms, to_ms, ["decision_id", "made_at_ms"])
    made_at_ms = _numbers(found["made_at_ms"]).astype(np.int64)
    return _range(path, found["decision_id"].to_pylist(), made_at_ms)


def _range(path: str, decision_ids: Sequence[str], made_at_ms: Index) -> Range:
    n = len(decision_ids)
    from_ms, to_ms = (int(made_at_ms.min()), int(made_at_ms.max()) + 1) if n else (0, 0)
    return Range(path, n, from_ms, to_ms, _digest(decision_ids))


def check(data: LoggedData) -> None:
    """Refuse what no estimator may use.

    Raises
    ------
    ValueError
        Saying in one line what is wrong, and at which rows first.
    """
    chosen = (data.actions == data.arm[:, None]) & (data.actions >= 0)
    at_arm = np.where(chosen, data.pmf, 0.0).sum(axis=1)
    possible = (data.propensity > 0) & (data.propensity <= 1)
    quality, latency_and_cost = data.outcomes[:, 0], data.outcomes[:, 1:]
    checks = {
        "decision ids must not repeat": _repeated(data.decision_ids),
        "propensities must be given": np.isnan(data.propensity),
        "propensities must be in (0, 1]": ~possible & ~np.isnan(data.propensity),
        "action sets must hold the chosen arm, once": chosen.sum(axis=1) != 1,
        "pmfs must be >= 0": ~(data.pmf >= 0).all(axis=1),
        "pmfs must sum to 1": ~(np.abs(data.pmf.sum(axis=1) - 1.0) <= TOLERANCE),
        "propensities must be the pmf at the chosen arm": (
            possible & ~(np.abs(at_arm - data.propensity) <= TOLERANCE) & chosen.any(axis=1)
        ),
        "qualities must be in [0, 1]": (quality < 0) | (quality > 1),
        "latencies and costs must be >= 0 and finite": (
            (latency_and_cost < 0) | np.isinf(latency_and_cost)
        ).any(axis=1),
        "weights must be >= 0, and not all 0": ~(
            (data.weights >= 0).all(axis=1) & (data.weights.sum(axis=1) > 0)
        ),
        "a row must stand for a positive number of decisions": ~(
            (data.stands_for > 0) & np.isfinite(data.stands_for)
        ),
    }
    found = [
        f"{what}: {problems.rows(wrong, data.decision_ids)}"
        for what, wrong in checks.items()
        if wrong.any()
    ]
    if found:
        raise ValueError("; ".join(found))


def _repeated(decision_ids: Sequence[str]) -> Mask:
    """(n,) true where an id was there before."""
    n = len(decision_ids)
    if len(set(decision_ids)) == n:
        return np.zeros(n, dtype=bool)
    _, first = np.unique(np.array(decision_ids, dtype=object), return_index=True)
    return ~np.isin(np.arange(n), first)


def _dataset(path: str) -> Any:
    filesystem, root = files.filesystem(path)
    if filesystem.get_file_info(root).type != pfs.FileType.Directory:
        raise ValueError(f"there is no log at {path}")
    columns = pa.schema([*SCHEMA, ("policy", pa.string()), ("day", pa.string())])
    dataset = pds.dataset(
        root, schema=columns, filesystem=filesystem, format="parquet", partitioning=_PARTITIONS
    )
    first = next(iter(dataset.get_fragments()), None)
    if first is None:
        raise ValueError(f"there is no log at {path}")
    found = (first.physical_schema.metadata or {}).get(b"pointsman_log", b"").decode()
    if found != str(FORMAT):
        raise ValueError(f"{path}: expected a log of format {FORMAT}, got {found or 'other files'}")
    return dataset


def _day_of(fragment: Any) -> str:
    day: str = pds.get_partition_keys(fragment.partition_expression)["day"]
    return day


def _filter(policy: str | None, from_ms: int | None, to_ms: int | None) -> Any:
    wanted = []
    if policy is not None:
        wanted.append(pc.field("policy") == policy)
    if from_ms is not None:  # the day as well: it spares whole folders
        wanted += [pc.field("made_at_ms") >= from_ms, pc.field("day") >= day(from_ms)]
    if to_ms is not None:
        wanted += [pc.field("made_at_ms") < to_ms, pc.field("day") <= day(to_ms)]
    together = None
    for condition in wanted:
        together = condition if together is None else together & condition
    return together


def _by_partition(
    rows: Sequence[LoggedDecision],
) -> Mapping[tuple[str, str], list[LoggedDecision]]:
    parts: dict[tuple[str, str], list[LoggedDecision]] = {}
    for row in rows:
        key = row.decision.policy, day(row.decision.made_at_ms)
        parts.setdefault(key, []).append(row)
    return parts


def _digest(decision_ids: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for decision_id in decision_ids:
        digest.update(decision_id.encode() + b"\n")
    return digest.hexdigest()


def _numbers(column: Any) -> Vector:
    """(n,) float64, NaN for null."""
    values: Vector = column.cast(pa.float64()).to_numpy()
    return values


def _flat(column: Any) -> Any:
    """The values of a list column, one after the other."""
    return pc.list_flatten(column).combine_chunks()


def _distinct(column: Any) -> set[str]:
    return set(pc.unique(column).to_pylist())


def _positions(column: Any, among: Sequence[str]) -> Index:
    found: Index = pc.index_in(column, value_set=pa.array(among, pa.string())).to_numpy()
    return found.astype(np.int64)


def _contexts(column: Any) -> Context:
    """(n, d); a row of another length than the first one is refused."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    d = int(lengths[0]) if len(lengths) else 0
    if (other := lengths != d).any():
        raise ValueError(f"contexts must all have {d} numbers: {problems.rows(other)}")
    flat: Context = _flat(column).to_numpy(zero_copy_only=False)
    return flat.reshape(len(lengths), d)


def _padded(column: Any, held: Mask, padding: float) -> Vector:
    """A list column as (n, kmax); rows that are null, or not as long as the action set, stay
    padding: `check` finds them."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    fits = lengths == held.sum(axis=1)
    values = np.full(held.shape, padding)
    flat = _flat(column).to_numpy(zero_copy_only=False)
    values[held & fits[:, None]] = flat[np.repeat(fits, lengths)]
    return values

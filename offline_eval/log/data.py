"""The log's rows as arrays: what estimators, replay and the gate take.

How a decision was made, and what an estimator does with it, is not known here; nor is any file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from offline_eval.log import problems
from offline_eval.log.schema import PREDICTED
from policy import objective
from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights
from policy.records import NO_LESSON, Context, OutcomeBatch, packed

if TYPE_CHECKING:
    import pandas as pd

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


Propensities = Literal["logged", "estimated", "unknown"]

_OUTCOMES = ("quality", "latency_ms", "cost_usd")


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
    propensity: Vector  # (n,) of the arm that was drawn; NaN where it isn't known
    propensity_estimated: Mask  # (n,) by an importer, from the log: not what was drawn with
    pmf: Vector  # (n, kmax)
    predicted: Vector  # (n, kmax, 3): quality, latency_ms, cost_usd, as predicted before the draw
    challengers: tuple[str | None, ...]  # (n,)
    challenger_pmf: Vector  # (n, kmax)
    share: Vector  # (n,)
    tokens: Vector  # (n, 2): of the prompt and the output, as estimated before the call
    weights: Vector  # (n, 3), of the row's own objective
    stands_for: Vector  # (n,)
    outcomes: Vector  # (n, 3): quality, latency_ms, cost_usd; NaN is missing
    quality_assumed: Mask  # (n,): nobody reported it, and silence was taken for an answer
    reported: Vector  # (n, 3): what a correction has replaced in `outcomes`, else NaN
    error: Mask  # (n,)
    teaches: Mask  # (n,): no error that says nothing of the arm's quality
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
            propensity_estimated=log["propensity_estimated"].to_numpy(),
            pmf=_padded(log["pmf"], held, 0.0),
            predicted=np.stack([_padded(log[name], held, np.nan) for name in PREDICTED], axis=2),
            challengers=tuple(log["challenger"].to_pylist()),
            challenger_pmf=_padded(log["challenger_pmf"], held, np.nan),
            share=_numbers(log["share"]),
            tokens=np.stack([_numbers(log[f"{c}_tokens"]) for c in ("prompt", "output")], axis=1),
            weights=np.stack([_numbers(log[f"weight_{c}"]) for c in objective.COMPONENTS], axis=1),
            stands_for=_numbers(log["stands_for"]),
            outcomes=np.stack([_numbers(log[name]) for name in _OUTCOMES], axis=1),
            quality_assumed=log["quality_assumed"].to_numpy(),
            reported=np.stack([_numbers(log[f"reported_{name}"]) for name in _OUTCOMES], axis=1),
            error=log["error"].is_valid().to_numpy(),
            teaches=pc.invert(pc.is_in(log["error"], pa.array(NO_LESSON))).to_numpy(),
            executed=pc.and_(log["executed"], pc.equal(executed_arm, log["arm"])).to_numpy(),
            closed=log["closed"].to_numpy(),
        )

    @property
    def propensities(self) -> Propensities:
        """What the rows' propensities are: unknown only where none has one."""
        if len(self) and np.isnan(self.propensity).all():
            return "unknown"
        return "estimated" if self.propensity_estimated.any() else "logged"

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
        return _frame(self, per_arm)

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


def outcome_batch(data: LoggedData, catalog: Catalog) -> OutcomeBatch:
    """The log's outcomes as a value model learns them, in the order of the decisions.

    Left out are rows without an outcome, those whose arm wasn't used, those with an error that says
    nothing of an arm's quality, and arms that `catalog`, whose prices count, doesn't have.
    """
    position = np.array([catalog.index(arm) if arm in catalog else -1 for arm in data.ids])
    told = data.error | ~np.isnan(data.outcomes).all(axis=1)
    rows = np.flatnonzero(told & data.executed & data.teaches & (position[data.arm] >= 0))
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


def _frame(data: LoggedData, per_arm: bool) -> pd.DataFrame:
    try:
        import pandas as pd  # noqa: PLC0415 - only those who want frames need it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a data frame needs pandas: pip install pandas") from error
    ids = np.array(data.ids, dtype=object)
    columns: dict[str, Any] = {
        "decision_id": data.decision_ids,
        "policy": data.policies,
        "made_at": pd.to_datetime(data.made_at_ms, unit="ms", utc=True),
        "version": data.versions,
        "catalog": data.catalogs,
        "arm": ids[data.arm],
        "propensity": data.propensity,
        "propensity_estimated": data.propensity_estimated,
        **dict(zip(_OUTCOMES, data.outcomes.T, strict=True)),
        **{f"reported_{n}": v for n, v in zip(_OUTCOMES, data.reported.T, strict=True)},
        "quality_assumed": data.quality_assumed,
        "error": data.error,
        "executed": data.executed,
        "closed": data.closed,
        "challenger": data.challengers,
        "share": data.share,
        "prompt_tokens": data.tokens[:, 0],
        "output_tokens": data.tokens[:, 1],
        **{f"weight_{c}": w for c, w in zip(objective.COMPONENTS, data.weights.T, strict=True)},
        "stands_for": data.stands_for,
    }
    return pd.DataFrame(columns | (_by_arm(data) if per_arm else {}))


def _by_arm(data: LoggedData) -> dict[str, Vector]:
    """A column (n,) per figure and arm, for the figures that any row has."""
    pmf = np.where(data.actions >= 0, data.pmf, np.nan)
    figures = {"p": pmf, "challenger_p": data.challenger_pmf}
    figures |= {name: data.predicted[:, :, i] for i, name in enumerate(PREDICTED)}
    row, column = np.nonzero(data.actions >= 0)
    found: dict[str, Vector] = {}
    for name, values in figures.items():
        if np.isnan(values).all():
            continue
        wide = np.full((len(data), len(data.ids)), np.nan)
        wide[row, data.actions[row, column]] = values[row, column]
        found |= {f"{name}[{arm}]": wide[:, i] for i, arm in enumerate(data.ids)}
    return found


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

"""The schema of the log's rows, and a row as a record of `policy.records` and back.

Knows no file: others write and read them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from policy.objective import Weights
from policy.records import Decision, LoggedDecision, Outcome

_DOUBLES = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        # The decision. `arms`, `pmf`, the predictions and `challenger_pmf` are parallel.
        pa.field("decision_id", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("snapshot", pa.int64(), nullable=False),
        pa.field("catalog", pa.string(), nullable=False),
        pa.field("encoder", pa.string(), nullable=False),
        pa.field("made_at_ms", pa.int64(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("propensity", pa.float64()),  # null where it isn't known, as is all of `pmf`
        pa.field("propensity_estimated", pa.bool_(), nullable=False),  # by an importer, and `pmf`
        pa.field("confidence", pa.float64()),
        pa.field("arms", pa.list_(pa.string()), nullable=False),
        pa.field("pmf", _DOUBLES, nullable=False),
        pa.field("predicted_quality", _DOUBLES, nullable=False),
        pa.field("predicted_latency_ms", _DOUBLES, nullable=False),
        pa.field("predicted_cost_usd", _DOUBLES, nullable=False),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("output_tokens", pa.int64(), nullable=False),
        pa.field("weight_quality", pa.float64(), nullable=False),
        pa.field("weight_latency", pa.float64(), nullable=False),
        pa.field("weight_cost", pa.float64(), nullable=False),
        pa.field("x", pa.list_(pa.float32()), nullable=False),
        pa.field("query", pa.string()),
        pa.field("challenger", pa.string()),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("challenger_pmf", _DOUBLES),
        pa.field("challenger_encoder", pa.string()),
        pa.field("challenger_x", pa.list_(pa.float32())),
        pa.field("endpoint", pa.string()),
        pa.field("answered", _DOUBLES),  # parallel to `arms`: null where no arm failed
        pa.field("degraded", pa.string()),
        pa.field("logged_by", pa.string()),  # `token`: there only because it was reported
        pa.field("stands_for", pa.float64(), nullable=False),
        # The outcome; null is missing.
        pa.field("quality", pa.float64()),
        pa.field("latency_ms", pa.float64()),
        pa.field("cost_usd", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("executed_arm", pa.string()),
        pa.field("executed", pa.bool_(), nullable=False),
        pa.field("closed", pa.bool_(), nullable=False),
        pa.field("outcome_at_ms", pa.int64()),
        pa.field("quality_assumed", pa.bool_(), nullable=False),  # nobody has reported it
        pa.field("reported_by", pa.string()),  # id of the caller's key; null without one
        # A correction: the values it replaced (those above are the new ones), who and why.
        pa.field("reported_quality", pa.float64()),
        pa.field("reported_latency_ms", pa.float64()),
        pa.field("reported_cost_usd", pa.float64()),
        pa.field("corrected_by", pa.string()),
        pa.field("correction_reason", pa.string()),
    ],
)
_OUTCOME = SCHEMA.get_field_index("quality")  # here the decision's fields end
DECISION = pa.schema([SCHEMA.field(i) for i in range(_OUTCOME)])
CORRECTION = (
    "reported_quality",
    "reported_latency_ms",
    "reported_cost_usd",
    "corrected_by",
    "correction_reason",
)
PREDICTED = ("predicted_quality", "predicted_latency_ms", "predicted_cost_usd")


def day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%d")


def digest(decision_ids: Iterable[str]) -> str:
    """What tells these decisions from any others."""
    digest = hashlib.blake2b(digest_size=12)
    for decision_id in decision_ids:
        digest.update(decision_id.encode() + b"\n")
    return digest.hexdigest()


def table(rows: Sequence[LoggedDecision]) -> pa.Table:
    """Rows of `SCHEMA`."""
    return _columns([_fields(row) for row in rows], SCHEMA)


def decision_table(decisions: Sequence[Decision]) -> pa.Table:
    """Rows of `DECISION`: each stands for itself, with the propensity it was drawn with."""
    known = {"stands_for": 1.0, "propensity_estimated": False}
    return _columns([_decision_fields(made) | known for made in decisions], DECISION)


def _columns(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = [
        pa.array([row[field.name] for row in rows], field.type, from_pandas=True)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _decision_fields(decision: Decision) -> dict[str, Any]:
    return {
        "decision_id": decision.decision_id,
        "version": decision.version,
        "snapshot": decision.snapshot,
        "catalog": decision.catalog,
        "encoder": decision.encoder,
        "made_at_ms": decision.made_at_ms,
        "arm": decision.arm,
        "propensity": decision.propensity,
        "confidence": decision.confidence,
        "arms": list(decision.arms),
        "pmf": decision.pmf,
        **dict(zip(PREDICTED, decision.predicted.T, strict=True)),
        "prompt_tokens": decision.prompt_tokens,
        "output_tokens": decision.output_tokens,
        "weight_quality": decision.weights.quality,
        "weight_latency": decision.weights.latency,
        "weight_cost": decision.weights.cost,
        "x": decision.x,
        "query": decision.query,
        "challenger": decision.challenger,
        "share": decision.share,
        "challenger_pmf": decision.challenger_pmf,
        "challenger_encoder": decision.challenger_encoder,
        "challenger_x": decision.challenger_x,
        "endpoint": decision.endpoint,
        "answered": decision.answered,
        "degraded": decision.degraded,
        "logged_by": decision.logged_by,
    }


def _fields(row: LoggedDecision) -> dict[str, Any]:
    """A row by the schema's names; where a record and the schema differ, it is said here."""
    outcome = row.outcome
    return {
        **_decision_fields(row.decision),
        "stands_for": row.stands_for,
        "propensity_estimated": row.propensity_estimated,
        "quality": outcome.quality,
        "latency_ms": outcome.latency_ms,
        "cost_usd": outcome.cost_usd,
        "error": outcome.error,
        "executed_arm": outcome.executed_arm,
        "executed": outcome.executed,
        "closed": outcome.closed,
        "outcome_at_ms": outcome.at_ms,
        "quality_assumed": outcome.quality_assumed,
        "reported_by": outcome.reported_by,
        **{name: getattr(outcome, name) for name in CORRECTION},
    }


def record(row: Mapping[str, Any]) -> LoggedDecision:
    """The way back from `_fields`."""
    decision = Decision(
        decision_id=row["decision_id"],
        policy=row["policy"],
        version=row["version"],
        snapshot=row["snapshot"],
        catalog=row["catalog"],
        encoder=row["encoder"],
        made_at_ms=row["made_at_ms"],
        arm=row["arm"],
        propensity=np.nan if row["propensity"] is None else row["propensity"],
        confidence=row["confidence"],
        arms=tuple(row["arms"]),
        pmf=np.array(row["pmf"], dtype=np.float64),
        predicted=np.array([row[name] for name in PREDICTED], dtype=np.float64).T,
        prompt_tokens=row["prompt_tokens"],
        output_tokens=row["output_tokens"],
        weights=Weights(row["weight_quality"], row["weight_latency"], row["weight_cost"]),
        x=np.array(row["x"], dtype=np.float32),
        query=row["query"],
        challenger=row["challenger"],
        share=row["share"],
        challenger_pmf=_array(row["challenger_pmf"], np.float64),
        challenger_encoder=row["challenger_encoder"],
        challenger_x=_array(row["challenger_x"], np.float32),
        endpoint=row["endpoint"],
        answered=_array(row["answered"], np.float64),
        degraded=row["degraded"],
        logged_by=row["logged_by"],
    )
    outcome = Outcome(
        quality=row["quality"],
        latency_ms=row["latency_ms"],
        cost_usd=row["cost_usd"],
        error=row["error"],
        executed_arm=row["executed_arm"],
        executed=row["executed"],
        closed=row["closed"],
        at_ms=row["outcome_at_ms"],
        quality_assumed=row["quality_assumed"],
        reported_by=row["reported_by"],
        **{name: row[name] for name in CORRECTION},
    )
    return LoggedDecision(decision, outcome, row["stands_for"], row["propensity_estimated"])


def _array(values: Sequence[float] | None, kind: type[np.floating[Any]]) -> Any:
    return None if values is None else np.array(values, dtype=kind)

"""Decision and outcome: the one schema for Redis, Parquet, learning and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from policy.arms.catalog import Catalog, Index, Mask
from policy.objective import Weights
from policy.plans import plan as plans
from policy.plans.plan import Plan
from policy.stored import Unreadable, opened_record, sealed_record

Vector = NDArray[np.float64]
Context = NDArray[np.float32]

OF_HEALTH = frozenset({"timeout", "connection", "server_error", "rate_limited", "auth"})
"""Errors that tell of an arm's health, ..."""
OF_NOTHING = frozenset({"bad_request", "content_filter", "cancelled"})
"""... and those that are the query's or the caller's. Neither teaches anything of an arm's quality;
any other error does: the arm answered, and wrong."""
NO_LESSON = tuple(sorted(OF_HEALTH | OF_NOTHING))


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One answer of a policy, with all that is needed to evaluate it later.

    `arm` is the action that was drawn: an arm, or a plan by its id. `plan` is then that plan, or
    the fallback that follows on an error of the arm.

    `arms`, `pmf` and `predicted` are parallel, over k actions: the eligible arms in catalog order,
    then plans. `predicted` is (k, 3): quality, latency_ms, cost_usd, NaN where unknown. `catalog`
    is the revision whose prices held; the token counts are estimates made before the call.

    With a challenger, `pmf` is `(1 - share)` parts of the champion's and `share` parts of
    `challenger_pmf` (k,). All else is the champion's. Where the challenger's encoder differs, its
    fingerprint and context are here too. `gave_way` names the limits of the request that no arm
    kept, and so don't bound the action set. `task` is the most probable task type, kept where rules
    are the policy's incumbent or the challenger's.

    `pmf` is what the policy makes of its snapshot, the context, `arms`, `weights` and `answered`.
    `degraded` says why the arm was taken without a choice. `logged_by` is `token` where nothing
    could be logged when it was made: it came with its first report, so of those that nobody
    reported there is none.
    """

    decision_id: str
    policy: str
    version: str
    snapshot: int
    catalog: str
    encoder: str
    made_at_ms: int
    arm: str
    propensity: float
    confidence: float | None
    arms: tuple[str, ...]
    pmf: Vector
    predicted: Vector
    prompt_tokens: int
    output_tokens: int
    weights: Weights
    x: Context
    query: str | None = None  # kept only where the operator turned it on
    task: str | None = None
    challenger: str | None = None  # its version
    share: float = 0.0
    challenger_pmf: Vector | None = None
    challenger_encoder: str | None = None
    challenger_x: Context | None = None
    gave_way: tuple[str, ...] = ()
    endpoint: str | None = None
    answered: Vector | None = None  # (k,) the share of each arm's calls that was, None: all of them
    unavailable: tuple[tuple[str, str], ...] | None = None  # arms that can't be called, and why
    degraded: str | None = None
    plan: Plan | None = None
    session: str | None = None
    turn: int | None = None  # of the session, from 1
    draw_id: str | None = None  # the decision whose draw this turn's arm is; its own in the first
    logged_by: str | None = None

    @property
    def first_arm(self) -> str:
        """The arm that is called first."""
        return self.arm if self.plan is None else self.plan.steps[0].arm


_PLAIN = (
    "decision_id",
    "policy",
    "version",
    "snapshot",
    "catalog",
    "encoder",
    "made_at_ms",
    "arm",
    "propensity",
    "confidence",
    "arms",
    "pmf",
    "predicted",
    "prompt_tokens",
    "output_tokens",
    "query",
)
_SHADOW = ("challenger", "share", "challenger_pmf", "challenger_encoder")
_SELDOM = (
    "endpoint",
    "answered",
    "unavailable",
    "degraded",
    "session",
    "turn",
    "draw_id",
    "logged_by",
)


def to_json(decision: Decision) -> bytes:
    """A decision without its contexts, which travel beside it as raw float32."""
    fields: dict[str, Any] = {name: getattr(decision, name) for name in _PLAIN}
    if decision.challenger is not None:
        fields.update({name: getattr(decision, name) for name in _SHADOW})
    if decision.gave_way:
        fields["gave_way"] = decision.gave_way
    if decision.task is not None:
        fields["task"] = decision.task
    said = {name: getattr(decision, name) for name in _SELDOM}
    fields.update({name: value for name, value in said.items() if value is not None})
    if decision.plan is not None:
        fields["plan"] = plans.to_record(decision.plan)
    fields["weights"] = decision.weights.as_tuple()
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def to_stored(decision: Decision) -> bytes:
    """The same with format and checksums, those of the contexts among them."""
    other = b"" if decision.challenger_x is None else decision.challenger_x.tobytes()
    return sealed_record("decision", to_json(decision), decision.x.tobytes(), other)


def from_stored(record: bytes, x: bytes, challenger_x: bytes | None = None) -> Decision:
    """What `to_stored` wrote, with the contexts' bytes; floats come back bit for bit.

    Raises
    ------
    Unreadable
        If any of it is damaged, or of another format.
    """
    fields = opened_record("decision", record, x, *filter(None, [challenger_x]))
    try:
        return _decision(fields, x, challenger_x)
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"not a decision: {error!r}") from None


def _decision(fields: dict[str, Any], x: bytes, challenger_x: bytes | None) -> Decision:
    fields["arms"] = tuple(fields["arms"])
    fields["gave_way"] = tuple(fields.get("gave_way", ()))
    fields["pmf"] = np.array(fields["pmf"], dtype=np.float64)
    fields["predicted"] = np.array(fields["predicted"], dtype=np.float64)  # null becomes NaN
    fields["weights"] = Weights(*fields["weights"])
    if fields.get("plan") is not None:
        fields["plan"] = plans.from_record(fields["plan"])
    if fields.get("challenger_pmf") is not None:
        fields["challenger_pmf"] = np.array(fields["challenger_pmf"], dtype=np.float64)
    if "answered" in fields:
        fields["answered"] = np.array(fields["answered"], dtype=np.float64)
    if "unavailable" in fields:
        fields["unavailable"] = tuple((arm, why) for arm, why in fields["unavailable"])
    if challenger_x:
        fields["challenger_x"] = np.frombuffer(challenger_x, dtype=np.float32)
    return Decision(x=np.frombuffer(x, dtype=np.float32), **fields)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has arrived for a decision: None is missing, and is never 0.

    `executed_arm` is the arm that the caller ended up using, None where nobody said; `executed` is
    false for a decision that was never used. `closed` says that the reward window had passed when
    this was written; `at_ms` is when the last part arrived. `quality_assumed` says that nobody
    reported the quality: it is the policy's `missing_quality`. Where somebody corrected a
    component, its `reported_` field holds what it was before, and the last correction says who and
    why.
    """

    quality: float | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None
    error: str | None = None
    executed_arm: str | None = None
    executed: bool = True
    closed: bool = False
    at_ms: int | None = None
    quality_assumed: bool = False
    reported_by: str | None = None  # id of the caller's key that the last part came with
    reported_quality: float | None = None
    reported_latency_ms: float | None = None
    reported_cost_usd: float | None = None
    corrected_by: str | None = None
    correction_reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LoggedDecision:
    """A decision joined with its outcome: one row of the log.

    `stands_for` is how many decisions the row counts as: 1, or 1 / (1 - p) where others dropped
    rows with probability p. `propensity_estimated` says that the propensity, and the pmf, are what
    an importer estimated from the log, for nobody had recorded them.
    """

    decision: Decision
    outcome: Outcome
    stands_for: float = 1.0
    propensity_estimated: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeBatch:
    """n outcome events in stream order, as columns: what a value model learns from.

    An event holds only what was accepted with it: NaN marks a component that came earlier, comes
    later, or never comes. `error` is true for the event that reported the failure. `settled` marks
    the components (quality, latency, cost) that an earlier event of the same decision has taught:
    they are not taught again, even where an error would give them a value.
    """

    arms: Sequence[str]
    x: NDArray[np.float32]  # (n, d)
    quality: Vector  # (n,) in [0, 1]
    latency_ms: Vector  # (n,) >= 0
    cost_usd: Vector  # (n,) >= 0
    error: NDArray[np.bool_]  # (n,)
    settled: NDArray[np.bool_]  # (n, 3)
    list_cost_usd: Vector  # (n,) >= 0, of the arm that was executed
    propensity: Vector  # (n,) of the arm; NaN where it isn't the one that was drawn
    catalogs: Sequence[Catalog]  # the one that each decision chose from ...
    eligible: Sequence[bytes]  # ... and which of its arms could be chosen, `packed`
    asked: Index | None = None
    """(n, 3): the most probable task type's position, prompt and output tokens, as rules choose by;
    -1 where none was noted, None where none was of any event."""

    query: Index | None = None
    """(n,): events with the same number, which stand together, answered the same query and may be
    compared; None where no two did."""

    def __len__(self) -> int:
        return len(self.arms)

    def take(self, rows: Index) -> OutcomeBatch:
        """Some of the events, in this order."""
        columns: dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if column is not None:
                whole = isinstance(column, np.ndarray)
                columns[field.name] = column[rows] if whole else [column[i] for i in rows]
        return OutcomeBatch(**columns)

    def thinned(self, most: int) -> OutcomeBatch:
        """At most so many events of each arm, evenly spread over the batch."""
        arms = np.array(self.arms)
        kept = [np.zeros(0, dtype=np.intp)]
        for name in dict.fromkeys(self.arms):
            rows = np.flatnonzero(arms == name)
            n = min(most, len(rows))
            kept.append(rows[np.arange(n) * len(rows) // max(n, 1)])
        return self.take(np.sort(np.concatenate(kept)))


@dataclass(frozen=True, slots=True, eq=False)
class CorrectionBatch:
    """n corrections in stream order: outcomes that somebody overruled.

    `old` and `new` are the same events with the values that were overruled and those that hold
    instead, NaN where one stands. `since` (n, 3) counts the events that whoever learns from these
    was given after the one that taught a component, up to the correction; corrections are none.
    """

    old: OutcomeBatch
    new: OutcomeBatch
    since: Index


def packed(eligible: Mask) -> bytes:
    """An action set as one bit per arm of the catalog."""
    return np.packbits(eligible).tobytes()


@lru_cache(maxsize=4_096)
def positions(eligible: bytes) -> Index:
    """The catalog positions (k,) that `packed` wrote, rising."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(eligible, dtype=np.uint8)))

"""Decisions and reports as the store takes them, and what it tells of an outcome. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from policy import records
from policy.arms.catalog import Catalog
from policy.plans.plan import to_record
from policy.records import NO_LESSON, Decision, Vector
from serving.availability.fleet import Call
from serving.calls import Called
from serving.routes.requests import CorrectionRequest, RewardRequest
from serving.store.traffic import Correction, NewDecision, Report


def new_decision(
    decision: Decision, digest: str, catalog: Catalog, call: Call | None = None
) -> NewDecision:
    """What is stored of a decision; `digest` tells whether its id is used again for another one."""
    return NewDecision(
        decision_id=decision.decision_id,
        request=digest,
        record=records.to_stored(decision),
        x=decision.x.tobytes(),
        arm=decision.arm,
        list_cost_usd=catalog.arm(decision.first_arm).cost_usd(
            decision.prompt_tokens, decision.output_tokens
        ),
        version=decision.version,
        encoder=decision.encoder,
        made_at_ms=decision.made_at_ms,
        propensity=decision.propensity,
        catalog=decision.catalog,
        eligible=_eligible(catalog, decision.arms),
        shadow=b""
        if decision.challenger_pmf is None
        else _shadow(decision, decision.challenger_pmf),
        challenger_x=b"" if decision.challenger_x is None else decision.challenger_x.tobytes(),
        asked=""
        if decision.task is None
        else f"{decision.task} {decision.prompt_tokens} {decision.output_tokens}",
        place="" if decision.endpoint is None else f"{decision.first_arm} {decision.endpoint}",
        taken={} if call is None else call.taken,
        plan=b"" if decision.plan is None else orjson.dumps(to_record(decision.plan)),
    )


@lru_cache(maxsize=1_024)
def _eligible(catalog: Catalog, arms: tuple[str, ...]) -> bytes:
    return records.packed(catalog.among(arms))


def _shadow(decision: Decision, challenger_pmf: Vector) -> bytes:
    """What a challenger's learner must know beside the outcome, as JSON."""
    drawn = decision.arms.index(decision.arm)
    q, top = float(challenger_pmf[drawn]), float(challenger_pmf.max())
    own = (decision.propensity - decision.share * q) / (1.0 - decision.share)
    return orjson.dumps(
        {
            "version": decision.challenger,
            "encoder": decision.challenger_encoder,
            "propensity": q,
            "champion_propensity": max(own, 0.0),  # rounding may leave a tiny negative
            "top": 0.0 if q < top else 1.0 / int((challenger_pmf == top).sum()),
            "support": float(challenger_pmf[decision.pmf > 0].sum()),
        }
    )


def report_of(
    body: RewardRequest, cost_usd: float | None, list_cost_usd: float | None, late_counts: bool
) -> Report:
    return Report(
        body.decision_id,
        quality=body.quality,
        latency_ms=body.latency_ms,
        cost_usd=cost_usd,
        error=body.error,
        executed_arm=body.executed_arm,
        executed_list_cost_usd=list_cost_usd,
        executed=body.executed,
        ttft_ms=body.ttft_ms,
        retry_after_s=body.retry_after_s,
        late_counts=late_counts,
        teaches=body.error not in NO_LESSON,
        tokens=None if (used := body.tokens() or body.usage) is None else sum(used),
    )


def correction_of(body: CorrectionRequest, key: str) -> Correction:
    return Correction(
        body.decision_id,
        body.by,
        body.reason,
        quality=body.quality,
        latency_ms=body.latency_ms,
        cost_usd=body.cost_usd,
        key=key,
    )


def with_calls(report: Report, made: Called) -> Report:
    return replace(
        report,
        quality=made.quality,
        latency_ms=made.latency_ms,
        cost_usd=made.cost_usd,
        error=made.error,
        teaches=made.error not in NO_LESSON,
        executed_arm=made.executed_arm,
        executed_list_cost_usd=made.executed_list_cost_usd,
        attempts=made.record,
    )


def outcome_of(fields: Mapping[str, bytes]) -> dict[str, Any]:
    """What has been accepted for a decision, from all that is stored of it."""
    if "draw" in fields:  # a later turn of a session: its own part of the draw's outcome
        own = {name.removeprefix("own_"): fields[name] for name in fields if name[:4] == "own_"}
        executed = {} if "executed" not in own else {"executed_arm": fields["arm"]}
        return outcome_of({**own, **executed})
    outcome: dict[str, Any] = {
        name: float(fields[name])
        for component in ("quality", "latency_ms", "cost_usd")
        for name in (component, f"reported_{component}")
        if name in fields
    }
    outcome |= {
        name: float(fields[name]) for name in ("ttft_ms", "retry_after_s") if name in fields
    }
    if "quality_assumed" in fields:
        outcome["quality_assumed"] = True
    if "attempts" in fields:
        outcome |= orjson.loads(fields["attempts"])
    for name in ("error", "reported_by", "corrected_by", "correction_reason"):
        if name in fields:
            outcome[name] = fields[name].decode()
    if "executed" in fields:
        outcome["executed"] = fields["executed"] == b"1"
        outcome["executed_arm"] = fields["executed_arm"].decode()
    return outcome

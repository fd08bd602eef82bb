"""Service: what the routes call. Holds the running policies, decides, stores; knows no HTTP."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from policy import records
from policy.arms.arm import UnknownPrice
from policy.arms.catalog import Catalog
from policy.arms.constraints import NoEligibleArm
from policy.choosing.caller import Choice, WrongChoice
from policy.policy import NO_HINTS, Policy, Request
from policy.records import NO_LESSON, Decision, Vector
from serving.availability.fleet import Call, Fleet
from serving.deciding import Deciding
from serving.routes.requests import CorrectionRequest, RewardRequest, RouteRequest
from serving.store.keys import Alarm, StoreUnavailable
from serving.store.traffic import (
    Correction,
    NewDecision,
    Overruled,
    Receipt,
    Recorded,
    Refused,
    Report,
    Store,
    Stored,
)


class UnknownPolicy(LookupError):
    """No policy of this name runs here."""


class UnknownDecision(LookupError):
    """No decision of this id is stored: it was never made, or has expired."""


class UnknownArm(ValueError):
    """An outcome names an arm that the catalog of its decision doesn't hold."""


class Conflict(ValueError):
    """The request contradicts what has been stored before; nothing was changed."""


class Routed(NamedTuple):
    """A decision, the catalog it was made with, and whether it was logged."""

    decision: Decision
    catalog: Catalog
    logged: bool


class Catalogs:
    """Catalogs by revision: decisions outlive the one that they were made with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[tuple[str, str], Catalog] = {}

    async def of(self, policy: Policy, revision: str) -> Catalog:
        """The catalog of a revision: the current one, or one from the store."""
        if revision == policy.catalog.revision:
            return policy.catalog
        key = policy.name, revision
        if key not in self._read:
            stored = await self._store.versions.catalog(policy.name, revision)
            if stored is None:
                raise LookupError(f"catalog revision {revision!r} is not stored")
            self._read[key] = Catalog.from_json(stored)
        return self._read[key]


class Service:
    """Routes queries and takes rewards for the policies in `policies`, which a follower swaps."""

    def __init__(
        self, store: Store, clock_ms: Callable[[], int], *, serve_unlogged: bool = False
    ) -> None:
        self.policies: dict[str, Policy] = {}
        self.alarms: dict[str, Alarm | None] = {}
        self._store = store
        self._clock_ms = clock_ms
        self._serve_unlogged = serve_unlogged
        self.fleet = Fleet(store.availability, clock_ms)
        self._catalogs = Catalogs(store)
        self._deciding = Deciding(self.fleet, self.policy, clock_ms)

    def policy(self, name: str) -> Policy:
        try:
            return self.policies[name]
        except KeyError:
            known = ", ".join(sorted(self.policies)) or "none"
            raise UnknownPolicy(f"no policy {name!r} (known: {known})") from None

    async def route(self, body: RouteRequest) -> Routed:
        """A decision; those that are asked for at the same time are made together.

        Raises
        ------
        UnknownPolicy, NoEligibleArm, WrongChoice, StoreUnavailable
        Conflict
            If the id was used before with another body.
        """
        policy = self.policy(body.policy)
        decision_id = body.decision_id or secrets.token_hex(16)
        digest = _digest(body) if body.decision_id else ""
        try:
            made, recorded = await self._made(body, decision_id, digest)
        except (NoEligibleArm, WrongChoice):
            # Arms may have gone since this id was decided: its answer stands.
            answered = await self._answered(policy, body.decision_id, digest)
            if answered is None:
                raise
            return answered
        if not isinstance(recorded, Stored):
            return made
        if recorded.request != digest:
            raise Conflict(f"decision {decision_id!r} was made for another request")
        decision = records.from_json(recorded.record, recorded.x, recorded.challenger_x)
        return Routed(decision, await self._catalogs.of(policy, decision.catalog), True)

    async def _made(
        self, body: RouteRequest, decision_id: str, digest: str
    ) -> tuple[Routed, Recorded]:
        """A decision whose arm can be called, recorded; made again where that is news."""
        asked = _asked(body)
        refused: list[str] = []
        while True:
            policy, decision = await self._deciding.decide(body.policy, asked, decision_id, refused)
            call = self.fleet.call(decision, policy.catalog)
            if call.place.url is not None:
                decision = replace(decision, endpoint=call.place.url)
            if policy.config.store_text and body.query is not None:
                decision = replace(decision, query=body.query.prompt())
            recorded: Recorded = None
            try:
                if call.tries and not await self.fleet.claim(call.place):
                    continue
                recorded = await self._store.record(
                    policy.name,
                    new_decision(decision, digest, policy.catalog, call),
                    policy.config.retention_ms,
                )
            except StoreUnavailable:
                if self._serve_unlogged:
                    return Routed(decision, policy.catalog, False), None
                raise
            finally:
                self.fleet.done(policy.name, call, recorded)
            if not isinstance(recorded, Refused):
                return Routed(decision, policy.catalog, True), recorded
            await self.fleet.refresh()
            refused.append(decision.arm)

    async def _answered(
        self, policy: Policy, decision_id: str | None, digest: str
    ) -> Routed | None:
        """What this very request got before under its id, if anything."""
        fields = await self._store.decision(policy.name, decision_id) if decision_id else None
        if fields is None or fields["request"].decode() != digest:
            return None
        decision = records.from_json(fields["record"], fields["x"])
        return Routed(decision, await self._catalogs.of(policy, decision.catalog), True)

    async def reward(self, body: RewardRequest) -> tuple[Receipt, list[str]]:
        """Accept an outcome, whole or not at all; and what there is to say of it.

        Raises
        ------
        UnknownPolicy, UnknownDecision, UnknownArm, StoreUnavailable
        Conflict
            If a component was accepted before with another value.
        """
        policy = self.policy(body.policy)
        cost_usd, list_cost_usd, notes = body.cost_usd, None, []
        if body.tokens() is not None or body.executed_arm is not None:
            ran, decision, catalog = await self._ran(policy, body)
            arm = catalog.arm(ran)
            list_cost_usd = arm.cost_usd(decision.prompt_tokens, decision.output_tokens)
            try:
                if (tokens := body.tokens()) is not None:
                    cost_usd = arm.cost_usd(*tokens)
            except UnknownPrice as error:
                notes.append(f"cost_usd stays missing: {error}")
        late_counts = policy.config.missing_quality is not None
        report = _report(body, cost_usd, list_cost_usd, late_counts)
        receipt = await self._store.report(
            policy.name, report, self._clock_ms(), policy.config.reward_window_s * 1000
        )
        if receipt.status == "unknown":
            raise _unknown(body.decision_id)
        if receipt.status == "conflict":
            names = ", ".join(receipt.accepted)
            raise Conflict(
                f"decision {body.decision_id!r} contradicts what was accepted before: {names}"
            )
        if receipt.over is not None:
            await self.fleet.over(policy, receipt.over, body.error, body.retry_after_s)
        return receipt, notes

    async def correct(self, body: CorrectionRequest) -> Overruled:
        """Overrule what was reported of a decision, whole or not at all.

        Raises
        ------
        UnknownPolicy, UnknownDecision, StoreUnavailable
        Conflict
            If there is nothing that could be overruled so.
        """
        policy = self.policy(body.policy)
        correction = Correction(
            body.decision_id, body.by, body.reason, body.quality, body.latency_ms, body.cost_usd
        )
        overruled = await self._store.correct(
            policy.name, correction, self._clock_ms(), policy.config.reward_window_s * 1000
        )
        if overruled.status == "unknown":
            raise _unknown(body.decision_id)
        if overruled.status != "ok":
            raise Conflict(f"decision {body.decision_id!r} {_standing(overruled)}")
        return overruled

    async def decision(self, policy_name: str, decision_id: str) -> dict[str, Any]:
        """The record of a decision and what has been accepted for it."""
        policy = self.policy(policy_name)
        fields = await self._store.decision(policy.name, decision_id)
        if fields is None:
            raise _unknown(decision_id)
        return {"decision": orjson.loads(fields["record"]), "outcome": _outcome(fields)}

    async def _ran(self, policy: Policy, body: RewardRequest) -> tuple[str, Decision, Catalog]:
        """The arm that ran, the decision, and the catalog with its prices."""
        fields = await self._store.decision(policy.name, body.decision_id)
        if fields is None:
            raise _unknown(body.decision_id)
        decision = records.from_json(fields["record"], fields["x"])
        catalog = await self._catalogs.of(policy, decision.catalog)
        ran = body.executed_arm or fields.get("executed_arm", decision.arm.encode()).decode()
        if ran not in catalog:
            raise UnknownArm(f"executed_arm {ran!r} is not in the decision's catalog")
        return ran, decision, catalog


def _unknown(decision_id: str) -> UnknownDecision:
    return UnknownDecision(f"no decision {decision_id!r}: never made, or expired")


def _standing(overruled: Overruled) -> str:
    """Why a correction was refused, as what its decision is or does."""
    if overruled.status == "withdrawn":
        return "was withdrawn: it has no outcome"
    if overruled.status == "failed":
        return "failed, which means quality 0: an error can't be overruled"
    names = ", ".join(overruled.corrected)
    return f"has nothing to overrule yet: report with /reward what it lacks: {names}"


def _asked(body: RouteRequest) -> Request:
    return Request(
        body.query,
        body.hints or NO_HINTS,
        body.constraints,
        body.weights(),
        None if body.chosen is None else Choice(body.chosen.arm, body.chosen.pmf),
    )


def _report(
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


def _outcome(fields: Mapping[str, bytes]) -> dict[str, Any]:
    """What has been accepted for a decision, from all that is stored of it."""
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
    for name in ("error", "corrected_by", "correction_reason"):
        if name in fields:
            outcome[name] = fields[name].decode()
    if "executed" in fields:
        outcome["executed"] = fields["executed"] == b"1"
        outcome["executed_arm"] = fields["executed_arm"].decode()
    return outcome


def _digest(body: RouteRequest) -> str:
    content = orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def new_decision(
    decision: Decision, digest: str, catalog: Catalog, call: Call | None = None
) -> NewDecision:
    """What is stored of a decision; `digest` tells whether its id is used again for another one."""
    return NewDecision(
        decision_id=decision.decision_id,
        request=digest,
        record=records.to_json(decision),
        x=decision.x.tobytes(),
        arm=decision.arm,
        list_cost_usd=catalog.arm(decision.arm).cost_usd(
            decision.prompt_tokens, decision.output_tokens
        ),
        version=decision.version,
        encoder=decision.encoder,
        made_at_ms=decision.made_at_ms,
        propensity=decision.propensity,
        catalog=decision.catalog,
        eligible=records.packed(catalog.among(decision.arms)),
        shadow=b""
        if decision.challenger_pmf is None
        else _shadow(decision, decision.challenger_pmf),
        challenger_x=b"" if decision.challenger_x is None else decision.challenger_x.tobytes(),
        asked=""
        if decision.task is None
        else f"{decision.task} {decision.prompt_tokens} {decision.output_tokens}",
        place="" if decision.endpoint is None else f"{decision.arm} {decision.endpoint}",
        taken={} if call is None else call.taken,
    )


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

"""Service: what the routes call. Holds the running policies, decides, stores; knows no HTTP."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from policy import records
from policy.arms.arm import UnknownPrice
from policy.arms.catalog import Catalog
from policy.arms.constraints import NoEligibleArm
from policy.choosing.caller import Choice, WrongChoice
from policy.plans.plan import kind_of
from policy.policy import NO_HINTS, Policy, Request
from policy.records import Decision
from policy.stored import opened_record
from serving.access.rates import used_up
from serving.access.tokens import Tokens
from serving.availability.fleet import Fleet
from serving.calls import called, calls_over
from serving.deciding import Deciding
from serving.entries import correction_of, new_decision, outcome_of, report_of, with_calls
from serving.parsing.checking import Invalid
from serving.routes.requests import CorrectionRequest, RewardRequest, RouteRequest
from serving.sessions import Turn, turn_of
from serving.store.keys import Alarm, StoreUnavailable
from serving.store.traffic import (
    Elsewhere,
    Overruled,
    Receipt,
    Recorded,
    Refused,
    Store,
    Stored,
    Taken,
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
    """A decision, the catalog it was made with, whether it was logged, and where it wasn't the
    token that it can be logged with later."""

    decision: Decision
    catalog: Catalog
    logged: bool
    token: str | None = None


class Planned(NamedTuple):
    """A decision, or why there is none, that was made for a batch, but isn't recorded yet."""

    asked: Request
    decision_id: str
    policy: Policy
    made: Decision | Exception

    def decided(self) -> tuple[Policy, Decision]:
        if isinstance(self.made, Exception):
            raise self.made
        return self.policy, self.made


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
            self._read[key] = Catalog.from_stored(stored)
        return self._read[key]


class Service:
    """Routes queries and takes rewards for the policies in `policies`, which a follower swaps.

    Without its store it refuses, or, given `unlogged`, answers from the last snapshot with a token.
    """

    def __init__(
        self, store: Store, clock_ms: Callable[[], int], *, unlogged: Tokens | None = None
    ) -> None:
        self.policies: dict[str, Policy] = {}
        self.configured: Collection[str] = ()
        self.unreadable: set[str] = set()  # of these: don't run, for what is stored is damaged
        self.alarms: dict[str, Alarm | None] = {}
        self._store = store
        self.now_ms = self._clock_ms = clock_ms
        self._tokens = unlogged
        self.fleet = Fleet(store.availability, clock_ms)
        self._catalogs = Catalogs(store)
        self.deciding = Deciding(self.fleet, self.policy, clock_ms)

    def policy(self, name: str) -> Policy:
        if name in self.policies:
            return self.policies[name]
        if name in self.configured:
            why = "can't be read: see the log" if name in self.unreadable else "isn't read yet"
            raise StoreUnavailable(f"what Redis has of policy {name!r} {why}")
        # Whoever asks may not be to know the others.
        raise UnknownPolicy(f"no policy {name!r}: GET /policies lists them")

    def unloaded(self) -> list[str]:
        """Policies of the configuration that don't run here yet."""
        return sorted(set(self.configured) - self.policies.keys())

    async def route(self, body: RouteRequest, planned: Planned | None = None) -> Routed:
        """A decision, unless it was `planned` before; those that are asked for at the same time are
        made together.

        Raises
        ------
        UnknownPolicy, NoEligibleArm, WrongChoice, StoreUnavailable
        Conflict
            If the id was used before with another body.
        """
        policy = self.policy(body.policy)
        decision_id = planned.decision_id if planned else body.decision_id or new_id()
        digest = _digest(body) if body.decision_id else ""
        try:
            made, recorded = await self._made(body, decision_id, digest, planned)
        except (NoEligibleArm, WrongChoice):
            # Arms may have gone since this id was decided: its answer stands.
            answered = None
            try:
                answered = await self._answered(policy, body.decision_id, digest)
            except StoreUnavailable:
                if self._tokens is None:
                    raise
            if answered is None:
                raise
            return answered
        if isinstance(recorded, Taken):
            return made._replace(decision=replace(made.decision, turn=recorded.turn))
        if not isinstance(recorded, Stored):
            return made
        if recorded.request != digest:
            raise Conflict(f"decision {decision_id!r} was made for another request")
        decision = records.from_stored(recorded.record, recorded.x, recorded.challenger_x)
        if recorded.turn is not None:
            decision = replace(decision, turn=int(recorded.turn))
        return Routed(decision, await self._catalogs.of(policy, decision.catalog), True)

    async def _made(
        self, body: RouteRequest, decision_id: str, digest: str, planned: Planned | None
    ) -> tuple[Routed, Recorded]:
        """A decision whose arm can be called, recorded; made again where that is news."""
        asked = planned.asked if planned else asked_of(body)
        refused: list[str] = []
        while True:
            turn = await self._turn(body, decision_id)
            if planned is not None:
                policy, decision = planned.decided()
                planned = None
            else:
                policy, decision = await self.deciding.decide(
                    body.policy, asked, decision_id, refused
                )
            turn, decision = turn.settled(decision, policy) if turn else (None, decision)
            call = self.fleet.call(policy, decision)
            if call is None:
                refused.append(decision.first_arm)
                continue
            decision = self.fleet.placed(decision, policy.catalog, call)
            if policy.config.store_text and body.query is not None:
                decision = replace(decision, query=body.query.prompt())
            recorded: Recorded = None
            try:
                if call.tries and not await self.fleet.claim(call.place):
                    refused.append(decision.first_arm)
                    continue
                new = new_decision(decision, digest, policy.catalog, call)
                if turn is not None:
                    new = replace(new, session=turn.entered(policy))
                recorded = await self._store.record(policy.name, new, policy.config.retention_ms)
            except StoreUnavailable:
                if self._tokens is not None:
                    return self._unlogged(decision, turn, policy.catalog, digest), None
                raise
            finally:
                self.fleet.done(decision, call, recorded)
            if isinstance(recorded, Refused):
                with suppress(StoreUnavailable):
                    await self.fleet.refresh()
                refused.append(decision.first_arm)
            elif not isinstance(recorded, Elsewhere):
                return Routed(decision, policy.catalog, True), recorded

    def _unlogged(
        self, decision: Decision, turn: Turn | None, catalog: Catalog, digest: str
    ) -> Routed:
        """What is answered where nothing can be logged. A session's later turn is no decision that
        could be logged for itself."""
        assert self._tokens is not None
        if turn is not None and turn.draw is not None:
            return Routed(decision, catalog, False)
        alone = replace(decision, session=None, draw_id=None)
        return Routed(alone, catalog, False, self._tokens.sign(alone, digest))

    async def _turn(self, body: RouteRequest, decision_id: str) -> Turn | None:
        """The turn of a session that a request is, if any."""
        if body.session is None or self.policy(body.policy).config.model == "caller":
            return None
        try:
            return await turn_of(self._store, body.policy, body.session, decision_id)
        except StoreUnavailable:
            if self._tokens is not None:
                return None
            raise

    async def _answered(
        self, policy: Policy, decision_id: str | None, digest: str
    ) -> Routed | None:
        """What this very request got before under its id, if anything."""
        fields = await self._store.decision(policy.name, decision_id) if decision_id else None
        if fields is None or fields["request"].decode() != digest:
            return None
        decision = records.from_stored(fields["record"], fields["x"])
        if "turn" in fields:
            decision = replace(decision, turn=int(fields["turn"]))
        return Routed(decision, await self._catalogs.of(policy, decision.catalog), True)

    async def reward(self, body: RewardRequest, key: str = "") -> tuple[Receipt, list[str]]:
        """Accept an outcome that came with the key of this id, whole or not at all; and what there
        is to say of it.

        Raises
        ------
        UnknownPolicy, UnknownDecision, UnknownArm, Invalid, StoreUnavailable, TooManyRequests
        Conflict
            If a component was accepted before with another value.
        """
        policy = self.policy(body.policy)
        cost_usd, list_cost_usd, notes, made = body.cost_usd, None, [], None
        if body.attempts is not None:
            decision, catalog = await self._was_made(policy, body.decision_id)
            _check_turn(body, decision)
            made = called(body, decision, catalog)
            notes = made.notes
        elif body.tokens() is not None or body.executed_arm is not None:
            ran, decision, catalog = await self._ran(policy, body)
            arm = catalog.arm(ran)
            list_cost_usd = arm.cost_usd(decision.prompt_tokens, decision.output_tokens)
            try:
                if (tokens := body.tokens()) is not None:
                    cost_usd = arm.cost_usd(*tokens)
            except UnknownPrice as error:
                notes.append(f"cost_usd stays missing: {error}")
        late_counts = policy.config.missing_quality is not None
        report = report_of(body, cost_usd, list_cost_usd, late_counts)
        report = replace(report, key=key, most=policy.config.max_rewards_per_key)
        if made is not None:
            report = with_calls(report, made)
        receipt = await self._store.report(
            policy.name, report, self._clock_ms(), policy.config.reward_window_s * 1000
        )
        if receipt.status == "unknown":
            raise _unknown(body.decision_id)
        if receipt.status == "used_up":
            raise used_up(policy.name, report.most, self._clock_ms())
        if receipt.status == "conflict":
            names = ", ".join(receipt.accepted)
            raise Conflict(
                f"decision {body.decision_id!r} contradicts what was accepted before: {names}"
            )
        if receipt.over is not None:
            for call, why, wait_s in calls_over(receipt.over, body, made):
                await self.fleet.over(policy, call, why, wait_s)
        return receipt, notes

    async def correct(self, body: CorrectionRequest, key: str = "") -> Overruled:
        """Overrule what was reported of a decision, whole or not at all, with the key of this id.

        Raises
        ------
        UnknownPolicy, UnknownDecision, StoreUnavailable
        Conflict
            If there is nothing that could be overruled so.
        """
        policy = self.policy(body.policy)
        overruled = await self._store.correct(
            policy.name,
            correction_of(body, key),
            self._clock_ms(),
            policy.config.reward_window_s * 1000,
        )
        if overruled.status == "unknown":
            raise _unknown(body.decision_id)
        if overruled.status != "ok":
            raise Conflict(f"decision {body.decision_id!r} {_standing(overruled)}")
        return overruled

    async def decision(self, policy_name: str, decision_id: str) -> dict[str, Any]:
        """The record of a decision and what has been accepted for it."""
        policy = self.policy(policy_name)
        fields = await self._fields(policy, decision_id)
        decision = opened_record("decision", fields["record"], fields["x"])
        return {"decision": decision, "outcome": outcome_of(fields)}

    async def _fields(self, policy: Policy, decision_id: str) -> dict[str, bytes]:
        """All that is stored of a decision."""
        fields = await self._store.decision(policy.name, decision_id)
        if fields is None:
            raise _unknown(decision_id)
        return fields

    async def _was_made(self, policy: Policy, decision_id: str) -> tuple[Decision, Catalog]:
        """A decision, and the catalog that it was made with."""
        fields = await self._fields(policy, decision_id)
        decision = records.from_stored(fields["record"], fields["x"])
        return decision, await self._catalogs.of(policy, decision.catalog)

    async def _ran(self, policy: Policy, body: RewardRequest) -> tuple[str, Decision, Catalog]:
        """The arm that ran, the decision, and the catalog with its prices."""
        fields = await self._fields(policy, body.decision_id)
        decision = records.from_stored(fields["record"], fields["x"])
        _check_turn(body, decision)
        catalog = await self._catalogs.of(policy, decision.catalog)
        ran = body.executed_arm or fields.get("executed_arm", decision.arm.encode()).decode()
        if kind_of(ran) is not None:
            raise UnknownArm(f"{ran!r} is a plan of several calls: report its `attempts`")
        if ran not in catalog:
            raise UnknownArm(f"executed_arm {ran!r} is not in the decision's catalog")
        return ran, decision, catalog


def _check_turn(body: RewardRequest, decision: Decision) -> None:
    """Invalid, where a turn of a session is said to have run on another arm, or on several: the
    draw that it counts for is of one arm."""
    elsewhere = body.executed_arm is not None or body.attempts is not None
    if decision.session is None or not elsewhere or body.executed_arm == decision.arm:
        return
    field = "attempts" if body.executed_arm is None else "executed_arm"
    what = "a session's turn counts for the arm of its draw: report executed = false"
    raise Invalid([(field, what)])


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


def new_id() -> str:
    return secrets.token_hex(16)


def asked_of(body: RouteRequest) -> Request:
    """What a policy is asked."""
    return Request(
        body.query,
        body.hints or NO_HINTS,
        body.constraints,
        body.weights(),
        None if body.chosen is None else Choice(body.chosen.arm, body.chosen.pmf),
        body.plans,
    )


def _digest(body: RouteRequest) -> str:
    content = orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=16).hexdigest()

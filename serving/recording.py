"""Decisions made elsewhere: the state that they are made with, and what is checked before one is
logged. Knows no HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from features.encoder import Encoder
from policy import records
from policy.arms.catalog import Catalog
from policy.config.schema import PolicyConfig, current
from policy.config.versions import read_config
from policy.policy import Policy
from policy.records import Decision
from policy.verifying import Registered, contradicted, faults
from serving.access.tokens import Tokens, WrongToken
from serving.entries import new_decision
from serving.parsing.checking import Invalid
from serving.service import Catalogs, Conflict, Service, UnknownDecision
from serving.store.traffic import NewDecision, Store, Stored


@dataclass(frozen=True, slots=True)
class Made:
    """A decision that was made elsewhere, and the name of the state that it was made with."""

    decision: Decision
    state: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What a decision is checked against; `state` names what the policy is in force with."""

    policy: Policy
    state: str
    catalog: Catalog
    version: Registered
    other: Registered | None


def state_name(policy: Policy) -> str:
    """16 hex digits over all that a policy decides with."""
    content = [policy.name, policy.catalog.revision, policy.share]
    for version in filter(None, (policy, policy.challenger)):
        content += [version.version, version.snapshot, version.config.model_dump(mode="json")]
    return hashlib.blake2b(orjson.dumps(content), digest_size=8).hexdigest()


def tag_of(policy: Policy) -> str:
    """The same, and over what can be called now."""
    available = policy.available
    content = [state_name(policy), available.out, _shares(policy)]
    return hashlib.blake2b(orjson.dumps(content), digest_size=8).hexdigest()


def _shares(policy: Policy) -> dict[str, float]:
    """Which share of their calls arms answer that fail now and then."""
    answered = policy.available.answered
    if answered is None:
        return {}
    both = zip(policy.catalog.ids, answered.round(3).tolist(), strict=True)
    return {arm: share for arm, share in both if share < 1.0}


class Recorder:
    """Gives out what others decide with, and logs what they decided, once it has been checked."""

    def __init__(
        self, service: Service, store: Store, clock_ms: Callable[[], int], tokens: Tokens
    ) -> None:
        self._service = service
        self._tokens = tokens
        self._store = store
        self._clock_ms = clock_ms
        self._versions: dict[tuple[str, str], tuple[PolicyConfig, Encoder]] = {}
        self._catalogs = Catalogs(store)

    async def state(self, name: str, have: Collection[str]) -> dict[str, Any]:
        """The body of `PolicyState`; without the encoders that the caller has.

        Raises
        ------
        UnknownPolicy, StoreUnavailable
        Conflict
            If the policy has a budget: what it spends isn't known elsewhere.
        """
        policy, other = self.at_hand(name), None
        if policy.config.budget is not None:
            raise Conflict(
                f"policy {name!r} has a budget, which only the service keeps: ask /route"
            )
        policy, champion = await self._version(policy, have)
        if policy.challenger is not None:
            challenger, other = await self._version(policy.challenger, have)
            policy = replace(policy, challenger=challenger)
        return {
            "policy": policy.name,
            "state": state_name(policy),
            "catalog": policy.catalog.revision,
            "arms": orjson.loads(policy.catalog.to_json()),
            "champion": champion,
            "challenger": other,
            "share": policy.share,
            "tag": tag_of(policy),
            "out": policy.available.out,
            "answered": _shares(policy),
        }

    def at_hand(self, name: str) -> Policy:
        """A policy, among what can be called now; UnknownPolicy where there is none."""
        return self._service.fleet.at_hand(self._service.policy(name))

    async def _version(self, policy: Policy, have: Collection[str]) -> tuple[Policy, Any]:
        """A version as it is stored: its snapshot may be newer than the one that serves here."""
        encoder, values = policy.encoder, None
        if policy.snapshot:
            number, state = await self._store.versions.snapshot(policy.name, policy.version)
            policy, values = replace(policy, snapshot=number), b64encode(state.pack()).decode()
        known = encoder.fingerprint in have
        return policy, {
            "version": policy.version,
            "snapshot": policy.snapshot,
            "config": policy.config.model_dump(mode="json"),
            "encoder": encoder.fingerprint,
            "encoder_bytes": None if known else b64encode(encoder.to_bytes()).decode(),
            "values": values,
        }

    async def record(self, made: Sequence[Made]) -> list[Decision | Exception]:
        """Log decisions, each once, in the streams that /route's go to; or why one isn't logged:
        UnknownPolicy, Invalid, Conflict (its id was used for another one) or StoreUnavailable."""
        known: dict[tuple[str, ...], _Known | Exception] = {}
        for item in made:
            key = _key(item.decision)
            if key not in known:
                known[key] = await self._known_or_why(item.decision)
        now_ms = self._clock_ms()
        # On a thread, so that it keeps no /route waiting.
        checked = await asyncio.to_thread(
            lambda: [_checked(item, known[_key(item.decision)], now_ms) for item in made]
        )
        stored = await asyncio.gather(*map(self._log, checked), return_exceptions=True)
        return [
            why if isinstance(why, Exception) else item.decision
            for item, why in zip(made, stored, strict=True)
        ]

    async def redeem(self, token: str, policy_name: str, decision_id: str) -> None:
        """Log a decision of our own that couldn't be logged when it was made, unless it is.

        Raises
        ------
        UnknownPolicy, UnknownDecision, Invalid, StoreUnavailable
        Conflict
            If its id was used for another request, or is that of another arm.
        """
        try:
            decision, digest = self._tokens.read(token)
        except WrongToken as error:
            raise _wrong("token", str(error)) from None
        if (decision.policy, decision.decision_id) != (policy_name, decision_id):
            raise _wrong("token", f"is of {decision.decision_id!r}, policy {decision.policy!r}")
        policy = self._service.policy(policy_name)
        retention_ms = policy.config.retention_ms
        if self._clock_ms() - decision.made_at_ms >= retention_ms:
            raise UnknownDecision(f"decision {decision_id!r} has expired, and its token with it")
        catalog = await self._catalog(policy, decision.catalog)
        new = new_decision(replace(decision, logged_by="token"), digest, catalog)
        before = await self._store.record(policy_name, new, retention_ms)
        if isinstance(before, Stored):  # by an earlier report, or a write that wasn't answered
            stored = records.from_stored(before.record, before.x)
            if (before.request, stored.arm) != (digest, decision.arm):
                raise Conflict(f"decision {decision_id!r} was made before, and otherwise")

    async def _log(self, checked: tuple[Policy, NewDecision] | Exception) -> None:
        if isinstance(checked, Exception):
            raise checked
        policy, decision = checked
        before = await self._store.record(policy.name, decision, policy.config.retention_ms)
        if isinstance(before, Stored) and before.request != decision.request:
            raise Conflict(f"decision {decision.decision_id!r} was made before, and otherwise")

    async def _known_or_why(self, decision: Decision) -> _Known | Exception:
        try:
            return await self._known(decision)
        except Exception as error:
            return error

    async def _known(self, decision: Decision) -> _Known:
        policy = self._service.policy(decision.policy)
        roles = await self._store.versions.state(policy.name)
        if decision.version not in (roles.get("champion"), roles.get("previous")):
            raise _wrong("version", "is neither the champion nor the one before")
        version = await self._registered(policy, "version", decision.version)
        other = None
        if decision.challenger is not None:
            other = await self._registered(policy, "challenger", decision.challenger)
        catalog = await self._catalog(policy, decision.catalog)
        return _Known(policy, state_name(policy), catalog, version, other)

    async def _registered(self, policy: Policy, field: str, version: str) -> Registered:
        key = policy.name, version
        if key not in self._versions:
            try:
                config, encoder = await self._store.versions.version(*key)
            except LookupError:
                raise _wrong(field, f"{version!r} isn't registered") from None
            read = read_config(config), Encoder.from_bytes(encoder)
            self._versions[key] = read
        config_of, encoder_of = self._versions[key]
        newest = await self._store.versions.snapshot_number(*key)
        now = current(config_of, policy.config)
        return Registered(now, encoder_of.fingerprint, encoder_of.d, newest)

    async def _catalog(self, policy: Policy, revision: str) -> Catalog:
        try:
            return await self._catalogs.of(policy, revision)
        except LookupError:
            raise _wrong("catalog", f"revision {revision!r} is not known") from None


def _key(decision: Decision) -> tuple[str, ...]:
    return decision.policy, decision.version, decision.catalog, decision.challenger or ""


def _checked(
    made: Made, known: _Known | Exception, now_ms: int
) -> tuple[Policy, NewDecision] | Exception:
    """What is to be stored, or why nothing is."""
    if isinstance(known, Exception):
        return known
    policy, decision = known.policy, made.decision
    found = list(faults(decision, known.catalog, known.version, known.other, now_ms))
    if not found and made.state == known.state:
        found = list(contradicted(policy, decision))
    if found:
        return Invalid(found)
    if not policy.config.store_text:
        decision = replace(decision, query=None)
    return policy, new_decision(decision, _digest(decision), known.catalog)


def _digest(decision: Decision) -> str:
    """Of the decision itself: the request that it answers stayed where it was made."""
    other = b"" if decision.challenger_x is None else decision.challenger_x.tobytes()
    parts = (records.to_json(decision), decision.x.tobytes(), other)
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


def _wrong(field: str, why: str) -> Invalid:
    return Invalid([(field, why)])

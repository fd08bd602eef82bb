"""What an operator's commands do to one policy: who serves, and the record of why."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from policy.config.schema import MAX_SHARE
from serving.store.keys import Alarm, reachable, script
from serving.store.per_policy import PolicyStore

DAY_MS = 86_400_000
REFUSALS = {
    "champion": "version {0} is the champion",
    "caller": "the draw of a caller's router can't be shared: ask for share 0",
    "no gate": "version {0} has not been judged by the gate",
    "verdict": "the gate's verdict on version {0} is {1!r}",
    "other": "version {0} was judged against version {1}, but version {2} is champion",
    "catalog": "arms or prices have changed since version {0} was judged",
    "back": "version {0} was judged before it was rolled back",
    "old": "the newest row that version {0} was judged on is {1} days old, more than {2}",
}


@dataclass(frozen=True, slots=True)
class GateRecord:
    """What the gate said of a version, judged against `champion`.

    `newest_ms` is when the newest judged row was decided, None where there was none. `window` names
    the part of the log that was judged, '' where that was nothing, and `catalog` its arms and
    prices; `run` is MLflow's. `at_ms` is when the log was read.
    """

    verdict: str
    champion: str
    newest_ms: int | None
    reasons: tuple[str, ...]
    window: str = ""
    run: str | None = None
    at_ms: int = 0
    catalog: str = ""

    @classmethod
    def of(cls, record: bytes) -> GateRecord:
        fields = json.loads(record)
        return cls(**{**fields, "reasons": tuple(fields["reasons"])})


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A registered version; `role` is champion, challenger, previous or ''."""

    version: str
    fingerprint: str
    model: str
    made_at_ms: int
    role: str
    gate: GateRecord | None


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """What a version is made of: configuration, encoder and newest snapshot, where it has one (its
    number is 1 while it is what the version was registered with)."""

    config: bytes
    encoder: bytes
    snapshot: bytes | None
    number: int
    made_at_ms: int
    windows: tuple[str, ...]  # of the log, that it was ever judged on
    rolled_back_ms: int  # when it was last taken back, -1 where it never was


@dataclass(frozen=True, slots=True)
class Switch:
    """A version that has become champion, the one before, and the share that that one keeps."""

    champion: str
    before: str
    share: float


class Refused(ValueError):
    """What an operator asked for can't be: the message says why, and what would do."""


class OperatorStore(PolicyStore):
    """The roles of one policy's versions, what the gate said of them, and the audit stream."""

    def __init__(self, url: str, policy: str) -> None:
        super().__init__(url, policy)
        self._policy = policy
        self._scripts = {
            name: self._redis.register_script(script(name))
            for name in ("promote", "rollback", "gate", "appoint", "alarm", "window")
        }

    def promote(
        self,
        version: str,
        who: str,
        why: str,
        now_ms: int,
        *,
        max_age_ms: int,
        override: bool,
        keep_share: float,
    ) -> Switch:
        """Make a version champion that has passed the gate against the one that serves now, on a
        log whose newest judged row is at most `max_age_ms` old; `override` passes over that.

        Raises
        ------
        LookupError
            If there is no such version.
        Refused
            If it is champion, or the gate's record isn't such a pass. Nothing has changed.
        """
        keys = self._keys
        rules = (max_age_ms, int(override), _share(keep_share))
        with reachable():
            reply: Any = self._scripts["promote"](
                keys=[keys.version(""), keys.state, keys.audit],
                args=[version, who, why, now_ms, keys.published, *rules],
            )
        found, *told = [part.decode() for part in reply]
        if found == "promoted":
            return Switch(version, told[0], float(told[1]))
        raise self._refusal(version, found, told, max_age_ms)

    def rollback(self, who: str, why: str, now_ms: int, champion: str = "") -> Switch:
        """Make the champion before the last promotion champion again; no gate is asked.

        Where `champion` is given, only if that is still the one that serves.

        Raises
        ------
        LookupError
            If the policy isn't registered.
        Refused
            If there is none to go back to.
        """
        keys = self._keys
        with reachable():
            reply: Any = self._scripts["rollback"](
                keys=[keys.version(""), keys.state, keys.audit],
                args=[who, why, now_ms, keys.published, champion],
            )
        if reply is None:
            serving = self.state()["champion"]
            raise Refused(
                f"policy {self._policy!r} has no version to go back to from version {serving}"
            )
        return Switch(reply[0].decode(), reply[1].decode(), 0.0)

    def challenge(self, version: str, share: float, who: str, now_ms: int) -> str | None:
        """Make a version the challenger, with a share of the draw; the challenger before.

        Raises
        ------
        LookupError
            If there is no such version.
        Refused
            If it is champion, or a share is asked for with a caller's router.
        """
        if not 0 <= share <= MAX_SHARE:
            raise ValueError(f"a share must be in [0, {MAX_SHARE}], got {share!r}")
        keys = self._keys
        with reachable():
            reply: Any = self._scripts["appoint"](
                keys=[keys.version(""), keys.state, keys.audit],
                args=[version, _share(share), who, now_ms, keys.published],
            )
        found, *told = [part.decode() for part in reply]
        if found == "challenger":
            return told[0] or None
        raise self._refusal(version, found, told, 0)

    def record_gate(self, version: str, record: GateRecord, now_ms: int) -> None:
        """Keep what the gate said; the newest record of a version counts."""
        keys = self._keys
        stored = json.dumps(asdict(replace(record, at_ms=now_ms)))
        with reachable():
            found = self._scripts["gate"](
                keys=[keys.version(version), keys.audit], args=[version, stored, now_ms]
            )
        if not found:
            raise self._unknown(version)

    def judged_on(self, version: str, window: str) -> None:
        """Keep that a version was judged on a part of the log: all its windows share one alpha."""
        with reachable():
            self._scripts["window"](keys=[self._keys.version(version)], args=[window])

    def alarm(self, alarm: Alarm) -> bool:
        """Say that the champion is shown to be worse; false where the roles have changed since."""
        keys = self._keys
        with reachable():
            told = self._scripts["alarm"](
                keys=[keys.state, keys.audit],
                args=[
                    alarm.champion,
                    alarm.previous,
                    json.dumps(asdict(alarm)),
                    alarm.at_ms,
                    keys.published,
                ],
            )
        return bool(told)

    def versions(self) -> list[VersionInfo]:
        """All registered versions, the oldest first.

        Raises
        ------
        LookupError
            If the policy isn't registered.
        """
        state = self.state()
        roles = {state.get(role): role for role in ("previous", "challenger", "champion")}
        with reachable():
            known = self._redis.hgetall(self._keys.versions)
            found = [
                self._info(version.decode(), fingerprint.decode(), roles)
                for fingerprint, version in known.items()
            ]
        return sorted(found, key=lambda info: int(info.version))

    def _info(self, version: str, fingerprint: str, roles: dict[str | None, str]) -> VersionInfo:
        fields = ("config", "made_at_ms", "gate")
        config, made_at_ms, gate = self._redis.hmget(self._keys.version(version), fields)
        return VersionInfo(
            version=version,
            fingerprint=fingerprint,
            model=json.loads(config)["model"],
            made_at_ms=int(made_at_ms),
            role=roles.get(version, ""),
            gate=None if gate is None else GateRecord.of(gate),
        )

    def files(self, version: str) -> VersionFiles:
        """What a version is made of; LookupError if there is no such version."""
        keys = self._keys
        fields = ("config", "encoder", "made_at_ms", "windows", "rolled_back_ms")
        with reachable():
            config, encoder, made, windows, back = self._redis.hmget(keys.version(version), fields)
            if config is None:
                raise self._unknown(version)
            newest = self._redis.hmget(keys.snapshot(version), "blob", "number")
        return VersionFiles(
            config=config,
            encoder=encoder,
            snapshot=newest[0],
            number=int(newest[1] or 0),
            made_at_ms=int(made),
            windows=tuple(json.loads(windows or "[]")),
            rolled_back_ms=int(back or -1),
        )

    def state(self) -> dict[str, str]:
        """All that is set in the policy's state; LookupError if the policy isn't registered."""
        with reachable():
            fields = self._redis.hgetall(self._keys.state)
        if b"champion" not in fields:
            raise LookupError(f"no policy {self._policy!r} is registered there")
        return _decoded(fields)

    def audit(self, kinds: Collection[str] | None = None) -> list[dict[str, str]]:
        """The audit stream's entries, of these kinds or of all, the oldest first."""
        with reachable():
            entries = [_decoded(fields) for _, fields in self._redis.xrange(self._keys.audit)]
        return [entry for entry in entries if kinds is None or entry["kind"] in kinds]

    def _unknown(self, version: str) -> LookupError:
        return LookupError(f"policy {self._policy!r} has no version {version!r}")

    def _refusal(
        self, version: str, found: str, told: list[str], max_age_ms: int
    ) -> LookupError | Refused:
        if found == "unknown":
            return self._unknown(version)
        if found == "old":
            told = [f"{int(ms) / DAY_MS:.1f}" for ms in (told[0], max_age_ms)]
        why = REFUSALS[found].format(version, *told)
        if found in ("champion", "caller"):
            return Refused(why)
        return Refused(f"{why}: `pointsman gate {self._policy} {version}` judges it anew")


def _share(share: float) -> str:
    return repr(share) if share else "0"


def _decoded(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}

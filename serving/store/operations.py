"""What an operator's commands do to one policy: who serves, and the record of why."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

from policy.config.schema import MAX_SHARE
from serving.store.keys import Alarm, decoded, script
from serving.store.per_policy import PolicyStore
from serving.store.registered import (
    GateRecord,
    Refused,
    Switch,
    VersionFiles,
    VersionInfo,
    refusal,
    unknown_version,
)
from serving.store.states import joined
from serving.store.waiting import reachable


class OperatorStore(PolicyStore):
    """The roles of one policy's versions, what the gate said of them, and the audit stream."""

    def __init__(self, url: str, policy: str, *, once: bool = False) -> None:
        super().__init__(url, policy, once=once)
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
        rules = (max_age_ms, int(override), _share(keep_share))
        reply = self._change("promote", version, who, why, now_ms, self._keys.published, *rules)
        found, *told = [part.decode() for part in reply]
        if found == "promoted":
            return Switch(version, told[0], float(told[1]))
        raise refusal(self._policy, version, found, told, max_age_ms)

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
        reply = self._change("rollback", who, why, now_ms, self._keys.published, champion)
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
        asked = (version, _share(share), who, now_ms, self._keys.published)
        reply = self._change("appoint", *asked)
        found, *told = [part.decode() for part in reply]
        if found == "challenger":
            return told[0] or None
        raise refusal(self._policy, version, found, told, 0)

    def _change(self, name: str, *args: str | int) -> Any:
        """The reply of a script that changes who has which role."""
        keys = self._keys
        with reachable():
            return self._scripts[name](
                keys=[keys.version(""), keys.state, keys.audit], args=list(args)
            )

    def record_gate(self, version: str, record: GateRecord, now_ms: int) -> None:
        """Keep what the gate said; the newest record of a version counts."""
        keys = self._keys
        stored = json.dumps(asdict(replace(record, at_ms=now_ms)))
        with reachable():
            found = self._scripts["gate"](
                keys=[keys.version(version), keys.audit], args=[version, stored, now_ms]
            )
        if not found:
            raise unknown_version(self._policy, version)

    def judged_on(self, version: str, window: str) -> None:
        """Keep that a version was judged on a part of the log: all its windows share one alpha."""
        with reachable():
            self._scripts["window"](keys=[self._keys.version(version)], args=[window])

    def alarm(self, alarm: Alarm) -> bool:
        """Say that the champion is shown to be worse; false where the roles have changed since."""
        keys = self._keys
        stored = json.dumps(asdict(alarm))
        with reachable():
            told = self._scripts["alarm"](
                keys=[keys.state, keys.audit],
                args=[alarm.champion, alarm.previous, stored, alarm.at_ms, keys.published],
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
        infos = []
        with reachable():
            for fingerprint, version in self._redis.hgetall(self._keys.versions).items():
                name = version.decode()
                fields = self._redis.hmget(self._keys.version(name), VersionInfo.STORED)
                infos.append(VersionInfo.of(name, fingerprint, roles.get(name, ""), fields))
        return sorted(infos, key=lambda info: int(info.version))

    def files(self, version: str) -> VersionFiles:
        """What a version is made of; LookupError if there is no such version."""
        keys = self._keys
        with reachable():
            fields = self._redis.hmget(keys.version(version), VersionFiles.STORED)
            if fields[0] is None:
                raise unknown_version(self._policy, version)
            snapshot = self._redis.hgetall(keys.snapshot(version))
            newest = joined(snapshot), snapshot.get(b"number")
            return VersionFiles.of(fields, newest)

    def audit(self, kinds: Collection[str] | None = None) -> list[dict[str, str]]:
        """The audit stream's entries, of these kinds or of all, the oldest first."""
        with reachable():
            entries = [decoded(fields) for _, fields in self._redis.xrange(self._keys.audit)]
        return [entry for entry in entries if kinds is None or entry["kind"] in kinds]


def _share(share: float) -> str:
    return repr(share) if share else "0"

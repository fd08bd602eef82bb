"""A registered version: what it is made of, what the gate said of it, what speaks against it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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

    STORED: ClassVar = ("config", "made_at_ms", "gate")

    @classmethod
    def of(cls, version: str, fingerprint: bytes, role: str, fields: Sequence[Any]) -> VersionInfo:
        """From what is stored under the names in `STORED`."""
        config, made_at_ms, gate = fields
        return cls(
            version=version,
            fingerprint=fingerprint.decode(),
            model=json.loads(config)["model"],
            made_at_ms=int(made_at_ms),
            role=role,
            gate=None if gate is None else GateRecord.of(gate),
        )


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

    STORED: ClassVar = ("config", "encoder", "made_at_ms", "windows", "rolled_back_ms")

    @classmethod
    def of(cls, fields: Sequence[Any], newest: Sequence[Any]) -> VersionFiles:
        """From what is stored under the names in `STORED`, and the newest snapshot and its number,
        None where there is none."""
        config, encoder, made_at_ms, windows, rolled_back_ms = fields
        snapshot, number = newest
        return cls(
            config=config,
            encoder=encoder,
            snapshot=snapshot,
            number=int(number or 0),
            made_at_ms=int(made_at_ms),
            windows=tuple(json.loads(windows or "[]")),
            rolled_back_ms=int(rolled_back_ms or -1),
        )


@dataclass(frozen=True, slots=True)
class Switch:
    """A version that has become champion, the one before, and the share that that one keeps."""

    champion: str
    before: str
    share: float


class Refused(ValueError):
    """What an operator asked for can't be: the message says why, and what would do."""


def unknown_version(policy: str, version: str) -> LookupError:
    return LookupError(f"policy {policy!r} has no version {version!r}")


def refusal(
    policy: str, version: str, found: str, told: Sequence[str], max_age_ms: int
) -> LookupError | Refused:
    """Why a script that changes roles has changed nothing: `found` is its word for it."""
    if found == "unknown":
        return unknown_version(policy, version)
    if found == "old":
        told = [f"{int(ms) / DAY_MS:.1f}" for ms in (told[0], max_age_ms)]
    why = REFUSALS[found].format(version, *told)
    if found in ("champion", "caller"):
        return Refused(why)
    return Refused(f"{why}: `pointsman gate {policy} {version}` judges it anew")

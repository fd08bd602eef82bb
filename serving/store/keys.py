"""Every Redis key and script, and what several sides read alike.

All keys of one policy share the hash tag `{policy}`, so that a script may touch several of them on
a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources


class StoreUnavailable(RuntimeError):
    """Redis can't be reached, or can't take writes now: nothing was acknowledged."""


class Unreachable(StoreUnavailable):
    """Redis doesn't answer, or not in time."""


class StaleLease(RuntimeError):
    """Another process has taken over: what this one has done since is not to be written."""


Entry = tuple[str, dict[bytes, bytes]]  # of a stream, with its id


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of all keys of one policy."""

    policy: str

    def __getattr__(self, name: str) -> str:
        if name in _NAMES:
            return f"pm:{{{self.policy}}}:{name}"
        raise AttributeError(name)

    def decision(self, decision_id: str) -> str:
        return f"pm:{{{self.policy}}}:decision:{decision_id}"

    def session(self, session: str) -> str:
        return f"pm:{{{self.policy}}}:session:{session}"

    def reported(self, day: int) -> str:
        """Hash: what callers' keys have reported, and how many decisions they asked for, on a day
        since 1970 (UTC)."""
        return f"pm:{{{self.policy}}}:reported:{day}"

    def catalog(self, revision: str) -> str:
        return f"pm:{{{self.policy}}}:catalog:{revision}"

    def version(self, version: str) -> str:
        return f"pm:{{{self.policy}}}:version:{version}"

    def checkpoint(self, version: str) -> str:
        return f"pm:{{{self.policy}}}:checkpoint:{version}"

    def snapshot(self, version: str) -> str:
        return f"pm:{{{self.policy}}}:snapshot:{version}"


_NAMES = frozenset(
    {
        "decisions",  # stream: every decision, in the order of acknowledgement
        "outcomes",  # stream: self-contained outcome events; what the learner folds
        "audit",  # stream: versions, verdicts, promotions, catalog revisions, with who and why
        "versions",  # hash: fingerprint -> version
        # hash: champion, previous, challenger, its share and who gave it that (share_by), what the
        # file has asked of both (asked, own), catalog, alarm, origin
        "state",
        "learned",  # hash: encoder -> outcome events that a model with this encoder has been given
        "lease",  # the learner's lease: its token, with a time to live
        "fence",  # counter: the last fencing token given out
        "archive_lease",  # the archiver's lease, ...
        "archive_fence",  # ... and the last fencing token given out for it
        "swept",  # id up to which decisions have got the quality that they were missing
        "trimmed",  # hash: stream -> id up to which it was trimmed, being archived
        "archived",  # hash: stream -> id up to which the archiver says that it is archived
        "published",  # channel: a hint that a snapshot or champion is new
        # hash: counters of what is used of limits; each name begins with when it ends, in s, or 0
        "used",
        "waited",  # nothing: written, so that a wait for replicas is for all before it
        "under_way",  # sorted set: calls whose outcome is awaited, by when they no longer count
    }
)


def waited(key: str) -> str:
    """That key of the policy that has this one."""
    return key.partition("}")[0] + "}:waited"


DAY_MS = 86_400_000
HEALTH = "pm:{*}:health"  # hash: endpoint -> what is known of it, for all policies alike
HEALTH_CHANGED = "pm:{*}:health_changed"  # channel: a hint that one went out or came in
ACCESS_KEYS = "pm:{*}:keys"  # hash: id -> what is stored of a caller's key, never its secret
ACCESS_AUDIT = "pm:{*}:audit"  # stream: what was done to keys, by whom
KEYS_CHANGED = "pm:{*}:keys_changed"  # channel: a hint that a key is new, or isn't what it was
REQUESTS = "pm:{*}:requests"  # and :<id of a key>:<minute>: how many of its requests are given out
KEYS_USED = "pm:{*}:keys_used"  # hash: id of a key -> when it was last used, in ms


def order(entry: str) -> tuple[int, int]:
    """Stream ids are two numbers, which don't sort as text."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


@cache
def script(*names: str, frees: bool = False) -> str:
    """A script, after those that it begins with. One that `frees` memory, or that others need who
    do, runs at the server's memory limit as well."""
    folder = resources.files("serving.store").joinpath("scripts")
    files = {file.name: file for room in folder.iterdir() for file in room.iterdir()}
    text = "".join(files[f"{name}.lua"].read_text("utf-8") for name in names)
    return f"#!lua flags=allow-oom\n{text}" if frees else text


@dataclass(frozen=True, slots=True)
class Roles:
    """Who serves a policy and who learns in its shadow, with which share of the draw."""

    champion: str
    challenger: str | None = None
    share: float = 0.0


def roles_of(champion: bytes, challenger: bytes | None, share: bytes | None) -> Roles:
    """From the fields of a policy's state."""
    if not challenger:
        return Roles(champion.decode())
    return Roles(champion.decode(), challenger.decode(), float(share or 0.0))


@dataclass(frozen=True, slots=True)
class Alarm:
    """The champion is shown to be worse than the version it replaced."""

    champion: str
    previous: str
    reasons: tuple[str, ...]
    at_ms: int


def decoded(fields: dict[bytes, bytes]) -> dict[str, str]:
    """A hash as text."""
    return {name.decode(): value.decode() for name, value in fields.items()}

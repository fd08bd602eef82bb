"""A key: its secrets' digests, what it is good for, until when. Knows no Redis and no HTTP.

A secret is `pm_` and 32 random bytes. What is stored is its SHA-256: passwords want a slow hash
because they can be guessed, but 256 random bits can't, however fast one may try.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from serving.access.scopes import SCOPES, Scope

PREFIX = "pm_"
FORMAT = 1
END_MS = 253_402_300_800_000  # of the year 9999: no calendar goes further
MOST_REQUESTS = 10**9
ALL = "*"
NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
POLICY = re.compile(r"[A-Za-z0-9_-]{1,64}")

Policies = tuple[str, ...] | None
"""Names; None is all, those to come among them."""


Time = Annotated[int, Field(ge=0, lt=END_MS)]
"""ms since 1970."""


class NoKey(PermissionError):
    """A request came without a key, or with one that isn't valid."""


class MissingScope(PermissionError):
    """A key lacks a scope: as such (`policy` is None), for a policy, or for all (`ALL`)."""

    def __init__(self, scope: Scope, policy: str | None) -> None:
        of = " for all policies" if policy == ALL else f" for policy {policy!r}"
        super().__init__(f"this key lacks the scope `{scope}`{of if policy else ''}")
        self.scope = scope
        self.policy = policy


class Digest(BaseModel):
    """The SHA-256 of a secret, and until when that is valid, where it was replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    expires_at_ms: Time | None = None


class Key(BaseModel):
    """What is stored of a key. It keeps its id when its secret is replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    name: str
    scopes: Mapping[Scope, Policies]
    digests: tuple[Digest, ...]
    created_at_ms: Time
    created_by: str
    expires_at_ms: Time | None = None
    revoked_at_ms: Time | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=MOST_REQUESTS)] | None = None

    def may(self, scope: Scope, policy: str) -> bool:
        policies = self.scopes.get(scope, ())
        return policies is None or policy in policies

    def invalid(self, now_ms: int) -> str | None:
        """Why the key is not valid now, None where it is."""
        if self.revoked_at_ms is not None:
            return "was revoked"
        if self.expires_at_ms is not None and now_ms >= self.expires_at_ms:
            return "has expired"
        return None


class Caller(NamedTuple):
    """Who asks, with the scope that the path needs; `decided` counts, by key and policy."""

    key: Key
    scope: Scope
    decided: Counter[tuple[str, str]]

    def may(self, policy: str) -> bool:
        return self.key.may(self.scope, policy)

    def got_decision(self, policy: str) -> None:
        if self.key.id:
            self.decided[self.key.id, policy] += 1

    def check(self, policy: str) -> None:
        """Raise MissingScope, whether or not there is such a policy."""
        if not self.key.may(self.scope, policy):
            raise MissingScope(self.scope, policy)

    def check_all(self) -> None:
        """Raise MissingScope for a key of named policies."""
        if self.key.scopes.get(self.scope, ()) is not None:
            raise MissingScope(self.scope, ALL)


ANYONE = Key.model_construct(id="", name="", scopes=dict.fromkeys(SCOPES), digests=())
"""Who asks where no key is needed."""


def new_secret() -> str:
    """43 characters after the prefix."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: bytes) -> bytes:
    """(32,) bytes."""
    return hashlib.sha256(secret).digest()


def new_key(
    name: str,
    scopes: Mapping[Scope, Policies],
    secret: str,
    by: str,
    now_ms: int,
    expires_at_ms: int | None = None,
    requests_per_minute: int | None = None,
) -> Key:
    """A key with this secret; ValueError for a name that it can't have."""
    if not NAME.fullmatch(name):
        raise ValueError(f"a name has 1 to 64 of A-Z a-z 0-9 . _ @ -, got {name!r}")
    for policy in {policy for policies in scopes.values() for policy in policies or ()}:
        if not POLICY.fullmatch(policy):
            raise ValueError(f"{policy!r} can't be the name of a policy")
    return Key(
        id=secrets.token_hex(6),
        name=name,
        scopes=scopes,
        digests=(Digest(sha256=digest(secret.encode()).hex()),),
        created_at_ms=now_ms,
        created_by=by,
        expires_at_ms=expires_at_ms,
        requests_per_minute=requests_per_minute,
    )


def rotated(key: Key, secret: str, now_ms: int, overlap_ms: int) -> Key:
    """The key with another secret; those that it has end after `overlap_ms`, or sooner where they
    would have."""
    until = now_ms + overlap_ms
    old = [
        Digest(sha256=one.sha256, expires_at_ms=min(one.expires_at_ms or until, until))
        for one in key.digests
        if one.expires_at_ms is None or one.expires_at_ms > now_ms
    ]
    digests = (Digest(sha256=digest(secret.encode()).hex()), *old)
    return key.model_copy(update={"digests": digests})

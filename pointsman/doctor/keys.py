"""Keys: who can't come in any more, or soon, and who may though nobody uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pointsman.doctor.finding import Finding, Told, named
from serving.access.keys import Key
from serving.access.opening import NotClosed, is_loopback, who_may_come_in
from serving.settings import Settings

DAY_MS = 86_400_000
SOON_DAYS = 7
UNUSED_DAYS = 30


def checked(
    keys: Sequence[Key], used: Mapping[str, int], chosen: Settings, now_ms: int
) -> list[Finding]:
    """`used` says when each key was last used, in ms, by its id."""
    kept = [key for key in keys if key.revoked_at_ms is None]
    valid = [key for key in kept if key.invalid(now_ms) is None]
    told = [*_door(keys, valid, chosen, now_ms), *_ends(kept, now_ms), *_idle(valid, used, now_ms)]
    fine = f"{len(valid)} are valid" if keys else f"there are none; only {chosen.host} is served"
    return named("keys", told, fine)


def _door(
    keys: Sequence[Key], valid: Sequence[Key], chosen: Settings, now_ms: int
) -> Iterator[Told]:
    if keys and not valid:
        yield "fault", "none is valid: every request gets a 401", "`pointsman keys create`"
    try:
        said = who_may_come_in(keys, chosen.host, chosen.port, anybody=chosen.open, now_ms=now_ms)
    except NotClosed as error:
        yield "fault", f"it won't start: {error}", "`pointsman keys create`"
    else:
        if not keys and not is_loopback(chosen.host):
            yield "warning", said, "`pointsman keys create`, unless all who reach it may do all"


def _ends(keys: Sequence[Key], now_ms: int) -> Iterator[Told]:
    for key in keys:
        if key.expires_at_ms is None:
            continue
        days = (key.expires_at_ms - now_ms) / DAY_MS
        do = f"`pointsman keys rotate {key.name} --expires 90d`, or revoke it"
        if days <= 0:
            yield "warning", f"{key.name} has expired: whoever comes with it gets a 401", do
        elif days <= SOON_DAYS:
            yield "warning", f"{key.name} expires in {days:.1f} days", do


def _idle(keys: Sequence[Key], used: Mapping[str, int], now_ms: int) -> Iterator[Told]:
    for key in keys:
        idle_days = (now_ms - used.get(key.id, key.created_at_ms)) / DAY_MS
        if idle_days > UNUSED_DAYS:
            what = f"nobody has used {key.name} for {idle_days:.0f} days"
            yield "warning", what, f"`pointsman keys revoke {key.name}`, if nobody needs it"

"""The health of all places as this process knows it, told to and heard from the others.

What is reported here acts at once. It is written by compare-and-set, on top of what others have
written meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import orjson

from policy.records import OF_HEALTH
from serving.availability.health import (
    FIRST_OUT_MS,
    WELL,
    Health,
    Report,
    after,
    all_fail,
    as_of,
    tried,
)
from serving.grouping import Group
from serving.store.availability import AvailabilityStore
from serving.store.keys import StoreUnavailable
from serving.store.waiting import within

log = logging.getLogger(__name__)


class Healths:
    """`now` holds the health of each place that isn't well, by its key."""

    def __init__(self, store: AvailabilityStore, clock_ms: Callable[[], int]) -> None:
        self.now: dict[str, Health] = {}
        self._store = store
        self._clock_ms = clock_ms
        self._known: dict[str, bytes] = {}  # as the store has it
        self._waiting: defaultdict[str, list[Report]] = defaultdict(list)  # what it hasn't yet
        self._reports = Group(self._commit)

    async def refresh(self) -> None:
        """Read what the store knows; StoreUnavailable where it can't be read."""
        known = await self._store.health()
        for key in known.keys() | self._known.keys():
            self._learn(key, known.get(key, b""))
        await self._follow_clock()

    async def claim(self, key: str) -> bool:
        """Try a place that was out, as the only one of all processes to do so; False where another
        one does."""
        now_ms = self._clock_ms()
        health = self.now.get(key, WELL)
        if not health.may_be_tried(now_ms):
            return health.is_in()
        before, claimed = self._known.get(key, b""), _packed(tried(health, now_ms))
        self.now[key] = tried(health, now_ms)
        found = (await self._store.swap([(key, before, claimed)], tell=True))[0]
        self._learn(key, found)
        return found == claimed

    async def _follow_clock(self) -> None:
        """Where the clock has gone back, what is out would be so for that much longer."""
        now_ms, swaps = self._clock_ms(), []
        for key, old in self._known.items():
            before = _unpacked(old)
            if (now := as_of(before, now_ms)) != before:
                swaps.append((key, old, _packed(now)))
        if swaps:
            log.warning("the clock has gone back: %d places are out by the new one", len(swaps))
            found = await self._store.swap(swaps, tell=True)
            for (key, _, _), known in zip(swaps, found, strict=True):
                self._learn(key, known)

    async def tell(self, key: str, alike: Sequence[str], report: Report) -> None:
        """Take in what was reported of a place; `alike` are all places of its arm."""
        changed = [(key, report)] if self._heard(key, report) else []
        if changed and len(alike) > 1:
            changed += self._failing_alike(alike, key, report)
        try:
            await asyncio.gather(*(within(self._reports.submit(one)) for one in changed))
        except StoreUnavailable as error:
            log.warning("health of %s: %s; other processes don't know of it", key, error)
            for place, told in changed:
                self._waiting[place] = [one for one in self._waiting[place] if one is not told]

    def _heard(self, key: str, report: Report) -> bool:
        """Take a report in, at once; whether it changes anything."""
        before = self.now.get(key, WELL)
        now = after(before, report, self._clock_ms())
        if now == before:
            return False
        self.now[key] = now
        self._waiting[key].append(report)
        return True

    def _failing_alike(
        self, places: Sequence[str], key: str, report: Report
    ) -> list[tuple[str, Report]]:
        """Where all of an arm's endpoints fail, all of them are out, and one is tried for all."""
        healths = [self.now.get(place, WELL) for place in places]
        if report.error not in OF_HEALTH or self.now[key].asked or not all_fail(healths):
            return []
        now_ms = self._clock_ms()
        until_ms = max(self.now[key].until_ms, now_ms + FIRST_OUT_MS)
        alike = replace(report, out_until_ms=until_ms)
        return [(place, alike) for place in places if self._heard(place, alike)]

    async def _commit(self, reports: Sequence[tuple[str, Report]]) -> list[None]:
        """Write what these reports change, on top of what others have written meanwhile."""
        by_place: defaultdict[str, list[Report]] = defaultdict(list)
        for key, report in reports:
            by_place[key].append(report)
        left = dict(by_place)
        while left:
            now_ms, swaps = self._clock_ms(), []
            for key, some in left.items():
                old = self._known.get(key, b"")
                swaps.append((key, old, _packed(_folded(_unpacked(old), some, now_ms))))
            found = await self._store.swap(swaps, tell=any(map(_turns, swaps)))
            for (key, _, new), known in zip(swaps, found, strict=True):
                self._known[key] = known
                if known == new:
                    done = left.pop(key)
                    self._waiting[key] = self._waiting[key][len(done) :]
                    self._learn(key, known)
        return [None] * len(reports)

    def _learn(self, key: str, known: bytes) -> None:
        """Take what the store knows of a place, and on top of it what it hasn't been told yet."""
        self._known[key] = known
        waiting = self._waiting.get(key, [])
        health = _folded(_unpacked(known), waiting, self._clock_ms())
        if not waiting:
            self._waiting.pop(key, None)
        if not known:
            self._known.pop(key)
        if health == WELL:
            self.now.pop(key, None)
        else:
            self.now[key] = health


def _folded(health: Health, reports: Sequence[Report], now_ms: int) -> Health:
    for report in reports:
        health = after(health, report, now_ms)
    return health


def _packed(health: Health) -> bytes:
    return b"" if health == WELL else orjson.dumps(asdict(health))


def _unpacked(known: bytes) -> Health:
    return Health(**orjson.loads(known)) if known else WELL


def _turns(swap: tuple[str, bytes, bytes]) -> bool:
    """Whether a place goes out or comes in."""
    _, old, new = swap
    return _unpacked(old).until_ms != _unpacked(new).until_ms or bool(old) != bool(new)

"""What serving knows of the places where arms are called, kept current over all processes.

Own reports act at once, those of other processes within a second, for the truth lies in the store.
Without it the last state stands. Decides nothing of who serves a query.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from policy.arms.availability import EVERYTHING
from policy.arms.catalog import Catalog
from policy.arms.endpoints import Limits, spread
from policy.config.schema import Config
from policy.policy import Policy
from policy.records import OF_HEALTH, Decision
from serving.availability.health import (
    FIRST_OUT_MS,
    WELL,
    Health,
    Report,
    after,
    all_fail,
    tried,
)
from serving.availability.limits import Place, moved, taken
from serving.availability.spending import Spending
from serving.availability.standing import Map, availability, next_place, shown, soonest
from serving.grouping import Group
from serving.store.availability import AvailabilityStore
from serving.store.keys import StoreUnavailable
from serving.store.traffic import Over, Recorded, Taken

log = logging.getLogger(__name__)

POLL_S = 0.5
STALE_MS = 600_000
"""What was decided longer ago says nothing of how its place is now."""
ROUNDING = 1e-9  # of sums of USD
MAPS = 8  # catalogs whose places are remembered


@dataclass(frozen=True, slots=True)
class Call:
    """Where a decision's arm is called, what that takes of limits, and whether it tries a place
    that was out."""

    place: Place
    tries: bool = False
    taken: Mapping[str, Any] = field(default_factory=dict)
    told: Sequence[Place] = ()


class Fleet:
    """The places of all arms: their health, what is under way there, what is used of limits."""

    def __init__(self, store: AvailabilityStore, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._clock_ms = clock_ms
        self._providers: Mapping[str, Limits] = {}
        self._policies: Sequence[str] = ()
        self._maps: dict[str, Map] = {}
        self._counted = False
        self._known: dict[str, bytes] = {}  # of each place, as the store has it
        self.healths: dict[str, Health] = {}
        self._waiting: defaultdict[str, list[Report]] = defaultdict(list)
        self._used: dict[str, dict[str, float]] = {}  # by policy
        self._pending: defaultdict[str, float] = defaultdict(float)  # what isn't recorded yet
        self.spending = Spending()
        self._reports = Group(self._commit)
        self._task: asyncio.Task[None] | None = None

    def configure(self, config: Config) -> None:
        """Put arms and limits in force."""
        self._providers, self._policies = config.providers, tuple(config.policies)
        self._maps = {config.arms.revision: Map(config.arms, config.providers)}
        self.spending.configure(config)
        self._counted = self._maps[config.arms.revision].counted or bool(self.spending)

    async def start(self) -> None:
        await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        while self._task is not None and not self._task.done():
            self._task.cancel()  # redis-py swallows a cancellation now and then
            await asyncio.wait([self._task], timeout=0.5)

    async def _follow(self) -> None:
        async for _ in self._store.hints(POLL_S):
            try:
                await self.refresh()
            except StoreUnavailable as error:
                log.warning("health of arms: %s; going by the last that was known", error)
            except Exception:
                log.exception("can't read the health of arms")

    async def refresh(self) -> None:
        """Read what the store knows.

        Raises
        ------
        StoreUnavailable
        """
        known = await self._store.health()
        for place in known.keys() | self._known.keys():
            self._learn(place, known.get(place, b""))
        if self._counted:
            now_ms = self._clock_ms()
            self._used = {name: await self._store.used(name, now_ms) for name in self._policies}
            for name, used in self._used.items():
                self.spending.read(name, used, now_ms)

    def at_hand(self, policy: Policy, but: Collection[str] = ()) -> Policy:
        """The policy, choosing among what can be called now, without the arms `but`; itself where
        that is everything."""
        if not self.healths and not self._counted:
            return policy
        now_ms, here = self._clock_ms(), self._map(policy.catalog)
        policy = self.spending.at_hand(policy, now_ms)
        available = availability(here, self.healths, self._now_used, now_ms)
        if but:
            busy = dict.fromkeys(but, "its limits are used up")
            back_ms = {arm: at for arm, at in available.back_ms.items() if arm not in busy}
            available = replace(available, out={**available.out, **busy}, back_ms=back_ms)
        return policy if available is EVERYTHING else policy.given(available)

    def shown(self, catalog: Catalog, arm: str) -> list[dict[str, Any]]:
        """The places of an arm, as `PlaceBody` tells of them."""
        here = self._map(catalog).places[arm]
        return shown(here, self.healths, self._now_used, self._clock_ms())

    def budget(self, policy: str) -> dict[str, Any] | None:
        """A policy's budget, as `BudgetBody` tells of it; None where it has none."""
        return self.spending.shown(policy, self._clock_ms())

    def call(self, policy: Policy, decision: Decision) -> Call | None:
        """Where a decision's first arm is to be called; None where it can't be any more. Until
        `done` it counts as under way there.

        What serves when all are out is called all the same; and so is what a caller's own router
        chose, whatever limits say.
        """
        first, catalog = decision.first_arm, policy.catalog
        of_caller = policy.config.model == "caller"
        here = self._map(catalog).places[first]
        tokens = decision.prompt_tokens + decision.output_tokens
        usd = catalog.arm(first).cost_usd(decision.prompt_tokens, decision.output_tokens)
        u = spread(decision.decision_id)
        found = next_place(here, self.healths, self._now_used, self._clock_ms(), (tokens, usd), u)
        if found is None and decision.degraded is None and not of_caller:
            return None
        place, tries = found or (soonest(here, self.healths), False)
        told = here if len(here) > 1 else ()
        others = self._used_but_by(decision.policy)
        takes = taken(place, told, decision.made_at_ms, tokens, usd, others)
        takes = self.spending.takes(takes, decision, catalog)
        if of_caller and takes:
            takes = {**takes, "bounds": []}
        for counter, amount in moved(takes):
            self._pending[counter] += amount
        return Call(place, tries, takes, told)

    def placed(self, decision: Decision, catalog: Catalog, call: Call) -> Decision:
        """A decision with where its arm is called, and the arms of its plan's later steps."""
        url, plan = call.place.url, decision.plan
        if plan is None:
            return decision if url is None else replace(decision, endpoint=url)
        first, *others = plan.steps
        steps = [replace(first, endpoint=url)]
        for step in others:
            here, u = self._map(catalog).places[step.arm], spread(decision.decision_id)
            now_ms = self._clock_ms()
            found = next_place(here, self.healths, self._now_used, now_ms, (0.0, 0.0), u)
            place = soonest(here, self.healths) if found is None else found[0]
            steps.append(replace(step, endpoint=place.url))
        return replace(decision, endpoint=url, plan=replace(plan, steps=tuple(steps)))

    def done(self, decision: Decision, catalog: Catalog, call: Call, recorded: Recorded) -> None:
        """A call was recorded, or wasn't."""
        for counter, amount in moved(call.taken):
            self._pending[counter] -= amount
            if abs(self._pending[counter]) < ROUNDING:
                del self._pending[counter]
        if not isinstance(recorded, Taken):
            return
        self.spending.done(decision, catalog)
        used = self._used.setdefault(decision.policy, {})
        for counter, amount in moved(call.taken):
            used[counter] = used.get(counter, 0.0) + amount
        for place, count in zip(call.told, recorded.under_way, strict=True):
            used[place.under_way] = count

    async def claim(self, place: Place) -> bool:
        """Try a place that was out, as the only one of all processes to do so; False where another
        one does."""
        now_ms = self._clock_ms()
        health = self.healths.get(place.key, WELL)
        if not health.may_be_tried(now_ms):
            return health.is_in()
        before, claimed = self._known.get(place.key, b""), _packed(tried(health, now_ms))
        self.healths[place.key] = tried(health, now_ms)
        found = (await self._store.swap([(place.key, before, claimed)], tell=True))[0]
        self._learn(place.key, found)
        return found == claimed

    async def over(
        self, policy: Policy, over: Over, error: str | None, retry_after_s: float | None
    ) -> None:
        """A call is over: what that says of the place where it was made."""
        self._used.setdefault(policy.name, {}).update(over.used)
        self.spending.settled(policy.name, over.used, self._clock_ms())
        if (error is None and not over.first) or self._clock_ms() - over.made_at_ms > STALE_MS:
            return
        here = self._map(policy.catalog).places.get(over.arm, ())
        keys = [over.place] if over.place else [place.key for place in here]
        if len(keys) != 1:  # another arm was called than was drawn, and nobody said where
            return
        report = Report(over.made_at_ms, error, retry_after_s)
        changed = [(keys[0], report)] if self._heard(keys[0], report) else []
        if changed and len(here) > 1:
            changed += self._failing_alike(here, keys[0], report)
        try:
            await asyncio.gather(*map(self._reports.submit, changed))
        except StoreUnavailable as problem:
            log.warning("health of %s: %s; other processes don't know of it", keys[0], problem)

    def _heard(self, key: str, report: Report) -> bool:
        """Take a report in, at once; whether it changes anything."""
        before = self.healths.get(key, WELL)
        now = after(before, report, self._clock_ms())
        if now == before:
            return False
        self.healths[key] = now
        self._waiting[key].append(report)
        return True

    def _failing_alike(
        self, here: Sequence[Place], key: str, report: Report
    ) -> list[tuple[str, Report]]:
        """Where all of an arm's endpoints fail, all of them are out, and one is tried for all."""
        healths = [self.healths.get(place.key, WELL) for place in here]
        if report.error not in OF_HEALTH or not all_fail(healths):
            return []
        now_ms = self._clock_ms()
        until_ms = max(self.healths[key].until_ms, now_ms + FIRST_OUT_MS)
        alike = replace(report, out_until_ms=until_ms)
        return [(place.key, alike) for place in here if self._heard(place.key, alike)]

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
            self.healths.pop(key, None)
        else:
            self.healths[key] = health

    def _map(self, catalog: Catalog) -> Map:
        found = self._maps.get(catalog.revision)
        if found is None:
            if len(self._maps) >= MAPS:
                self._maps.pop(next(iter(self._maps)))
            found = self._maps[catalog.revision] = Map(catalog, self._providers)
        return found

    def _now_used(self, counter: str) -> float:
        known = sum(used.get(counter, 0.0) for used in self._used.values())
        return known + self._pending.get(counter, 0.0)

    def _used_but_by(self, policy: str) -> Callable[[str], float]:
        others = [used for name, used in self._used.items() if name != policy]
        return lambda counter: sum(used.get(counter, 0.0) for used in others)


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

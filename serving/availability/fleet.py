"""What serving knows of the places where arms are called, kept current over all processes.

Own reports act at once, those of other processes within a second, for the truth lies in the store.
Without it the last state stands. Decides nothing of who serves a query.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from policy.arms.availability import EVERYTHING
from policy.arms.catalog import Catalog
from policy.arms.endpoints import Limits, spread
from policy.config.schema import Config
from policy.policy import Policy
from policy.records import Decision
from serving.availability.health import Report
from serving.availability.healths import Healths
from serving.availability.limits import Place, moved, taken
from serving.availability.spending import Spending
from serving.availability.standing import Map, availability, next_place, shown, soonest
from serving.grouping import Group
from serving.observing.logs import about
from serving.store.availability import AvailabilityStore
from serving.store.keys import StoreUnavailable
from serving.store.traffic import Over, Recorded, Taken
from serving.store.waiting import end, within

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
        self._healths = Healths(store, clock_ms)
        self._used: dict[str, dict[str, float]] = {}  # by policy
        self._pending: defaultdict[str, float] = defaultdict(float)  # what isn't recorded yet
        self.spending = Spending()
        self._readings: Group[None, None] = Group(self._read)
        self._task: asyncio.Task[None] | None = None

    def configure(self, config: Config) -> None:
        """Put arms and limits in force."""
        self._providers, self._policies = config.providers, tuple(config.policies)
        self._maps = {config.arms.revision: Map(config.arms, config.providers)}
        self.spending.configure(config)
        self._counted = self._maps[config.arms.revision].counted or bool(self.spending)

    async def start(self) -> None:
        with suppress(StoreUnavailable):  # until it is back, all are taken to be well
            await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            await end([self._task])

    async def _follow(self) -> None:
        async for _ in self._store.hints(POLL_S):
            try:
                await self.refresh()
            except StoreUnavailable as error:
                log.warning("health of arms: %s; going by the last that was known", error)
            except Exception:
                log.exception("can't read the health of arms")

    async def refresh(self) -> None:
        """Read what the store knows; those who ask at the same time share a reading.

        Raises
        ------
        StoreUnavailable
        """
        await within(self._readings.submit(None))

    async def _read(self, askers: Sequence[None]) -> Sequence[None]:
        await self._healths.refresh()
        if self._counted:
            now_ms = self._clock_ms()
            self._used = {name: await self._store.used(name, now_ms) for name in self._policies}
            for name, used in self._used.items():
                with about(policy=name):
                    self.spending.read(name, used, now_ms)
        return askers

    def at_hand(self, policy: Policy, but: Collection[str] = ()) -> Policy:
        """The policy, choosing among what can be called now, without the arms `but`; itself where
        that is everything."""
        if not self._healths.now and not self._counted:
            return policy
        now_ms, here = self._clock_ms(), self._map(policy.catalog)
        policy = self.spending.at_hand(policy, now_ms)
        available = availability(here, self._healths.now, self._now_used, now_ms)
        if but:
            busy = dict.fromkeys(but, "its limits are used up")
            back_ms = {arm: at for arm, at in available.back_ms.items() if arm not in busy}
            available = replace(available, out={**available.out, **busy}, back_ms=back_ms)
        return policy if available is EVERYTHING else policy.given(available)

    def shown(self, catalog: Catalog, arm: str) -> list[dict[str, Any]]:
        """The places of an arm, as `PlaceBody` tells of them."""
        here = self._map(catalog).places[arm]
        return shown(here, self._healths.now, self._now_used, self._clock_ms())

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
        found = next_place(
            here, self._healths.now, self._now_used, self._clock_ms(), (tokens, usd), u
        )
        if found is None and decision.degraded is None and not of_caller:
            return None
        place, tries = found or (soonest(here, self._healths.now), False)
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
            here = self._map(catalog).places[step.arm]
            found = self._next(here, (0.0, 0.0), decision.decision_id)
            place = soonest(here, self._healths.now) if found is None else found[0]
            steps.append(replace(step, endpoint=place.url))
        return replace(decision, endpoint=url, plan=replace(plan, steps=tuple(steps)))

    def done(self, decision: Decision, call: Call, recorded: Recorded) -> None:
        """A call was recorded, or wasn't."""
        for counter, amount in moved(call.taken):
            self._pending[counter] -= amount
            if abs(self._pending[counter]) < ROUNDING:
                del self._pending[counter]
        self.spending.done(decision)
        if not (isinstance(recorded, Taken) and call.taken):
            return
        used = self._used.setdefault(decision.policy, {})
        for counter, amount in moved(call.taken):
            used[counter] = used.get(counter, 0.0) + amount
        for place, count in zip(call.told, recorded.under_way, strict=True):
            used[place.under_way] = count

    async def claim(self, place: Place) -> bool:
        """Try a place that was out, as the only one of all processes to do so; False where another
        one does."""
        return await self._healths.claim(place.key)

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
        await self._healths.tell(keys[0], [place.key for place in here], report)

    def _next(
        self, here: Sequence[Place], needs: tuple[float, float], decision_id: str
    ) -> tuple[Place, bool] | None:
        u, now_ms = spread(decision_id), self._clock_ms()
        return next_place(here, self._healths.now, self._now_used, now_ms, needs, u)

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

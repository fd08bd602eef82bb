"""Decisions, made together: what arrives in one turn of the event loop is one pass of a policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from policy.arms.constraints import Excluded, NoEligibleArm
from policy.policy import Policy, Request
from policy.records import Decision
from serving.availability.fleet import Fleet
from serving.availability.spending import after
from serving.grouping import Turn

AT_ONCE = 64  # that are decided while nobody else is served
ONE_PRICE = 8  # that are decided before a budget's price counts them

Asked = tuple[Request, str]
"""A request and its decision's id."""


class AllOut(NoEligibleArm):
    """Every arm is out for its health, and the policy refuses then; one is back in so many ms."""

    def __init__(self, excluded: Excluded, wait_ms: int) -> None:
        super().__init__(excluded)
        self.retry_after_s = max(math.ceil(wait_ms / 1_000), 1)


class Deciding:
    """Decides by the policies as they are now, among the arms that can be called now."""

    def __init__(
        self, fleet: Fleet, policy: Callable[[str], Policy], clock_ms: Callable[[], int]
    ) -> None:
        self._fleet = fleet
        self._policy = policy
        self._clock_ms = clock_ms
        self._turns: dict[str, Turn[Asked, tuple[Policy, Decision | Exception]]] = {}

    async def decide(
        self, name: str, request: Request, decision_id: str, refused: Sequence[str] = ()
    ) -> tuple[Policy, Decision]:
        """A decision and the state it was made with, without arms that were `refused` over and
        over since; the arm that comes back soonest where all are out.

        Raises
        ------
        NoEligibleArm, WrongChoice
        """
        asked = request, decision_id
        if over_and_over := {arm for arm in refused if refused.count(arm) > 2}:
            here = self.at_hand(name, over_and_over)
            (made,) = self.made(here, [asked])
        else:
            if name not in self._turns:
                self._turns[name] = Turn(partial(self._together, name), AT_ONCE)
            here, made = await self._turns[name].submit(asked)
        if isinstance(made, Exception):
            raise made
        return here, made

    def _together(
        self, name: str, asked: Sequence[Asked]
    ) -> list[tuple[Policy, Decision | Exception]]:
        here = self.at_hand(name)
        return [(here, made) for made in self.in_order(here, asked)[0]]

    def at_hand(self, name: str, but: Collection[str] = ()) -> Policy:
        """A policy, choosing among what can be called now, without the arms `but`."""
        return self._fleet.at_hand(self._policy(name), but)

    def in_order(
        self, policy: Policy, asked: Sequence[Asked]
    ) -> tuple[list[Decision | Exception], Policy]:
        """As `made`, but the price of a budget follows what a few cost before the next are decided;
        and the policy as it is after all of them."""
        every: list[Decision | Exception] = []
        at_once = len(asked) if policy.pace is None else ONE_PRICE
        for at in range(0, len(asked), at_once):
            made = self.made(policy, asked[at : at + at_once])
            policy = after(policy, (one for one in made if isinstance(one, Decision)))
            every += made
        return every, policy

    def made(self, policy: Policy, asked: Sequence[Asked]) -> Sequence[Decision | Exception]:
        """What this very state of a policy decides, or what is wrong with a request; the arm that
        comes back soonest where all are out."""
        return [
            self._soonest(policy, one, made) if isinstance(made, NoEligibleArm) else made
            for one, made in zip(asked, self._drawn(policy, asked), strict=True)
        ]

    def _drawn(self, policy: Policy, asked: Sequence[Asked]) -> Sequence[Decision | Exception]:
        """Decisions among what can be called, or what is wrong with a request: also where that is
        our own mistake, which is to spoil no other."""
        try:
            return policy.decide_all(asked, self._clock_ms())
        except Exception as error:
            if len(asked) == 1:
                return [error]
            return [made for one in asked for made in self._drawn(policy, [one])]

    def _soonest(self, here: Policy, asked: Asked, error: NoEligibleArm) -> Decision | Exception:
        """Where an arm is out for its health alone: the one that is back soonest, or AllOut."""
        back_ms, now_ms = here.available.back_ms, self._clock_ms()
        for arm in sorted(back_ms, key=back_ms.__getitem__):
            alone = here.given(here.available.only(arm, here.catalog))
            (made,) = self._drawn(alone, [asked])
            if isinstance(made, NoEligibleArm):
                continue
            if isinstance(made, Exception):
                return made
            if here.config.when_all_out == "refuse":
                return AllOut(error.excluded, back_ms[arm] - now_ms)
            out = tuple(here.available.out.items())
            return replace(made, degraded="all_out", unavailable=out)
        return error

"""The turns of sessions: the first draws, later ones stay with its arm while that serves them.

A row of the log is a draw, never a turn: turns are correlated, and intervals over them too narrow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from policy import records
from policy.arms.catalog import Catalog
from policy.arms.constraints import Constraints, NoEligibleArm
from policy.objective import Scales, components, reward
from policy.policy import Policy, Request
from policy.records import Decision
from serving.store.traffic import Store

WAIT_S, WAITS = 0.02, 25
"""How long a turn waits for the draw of its session, which another request is about to record."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a session. `draw` is the decision that it stays with, None where it draws."""

    session: str
    number: int
    draw: Decision | None = None

    def asked(self, request: Request) -> Request:
        """What is asked of the policy: of the draw's arm alone, where the turn stays with it."""
        return request if self.draw is None else _only(request, self.draw.arm)

    def of(self, decision: Decision) -> Decision:
        """A decision made so, as this turn's: the probability is that of the draw."""
        said = replace(decision, session=self.session, turn=self.number)
        draw = self.draw
        if draw is None:
            return replace(said, draw_id=decision.decision_id)
        # `predicted` stays that of the draw too: it is parallel to its actions.
        return replace(
            said,
            draw_id=draw.draw_id,
            propensity=draw.propensity,
            confidence=draw.confidence,
            arms=draw.arms,
            pmf=draw.pmf,
            predicted=draw.predicted,
            challenger=None,
            challenger_pmf=None,
            challenger_x=None,
            challenger_encoder=None,
            share=0.0,
        )


async def turn_of(
    store: Store,
    policy: Policy,
    request: Request,
    session: str,
    decision_id: str,
    now_ms: Callable[[], int],
) -> Turn:
    """The turn that a request is, for a policy that chooses among what can be called now.

    Raises
    ------
    StoreUnavailable
    """
    idle_ms = policy.config.sessions.idle_s * 1_000
    draw_id, number = await store.turn(policy.name, session, decision_id, idle_ms)
    while draw_id != decision_id:
        draw = await _recorded(store, policy.name, draw_id)
        if draw is not None and stays(policy, request, draw, decision_id, now_ms()):
            return Turn(session, number, draw)
        draw_id, number = await store.turn(policy.name, session, decision_id, idle_ms, draw_id)
    return Turn(session, number)


async def _recorded(store: Store, policy: str, draw_id: str) -> Decision | None:
    """A session's draw; None where whoever was about to record it never did."""
    for _ in range(WAITS):
        fields = await store.decision(policy, draw_id)
        if fields is not None:
            return records.from_json(fields["record"], fields["x"])
        await asyncio.sleep(WAIT_S)
    return None


def stays(policy: Policy, request: Request, draw: Decision, turn: str, now_ms: int) -> bool:
    """Whether a turn stays with the arm of its draw: it can be called, and no other one is worth
    the change."""
    try:
        policy.decide(_only(request, draw.arm), turn, now_ms)
    except NoEligibleArm:
        return False
    sessions = policy.config.sessions
    if sessions.redraw == "never":
        return True
    free = policy.decide(request, turn, now_ms)
    gain = gain_of_leaving(free, draw.arm, policy.catalog, policy.config.scales)
    return gain < max(sessions.min_gain, 1e-12)


def gain_of_leaving(free: Decision, arm: str, catalog: Catalog, scales: Scales) -> float:
    """The reward that the best arm is expected to earn above `arm`, whose provider has the prompt
    in its cache; 0 where nobody knows what arms earn.

    `free` is a decision for the same query over all arms; one call by `arm` costs less than it
    predicts by what cached prompt tokens cost less.
    """
    predicted = free.predicted.copy()
    at, one = free.arms.index(arm), catalog.arm(arm)
    if one.usd_per_mtok_cached_in is not None:
        saved = (one.usd_per_mtok_in - one.usd_per_mtok_cached_in) * free.prompt_tokens / 1e6
        predicted[at, 2] = max(predicted[at, 2] - max(saved, 0.0), 0.0)
    quality, latency_ms, cost_usd = predicted.T
    y = components(quality, latency_ms, cost_usd, np.zeros(len(predicted), dtype=bool), scales)
    expected = reward(y, free.weights)
    if np.isnan(expected[at]):
        return 0.0
    return float(np.nanmax(expected) - expected[at])


def _only(request: Request, arm: str) -> Request:
    allowed = request.constraints.allow
    allow = (arm,) if allowed is None or arm in allowed else ()
    constraints: Constraints = request.constraints.model_copy(update={"allow": allow, "relax": ()})
    return replace(request, constraints=constraints)

"""The turns of sessions: the first draws, later ones stay with its arm while that serves them.

A row of the log is a draw, never a turn: turns are correlated, and intervals over them too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from policy import records
from policy.arms.catalog import Catalog
from policy.objective import Scales, components, reward
from policy.policy import Policy
from policy.records import Decision
from serving.store.traffic import Store


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of a session, whose `draw` is a decision; of one that draws there is none, but perhaps
    one that it `replaces`."""

    session: str
    draw: Decision | None = None
    replaces: str = ""

    def settled(self, free: Decision, policy: Policy) -> tuple[Turn, Decision]:
        """The turn that a decision, made as if it were alone, turns out to be: it stays with the
        draw's arm and has its probability, or it draws."""
        draw = self.draw
        if draw is None:
            return self, replace(free, session=self.session, draw_id=free.decision_id)
        if not stays(policy, free, draw):
            return Turn(self.session, replaces=draw.decision_id).settled(free, policy)
        # `predicted` is that of the draw too: it is parallel to its actions.
        return self, replace(
            free,
            session=self.session,
            draw_id=draw.decision_id,
            arm=draw.arm,
            propensity=draw.propensity,
            confidence=draw.confidence,
            arms=draw.arms,
            pmf=draw.pmf,
            predicted=draw.predicted,
            plan=None,
            challenger=None,
            challenger_pmf=None,
            challenger_x=None,
            challenger_encoder=None,
            share=0.0,
        )

    def entered(self, policy: Policy) -> dict[str, str | int]:
        """What `NewDecision` says of it."""
        return {
            "id": self.session,
            "idle_ms": policy.config.sessions.idle_s * 1_000,
            "draw": "" if self.draw is None else self.draw.decision_id,
            "replaces": self.replaces,
        }


async def turn_of(store: Store, policy: str, session: str, decision_id: str) -> Turn:
    """The turn of a session that a request is; one that asks again for its draw is that draw.

    Raises
    ------
    StoreUnavailable
    """
    draw_id, fields = await store.draw_of(policy, session)
    if not fields or draw_id == decision_id:
        return Turn(session, replaces=draw_id)
    return Turn(session, records.from_stored(fields["record"], fields["x"]))


def stays(policy: Policy, free: Decision, draw: Decision) -> bool:
    """Whether a turn stays with the arm of its draw: it is among those of a decision that was made
    as if there were no session, and no other one is worth the change."""
    if draw.arm not in free.arms:
        return False
    sessions = policy.config.sessions
    if sessions.redraw == "never":
        return True
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

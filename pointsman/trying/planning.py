"""Traffic whose caller can carry out plans: a policy and its learner in this process, and an
executor on recorded outcomes. Prints nothing and opens no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import orjson

from features.encoder import Encoder
from pointsman.trying.executing import Executed, Executor
from pointsman.trying.lag import RATE, Lag, Published
from pointsman.trying.routers import Asked, Tick, round_id
from pointsman.trying.simulate import silent
from policy import deciding
from policy import policy as policies
from policy.arms.catalog import Catalog, Index, Vector
from policy.config.schema import PolicyConfig
from policy.deciding import Encoded
from policy.objective import components, reward
from policy.plans.attempts import Attempts
from policy.plans.plan import Kind, to_record
from policy.policy import Policy
from policy.records import Decision, packed
from serving.learning.events import Event
from serving.learning.fold import Fold


@dataclass(frozen=True, eq=False)
class Played:
    """n rounds: the query, the decision and what came of it."""

    order: Index
    decisions: Sequence[Decision]
    outcome: Vector  # (n, 3): quality, latency in ms, cost in USD
    reward: Vector  # (n,)


class Planner:
    """A policy that learns as a service's does: from the same events, as late."""

    def __init__(
        self,
        executor: Executor,
        config: PolicyConfig,
        encoder: Encoder,
        queries: Sequence[Asked],
        plans: Sequence[Kind],
        lag: Lag | None = None,
    ) -> None:
        self._executor = executor
        self._config = config
        self._encoder = encoder
        self._queries = queries
        self._plans = tuple(plans)
        self._lag = lag or Published.at(RATE)
        self._catalog = executor.outcomes.catalog
        self._fold = Fold.resume("1", config, encoder, None, lambda _: self._catalog)
        self._arrived: list[Event] = []
        self._learned = 0
        self.policy = self._publish()

    def play(self, order: Index, run: str, tick: Tick = silent) -> Played:
        """Decide, carry out and report one query after the other."""
        decisions, executed = [], []
        for number, row in enumerate(order.tolist()):
            self._learn(self._lag(number, self._learned + len(self._arrived)) - self._learned)
            decision = self._decide(row, round_id(run, number + 1))
            came = self._executor.run(row, decision)
            self._arrived.append(event_of(decision, came, self._catalog))
            decisions.append(decision)
            executed.append(came)
            tick(1)
        outcome = np.array([(one.quality, one.latency_ms, one.cost_usd) for one in executed])
        return Played(order, decisions, outcome, rewards(outcome, self._config))

    def _decide(self, row: int, decision_id: str) -> Decision:
        query = self._queries[row]
        request = replace(query.request, plans=self._plans)
        (made,) = deciding.decide(
            self.policy, [Encoded(request, decision_id, query.known, query.x)], 0
        )
        if not isinstance(made, Decision):
            raise made
        return made

    def _learn(self, n: int) -> None:
        """Learn the next n of the outcomes that have arrived, and publish."""
        if n <= 0:
            return
        some = self._arrived[:n]
        self._fold.fold([(f"0-{self._learned + i + 1}", event) for i, event in enumerate(some)])
        self._learned += n
        del self._arrived[:n]
        self.policy = self._publish()

    def _publish(self) -> Policy:
        model, learned = self._fold.model, self._fold.plans
        policy = policies.build(
            "default",
            "1",
            self._learned,
            config=self._config,
            encoder=self._encoder,
            catalog=self._catalog,
            view=None if model is None else model.view(),
        )
        return policy if learned is None else policy.expecting(learned.values())


def event_of(decision: Decision, came: Executed, catalog: Catalog) -> Event:
    """The outcome's event, as a service's stream has it."""
    tokens = decision.prompt_tokens, decision.output_tokens
    event: Event = {
        b"decision_id": decision.decision_id.encode(),
        b"executed": b"1",
        b"encoder": decision.encoder.encode(),
        b"x": decision.x.tobytes(),
        b"arm": decision.arm.encode(),
        b"decided_arm": decision.arm.encode(),
        b"list_cost_usd": repr(catalog.arm(decision.first_arm).cost_usd(*tokens)).encode(),
        b"earlier": b"",
        b"propensity": repr(decision.propensity).encode(),
        b"catalog": decision.catalog.encode(),
        b"eligible": packed(catalog.among(decision.arms)),
    }
    values = (came.quality, came.latency_ms, came.cost_usd)
    for name, value in zip((b"quality", b"latency_ms", b"cost_usd"), values, strict=True):
        if not np.isnan(value):
            event[name] = repr(float(value)).encode()
    if decision.plan is not None:
        attempts = tuple(
            replace(one, list_cost_usd=catalog.arm(one.arm).cost_usd(*tokens))
            for one in came.calls.attempts
        )
        event[b"plan"] = orjson.dumps(to_record(decision.plan))
        event[b"attempts"] = orjson.dumps(Attempts(attempts, came.calls.returned).to_record())
    return event


def rewards(outcome: Vector, config: PolicyConfig) -> Vector:
    """(n,) of quality, latency in ms and cost in USD (n, 3), under a policy's objective."""
    quality, latency_ms, cost_usd = outcome.T
    no_error = np.zeros(len(outcome), dtype=bool)
    y = components(quality, latency_ms, cost_usd, no_error, config.scales)
    return reward(y, config.weights)

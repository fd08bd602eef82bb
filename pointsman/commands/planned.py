"""`pointsman simulate --plans`: a caller that can carry plans out, on recorded outcomes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from pointsman.trying.executing import Executor
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.planning import Planner, Played, rewards
from pointsman.trying.routers import asked
from pointsman.trying.simulate import Traffic
from policy.arms.catalog import Vector
from policy.config.schema import PolicyConfig
from policy.plans.plan import KINDS, Kind, kind_of
from policy.values import models

NAMES = ("quality", "latency_ms", "cost_usd")


def kinds(_: Any, __: Any, given: str | None) -> tuple[Kind, ...]:
    """What `--plans` names, split at commas."""
    names = [name.strip() for name in given.split(",")] if given else []
    for name in names:
        if name not in KINDS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in names)


@dataclass(frozen=True, eq=False)
class Compared:
    """What a policy did with plans and without, on the same rounds, and the best that could have
    been done with one arm throughout."""

    outcomes: OutcomeSet
    policy: PolicyConfig
    with_plans: Sequence[Played]
    without: Sequence[Played]

    def figures(self) -> dict[str, Any]:
        """What `--json` prints."""
        order = np.concatenate([one.order for one in self.with_plans])
        arms = [
            rewards(self._of_arm(at), self.policy)[order].mean()
            for at in range(len(self.outcomes.catalog))
        ]
        return {
            "with_plans": _figures(self.with_plans),
            "without": _figures(self.without),
            "best_single": float(max(arms)),
            "rounds": len(self.with_plans[0].order),
            "shuffles": len(self.with_plans),
        }

    def _of_arm(self, at: int) -> Vector:
        outcomes = self.outcomes
        of_each = (outcomes.quality, outcomes.latency_ms, outcomes.cost_usd)
        return np.stack([values[:, at] for values in of_each], axis=1)

    def text(self) -> str:
        """For a person to read."""
        told = self.figures()
        lines = [
            f"{self.outcomes.name}: {told['shuffles']} x {told['rounds']:,} rounds, "
            f"{len(self.outcomes.catalog)} arms",
            "",
            f"{'':14}{'reward':>8}{'quality':>9}{'p50 ms':>9}{'p99 ms':>9}{'USD a call':>12}",
        ]
        for name in ("with_plans", "without"):
            one: Mapping[str, Any] = told[name]
            lines.append(
                f"{name.replace('_', ' '):14}{one['mean_reward']:8.4f}{_cell(one['quality'], 9, 4)}"
                f"{_cell(one['p50_ms'], 9, 0)}{_cell(one['p99_ms'], 9, 0)}"
                f"{_cell(one['cost_usd'], 12, 7)}"
            )
        lines += [f"{'best arm alone':14}{told['best_single']:8.4f}", ""]
        shares = told["with_plans"]["shares"]
        lines += [f"{share:6.1%}  {action}" for action, share in list(shares.items())[:12]]
        return "\n".join(lines)


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def _figures(played: Sequence[Played]) -> dict[str, Any]:
    """Means over all rounds; the shares of actions are those of the last tenth."""
    outcome = np.concatenate([one.outcome for one in played])
    late = [made.arm for one in played for made in one.decisions[-max(len(one.order) // 10, 1) :]]
    counted = Counter(late)
    plans = sum(count for action, count in counted.items() if kind_of(action) is not None)
    p50, p99 = np.quantile(outcome[:, 1], (0.5, 0.99))
    return {
        "mean_reward": float(np.concatenate([one.reward for one in played]).mean()),
        **{name: _known(outcome[:, i].mean()) for i, name in enumerate(NAMES)},
        "p50_ms": _known(p50),
        "p99_ms": _known(p99),
        "plans": plans / len(late),
        "shares": {action: count / len(late) for action, count in counted.most_common()},
    }


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def compared(
    outcomes: OutcomeSet,
    policy: PolicyConfig,
    plans: Sequence[Kind],
    right: float,
    traffic: Traffic,
    shuffles: int,
    tick: Callable[[int], object],
) -> Compared:
    """Play the same shuffles with plans and without."""
    if "hedge" in plans and "latency_ms" in outcomes.missing:
        raise click.ClickException(f"a hedge needs latencies, which {outcomes.name} doesn't have")
    allowed = policy.plans.model_copy(update={"kinds": tuple(plans)})
    policy = policy.model_copy(update={"plans": allowed})
    encoder = models.default_encoder(policy)
    queries = asked(outcomes, encoder, traffic.hints, tick)
    played: dict[bool, list[Played]] = {True: [], False: []}
    for number in range(shuffles):
        order, _ = traffic.shuffle(len(outcomes), number)
        executor = Executor.of(outcomes, right, traffic.seed + number)
        for planning, runs in played.items():
            planner = Planner(executor, policy, encoder, queries, plans if planning else ())
            runs.append(planner.play(order, f"{traffic.seed}.{number}", tick))
    return Compared(outcomes, policy, played[True], played[False])


def show(found: Compared, as_json: bool) -> None:
    click.echo(json.dumps(found.figures()) if as_json else found.text())

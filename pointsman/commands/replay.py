"""`pointsman replay`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from offline_eval.estimating import replay, reward_models
from offline_eval.estimating.intervals import Interval
from offline_eval.estimating.replay import Candidate, Index, Replay, Vector
from pointsman.commands import logs, settings
from pointsman.commands.logs import Opened, Options, aligned, between, figure

STRETCHES = 10
SHOWN_ARMS = 3  # of a stretch: the most probable ones


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """One of the equal parts of the way."""

    rows: Index
    interval: Interval | None
    logged: float | None  # the log's own mean meanwhile


@click.command(epilog=settings.help_text())
@logs.options
@click.option(
    "--method",
    type=click.Choice(replay.METHODS),
    default="dr",
    show_default=True,
    help="dr: learns from rows it might have drawn, valued on all. rejection: valued on these"
    " alone, exact on uniform logs. frozen: learns the first part, valued on the rest.",
)
@click.option("--target", metavar="POLICY", help="The policy of the file to run. [the log's]")
@click.option(
    "--train-share",
    type=settings.Finite(0, 1, max_open=True),
    help="It has learned this first part of the log before. [0.5 if frozen, else 0]",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=replay.EVERY,
    show_default=True,
    help="Decide anew after so many outcomes learned.",
)
@click.option(
    "--bound",
    type=settings.Finite(min=1),
    help="rejection: accept a row with probability π / (BOUND p). [the log's largest 1 / p]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def command(
    given: Options,
    method: str,
    target: str | None,
    train_share: float | None,
    every: int,
    bound: float | None,
    seed: int,
) -> None:
    """Run a configured policy over the log at PATH as it learns, and show its learning curve.

    PATH is a log as the service keeps it or `import-log` writes it. [POINTSMAN_LOG]

    What a policy earns depends on what it has tried and learned. It meets the log's rows in their
    order and learns from those at which it might have drawn what the log has drawn.
    """
    if bound is not None and method != "rejection":
        raise click.UsageError("--bound is for --method rejection")
    log = logs.opened(given)
    name = target or log.name
    if name not in log.config.policies:
        known = ", ".join(log.config.policies)
        raise click.ClickException(f"{log.file}: there is no policy {name!r} (known: {known})")
    candidate = Candidate.of(name, log.config.policies[name], log.config.arms)
    share = train_share if train_share is not None else (0.5 if method == "frozen" else 0.0)
    first = round(len(log.data) * share)
    found = _replayed(log, candidate, method, first, every, bound, seed)
    told = _Told.of(log, name, found, first, given.interval)
    click.echo(json.dumps(told.figures()) if given.as_json else "\n".join(told.text()))
    if given.plot is not None and told.way:
        from pointsman import plots  # noqa: PLC0415 - matplotlib takes half a second to load

        curve, logged = [one.interval for one in told.way], [one.logged for one in told.way]
        plots.save(plots.learning_curve(curve, logged, told.shares, log.data.ids), given.plot)
        click.echo(f"wrote {given.plot}", err=True)


def _replayed(
    log: Opened,
    candidate: Candidate,
    method: str,
    first: int,
    every: int,
    bound: float | None,
    seed: int,
) -> Replay:
    """Over the rows from `first` on; those before have taught it."""
    rows = np.arange(first, len(log.data))
    data = candidate.asked(log.data.take(rows), log.policy.weights)
    reward = log.reward[rows]
    try:
        model = candidate.taught(log.data.take(np.arange(first)))
        if method == "rejection":
            return replay.by_rejection(
                data, candidate, reward, model=model, seed=seed, every=every, bound=bound
            )
        q = reward_models.ridge(data, reward)
        if method == "frozen":
            return replay.frozen(data, candidate.policy(model), reward, q)
        return replay.doubly_robust(data, candidate, reward, q, model=model, seed=seed, every=every)
    except ValueError as error:
        raise click.ClickException(f"{candidate.name}: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """What was found, to be shown."""

    log: Opened
    name: str  # of the policy that was run
    found: Replay
    first: int  # rows that have taught it before
    whole: Interval | None
    way: Sequence[_Stretch]
    shares: Vector  # (stretches, arms)

    @classmethod
    def of(cls, log: Opened, name: str, found: Replay, first: int, how: str) -> _Told:
        """With intervals made `how`."""
        way = [
            _Stretch(rows, logs.interval_of(estimate, how), log.own_mean(rows + first))
            for rows, estimate in found.curve(STRETCHES)
        ]
        whole = logs.interval_of(found.estimate, how)
        shares = found.shares(log.data.take(np.arange(first, len(log.data))), STRETCHES)
        return cls(log, name, found, first, whole, way, shares)

    def text(self) -> list[str]:
        log, found = self.log, self.found
        met = f"{found.method}: {len(found.rows):,} rows met"
        if found.method != "frozen":
            met += f", {found.accepted.sum():,} accepted, {found.learned:,} of them learned from"
        lines = [*log.head(), f"policy {self.name} of {log.file}, {met}"]
        if self.first:
            lines.append(f"it has learned the {self.first:,} rows before")
        lines += [
            f"left out: {count:,} {why}"
            for why, count in log.left_out(np.arange(self.first, len(log.data))).items()
        ]
        if found.cut > 0:
            lines.append(f"in {found.cut:.2%} of the rounds acceptance was cut at 1, a small bias")
        if self.whole is None:
            return [*lines, f"unknown: {found.estimate.why}"]
        logged = figure(log.own_mean(np.arange(self.first, len(log.data))))
        earned = f"{figure(self.whole.estimate)} ({between(self.whole)})"
        lines.append(f"reward {earned}, the log's own {logged}")
        lines += [f"warning: {self.whole.warning}"] if self.whole.warning else []
        rows = [["stretch", "rows", "reward", "95% interval", "log", "most probable arms"]]
        for i, one in enumerate(self.way):
            likely = np.argsort(-self.shares[i], kind="stable")[:SHOWN_ARMS]
            arms = ", ".join(f"{log.data.ids[a]} {self.shares[i, a]:.0%}" for a in likely)
            value = None if one.interval is None else one.interval.estimate
            cells = [str(i + 1), f"{len(one.rows):,}", figure(value), between(one.interval)]
            rows.append([*cells, figure(one.logged), arms])
        return [*lines, "", *aligned(rows)]

    def figures(self) -> dict[str, Any]:
        log, found = self.log, self.found
        return log.figures() | {
            "target": self.name,
            "method": found.method,
            "taught": self.first,
            "met": len(found.rows),
            "accepted": int(found.accepted.sum()),
            "learned": found.learned,
            "cut": found.cut,
            "left_out": dict(log.left_out(np.arange(self.first, len(log.data)))),
            "reward": logs.as_figures(found.estimate, self.whole),
            "curve": [
                {
                    "rows": len(one.rows),
                    "reward": None if one.interval is None else logs.interval_figures(one.interval),
                    "logged": one.logged,
                    "arms": dict(zip(log.data.ids, share.tolist(), strict=True)),
                }
                for one, share in zip(self.way, self.shares, strict=True)
            ],
        }

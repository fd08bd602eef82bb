"""`pointsman evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from offline_eval.estimating import one_target
from offline_eval.estimating.estimators import Estimate
from offline_eval.estimating.intervals import Interval
from offline_eval.estimating.one_target import Valuation
from offline_eval.estimating.sweep import Comparison
from pointsman.commands import logs, settings, streamed, sweeps
from pointsman.commands.logs import Opened, Options, aligned, between, figure
from pointsman.commands.settings import progress
from pointsman.commands.sweeps import MARKED
from pointsman.commands.targets import Split, is_config, part_of, pmf_of, split, usual, value_of
from policy.config.schema import PolicyConfig

ESTIMATORS = ("dr", "snips", "ips", "clipped_ips", "dm", "sndr", "switch_dr", "dros")
SHOWN_ESTIMATORS = ("dr", "snips", "ips", "dm", "dros")  # when none is named; --json has all
TRAIN_SHARE = 0.5


@click.command(epilog=settings.help_text())
@logs.options
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="What to value: logged, challenger, uniform, an arm or plan, never:plans (or"
    " never:cascade, never:hedge, never:race), config, config:POLICY; repeat it."
    " [logged, uniform, never:plans if there are plans, each of up to 20 arms and plans, the"
    " challenger if there is one]",
)
@click.option(
    "--estimator",
    "estimators",
    multiple=True,
    type=click.Choice(ESTIMATORS),
    help="The first one is used throughout, the others stand beside it; repeat it. [dr]",
)
@click.option(
    "--train-share",
    type=settings.Finite(0, 1, min_open=True, max_open=True),
    default=TRAIN_SHARE,
    show_default=True,
    help="The first part of the log, from which config and a sweep's candidates learn.",
)
@click.option(
    "--sweep",
    "sweep_file",
    type=click.Path(path_type=Path),
    help="A TOML of many configurations to compare: [candidates.NAME] tables of a policy's keys,"
    " or a [grid] of lists of values.",
)
@click.option(
    "--stream",
    is_flag=True,
    help="For a log that doesn't fit in memory: read it part by part. Not with config or --sweep.",
)
@click.option("--dask", metavar="ADDRESS", help="Likewise, on the Dask cluster of this scheduler.")
def command(
    given: Options,
    targets: Sequence[str],
    estimators: Sequence[str],
    train_share: float,
    sweep_file: Path | None,
    stream: bool,
    dask: str | None,
) -> None:
    """Say what another policy would have earned on the log at PATH, and how sure that is.

    PATH is a log as the service keeps it or `import-log` writes it. [POINTSMAN_LOG]

    A policy of the configuration (`config`, and a sweep's candidates) learns the first part of the
    log and is valued on the rest, as it stood then; `pointsman replay` lets it learn on. --weights
    and --objective say what is counted: nobody decides otherwise because of them.

    Estimates are for reading. Only the gate decides what may serve.
    """
    if stream or dask is not None:
        if sweep_file is not None or given.plot is not None or given.interval != "student-t":
            raise click.UsageError("--stream has no --sweep, --plot or --interval bootstrap")
        streams = streamed.value(given, targets, estimators or ESTIMATORS, dask)
        click.echo(json.dumps(streams.figures()) if given.as_json else "\n".join(streams.text()))
        return
    log = logs.opened(given)
    candidates = sweeps.candidates(sweep_file, log)
    names = list(targets) or ([] if candidates else usual(log.data))
    learns = bool(candidates) or any(is_config(name) for name in names)
    part = split(log, train_share if learns else 0.0)
    estimators = estimators or (("dm",) if log.data.propensities == "unknown" else ())
    main = estimators[0] if estimators else ESTIMATORS[0]
    found, values = _valued(log, part, names, candidates, main)
    compared, refused = sweeps.compared(values, part, main) if candidates else (None, {})
    shown = tuple(estimators) or (ESTIMATORS if given.as_json else SHOWN_ESTIMATORS)
    told = _Told(log, part, found, main, shown, given.interval)
    if given.as_json:
        click.echo(json.dumps(told.figures() | sweeps.figures(compared, refused, sweep_file)))
    else:
        click.echo("\n".join(told.text() + sweeps.text(compared, refused, main)))
    if given.plot is not None:
        _draw(told, compared, given.plot)


def _valued(
    log: Opened,
    rows: Split,
    names: Sequence[str],
    candidates: Mapping[str, PolicyConfig],
    estimator: str,
) -> tuple[dict[str, Valuation], dict[str, Estimate]]:
    """Of each target what is known, of each candidate its value."""
    found, values = {}, {}
    with progress(len(names) + len(candidates)) as tick:
        for name in names:
            part = part_of(name, rows)
            pmf, scales = pmf_of(name, log, part), log.policy.scales
            found[name] = one_target.value(part.valued, pmf, part.reward, scales, part.q)
            tick(1)
        for name, config in candidates.items():
            values[name] = value_of(name, config, log, rows, estimator)
            tick(1)
    return found, values


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """What was found of the targets, to be shown."""

    log: Opened
    split: Split
    found: Mapping[str, Valuation]
    main: str
    shown: Sequence[str]  # estimators
    how: str  # intervals are made

    def text(self) -> list[str]:
        means = one_target.logged(self.split.valued, self.split.reward, self.log.policy.scales)
        own = f"the log itself: reward {figure(means['reward'])}, quality "
        own += f"{figure(means['quality'])}, latency {figure(means['latency_ms'], ',.0f')} ms, "
        own += f"cost USD {figure(means['cost_usd'], '.6f')}"
        lines = [*self.log.head(), *self._how_taught(), *self._left_out(), own]
        if self.found:
            lines += ["", *aligned([self._titles(), *map(self._row, self.found)])]
            lines += ["", *self._by_estimator(), *self._fewer(), *self._warnings()]
        return lines

    def _how_taught(self) -> list[str]:
        taught, valued = len(self.split.taught), len(self.split.valued)
        if not taught:
            return []
        return [f"the first {taught:,} rows teach what learns; valued on the other {valued:,}"]

    def _left_out(self) -> list[str]:
        first = len(self.log.data) - len(self.split.valued)
        dropped = self.log.left_out(np.arange(first, len(self.log.data)))
        out = [f"{count:,} {why}" for why, count in dropped.items()]
        return [f"left out: {', '.join(out)}"] if out else []

    def _titles(self) -> list[str]:
        outcomes = ["quality", "latency ms", "cost USD", "ESS", "never tried"]
        return ["target", self.main, "95% interval", *outcomes]

    def _row(self, name: str) -> list[str]:
        one = self.found[name]
        estimate = one.reward[self.main]
        quality, latency_ms, cost_usd = (one.outcomes[o].value for o in one_target.OUTCOMES)
        return [
            name,
            figure(estimate.value),
            between(logs.interval_of(estimate, self.how)),
            figure(quality),
            figure(latency_ms, ",.0f"),
            figure(cost_usd, ".6f"),
            figure(one.effective, ",.0f"),
            figure(one.unsupported, ".1%"),
        ]

    def _by_estimator(self) -> list[str]:
        rows = [["by estimator, ± 95%", *self.shown]]
        for name, one in self.found.items():
            cells = (self._half(one.reward[estimator]) for estimator in self.shown)
            rows.append([name, *cells])
        return aligned(rows)

    def _half(self, estimate: Estimate) -> str:
        interval = logs.interval_of(estimate, self.how)
        if interval is None:
            return "-"
        half = (interval.high - interval.low) / 2
        doubtful = "!" if interval.warning else ""
        return f"{interval.estimate:.4f}" + (f" ±{half:.4f}{doubtful}" if half < np.inf else "")

    def _fewer(self) -> list[str]:
        """Targets that are not of all rows."""
        n = len(self.split.valued)
        rows = {name: part_of(name, self.split).valued for name in self.found}
        return [
            f"{name}: version {some.challengers[-1]}, on the {len(some):,} of {n:,} rows in which"
            " it ran"
            for name, some in rows.items()
            if len(some) < n
        ]

    def _warnings(self) -> list[str]:
        lines = []
        for name, one in self.found.items():
            estimate = one.reward[self.main]
            interval = logs.interval_of(estimate, self.how)
            why = estimate.why if interval is None else interval.warning
            lines += [f"{name}: {why}"] if why else []
        doubtful = any("!" in line for line in self._by_estimator())
        return ([MARKED] if doubtful else []) + ([""] if lines else []) + lines

    def figures(self) -> dict[str, Any]:
        return self.log.figures() | {
            "taught": len(self.split.taught),
            "valued": len(self.split.valued),
            "logged": one_target.logged(
                self.split.valued, self.split.reward, self.log.policy.scales
            ),
            "interval": self.how,
            "targets": {name: self._target(one) for name, one in self.found.items()},
        }

    def _target(self, one: Valuation) -> dict[str, Any]:
        return {
            "reward": {name: self._figures(one.reward[name]) for name in self.shown},
            **{name: self._figures(estimate) for name, estimate in one.outcomes.items()},
            "effective_sample_size": one.effective,
            "max_weight": one.max_weight,
            "unsupported": one.unsupported,
            "rows": len(one.rounds),
            "left_out": dict(one.rounds.dropped),
        }

    def _figures(self, estimate: Estimate) -> dict[str, Any]:
        return logs.as_figures(estimate, logs.interval_of(estimate, self.how))


def _draw(told: _Told, compared: Comparison | None, file: Path) -> None:
    from pointsman import plots  # noqa: PLC0415 - matplotlib takes half a second to load

    shown: dict[str, Interval] = {}
    for name, one in told.found.items():
        interval = logs.interval_of(one.reward[told.main], told.how)
        shown |= {} if interval is None else {name: interval}
    if compared is not None:
        shown |= dict(zip(compared.names, compared.values, strict=True))
    reward = one_target.logged(told.split.valued, told.split.reward, told.log.policy.scales)
    level = reward["reward"]
    lines = None if level is None else {"the log itself": level}
    plots.save(plots.values(shown, lines=lines, quantity=f"mean reward by {told.main}"), file)
    click.echo(f"wrote {file}", err=True)

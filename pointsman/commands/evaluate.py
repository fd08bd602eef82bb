"""`pointsman evaluate`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating import one_target, reward_models, rounds, sweep, target
from offline_eval.estimating.estimators import Estimate, not_evaluable
from offline_eval.estimating.intervals import Interval
from offline_eval.estimating.one_target import Valuation
from offline_eval.estimating.replay import Candidate
from offline_eval.estimating.sweep import Comparison
from offline_eval.log.data import LoggedData
from pointsman.commands import logs, settings, streamed
from pointsman.commands.logs import Opened, aligned, between, figure
from pointsman.commands.settings import progress
from policy.config.schema import PolicyConfig
from policy.config.variants import variants
from policy.objective import Weights

Vector = NDArray[np.float64]

ESTIMATORS = ("dr", "snips", "ips", "clipped_ips", "dm", "sndr", "switch_dr", "dros")
SHOWN_ESTIMATORS = ("dr", "snips", "ips", "dm", "dros")  # when none is named; --json has all
MOST_ARMS = 20  # that are targets when none is named
SHOWN = 20  # candidates of a sweep; --json has all
TRAIN_SHARE = 0.5
CONFIG = "config"
CHALLENGER = "challenger"
MARKED = "(! not to be trusted: few rows carry the estimate, or its terms don't know its bias)"


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """The first rows teach, the others value; all of them value where nothing is to be taught."""

    taught: LoggedData
    valued: LoggedData
    reward: Vector  # (n,) of the valued rows
    q: Vector  # (n, kmax)


@click.command(epilog=settings.help_text())
@logs.options
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="What to value: logged, challenger, uniform, an arm, config, config:POLICY; repeat it."
    " [logged, uniform, each arm of up to 20, the challenger if there is one]",
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
    path: str | None,
    policy: str | None,
    config_file: Path | None,
    weights: Weights | None,
    objective: str | None,
    from_ms: int | None,
    to_ms: int | None,
    interval: str,
    as_json: bool,
    plot: Path | None,
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
        if sweep_file is not None or plot is not None or interval != "student-t":
            raise click.UsageError("--stream has no --sweep, --plot or --interval bootstrap")
        told = streamed.value(
            path or settings.read().log_path(),
            policy,
            from_ms,
            to_ms,
            targets,
            estimators or ESTIMATORS,
            logs.scales(config_file, policy),
            logs.counted(weights, objective),
            dask,
        )
        click.echo(json.dumps(told.figures()) if as_json else "\n".join(told.text()))
        return
    log = logs.opened(path, policy, config_file, weights, objective, from_ms, to_ms, plot)
    candidates = _candidates(sweep_file, log)
    names = list(targets) or ([] if candidates else _usual(log.data))
    learns = bool(candidates) or any(_is_config(name) for name in names)
    split = _split(log, train_share if learns else 0.0)
    main = estimators[0] if estimators else ESTIMATORS[0]
    compared: Comparison | None = None
    refused: dict[str, str] = {}
    with progress(len(names) + len(candidates)) as tick:
        found: dict[str, Valuation] = {}
        for name in names:
            part = _part(name, split)
            pmf = _pmf(name, log, part)
            found[name] = one_target.value(part.valued, pmf, part.reward, log.policy.scales, part.q)
            tick(1)
        if candidates:
            values = {}
            for name, config in candidates.items():
                values[name] = _value_of(name, config, log, split, main)
                tick(1)
            compared, refused = _compared(values, split, main)
    shown = tuple(estimators) or (ESTIMATORS if as_json else SHOWN_ESTIMATORS)
    made = _Told(log, split, found, main, shown, interval)
    if as_json:
        click.echo(json.dumps(made.figures() | _sweep_figures(compared, refused, sweep_file)))
    else:
        click.echo("\n".join(made.text() + _sweep_text(compared, refused, main)))
    if plot is not None:
        _draw(made, compared, plot)


def _candidates(file: Path | None, log: Opened) -> Mapping[str, PolicyConfig]:
    if file is None:
        return {}
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: can't be read: {error}") from error
    return variants(text, str(file), log.policy, log.config.arms)


def _usual(data: LoggedData) -> list[str]:
    """The targets that every log has an answer for."""
    arms = data.ids if len(data.ids) <= MOST_ARMS else ()
    return ["logged", "uniform", *arms, *([CHALLENGER] if any(data.challengers) else [])]


def _is_config(name: str) -> bool:
    return name == CONFIG or name.startswith(f"{CONFIG}:")


def _split(log: Opened, share: float) -> _Split:
    n = len(log.data)
    first = round(n * share)
    if share and not 0 < first < n:
        raise click.ClickException(
            f"{log.path}: {n} rows are too few to learn from some and value on others"
        )
    rows = np.arange(first, n)
    valued = log.data.take(rows)
    reward = log.reward[rows]
    q = reward_models.ridge(valued, reward)
    return _Split(log.data.take(np.arange(first)), valued, reward, q)


def _part(name: str, split: _Split) -> _Split:
    """The rows that a target is valued on: a challenger's are those in which the last one ran."""
    of = split.valued.challengers
    if name != CHALLENGER or not any(of):
        return split
    last = next(version for version in reversed(of) if version is not None)
    rows = np.flatnonzero(np.array(of, dtype=object) == last)
    return _Split(split.taught, split.valued.take(rows), split.reward[rows], split.q[rows])


def _pmf(name: str, log: Opened, split: _Split) -> Vector:
    """What a target would have drawn from, in the rows that are valued."""
    if name == "logged":
        return target.logged(split.valued)
    if name == "uniform":
        return target.uniform(split.valued)
    if name == CHALLENGER:
        return target.challenger(split.valued)
    if not _is_config(name):
        return target.one_arm(split.valued, name)
    which = name.partition(":")[2] or log.name
    if which not in log.config.policies:
        known = ", ".join(log.config.policies)
        raise click.ClickException(f"{log.file}: there is no policy {which!r} (known: {known})")
    try:
        return _learned(name, log.config.policies[which], log, split)
    except ValueError as error:
        raise click.ClickException(f"{name}: {error}") from error


def _learned(name: str, config: PolicyConfig, log: Opened, split: _Split) -> Vector:
    """Of a configuration that has learned the first part of the log, and stands still then."""
    candidate = Candidate.of(name, config, log.config.arms)
    policy = candidate.policy(candidate.taught(split.taught))
    return target.of_policy(candidate.asked(split.valued, log.policy.weights), policy)


def _value_of(
    name: str, config: PolicyConfig, log: Opened, split: _Split, estimator: str
) -> Estimate:
    try:
        pmf = _learned(name, config, log, split)
    except ValueError as error:
        return not_evaluable(str(error))
    return rounds.estimates(rounds.of(split.valued, pmf, split.reward, split.q))[estimator]


def _compared(
    values: Mapping[str, Estimate], split: _Split, estimator: str
) -> tuple[Comparison | None, dict[str, str]]:
    """Those that have a value, against the logging policy; and why the others have none."""
    refused = {name: str(one.why) for name, one in values.items() if one.value is None}
    some = {name: one for name, one in values.items() if one.value is not None}
    made = rounds.of(split.valued, target.logged(split.valued), split.reward, split.q)
    logged = rounds.estimates(made)[estimator]
    if not some or logged.value is None:
        return None, refused
    ids = [split.valued.decision_ids[i] for i in made.at]
    terms = np.stack([one.terms for one in some.values()], axis=1)
    doubts = [one.doubt or logged.doubt for one in some.values()]
    return sweep.compare(list(some), terms, logged.terms, ids, doubts=doubts), refused


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """What was found of the targets, to be shown."""

    log: Opened
    split: _Split
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
            f"{one.effective:,.0f}",
            f"{one.rounds.unsupported:.1%}",
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
        rows = {name: _part(name, self.split).valued for name in self.found}
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
            "max_weight": float(one.rounds.weights.max(initial=0.0)),
            "unsupported": one.rounds.unsupported,
            "rows": len(one.rounds),
            "left_out": dict(one.rounds.dropped),
        }

    def _figures(self, estimate: Estimate) -> dict[str, Any]:
        return logs.as_figures(estimate, logs.interval_of(estimate, self.how))


def _sweep_text(
    compared: Comparison | None, refused: Mapping[str, str], estimator: str
) -> list[str]:
    if compared is None:
        return [f"{name}: {why}" for name, why in refused.items()]
    order = np.argsort([-one.estimate for one in compared.values], kind="stable").tolist()
    rows = [["candidate", estimator, "95% interval", "lead over the log", "95% interval"]]
    for i in order[:SHOWN]:
        value, lead = compared.values[i], compared.leads[i]
        name, values = compared.names[i], (figure(value.estimate), _marked(value))
        rows.append([name, *values, f"{lead.estimate:+.4f}", _marked(lead)])
    more = len(order) - SHOWN
    lead = compared.lead
    return [
        "",
        *aligned(rows),
        *([f"and {more:,} more"] if more > 0 else []),
        f"(intervals hold for all {len(order)} together)",
        *([MARKED] if any("!" in cell for row in rows for cell in row) else []),
        *(f"{name}: {why}" for name, why in refused.items()),
        "",
        f"best: {lead.winner}, which seems to lead by {lead.naive.estimate:+.4f}"
        f" ({_marked(lead.naive)}, whoever wins)",
        f"of that, {lead.selection:+.4f} is selection: chosen on some rows and valued on others,"
        f" the winner leads by {lead.honest:+.4f}; {lead.agreement:.0%} of the choices agree",
        sweep.NOTE,
    ]


def _marked(interval: Interval) -> str:
    return between(interval) + ("!" if interval.warning and math.isfinite(interval.low) else "")


def _sweep_figures(
    compared: Comparison | None, refused: Mapping[str, str], file: Path | None
) -> dict[str, Any]:
    if file is None:
        return {}
    told: dict[str, Any] = {"candidates": {}, "not_evaluable": dict(refused), "note": sweep.NOTE}
    if compared is not None:
        each = zip(compared.names, compared.values, compared.leads, strict=True)
        told["candidates"] = {
            name: {"reward": logs.interval_figures(value), "lead": logs.interval_figures(lead)}
            for name, value, lead in each
        }
        told["best"] = {
            "candidate": compared.lead.winner,
            "naive_lead": logs.interval_figures(compared.lead.naive),
            "honest_lead": {"value": compared.lead.honest},
            "selection": compared.lead.selection,
            "agreement": compared.lead.agreement,
        }
    return {"sweep": told}


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

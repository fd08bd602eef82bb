"""What the commands that read a log share: options, the rows that are read, how they are scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating import rounds, target
from offline_eval.estimating.estimators import Estimate
from offline_eval.estimating.intervals import Interval, bootstrap
from offline_eval.log import archive
from offline_eval.log.checking import check_log
from offline_eval.log.data import Index, LoggedData
from offline_eval.log.reading import read_log
from pointsman.commands import settings
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.config.schema import Config, PolicyConfig
from policy.objective import PRESETS, Scales, Weights
from serving.processes.config_file import ConfigFile

Vector = NDArray[np.float64]

SEED = 0
BUILT_IN = "the built-in settings"  # where there is no file, and none is needed
PROPENSITIES = {
    "estimated": "estimated from the log when it was imported: each value made of them is doubtful",
    "unknown": "none: the direct method (dm) alone can value this log",
}


class _Three(click.ParamType[Weights]):
    """Weights of quality, latency and cost."""

    name = "Q,L,C"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Weights:
        try:
            quality, latency, cost = map(float, value.split(","))
            return Weights.of(quality, latency, cost)
        except ValueError:
            self.fail(f"expected three weights >= 0, not all 0, such as 0.7,0.15,0.15: {value!r}")


@dataclass(frozen=True, slots=True)
class Options:
    """What commands that read a log are told of it, and how they tell what they found."""

    path: str | None
    policy: str | None
    config_file: Path | None
    weights: Weights | None  # that count; None: each row's own
    from_ms: int | None
    to_ms: int | None
    interval: str
    as_json: bool
    plot: Path | None

    def log_path(self) -> str:
        return self.path or settings.read().log_path()


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A log's rows with their rewards, and the policy of the configuration file that scores them
    and whose variants may be valued on them."""

    path: str
    data: LoggedData
    file: Path | str  # or what stands in for it
    config: Config
    arms_of_log: bool  # the configuration's are not the log's: its policies choose among these
    name: str  # of the policy in the file
    weights: Weights | None  # None: each row's own
    reward: Vector  # (n,)
    waiting: int  # rows that were left out, from the first on that may still change

    @property
    def policy(self) -> PolicyConfig:
        return self.config.policies[self.name]

    def head(self) -> list[str]:
        """What was read, for a person."""
        data = self.data
        first, last = (when(int(ms)) for ms in data.made_at_ms[[0, -1]])
        if self.weights is None:
            scored = "each row's own objective"
        else:
            quality, latency, cost = self.weights.as_tuple()
            scored = f"{quality:.3g} quality, {latency:.3g} latency, {cost:.3g} cost"
        return [
            f"{self.path}: {len(data):,} rows of policy {data.policies[0]}, {len(data.ids)} arms,"
            f" {first} to {last} UTC",
            f"reward: {scored}; references of [policies.{self.name}] in {self.file}",
            *([f"arms: {self.file} has none of the log's, which are taken"] * self.arms_of_log),
            *self._never_chosen(),
            *(f"propensities: {p}" for p in [PROPENSITIES.get(data.propensities)] if p),
            *([self._waiting()] if self.waiting else []),
        ]

    def _never_chosen(self) -> list[str]:
        lacking = [arm for arm in self.data.ids if arm not in self.config.arms]
        if not lacking:
            return []
        few, more = ", ".join(lacking[:5]), len(lacking) - 5
        told = few + (f" and {more} more" if more > 0 else "")
        return [f"arms: {self.file} lacks {told} of the log's: its policies never choose these"]

    def _waiting(self) -> str:
        return (
            f"{self.waiting:,} later rows are left out, from the first on that may still change"
            " (it lacks an outcome, and its reward window hasn't passed)"
        )

    def left_out(self, rows: Index | None = None) -> Mapping[str, int]:
        """Rows, of all or of these, that say nothing of their arm, by the reason."""
        data = self.data if rows is None else self.data.take(rows)
        reward = self.reward if rows is None else self.reward[rows]
        return rounds.of(data, target.uniform(data), reward).dropped

    def own_mean(self, rows: Index) -> float | None:
        """The log's own mean reward in some of its rows; None where nothing has come."""
        there = rows[self.data.executed[rows] & ~np.isnan(self.reward[rows])]
        if not len(there):
            return None
        return float(np.average(self.reward[there], weights=self.data.stands_for[there]))

    def figures(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "policy": self.data.policies[0],
            "rows": len(self.data),
            "waiting": self.waiting,
            "propensities": self.data.propensities,
            "arms_of_log": self.arms_of_log,
            "arms": list(self.data.ids),
            "from_ms": int(self.data.made_at_ms[0]),
            "to_ms": int(self.data.made_at_ms[-1]),
            "weights": None if self.weights is None else self.weights.as_tuple(),
        }


def options(command: Callable[..., None]) -> Callable[..., None]:
    """PATH, and options of what is read, how it is scored and shown: the first argument of
    `command` is an `Options` of all of them."""

    @wraps(command)
    def with_options(**given: Any) -> None:
        given["weights"] = _counted(given["weights"], given.pop("objective"))
        own = {one.name: given.pop(one.name) for one in fields(Options)}
        command(Options(**own), **given)

    made: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        click.argument("path", required=False),
        click.option("--policy", help="Only this policy's rows; needed where there are several."),
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="Arms, references of latency and cost, and the policy to try. [POINTSMAN_CONFIG]",
        ),
        click.option(
            "--weights", type=_Three(), help="What is counted. [each row's own objective]"
        ),
        click.option("--objective", type=click.Choice(list(PRESETS)), help="Likewise, by name."),
        click.option(
            "--from", "from_ms", type=settings.Time(), help="Decisions from this time on, UTC."
        ),
        click.option(
            "--to", "to_ms", type=settings.Time(), help="Decisions before this time, UTC."
        ),
        click.option(
            "--interval",
            type=click.Choice(["student-t", "bootstrap"]),
            default="student-t",
            show_default=True,
            help="How the 95% intervals are made.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--plot", type=click.Path(path_type=Path), help="Draw it: a PNG."),
    ]
    decorated: Callable[..., None] = with_options
    for one in reversed(made):
        decorated = one(decorated)
    return decorated


def opened(given: Options) -> Opened:
    """Read the log, and refuse what can't be used: what is wrong, at which rows."""
    plot = given.plot
    if plot is not None and not plot.parent.is_dir():
        raise click.ClickException(f"{plot}: there is no folder {plot.parent}")
    file = given.config_file or settings.read().config
    path = given.log_path()
    data = read_log(path, given.policy, given.from_ms, given.to_ms)
    if not len(data):
        raise click.ClickException(f"{path}: no row{_asked(given)}")
    there = sorted(set(data.policies))
    if len(there) > 1:
        raise click.ClickException(
            f"{path}: rows of {len(there)} policies ({', '.join(there)}): choose with --policy"
        )
    check_log(data, without_propensities=data.propensities == "unknown")
    # An imported log is as it is; in that of a service rows are still being completed.
    rows = len(data)
    data = data.take(np.arange(data.frontier())) if archive.is_archive(path) else data
    if not len(data):
        raise click.ClickException(
            f"{path}: all {rows:,} rows wait for the first of them, which lacks an outcome and may"
            " have it until its reward window has passed"
        )
    source, config, arms_of_log = _configured(
        file, data, needed=given.config_file is not None or archive.is_archive(path)
    )
    name = scored_as(there[0], config, source)
    reward = data.rewards(given.weights, config.policies[name].scales)
    waiting = rows - len(data)
    return Opened(path, data, source, config, arms_of_log, name, given.weights, reward, waiting)


def _configured(file: Path, data: LoggedData, needed: bool) -> tuple[Path | str, Config, bool]:
    """The configuration for a log, where it comes from, and whether its arms are taken from the
    log: a log of others needs no file, and knows other arms than a file does."""
    arms = Catalog(tuple(map(_arm_of_log, data.ids)))
    if not needed and not file.exists():
        return BUILT_IN, Config(arms, {"default": PolicyConfig()}), False
    config = ConfigFile(file).read()
    # The built-in policy stands in for one that nobody asked the file for.
    own = {} if needed else {"default": PolicyConfig()}
    config = Config(config.arms, {**own, **config.policies})
    if any(arm in config.arms for arm in data.ids):
        return file, config, False
    policies = {
        name: policy.model_copy(update={"arms": None}) for name, policy in config.policies.items()
    }
    return file, Config(arms, policies), True


def _arm_of_log(arm: str) -> Arm:
    """An arm of which the log knows the name alone, which may be one that no file could have. An
    imported log has no sizes of queries, so that prices say nothing there."""
    return Arm.model_construct(
        id=arm,
        provider="unknown",
        model=arm,
        usd_per_mtok_in=0.0,
        usd_per_mtok_out=0.0,
    )


def _counted(weights: Weights | None, objective: str | None) -> Weights | None:
    """What --weights or --objective say; None is each row's own."""
    if weights is not None and objective is not None:
        raise click.UsageError("--weights and --objective say the same: give one")
    return PRESETS[objective] if objective else weights


def scored_as(policy: str, config: Config, file: Path | str) -> str:
    """The policy of the file whose references score the rows of one of this name."""
    name = policy if policy in config.policies else "default"
    if name not in config.policies:
        known = ", ".join(config.policies)
        raise click.ClickException(
            f"{file}: there is no policy {policy!r} or 'default' (known: {known})"
        )
    return name


def scales(given: Options) -> Scales:
    """The references that score the rows that are asked for."""
    file = given.config_file or settings.read().config
    if given.config_file is None and not file.exists():
        return PolicyConfig().scales
    config = ConfigFile(file).read()
    return config.policies[scored_as(given.policy or "default", config, file)].scales


def interval_of(estimate: Estimate, how: str) -> Interval | None:
    """At 95%; None where there is no estimate."""
    if how == "bootstrap":
        return estimate.interval(made=lambda terms, alpha: bootstrap(terms, SEED, alpha))
    return estimate.interval()


def as_figures(estimate: Estimate, interval: Interval | None) -> dict[str, Any]:
    """An estimate for JSON; what can't be known is null."""
    if interval is None:
        return {"value": None, "low": None, "high": None, "warning": None, "why": estimate.why}
    return interval_figures(interval) | {"why": None}


def interval_figures(interval: Interval) -> dict[str, Any]:
    """For JSON, which has no infinity."""
    bounds = [b if math.isfinite(b) else None for b in (interval.low, interval.high)]
    return {
        "value": interval.estimate,
        "low": bounds[0],
        "high": bounds[1],
        "warning": interval.warning,
    }


def figure(value: float | None, spec: str = ".4f") -> str:
    return "-" if value is None else f"{value:{spec}}"


def between(interval: Interval | None) -> str:
    if interval is None or not math.isfinite(interval.low):
        return "-"
    return f"{interval.low:.4f} to {interval.high:.4f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")


def _asked(given: Options) -> str:
    return (
        (f" of policy {given.policy!r}" if given.policy else "")
        + (f" from {when(given.from_ms)}" if given.from_ms is not None else "")
        + (f" before {when(given.to_ms)}" if given.to_ms is not None else "")
    )

"""`pointsman simulate`."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pointsman.commands import planned, settings
from pointsman.commands.planned import Compared
from pointsman.commands.settings import progress
from pointsman.trying import outcomes as folders
from pointsman.trying.lag import RATE
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.result import Result
from pointsman.trying.simulate import Traffic, in_process, over_http, sample
from pointsman_client import Client, PointsmanError
from policy.config.schema import Config, PolicyConfig
from policy.config.toml import to_toml
from policy.plans.plan import Kind
from serving.processes.config_file import ConfigFile

SHUFFLES = 5
TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for on the command line; UsageError where it contradicts itself."""

    folder: Path
    url: str | None
    shuffles: int | None
    rounds: int | None
    seed: int
    delay: int
    loss: float
    no_hints: bool
    warm: int
    no_warm_labels: bool
    concurrency: int
    rate: float | None
    plans: tuple[Kind, ...]
    judge: float
    config_file: Path | None
    write_config: Path | None
    plot: Path | None
    as_json: bool

    def __post_init__(self) -> None:
        if self.url is not None and (self.shuffles or 1) > 1:
            raise click.UsageError(
                "--shuffles is 1 with --url: the service goes on from what it has learned"
            )
        if self.no_warm_labels and not (self.warm and self.no_hints):
            raise click.UsageError("--no-warm-labels needs --warm and --no-hints")
        if self.url is not None and self.warm:
            raise click.UsageError(
                "--warm is for runs in process: `pointsman train` warms a service"
            )
        if self.plans and (
            self.url or self.warm or self.delay or self.loss or self.plot or self.rate
        ):
            raise click.UsageError(
                "--plans is for runs in process, without --warm, --delay, --loss, --rate, --plot"
            )
        if self.url is None and self.concurrency > 1:
            raise click.UsageError("--concurrency needs --url: in process, rounds take turns")
        if self.url is not None and self.rate is not None:
            raise click.UsageError("--rate is for runs in process: a service has its own")
        if self.plot is not None and not self.plot.parent.is_dir():
            raise click.ClickException(f"{self.plot}: there is no folder {self.plot.parent}")

    @property
    def traffic(self) -> Traffic:
        return Traffic(
            seed=self.seed,
            delay=self.delay,
            loss=self.loss,
            hints=not self.no_hints,
            warm=self.warm,
            warm_labels=not self.no_warm_labels,
            rate=self.rate or RATE,
        )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--url", help="Drive the service that runs here, over HTTP; else in process.")
@click.option(
    "--shuffles",
    type=click.IntRange(min=1),
    help=f"Cold starts, each in an order of its own. [{SHUFFLES}; 1 with --url]",
)
@click.option("--rounds", type=click.IntRange(min=1), help="Use this many of the queries only.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--delay",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="ROUNDS",
    help="How many rounds later a reward arrives.",
)
@click.option(
    "--loss",
    type=settings.Finite(0, 1),
    default=0.0,
    show_default=True,
    metavar="P",
    help="Probability that a reward never arrives.",
)
@click.option("--no-hints", is_flag=True, help="Send the text only, not the category.")
@click.option(
    "--warm",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Fit on the first N queries of each shuffle, with all arms' outcomes; score the rest.",
)
@click.option(
    "--no-warm-labels",
    is_flag=True,
    help="With --warm and --no-hints: hide the categories of these N queries as well.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="With --url: rounds under way at once.",
)
@click.option(
    "--rate",
    type=settings.Finite(0.001, 100_000),
    metavar="PER_S",
    help="In process: rounds a second, that snapshots come as late as a service's would. "
    f"[{RATE:.0f}: one caller who waits]",
)
@click.option(
    "--plans",
    callback=planned.kinds,
    metavar="KINDS",
    help="The caller can carry out these: fallback, hedge, race, cascade, split by commas. Played"
    " beside the same policy without them.",
)
@click.option(
    "--judge",
    type=settings.Finite(0.5, 1),
    default=0.8,
    show_default=True,
    metavar="P",
    help="With --plans: how often the caller's judge tells a good answer from a bad one.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Take the policy `default` from this file; the arms are the folder's.",
)
@click.option(
    "--write-config",
    type=click.Path(path_type=Path),
    help="Write a pointsman.toml with these arms and this policy, for `make up`.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the running reward: a PNG.")
@settings.as_json
def command(**given: Any) -> None:
    """Drive a policy with FOLDER, a set of full-information outcomes: queries.parquet (query_id,
    text, category), outcomes.parquet (query_id, arm, quality, cost_usd, latency_ms) and arms.csv.
    Costs and latencies may be missing where the objective doesn't weigh them.

    Each round routes a query, looks up what the chosen arm made of it, and reports that. The mean
    reward stands beside that of the best single arm and of the best arm per category, both known
    only in hindsight, and of uniform choice. `captured` is how much of the way from the one to the
    other was made, learning included.
    """
    asked = Options(**given)
    outcomes = folders.load(asked.folder)
    config = _config(outcomes, asked.config_file)
    if asked.write_config is not None:
        asked.write_config.write_text(to_toml(config), "utf-8")
        click.echo(f"wrote {asked.write_config}", err=True)
    outcomes = sample(outcomes, asked.rounds, asked.seed)
    if asked.plans:
        planned.show(_with_plans(asked, outcomes, config.policies["default"]), asked.as_json)
        return
    result = _played(asked, outcomes, config.policies["default"])
    missing = {"missing": list(outcomes.missing)}
    click.echo(json.dumps(result.figures() | missing) if asked.as_json else table(result))
    if asked.plot is not None:
        from pointsman import plots  # noqa: PLC0415 - matplotlib takes half a second to load

        plots.save(plots.running(result), asked.plot)
        click.echo(f"wrote {asked.plot}", err=True)


def _played(asked: Options, outcomes: OutcomeSet, policy: PolicyConfig) -> Result:
    n, warm = len(outcomes), asked.warm
    if warm >= n:
        raise click.ClickException(f"--warm {warm} leaves none of {n} queries to be scored")
    if asked.url is None:
        m = asked.shuffles or SHUFFLES
        encoded = m if warm else 1
        with progress(n * (m + encoded) - m * warm) as tick:
            return in_process(outcomes, policy, asked.traffic, range(m), tick)
    try:
        with closing(Client(asked.url, timeout_s=TIMEOUT_S)) as client, progress(n) as tick:
            return over_http(outcomes, policy, asked.traffic, client, asked.concurrency, tick)
    except PointsmanError as error:
        raise click.ClickException(str(error)) from error


def _with_plans(asked: Options, outcomes: OutcomeSet, policy: PolicyConfig) -> Compared:
    outcomes.check(policy.weights)
    m = asked.shuffles or SHUFFLES
    with progress(len(outcomes) * (1 + 2 * m)) as tick:
        return planned.compared(outcomes, policy, asked.plans, asked.judge, asked.traffic, m, tick)


def _config(outcomes: OutcomeSet, file: Path | None) -> Config:
    """The set's arms with the built-in policy, or with the policy `default` of a file."""
    if file is None:
        return folders.config(outcomes)
    given = ConfigFile(file).read().policies
    if "default" not in given:
        raise click.ClickException(f"{file}: there is no [policies.default]")
    policy = given["default"]
    for arm in (*((policy.arm,) if policy.arm else ()), *(policy.arms or ())):
        if arm not in outcomes.catalog:
            raise click.ClickException(f"{file}: {outcomes.name} has no arm {arm!r}")
    return Config(outcomes.catalog, {"default": policy})


def table(result: Result) -> str:
    """The figures for a person to read."""
    outcomes, figures = result.outcomes, result.figures()
    m, n = result.order.shape
    ids = outcomes.catalog.ids
    categories = len(set(outcomes.categories))
    left_out = f" ({outcomes.left_out:,} without all arms left out)" if outcomes.left_out else ""
    missing = f"; not known, and not counted: {', '.join(outcomes.missing)}"
    rows = (
        ("uniform choice", figures["uniform"]),
        (f"best single arm: {ids[result.hindsight.best(result.order[0])]}", figures["best_single"]),
        ("Pointsman, learning included", result.mean_reward),
        (f"best arm for each of {categories} categories", figures["best_per_category"]),
    )
    width = max(len(label) for label, _ in rows)
    tenth = max(n // 10, 1)
    first, last = result.share(slice(tenth)), result.share(slice(n - tenth, n))
    order = sorted(range(len(ids)), key=lambda i: -last[i])
    widest = max(map(len, ids))
    return "\n".join(
        (
            f"{outcomes.name}: {n:,} queries{left_out}, {len(ids)} arms"
            + (missing if outcomes.missing else ""),
            "",
            f"{'mean reward':>{width + 10}}",
            *(f"{label:<{width}}  {value:8.4f}" for label, value in rows),
            "",
            f"captured {_plus_minus(figures['captured'], figures['captured_se'])}"
            " of the way from the best single arm to the best per category",
            f"{m} x {n:,} rounds in {result.seconds:.1f} s",
            "",
            f"{'share of rounds':<{widest}}  first tenth  last tenth",
            *(f"{ids[i]:<{widest}}  {first[i]:11.1%}  {last[i]:10.1%}" for i in order),
        )
    )


def _plus_minus(value: float | None, error: float | None) -> str:
    if value is None:
        return "nothing (there is none)"
    return f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}")

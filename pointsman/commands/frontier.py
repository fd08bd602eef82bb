"""`pointsman frontier`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from pointsman.commands import settings
from pointsman_client import Client, PointsmanError

Body = Mapping[str, Any]
HEAD: tuple[str, ...] = ("", "quality", "latency ms", "cost USD")


@click.command(epilog=settings.help_text())
@click.argument("policy")
@click.option("--url", help="Where the service runs. [http://POINTSMAN_HOST:POINTSMAN_PORT]")
@click.option("--task", multiple=True, help="Only this task type. May be repeated.")
@click.option("--all", "everything", is_flag=True, help="Also arms that another one beats in all.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it: a PNG file."
)
@settings.as_json
def command(
    policy: str,
    url: str | None,
    task: tuple[str, ...],
    everything: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show what POLICY has learned of quality, latency and cost, per task type: of each arm that
    no other beats in all three, and of the policy under other weights.

    Each is the mean and the 90% interval, for queries of that type of which nothing else is known.
    """
    chosen = settings.read()
    try:
        with closing(Client(url or settings.url(chosen))) as client:
            body = client.frontier(policy)
    except PointsmanError as error:
        raise click.ClickException(str(error)) from error
    body["task_types"] = [one for one in body["task_types"] if not task or one["task_type"] in task]
    if plot is not None:
        from pointsman import plots  # noqa: PLC0415 - matplotlib takes half a second to load

        plots.save(plots.frontier(body), plot)
        click.echo(f"drawn in {plot}", err=True)
    click.echo(json.dumps(body) if as_json else text(body, everything))


def text(body: Body, everything: bool) -> str:
    """For a person."""
    head = (
        f"policy {body['policy']}, version {body['version']}: {body['events']:,} outcomes learned"
    )
    tables = ("\n".join(_table(task, everything)) for task in body["task_types"])
    return "\n\n".join((head, *tables))


def _table(task: Body, everything: bool) -> Iterator[str]:
    arms = [arm for arm in task["arms"] if arm["best"] or everything]
    arms.sort(key=lambda arm: -(arm["quality"]["mean"] or 0.0))
    presets = [point for point in task["policies"] if " " not in point["name"]]
    rows = [HEAD]
    rows += [(arm["arm"], *_cells(arm)) for arm in arms]
    rows += [(f"policy, {point['name']}", *_cells(point)) for point in presets]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    hidden = len(task["arms"]) - len(arms)
    yield task["task_type"] + (f" ({hidden} arms that others beat aren't shown)" if hidden else "")
    for name, *cells in rows:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield f"  {name.ljust(widths[0])}  {'  '.join(padded)}".rstrip()


def _cells(point: Body) -> Sequence[str]:
    return (
        _figure(point["quality"], "{:.2f}"),
        _figure(point["latency_ms"], "{:,.0f}"),
        _figure(point["cost_usd"], "{:.2g}"),
    )


def _figure(figure: Body, pattern: str) -> str:
    if figure["mean"] is None:
        return "unknown"
    mean, low, high = (None if v is None else pattern.format(v) for v in figure.values())
    return f"{mean}" if low is None else f"{mean} ({low} to {high})"

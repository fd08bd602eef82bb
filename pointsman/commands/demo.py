"""`pointsman demo`."""

from __future__ import annotations

from pathlib import Path

import click

from pointsman import plots
from pointsman.commands.settings import progress
from pointsman.commands.simulate import table
from pointsman.trying import demo
from pointsman_client import PointsmanError

COMPARED = 300  # rounds at the start and at the end


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("data/demo"),
    show_default=True,
    help="Folder for the data and the pictures.",
)
@click.option(
    "--rounds", type=click.IntRange(min=100, max=100_000), default=3_000, show_default=True
)
def command(out: Path, rounds: int) -> None:
    """Show the loop with pictures: made-up tasks and models, the real service, over HTTP.

    Starts the service on a free port with data in a temporary folder, and stops it at the end.
    """
    outcomes = demo.make(rounds)
    click.echo(
        f"Made {rounds:,} queries of {len(demo.TASKS)} tasks and what {len(demo.MODELS)} models "
        f"would answer, in {out}.\nStarting the service; each round routes a query, looks up how "
        "the chosen model did, and reports it.",
        err=True,
    )
    try:
        with progress(rounds) as tick:
            result = demo.run(outcomes, out, tick)
    except PointsmanError as error:
        raise click.ClickException(str(error)) from error
    pictures = {
        out / "reward.png": "the reward as it learns, and which models got the rounds",
        out / "tasks.png": f"which model answers which task: first and last {COMPARED} rounds",
    }
    reward, tasks = pictures
    plots.save(plots.running(result), reward)
    plots.save(plots.before_and_after(result, COMPARED), tasks)
    click.echo(table(result))
    click.echo("\n" + "\n".join(f"{path}: {what}" for path, what in pictures.items()))
    click.echo(
        f"The same data, without HTTP: pointsman simulate {out} --config {out}/pointsman.toml"
    )

"""`pointsman init`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from pointsman.commands import settings


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Where to write it.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def command(config: Path | None, force: bool) -> None:
    """Write a pointsman.toml to start from: arms, prices and a policy, each key explained.

    It goes where `pointsman up` looks for it: POINTSMAN_CONFIG, by default here.
    """
    path = settings.read(config=config).config
    try:
        with path.open("wb" if force else "xb") as file:
            file.write(resources.files("pointsman").joinpath("starter.toml").read_bytes())
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; --force writes over it") from None
    click.echo(f"{path}: put your own models and prices in, then `pointsman up`")

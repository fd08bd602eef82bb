"""`pointsman up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pointsman.commands import settings
from serving.processes import up


@click.command(epilog=settings.help_text())
@click.option("--host", help="Address to serve on.")
@click.option("--port", type=int, help="Port to serve on; 0 picks a free one.")
@click.option("--config", type=click.Path(path_type=Path), help="Arms and policies.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the embedded server.")
@settings.served
def command(**given: Any) -> None:
    """Run the whole service: serving, learner and, unless POINTSMAN_REDIS_URL is set, an embedded
    Redis-protocol server that keeps its files under POINTSMAN_DATA.

    On any address but loopback it wants a key (`pointsman keys create`), or --open.
    """
    up.up(settings.begin("up", **given))

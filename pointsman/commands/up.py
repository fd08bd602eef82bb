"""`pointsman up`."""

from __future__ import annotations

from pathlib import Path

import click

from pointsman.commands import settings
from serving.processes import up


@click.command(epilog=settings.help_text())
@click.option("--host", help="Address to serve on.")
@click.option("--port", type=int, help="Port to serve on; 0 picks a free one.")
@click.option("--config", type=click.Path(path_type=Path), help="Arms and policies.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the embedded server.")
@settings.opened
@click.option("--workers", type=int, help="Serving processes.")
def command(
    host: str | None,
    port: int | None,
    config: Path | None,
    data: Path | None,
    open_: bool | None,
    workers: int | None,
) -> None:
    """Run the whole service: serving, learner and, unless POINTSMAN_REDIS_URL is set, an embedded
    Redis-protocol server that keeps its files under POINTSMAN_DATA.

    On any address but loopback it wants a key (`pointsman keys create`), or --open.
    """
    given = {"host": host, "port": port, "config": config, "data": data, "workers": workers}
    up.up(settings.begin("up", **given, open=open_))

"""`pointsman restore`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pointsman.backup.restoring import restore
from pointsman.commands import settings


@click.command(epilog=settings.help_text())
@click.argument("source", metavar="FROM")
@click.option("--config", type=click.Path(path_type=Path), help="[POINTSMAN_CONFIG]")
@click.option("--data", type=click.Path(path_type=Path), help="[POINTSMAN_DATA]")
@click.option("--force", is_flag=True, help="Drop what is there already, and the files too.")
@settings.as_json
def command(
    source: str, config: Path | None, data: Path | None, force: bool, as_json: bool
) -> None:
    """Set a service up from the backup FROM, so that it goes on where that one was.

    Into an empty Redis (POINTSMAN_REDIS_URL, or the embedded server under POINTSMAN_DATA), while no
    service runs on it. Files that are there already stay, without --force. Exit code 1, and nothing
    is changed, where the backup is damaged or there is something in that Redis.
    """
    chosen = settings.read(config=config, data=data)
    done = []
    for line in restore(chosen, source, settings.now_ms(), force=force):
        done.append(line)
        if not as_json:
            click.echo(line)
    if as_json:
        click.echo(json.dumps({"restored": done}))

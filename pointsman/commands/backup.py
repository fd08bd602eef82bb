"""`pointsman backup`."""

from __future__ import annotations

import json

import click

from pointsman.backup.taking import take
from pointsman.commands import settings
from serving.processes.embedded import running_url


@click.command(epilog=settings.help_text())
@click.argument("to")
@click.option("--with-log", is_flag=True, help="The log's files as well.")
@settings.as_json
def command(to: str, with_log: bool, as_json: bool) -> None:
    """Put all that a running service has learned and promised into TO, an empty folder or a URI
    that fsspec knows.

    All that Redis holds, as it is at one moment, while the service goes on; the configuration;
    MLflow's store, where it is a file; and how far the log goes, or the log. What is in Redis of
    keys is their hashes: no secret is in a backup.
    """
    chosen = settings.read()
    url = chosen.redis_url or running_url(chosen.data)
    made = take(chosen, url, to, settings.now_ms(), with_log=with_log)
    size = sum(file.size for file in made.files.values())
    if as_json:
        click.echo(json.dumps({"to": to, "keys": made.keys, "bytes": size, "log": made.log}))
    else:
        click.echo(f"{to}: {made.keys:,} keys, {len(made.files)} files, {size / 2**20:,.1f} MiB")

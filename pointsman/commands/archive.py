"""`pointsman archive`."""

from __future__ import annotations

import json
import signal
import threading

import click

from pointsman import archiver
from pointsman.commands import settings
from serving.processes.config_file import ConfigFile
from serving.processes.embedded import running_url
from serving.store.connecting.checking import require_usable


@click.command(epilog=settings.help_text())
@settings.supervised
@settings.only
@click.option("--burst", is_flag=True, help="Archive what is in the streams, then stop.")
@click.option("--json", "as_json", is_flag=True, help="With --burst: figures as one JSON object.")
def command(burst: bool, as_json: bool, supervised: bool, only: tuple[str, ...]) -> None:
    """Move decisions and outcomes from Redis to the log, for every policy of the configuration.

    The log is Parquet at POINTSMAN_LOG, by default DATA/log; `pointsman up` runs this already, and
    only one may at a time. An entry leaves Redis once it is archived and, for outcomes, learned.
    """
    if as_json and not burst:
        raise click.UsageError("--json needs --burst")
    chosen = settings.begin("archiver")
    url = chosen.redis_url or running_url(chosen.data)
    file = ConfigFile(chosen.config, kept=chosen.kept_config() if supervised else None)
    if chosen.redis_url and not supervised:
        require_usable(chosen.redis_url)
    settings.known(file.latest().policies, only)

    def windows() -> dict[str, archiver.Window]:
        return archiver.windows_of(settings.among(file.latest().policies, only))

    if burst:
        archived = archiver.archive_burst(url, chosen.log_path(), windows(), chosen.wait_replicas)
        lines = [
            f"{policy}: {of['decisions']:,} decisions, {of['outcomes']:,} outcomes archived"
            for policy, of in archived.items()
        ]
        click.echo(json.dumps(archived) if as_json else "\n".join(lines))
        return
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    interval_s, wait_replicas = chosen.archive_interval_s, chosen.wait_replicas
    archiver.archive(url, chosen.log_path(), windows, stop, interval_s, wait_replicas)

"""`pointsman watch`."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import asdict

import click

from offline_eval.registry import default_uri
from pointsman.commands import settings
from pointsman.promotion import watch
from serving.processes.config_file import ConfigFile
from serving.processes.embedded import running_url
from serving.store.connecting.checking import require_usable


@click.command(epilog=settings.help_text())
@settings.supervised
@click.option("--burst", is_flag=True, help="Look at each policy once, then stop.")
@click.option("--json", "as_json", is_flag=True, help="With --burst: one JSON object.")
def command(burst: bool, as_json: bool, supervised: bool) -> None:
    """Watch whether a new champion is worse than the version it replaced, for every policy of the
    configuration.

    The version that was replaced keeps a share of the draw (keep_share), so the gate can be asked
    the other way round, on the log at POINTSMAN_LOG. When it passes, the service says so (in its
    own log, in `pointsman status` and in GET /policies/NAME), and rolls back where the policy says
    auto_rollback = true. `pointsman up` runs this already.
    """
    if as_json and not burst:
        raise click.UsageError("--json needs --burst")
    chosen = settings.begin("watch")
    url, path = chosen.redis_url or running_url(chosen.data), chosen.log_path()
    uri = default_uri(chosen.data)
    file = ConfigFile(chosen.config, kept=chosen.kept_config() if supervised else None)
    if chosen.redis_url and not supervised:
        require_usable(chosen.redis_url)
    if burst:
        found = watch.burst(url, file.latest().policies, path, uri)
        lines = [f"{name}: {look.state}: {look.text}" for name, look in found.items()]
        told = {name: asdict(look) for name, look in found.items()}
        click.echo(json.dumps(told) if as_json else "\n".join(lines))
        return
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    watch.run(url, lambda: file.latest().policies, path, uri, stop.wait, chosen.watch_interval_s)

"""`pointsman learn`."""

from __future__ import annotations

import json
import signal
import threading

import click

from pointsman.commands import settings
from serving.learning import learner
from serving.processes.config_file import ConfigFile
from serving.store.connecting.checking import require_usable


@click.command(epilog=settings.help_text())
@settings.supervised
@settings.only
@click.option("--burst", is_flag=True, help="Fold what is in the stream, then stop.")
@click.option("--json", "as_json", is_flag=True, help="With --burst: figures as one JSON object.")
def command(burst: bool, as_json: bool, supervised: bool, only: tuple[str, ...]) -> None:
    """Fold outcomes into snapshots, for every policy of the configuration."""
    if as_json and not burst:
        raise click.UsageError("--json needs --burst")
    chosen = settings.begin("learner")
    if not chosen.redis_url:
        raise click.UsageError("learn needs POINTSMAN_REDIS_URL; `pointsman up` starts a server")
    file = ConfigFile(chosen.config, kept=chosen.kept_config() if supervised else None)
    if chosen.redis_url and not supervised:
        require_usable(chosen.redis_url)
    settings.known(file.latest().policies, only)

    def names() -> list[str]:
        return list(settings.among(file.latest().policies, only))

    intervals = {
        "publish_interval_s": chosen.publish_interval_s,
        "checkpoint_interval_s": chosen.checkpoint_interval_s,
    }
    if burst:
        folded = learner.learn_burst(chosen.redis_url, names(), **intervals)
        text = (
            json.dumps(folded)
            if as_json
            else "\n".join(
                f"{name}: {events} outcome events folded" for name, events in folded.items()
            )
        )
        click.echo(text)
        return
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    learner.learn(chosen.redis_url, names, stop, **intervals)

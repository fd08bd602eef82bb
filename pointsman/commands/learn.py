"""`pointsman learn`."""

from __future__ import annotations

import json
import logging
import signal
import threading

import click

from pointsman.commands import settings
from policy.config import ConfigError
from serving import learner
from serving.config_file import ConfigFile

log = logging.getLogger(__name__)


@click.command(epilog=settings.help_text())
@click.option("--burst", is_flag=True, help="Fold what is in the stream, then stop.")
@click.option("--json", "as_json", is_flag=True, help="With --burst: figures as one JSON object.")
def command(burst: bool, as_json: bool) -> None:
    """Fold outcomes into snapshots, for every policy of the configuration."""
    settings.log_to_stderr()
    chosen = settings.read()
    if not chosen.redis_url:
        raise click.UsageError("learn needs POINTSMAN_REDIS_URL; `pointsman up` starts a server")
    file = ConfigFile(chosen.config)
    names = list(file.read().policies)
    intervals = {
        "publish_interval_s": chosen.publish_interval_s,
        "checkpoint_interval_s": chosen.checkpoint_interval_s,
    }
    if burst:
        folded = learner.learn_burst(chosen.redis_url, names, **intervals)
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
    learner.learn(chosen.redis_url, lambda: _current(file, names), stop, **intervals)


def _current(file: ConfigFile, names: list[str]) -> list[str]:
    """The policies of the file as it is now; what a broken file says changes nothing."""
    if file.changed():
        try:
            names[:] = file.read().policies
        except ConfigError as error:
            log.error("configuration not reloaded, the old one stays in force: %s", error)
    return names

"""`pointsman rollback`."""

from __future__ import annotations

import getpass
import json

import click

from pointsman.commands import settings


@click.command(epilog=settings.help_text())
@click.argument("policy")
@click.option("--reason", default="", help="Why; recorded with who and when.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(policy: str, reason: str, as_json: bool) -> None:
    """Make the champion before POLICY's last promotion champion again; serving switches within two
    seconds, without a restart. No gate is asked.

    What was champion learns on as the challenger without a share of the draw, and needs a new pass
    of the gate to come back.
    """
    with settings.operating(settings.read(), policy) as store:
        made = store.rollback(getpass.getuser(), reason, settings.now_ms())
    if as_json:
        told = {"policy": policy, "champion": made.champion, "before": made.before}
        click.echo(json.dumps(told))
        return
    click.echo(f"{policy}: version {made.champion} is champion again (before: {made.before})")
    click.echo(f"version {made.before} goes on as its challenger, with no share of the draw")

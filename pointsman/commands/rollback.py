"""`pointsman rollback`."""

from __future__ import annotations

import getpass
import json

import click

from offline_eval.registry import default_uri
from pointsman.commands import settings
from pointsman.promotion import roles
from serving.store.registered import Switch


@click.command(epilog=settings.help_text())
@click.argument("policy")
@click.option("--reason", default="", help="Why; recorded with who and when.")
@settings.as_json
def command(policy: str, reason: str, as_json: bool) -> None:
    """Make the champion before POLICY's last promotion champion again; serving switches within two
    seconds, without a restart. No gate is asked.

    What was champion learns on as the challenger without a share of the draw, and needs a new pass
    of the gate to come back.
    """
    chosen = settings.read()
    with settings.operating(chosen, policy) as store:
        made = store.rollback(getpass.getuser(), reason, settings.now_ms())
        state = store.state()
    click.echo(_json(policy, made) if as_json else _text(policy, made))
    roles.tell_roles(default_uri(chosen.data), policy, state)


def _json(policy: str, made: Switch) -> str:
    return json.dumps({"policy": policy, "champion": made.champion, "before": made.before})


def _text(policy: str, made: Switch) -> str:
    return (
        f"{policy}: version {made.champion} is champion again (before: {made.before})\n"
        f"version {made.before} goes on as its challenger, with no share of the draw"
    )

"""`pointsman challenge`."""

from __future__ import annotations

import getpass
import json

import click

from offline_eval.registry import default_uri
from pointsman.commands import settings
from pointsman.promotion import roles
from policy.config.schema import MAX_SHARE


@click.command(epilog=settings.help_text())
@click.argument("policy")
@click.argument("version")
@click.option(
    "--share",
    type=settings.Finite(0.0, MAX_SHARE),
    default=0.0,
    show_default=True,
    help="Its share of the draw: the larger, the sooner the gate can tell.",
)
@settings.as_json
def command(policy: str, version: str, share: float, as_json: bool) -> None:
    """Make a registered VERSION of POLICY the challenger: it learns in the champion's shadow, and
    what it would have done is logged with each decision, which is what `pointsman gate` judges.

    It stays the challenger until pointsman.toml says something new of the policy.
    """
    chosen = settings.read()
    with settings.operating(chosen, policy) as store:
        before = store.challenge(version, share, getpass.getuser(), settings.now_ms())
        state = store.state()
    has = f"{share:.0%} of the draw" if share else "no share of the draw"
    told = {"policy": policy, "challenger": version, "share": share, "before": before}
    text = (
        f"{policy}: version {version} is challenger, with {has} (before: {before or 'none'})\n"
        f"once it has been at work for a while: pointsman gate {policy}"
    )
    click.echo(json.dumps(told) if as_json else text)
    roles.tell_roles(default_uri(chosen.data), policy, state)

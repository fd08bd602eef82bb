"""`pointsman promote`."""

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
@click.argument("version", required=False)
@click.option("--override", is_flag=True, help="Promote without a passed gate.")
@click.option("--reason", default="", help="Why; recorded with who and when. --override needs it.")
@settings.as_json
def command(policy: str, version: str | None, override: bool, reason: str, as_json: bool) -> None:
    """Make VERSION of POLICY (its challenger, when left out) the champion; serving switches within
    two seconds, without a restart.

    It must have passed `pointsman gate` against the version that serves now, on a log whose newest
    judged row is no older than the policy's gate.max_age_s. --override passes over that; it is
    recorded with who, why and when.

    The champion before keeps `keep_share` of the draw (see pointsman.toml), learns on in the shadow
    of the new one and is compared with it. `pointsman rollback` makes it champion again.
    """
    if override and not reason.strip():
        raise click.UsageError("--override needs --reason: it is recorded with who and when")
    chosen = settings.read()
    _, wanted = settings.policy_of(chosen, policy)
    with settings.operating(chosen, policy) as store:
        made = store.promote(
            version or settings.challenger_of(store),
            getpass.getuser(),
            reason,
            settings.now_ms(),
            max_age_ms=wanted.gate.max_age_s * 1_000,
            override=override,
            keep_share=wanted.keep_share,
        )
        state = store.state()
    click.echo(_json(policy, made, override) if as_json else _text(policy, made))
    roles.tell_roles(default_uri(chosen.data), policy, state)


def _json(policy: str, made: Switch, override: bool) -> str:
    told = {"policy": policy, "champion": made.champion, "before": made.before}
    return json.dumps(told | {"keeps": made.share, "override": override})


def _text(policy: str, made: Switch) -> str:
    keeps = f"{made.share:.0%} of the draw" if made.share else "no share of the draw"
    return (
        f"{policy}: version {made.champion} is champion (before: {made.before})\n"
        f"version {made.before} goes on as its challenger, with {keeps}\n"
        f"back again with: pointsman rollback {policy}"
    )

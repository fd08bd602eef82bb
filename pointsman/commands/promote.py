"""`pointsman promote`."""

from __future__ import annotations

import getpass
import time
from contextlib import closing

import click

from pointsman.commands import settings
from serving.embedded import running_url
from serving.store.operations import OperatorStore


@click.command(epilog=settings.help_text())
@click.argument("policy")
@click.argument("version")
@click.option("--override", is_flag=True, required=True, help="Promote without a passed gate.")
@click.option("--reason", required=True, help="Why; recorded with who and when.")
def command(policy: str, version: str, override: bool, reason: str) -> None:
    """Make a registered VERSION of POLICY the champion; serving switches within two seconds.

    The champion before goes on learning in its shadow, so the way back is the same.

    No gate is built yet, so the operator's override is the only way, and it is recorded.
    """
    chosen = settings.read()
    url = chosen.redis_url or running_url(chosen.data)
    with closing(OperatorStore(url, policy)) as store:
        now_ms = time.time_ns() // 1_000_000
        before = store.promote(version, getpass.getuser(), reason, now_ms)
    if before is None:
        raise click.ClickException(f"policy {policy!r} has no version {version!r}")
    click.echo(f"{policy}: version {version} is champion (before: {before or 'none'})")

"""`pointsman serve`."""

from __future__ import annotations

from typing import Any

import click

from pointsman.commands import settings
from serving.processes import up


@click.command(epilog=settings.help_text())
@settings.served
@click.option("--fd", type=int, hidden=True, help="Serve in this process, on an open socket.")
def command(fd: int | None, **given: Any) -> None:
    """Run serving processes only, against the Redis at POINTSMAN_REDIS_URL."""
    chosen = settings.begin("serving", **given)
    if not chosen.redis_url:
        raise click.UsageError("serve needs POINTSMAN_REDIS_URL; `pointsman up` starts a server")
    if fd is None:
        up.serve(chosen)
    else:
        up.serve_on(chosen, fd)

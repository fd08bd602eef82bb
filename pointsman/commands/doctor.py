"""`pointsman doctor`."""

from __future__ import annotations

import json

import click

from pointsman.commands import settings
from pointsman.doctor.examining import examine
from pointsman.doctor.finding import Finding

MARKS = {"ok": "ok      ", "warning": "warning ", "fault": "FAULT   "}


@click.command(epilog=settings.help_text())
@click.option("--mend", is_flag=True, help="Tell MLflow what it lacks of what Redis knows.")
@settings.as_json
def command(mend: bool, as_json: bool) -> None:
    """Look for what is wrong with a service, or will be: its configuration, Redis, learner,
    archiver, MLflow, clock, prices, disks.

    It changes nothing without --mend. Exit code 1 where there is a fault, 0 with warnings alone.
    """
    found = []
    for finding in examine(settings.read(), mend=mend):
        found.append(finding)
        if not as_json:
            click.echo(line(finding))
    if as_json:
        click.echo(json.dumps({"findings": [finding._asdict() for finding in found]}))
    faulty = any(finding.level == "fault" for finding in found)
    click.get_current_context().exit(1 if faulty else 0)


def line(finding: Finding) -> str:
    """For a person."""
    do = f" -> {finding.do}" if finding.do else ""
    return f"{MARKS[finding.level]}{finding.check}: {finding.what}{do}"

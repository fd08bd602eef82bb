"""`pointsman catalog`."""

from __future__ import annotations

import datetime
import json
import os
from collections import Counter
from pathlib import Path

import click

from pointsman.commands import settings
from pointsman.pricing import source as sources
from pointsman.pricing.checking import findings
from pointsman.pricing.editing import Listed, edited
from serving.processes.config_file import ConfigFile

MOST_REASONS = 5

_date = click.DateTime(["%Y-%m-%d"])
_on = click.option("--on", type=_date, help="The day whose prices count. [today, UTC]")
_dated = click.option("--dated", type=_date, help="How old the list is, if you know better.")
SOURCES = """SOURCE is `genai-prices` (that package, if installed), `litellm` or `models.dev` (their
lists on the web), or a file or URL with the JSON of one of these two."""


def _listed(source: str, on: datetime.date, dated: datetime.datetime | None) -> sources.PriceList:
    return sources.read(source, on, None if dated is None else dated.date())


def _day(given: datetime.datetime | None) -> datetime.date:
    return (given or datetime.datetime.now(datetime.UTC)).date()


@click.group()
def command() -> None:
    """Import arms from a price list, and check prices."""


@command.command(
    "import",
    help=f"""Make arms of a price list's models: a configuration for
`pointsman up`, or more arms in one.

{SOURCES}

With --to FILE, arms that the file has keep all but their prices, and stay as they are where they
were checked later than the list; the others are added. Else they are printed.""",
)
@click.argument("source")
@click.option(
    "--only", multiple=True, help='PROVIDER/MODEL, * for anything: "groq/*". May be repeated.'
)
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@click.option("--known", is_flag=True, help="Only the arms that the file has; add none.")
@_on
@_dated
@settings.as_json
def import_(
    source: str,
    only: tuple[str, ...],
    to: Path | None,
    known: bool,
    on: datetime.datetime | None,
    dated: datetime.datetime | None,
    as_json: bool,
) -> None:
    if known and (to is None or not to.exists()):
        raise click.UsageError("--known needs --to with a file that is there")
    chosen = _listed(source, _day(on), dated).matching(only)
    if not chosen.arms:
        why = ", ".join(sorted({str(entry) for entry in chosen.entries.values()}))
        raise click.ClickException(f"no arm can be made of that: {why}")
    text = to.read_text("utf-8") if to is not None and to.exists() else ""
    result = edited(text, str(to or "arms"), chosen.arms, add=not known)
    left_out = Counter(e for e in chosen.entries.values() if isinstance(e, str) and not known)
    told = {
        "source": chosen.source,
        "dated": chosen.dated.isoformat(),
        "new": result.new,
        "changed": result.changed,
        "unchanged": result.unchanged,
        "left_out": dict(left_out.most_common()),
    }
    if to is not None:
        beside = to.with_name(f"{to.name}.new")
        beside.write_text(result.text, "utf-8")
        os.replace(beside, to)  # a running service reads the old file or the new one
    if as_json:
        click.echo(json.dumps(told if to is not None else told | {"toml": result.text}))
        return
    if to is None:
        click.echo(result.text, nl=False)
    reasons = [f"{n} left out: {why}" for why, n in left_out.most_common(MOST_REASONS)]
    counts = (
        f"{result.new} new arms, {result.changed} with other prices, {result.unchanged} as before"
    )
    click.echo(f"{chosen.source} of {chosen.dated}: {'; '.join((counts, *reasons))}", err=True)


@command.command(
    help=f"""Name the arms whose prices are missing, old or, beside SOURCE, other than
a list has. Exit code 3 where there are any.

{SOURCES}"""
)
@click.argument("source", required=False)
@click.option("--config", type=click.Path(path_type=Path), help="[POINTSMAN_CONFIG]")
@click.option("--max-age", default=90, show_default=True, type=click.IntRange(0), help="In days.")
@_on
@_dated
@settings.as_json
def check(
    source: str | None,
    config: Path | None,
    max_age: int,
    on: datetime.datetime | None,
    dated: datetime.datetime | None,
    as_json: bool,
) -> None:
    arms = ConfigFile(settings.read(config=config).config).read().arms.arms
    listed = Listed(_listed(source, _day(on), dated).arms) if source else None
    found = findings(arms, _day(on), max_age, listed)
    if as_json:
        told = [finding._asdict() for finding in found]
        click.echo(json.dumps({"arms": len(arms), "findings": told}))
    else:
        for finding in found:
            click.echo(f"{finding.arm}: {finding.what}")
        named = len({finding.arm for finding in found})
        click.echo(f"{len(arms)} arms, {named} with something to look at", err=True)
    click.get_current_context().exit(3 if found else 0)

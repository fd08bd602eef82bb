"""`pointsman versions`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from pointsman.commands import settings
from serving.processes.config_file import ConfigFile
from serving.store.operations import OperatorStore

PROMOTIONS = ("initial", "promoted", "override", "rollback")
HEAD = ("version", "role", "model", "made", "gate", "became champion")

Row = Mapping[str, Any]


@click.command(epilog=settings.help_text())
@click.argument("policy", required=False)
@settings.as_json
def command(policy: str | None, as_json: bool) -> None:
    """Show the versions of POLICY, or of all policies in the configuration file: their roles, what
    the gate said of them, and who made them champion, when and why."""
    chosen = settings.read()
    names = [policy] if policy else sorted(ConfigFile(chosen.config).read().policies)
    found = {}
    for name in names:
        with settings.operating(chosen, name) as store:
            found[name] = rows(store)
    if as_json:
        told = [{"policy": name, "versions": versions} for name, versions in found.items()]
        click.echo(json.dumps({"policies": told}))
        return
    click.echo("\n\n".join(f"policy {name}\n{table(some)}" for name, some in found.items()))


def rows(store: OperatorStore) -> list[Row]:
    """The versions, each with how it last became champion, None where it never did."""
    promoted = {entry["version"]: entry for entry in store.audit(PROMOTIONS)}
    return [
        asdict(info) | {"promoted": _promoted(promoted.get(info.version))}
        for info in store.versions()
    ]


def _promoted(entry: Mapping[str, str] | None) -> Row | None:
    if entry is None:
        return None
    names = ("kind", "who", "why", "before")
    return {name: entry.get(name) for name in names} | {"at_ms": int(entry["at_ms"])}


def table(found: Sequence[Row]) -> str:
    """For a person; times are UTC."""
    lines = [HEAD, *map(_cells, found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    gate = row["gate"]
    judged = "-"
    if gate is not None:
        judged = f"{gate['verdict']} against {gate['champion']}, {_time(gate['at_ms'])}"
    return (
        row["version"],
        row["role"] or "-",
        row["model"],
        _time(row["made_at_ms"]),
        judged,
        _told(row["promoted"]),
    )


def _told(promoted: Row | None) -> str:
    if promoted is None:
        return "-"
    who = f" by {promoted['who']}" if promoted["who"] else ""
    why = f": {promoted['why']}" if promoted["why"] else ""
    return f"{_time(promoted['at_ms'])}, {promoted['kind']}{who}{why}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")

"""`pointsman export-log`."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import click

from offline_eval.importing import to_dsjson
from offline_eval.log.reading import read_rows
from serving.processes.config_file import ConfigFile


@click.command()
@click.argument("path")
@click.option(
    "--format",
    "_format",
    type=click.Choice(["dsjson"]),
    default="dsjson",
    show_default=True,
    help="dsjson: Azure Personalizer, Vowpal Wabbit.",
)
@click.option("--to", "file", type=click.Path(path_type=Path), help="[standard output]")
@click.option("--policy", help="Only this policy's rows.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="The pointsman.toml whose arms and references for latency and cost apply. Without it, the"
    " reward is the quality.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; needs --to.")
def command(
    path: str,
    _format: str,
    file: Path | None,
    policy: str | None,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Write the log at PATH in another service's format, for `vw --dsjson --cb_adf` say."""
    if as_json and file is None:
        raise click.UsageError("--json needs --to: standard output takes the log or the figures")
    config = None if config_file is None else ConfigFile(config_file).read()
    scales = {name: one.scales for name, one in config.policies.items()} if config else None
    rows = read_rows(path, policy)
    count = 0
    with nullcontext(sys.stdout) if file is None else file.open("w", encoding="utf-8") as out:
        for line in to_dsjson.write(rows, config.arms if config else None, scales):
            out.write(line + "\n")
            count += 1
    if as_json:
        click.echo(json.dumps({"rows": count, "file": str(file)}))
    elif file is not None:
        click.echo(f"{count:,} rows in {file}", err=True)

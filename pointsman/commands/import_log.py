"""`pointsman import-log`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from offline_eval.importing import columns, dsjson, obd, source, table
from offline_eval.importing.rows import Range, Skipped
from offline_eval.importing.table import Given
from offline_eval.log.writing import write_log
from pointsman.commands.settings import progress
from pointsman.trying.routers import Tick
from policy.records import LoggedDecision

SHOWN = 10  # skipped lines that are named; with --json a hundred
SHOWN_JSON = 100
PROPENSITIES = {
    "logged": "",
    "estimated": (
        "propensities are estimated from the log, and marked so: right only if choices depended on"
        " nothing but the labels, the task type and the text"
    ),
    "unknown": (
        "without propensities: the direct method alone can value this log. --propensities estimated"
        " makes some of what was chosen, right only if choices depended on nothing but the labels,"
        " the task type and the text"
    ),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given."""

    files: tuple[Path, ...]
    path: str
    form: str
    policy: str
    arm_id: str | None
    reward_range: tuple[float, float]
    columns_file: Path | None
    column: tuple[str, ...]
    propensities: str
    as_json: bool

    @property
    def rewards(self) -> Range:
        return Range(*self.reward_range)

    def columns(self) -> dict[str, Any]:
        """What file and options say of a table's columns; options overrule."""
        said: dict[str, Any] = {}
        if self.columns_file is not None:
            try:
                text = self.columns_file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise click.ClickException(f"{self.columns_file}: can't be read: {error}") from None
            said = columns.parse(text, str(self.columns_file))
        return said | columns.options(self.column)


Found = Iterator[tuple[Path, LoggedDecision | Skipped]]


class _Imported:
    """Passes rows on and counts what goes by."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self.skipped: list[tuple[Path, Skipped]] = []
        self.arms: set[str] = set()
        self.rows = self.unused = self.rewarded = 0
        self.total = 0.0
        self.propensities = "logged"

    def __iter__(self) -> Iterator[LoggedDecision]:
        for file, row in self._found:
            if isinstance(row, Skipped):
                self.skipped.append((file, row))
            else:
                self._count(row)
                yield row

    def _count(self, row: LoggedDecision) -> None:
        self.rows += 1
        self.unused += not row.outcome.executed
        self.arms.update(row.decision.arms)
        if math.isnan(row.decision.propensity):
            self.propensities = "unknown"
        elif row.propensity_estimated:
            self.propensities = "estimated"
        if row.outcome.quality is not None:
            self.rewarded += 1
            self.total += row.outcome.quality

    def figures(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "unused": self.unused,
            "arms": len(self.arms),
            "mean_reward": self.total / self.rewarded if self.rewarded else None,
            "propensities": self.propensities,
            "skipped": len(self.skipped),
            "skipped_lines": [
                {"file": str(file), "line": one.line, "reason": one.reason}
                for file, one in self.skipped[:SHOWN_JSON]
            ],
        }


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option("--to", "path", required=True, help="The log: a folder, or a URI such as s3://...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["dsjson", "obd", "table"]),
    default="dsjson",
    show_default=True,
    help="dsjson: Azure Personalizer, Vowpal Wabbit. obd: Open Bandit Dataset. table: CSV, Parquet"
    " or JSON lines, a row per choice.",
)
@click.option("--policy", default="imported", show_default=True, help="Its name in the log.")
@click.option(
    "--arm-id",
    metavar="POINTER",
    help="dsjson: where an action's features hold its id, a JSON pointer. [_tag, an id, else a"
    " digest]",
)
@click.option(
    "--reward-range",
    type=(float, float),
    default=(0.0, 1.0),
    metavar="MIN MAX",
    help="dsjson, table: put these rewards to 0 to 1. [0 1]",
)
@click.option(
    "--column",
    multiple=True,
    metavar="ROLE=COLUMN",
    help=f"table: which column says what; repeat it. Roles: {', '.join(columns.ROLES)}."
    " propensity=p_* takes one column per arm. [columns called like their role; no labels]",
)
@click.option(
    "--columns",
    "columns_file",
    type=click.Path(path_type=Path),
    help="table: likewise, from a TOML of ROLE = COLUMN.",
)
@click.option(
    "--propensities",
    type=click.Choice(["unknown", "estimated"]),
    default="unknown",
    show_default=True,
    help="table: what they are where no column holds them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(**given: Any) -> None:
    """Make a log of what another decision service has logged in FILES.

    A FILE may be packed by gzip or zstd; - is standard input. Lines that hold no decision of one
    arm out of many are skipped, and named with the reason. Importing the same files again replaces
    their rows.
    """
    options = Options(**given)
    try:
        read = READERS[options.form](options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with progress(sum(map(source.size, options.files))) as tick:
        imported = _Imported(read(tick))
        write_log(imported, options.path)
    if options.as_json:
        click.echo(json.dumps(imported.figures()))
    else:
        click.echo(_summary(imported, options.path))
    if not imported.rows:
        raise click.ClickException("no line holds a decision")


Read = Callable[[Tick], Found]


def _of_dsjson(options: Options) -> Read:
    reader = dsjson.Reader(options.policy, options.arm_id, options.rewards)

    def read(tick: Tick) -> Found:
        seen: set[str] = set()
        for file in options.files:
            with source.opened(file, tick) as lines:
                for row in reader.read(lines, source=source.name(file), seen=seen):
                    yield file, row

    return read


def _of_obd(options: Options) -> Read:
    def read(tick: Tick) -> Found:
        for file in options.files:
            feedback = obd.read(file)
            done, size = 0, source.size(file)
            for i, row in enumerate(obd.rows(feedback, options.policy), start=1):
                tick(size * i // len(feedback) - done)
                done = size * i // len(feedback)
                yield file, row

    return read


def _of_table(options: Options) -> Read:
    estimate = options.propensities == "estimated"
    reader = table.Reader(options.policy, options.columns(), options.rewards, estimate)

    def read(tick: Tick) -> Found:
        seen: set[str] = set()
        kept: list[Given] = []
        of: list[Path] = []
        for file in options.files:
            try:
                for one in reader.read(source.records(file, tick), source.name(file), seen):
                    if isinstance(one, Skipped):
                        yield file, one
                    else:
                        kept.append(one)
                        of.append(file)
            except columns.ColumnError as error:
                raise click.ClickException(f"{file}: {error}") from None
        yield from zip(of, reader.rows(kept), strict=True)

    return read


READERS = {"dsjson": _of_dsjson, "obd": _of_obd, "table": _of_table}


def _summary(imported: _Imported, path: str) -> str:
    figures = imported.figures()
    mean = figures["mean_reward"]
    unused = f", {imported.unused:,} of them never used" if imported.unused else ""
    lines = [
        f"{imported.rows:,} rows in {path}{unused}",
        f"{len(imported.arms)} arms, mean reward " + ("unknown" if mean is None else f"{mean:.4f}"),
    ]
    lines += filter(None, [PROPENSITIES[imported.propensities]])
    if imported.skipped:
        lines.append(f"{len(imported.skipped):,} lines skipped:")
        lines += [f"  {file}:{one.line}: {one.reason}" for file, one in imported.skipped[:SHOWN]]
        more = len(imported.skipped) - SHOWN
        lines += [f"  and {more:,} more"] if more > 0 else []
    return "\n".join(lines)

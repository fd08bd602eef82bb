"""`pointsman import-log`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from offline_eval.importing import obd
from offline_eval.importing.dsjson import Reader
from offline_eval.importing.rows import Range, Skipped
from offline_eval.log.writing import write_log
from pointsman.commands.settings import progress
from pointsman.trying.routers import Tick
from policy.records import LoggedDecision

SHOWN = 10  # skipped lines that are named; with --json a hundred
SHOWN_JSON = 100

Read = Callable[[Path, Tick], Iterator[LoggedDecision | Skipped]]


class _Imported:
    """Passes rows on and counts what goes by."""

    def __init__(self, read: Read, files: Sequence[Path], tick: Tick) -> None:
        self._read, self._files, self._tick = read, files, tick
        self.skipped: list[tuple[Path, Skipped]] = []
        self.arms: set[str] = set()
        self.rows = self.unused = self.rewarded = 0
        self.total = 0.0

    def __iter__(self) -> Iterator[LoggedDecision]:
        for file in self._files:
            for row in self._read(file, self._tick):
                if isinstance(row, Skipped):
                    self.skipped.append((file, row))
                else:
                    self._count(row)
                    yield row

    def _count(self, row: LoggedDecision) -> None:
        self.rows += 1
        self.unused += not row.outcome.executed
        self.arms.update(row.decision.arms)
        if row.outcome.quality is not None:
            self.rewarded += 1
            self.total += row.outcome.quality

    def figures(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "unused": self.unused,
            "arms": len(self.arms),
            "mean_reward": self.total / self.rewarded if self.rewarded else None,
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
    "_format",
    type=click.Choice(["dsjson", "obd"]),
    default="dsjson",
    show_default=True,
    help="dsjson: Azure Personalizer, Vowpal Wabbit. obd: Open Bandit Dataset.",
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
    help="dsjson: put these rewards to 0 to 1. [0 1]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    files: tuple[Path, ...],
    path: str,
    _format: str,
    policy: str,
    arm_id: str | None,
    reward_range: tuple[float, float],
    as_json: bool,
) -> None:
    """Make a log of what another decision service has logged in FILES.

    Lines that hold no decision of one arm out of many are skipped, and named with the reason.
    Importing the same files again replaces their rows.
    """
    try:
        reader = Reader(policy, arm_id, Range(*reward_range))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    read = _of_obd(policy) if _format == "obd" else _of_dsjson(reader)
    with progress(sum(file.stat().st_size for file in files)) as tick:
        imported = _Imported(read, files, tick)
        write_log(imported, path)
    if as_json:
        click.echo(json.dumps(imported.figures()))
    else:
        click.echo(_summary(imported, path))
    if not imported.rows:
        raise click.ClickException("no line holds a decision")


def _of_dsjson(reader: Reader) -> Read:
    seen: set[str] = set()

    def lines(file: Path, tick: Tick) -> Iterator[bytes]:
        with file.open("rb") as lines:
            for line in lines:
                tick(len(line))
                yield line

    return lambda file, tick: reader.read(lines(file, tick), source=file.stem, seen=seen)


def _of_obd(policy: str) -> Read:
    def read(file: Path, tick: Tick) -> Iterator[LoggedDecision]:
        feedback = obd.read(file)
        done, size = 0, file.stat().st_size
        for i, row in enumerate(obd.rows(feedback, policy), start=1):
            tick(size * i // len(feedback) - done)
            done = size * i // len(feedback)
            yield row

    return read


def _summary(imported: _Imported, path: str) -> str:
    figures = imported.figures()
    mean = figures["mean_reward"]
    unused = f", {imported.unused:,} of them never used" if imported.unused else ""
    lines = [
        f"{imported.rows:,} rows in {path}{unused}",
        f"{len(imported.arms)} arms, mean reward " + ("unknown" if mean is None else f"{mean:.4f}"),
    ]
    if imported.skipped:
        lines.append(f"{len(imported.skipped):,} lines skipped:")
        lines += [f"  {file}:{one.line}: {one.reason}" for file, one in imported.skipped[:SHOWN]]
        more = len(imported.skipped) - SHOWN
        lines += [f"  and {more:,} more"] if more > 0 else []
    return "\n".join(lines)

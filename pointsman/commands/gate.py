"""`pointsman gate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from offline_eval.gate.verdict import Check
from offline_eval.registry import default_uri
from pointsman.commands import settings
from pointsman.promotion import asking, pictures, roles
from pointsman.promotion.asking import Judged
from pointsman.promotion.report import html

EXIT_CODES = {"pass": 0, "fail": 3, "undecided": 4}


@click.command(epilog=settings.help_text())
@click.argument("policy")
@click.argument("version", required=False)
@click.option("--log", "path", help="Where the log is. [POINTSMAN_LOG]")
@click.option(
    "--alpha",
    type=settings.Finite(0.0, 1.0, min_open=True, max_open=True),
    help="A smaller chance that a version that is never better passes, than gate.alpha has it.",
)
@click.option(
    "--report",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write the report with its plots here as well.",
)
@click.option("--no-mlflow", is_flag=True, help="Tell MLflow nothing: a quick look.")
@settings.as_json
@click.pass_context
def command(
    ctx: click.Context,
    policy: str,
    version: str | None,
    path: str | None,
    alpha: float | None,
    file: Path | None,
    no_mlflow: bool,
    as_json: bool,
) -> None:
    """Ask whether VERSION of POLICY (its challenger, when left out) may become champion.

    It is judged on the log since arms or prices last changed, against the version that serves now:
    by what it did in its shadow, or, where it never ran there, by what its snapshot would have done
    since it was trained. You may ask after every row: a version that is never better passes with
    probability gate.alpha at most, however often it is asked. What the gate asks for is set in
    [policies.NAME.gate] of the configuration file.

    The verdict is recorded, and `pointsman promote` needs it to be a pass. Version and report go to
    MLflow (MLFLOW_TRACKING_URI, else a SQLite store in POINTSMAN_DATA) as well.

    Exit code 0 is pass, 3 fail, 4 undecided, 1 that it couldn't be judged.
    """
    chosen = settings.read()
    _, wanted = settings.policy_of(chosen, policy)
    now_ms = settings.now_ms()
    with settings.operating(chosen, policy) as store:
        version = version or settings.challenger_of(store)
        path = path or chosen.log_path()
        judged = asking.judge(store, policy, wanted, version, path, now_ms, alpha)
        run = None
        if file is not None or not no_mlflow:
            report = pictures.report(judged, path, now_ms)
        if not no_mlflow:
            run = roles.tell_verdict(default_uri(chosen.data), store, judged, report)
        store.record_gate(version, judged.record(run), now_ms)
    if file is not None:
        file.write_text(html(report), "utf-8")
        click.echo(f"wrote {file}", err=True)
    click.echo(json.dumps(asking.told(judged)) if as_json else text(judged))
    ctx.exit(EXIT_CODES[judged.verdict.verdict])


def text(judged: Judged) -> str:
    """A verdict for a person to read."""
    how = "in its shadow" if judged.case.candidate is None else "by its snapshot, which didn't run"
    lines = [
        f"policy {judged.policy}: version {judged.version} against champion {judged.champion}, "
        f"{how}, on {len(judged.case.data):,} rows",
        f"verdict: {judged.verdict.verdict}",
        *(f"  {reason}" for reason in judged.verdict.reasons),
        "checks:",
        *map(_check, judged.verdict.checks),
    ]
    return "\n".join((*lines, *_next(judged)))


def _check(check: Check) -> str:
    return f"  {check.state:<13}  {check.name}: {check.text.removeprefix(f'{check.name}: ')}"


def _next(judged: Judged) -> list[str]:
    verdict, policy, version = judged.verdict, judged.policy, judged.version
    if verdict.verdict == "pass":
        return [f"next: pointsman promote {policy} {version}"]
    if judged.case.candidate is not None:
        return [f"to let it run in shadow: pointsman challenge {policy} {version}"]
    if verdict.share is not None and judged.case.data.share[-1] < verdict.share:
        return [
            f"to give it a share: pointsman challenge {policy} {version} --share {verdict.share:g}"
        ]
    return []

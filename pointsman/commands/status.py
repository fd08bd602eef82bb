"""`pointsman status`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import click

from pointsman.commands import settings
from pointsman_client import Client, PointsmanError

Body = Mapping[str, Any]

UNITS = {
    "reward": "{:.4f}",
    "quality": "{:.4f}",
    "latency_ms": "{:.0f} ms",
    "cost_usd": "USD {:.6f}",
}


@click.command(epilog=settings.help_text())
@click.argument("policy", required=False)
@click.option("--url", help="Where the service runs. [http://POINTSMAN_HOST:POINTSMAN_PORT]")
@settings.as_json
def command(policy: str | None, url: str | None, as_json: bool) -> None:
    """Show POLICY, or all policies: the champion, and how the challenger that learns in its shadow
    compares.

    Agreement is how often the challenger would have done the same. What it would have earned is
    estimated from the champion's own decisions, weighted by how likely the challenger was to make
    them; where the champion never tries what the challenger prefers, that can't be known.
    """
    chosen = settings.read()
    try:
        with closing(Client(url or settings.url(chosen))) as client:
            found = client.policies()
    except PointsmanError as error:
        raise click.ClickException(str(error)) from error
    if policy is not None:
        found = [body for body in found if body["policy"] == policy]
        if not found:
            raise click.ClickException(f"no policy {policy!r} runs there")
    click.echo(json.dumps({"policies": found}) if as_json else "\n\n".join(map(text, found)))


def text(body: Body) -> str:
    """One policy for a person to read."""
    head = (
        f"policy {body['policy']}: champion is version {body['champion']} ({body['model']}), "
        f"snapshot {body['snapshot']}, {body['events']:,} outcomes learned"
    )
    alarm, challenger = body["alarm"], body["challenger"]
    if alarm is not None:
        head += (
            f"\n  it is shown to be worse than version {alarm['previous']}, which it replaced: "
            f"{'; '.join(alarm['reasons'])}\n  to go back: pointsman rollback {body['policy']}"
        )
    if (budget := body["budget"]) is not None:
        head += "\n  " + _budget(budget)
    if challenger is None:
        return head
    return "\n".join((head, *_challenger(body["policy"], challenger)))


def _budget(body: Body) -> str:
    until = datetime.fromtimestamp(body["until_ms"] / 1000, UTC)
    pace = "" if body["pace"] is None else f", {body['pace']:.0%} of what was due by now"
    said = (
        f"budget of {body['usd']:g} USD a {body['per']}: {body['spent_usd']:.4g} USD spent{pace}; "
        f"until {until:%Y-%m-%d %H:%M} UTC"
    )
    return said if body["can_be_kept"] else f"{said}\n  it can't be kept: {body['why']}"


def _challenger(policy: str, body: Body) -> list[str]:
    share = f"{body['share']:.0%} of the draw" if body["share"] else "no share of the draw"
    left_out = (
        f" ({body['other_arm']:,} more ran another arm and are left out)"
        if body["other_arm"]
        else ""
    )
    lines = [
        f"  challenger is version {body['version']} ({body['model']}), in shadow, {share}; "
        f"{body['events']:,} outcomes learned",
        f"  compared over {body['decisions']:,} decisions with an outcome{left_out}",
    ]
    if body["decisions"]:
        lines += [*_agreement(body), *_estimates(body["estimates"])]
    return [
        *lines,
        "  to let it take over, once it is shown to be better:",
        f"    pointsman gate {policy} {body['version']}",
        f"    pointsman promote {policy} {body['version']}",
    ]


def _agreement(body: Body) -> list[str]:
    agreement = body["agreement"]
    return [
        f"  agrees in {agreement['most_probable']:.1%} of them: the arm that acted was its most "
        f"probable one (it gave that arm {agreement['probability']:.1%} on average)"
    ]


def _estimates(estimates: Mapping[str, Body]) -> list[str]:
    """What it would have earned against what was earned, or why that can't be known."""
    told = {name: one for name, one in estimates.items() if one["champion"]["value"] is not None}
    lines = [_estimate(name, one) for name, one in told.items()]
    known = [one["challenger"]["ess"] for one in told.values() if one["why"] is None]
    if known:
        lines.append(f"  (± one standard error; weighted, these are worth {min(known):,.0f})")
    reward = estimates["reward"]
    return lines if reward["why"] is None else [*lines, f"  unknown, because {reward['why']}"]


def _estimate(name: str, one: Body) -> str:
    earned = UNITS[name].format(one["champion"]["value"])
    if one["why"] is not None:
        return f"  {name}: would have been unknown, was {earned}"
    would, difference = (_figure(UNITS[name], one[of]) for of in ("challenger", "difference"))
    return f"  {name}: would have been {would}, was {earned}; difference {difference}"


def _figure(unit: str, figure: Body) -> str:
    value = unit.format(figure["value"])
    return value if figure["se"] is None else f"{value} ± {unit.format(figure['se'])}"

"""GET /: what this is, its state, and where to go, on one page that loads nothing else."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, Request, Response

from policy.policy import Policy
from serving.observing.readiness import NotReady
from serving.routes import bodies
from serving.service import Service

router = APIRouter(include_in_schema=False)

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 3rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8886 }
.wrong { border-left: 4px solid #c33; padding-left: .8rem }
"""
COLUMNS = ("policy", "model", "champion", "snapshot", "outcomes learned", "challenger")
LINKS = {
    "docs": "every path and field, to read and to try",
    "policies": "the running policies, as JSON",
    "arms": "the arms of the catalog in force, as JSON",
    "metrics": "figures for Prometheus",
    "readyz": "whether it can decide and log",
}


@router.get("/")
async def page(request: Request) -> Response:
    service: Service = request.app.state.service
    try:
        amiss = request.app.state.readiness.check()
        state = "<p>Ready: it decides and logs."
        if amiss is not None:
            state = f"<p class=wrong>It decides, but doesn't log: {escape(amiss)}."
    except NotReady as error:
        state = f"<p class=wrong>Not ready: {escape(str(error))}."
    caller = bodies.caller(request)
    shown = [policy for policy in service.policies.values() if caller.may(policy.name)]
    body = _html(request.app.version, state, shown)
    # Nothing from another host, and no script at all.
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(body, headers=headers, media_type="text/html")


def _html(version: str, state: str, policies: list[Policy]) -> str:
    head = "".join(f"<th>{name}" for name in COLUMNS)
    rows = "".join(f"<tr>{_row(policy)}" for policy in policies)
    links = "".join(f'<li><a href="{to}">/{to}</a>: {what}' for to, what in LINKS.items())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Pointsman</title><style>{STYLE}</style>
<h1>Pointsman</h1>
<p>Learns, per query, which of your models is worth sending it to. Ask <code>POST /route</code>
which arm should take a query; tell <code>POST /reward</code> what came of it.
<h2>State</h2>
{state}
<table><tr>{head}{rows}</table>
<h2>Where to go</h2>
<ul>{links}</ul>
<p><small>Version {escape(version)}</small>
"""


def _row(policy: Policy) -> str:
    other = policy.challenger
    shadow = "none" if other is None else f"version {other.version}, {policy.share:.0%} of the draw"
    cells = (
        policy.name,
        policy.config.model,
        f"version {policy.version}",
        policy.snapshot or "none yet",
        f"{policy.events:,}",
        shadow,
    )
    return "".join(f"<td>{escape(str(cell))}" for cell in cells)

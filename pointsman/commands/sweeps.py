"""`pointsman evaluate --sweep`: many configurations, compared on one log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from offline_eval.estimating import rounds, sweep, target
from offline_eval.estimating.estimators import Estimate
from offline_eval.estimating.intervals import Interval
from offline_eval.estimating.sweep import Comparison
from pointsman.commands import logs
from pointsman.commands.logs import Opened, aligned, between, figure
from pointsman.commands.targets import Split
from policy.config.schema import PolicyConfig
from policy.config.variants import variants

SHOWN = 20  # candidates of a sweep; --json has all
MARKED = "(! not to be trusted: few rows carry the estimate, or its terms don't know its bias)"


def candidates(file: Path | None, log: Opened) -> Mapping[str, PolicyConfig]:
    if file is None:
        return {}
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: can't be read: {error}") from error
    return variants(text, str(file), log.policy, log.config.arms)


def compared(
    values: Mapping[str, Estimate], split: Split, estimator: str
) -> tuple[Comparison | None, dict[str, str]]:
    """Those that have a value, against the logging policy; and why the others have none."""
    if split.valued.propensities == "unknown":
        raise click.ClickException(
            f"--sweep: {rounds.UNKNOWN}, and so no policy is to compare with"
        )
    refused = {name: str(one.why) for name, one in values.items() if one.value is None}
    some = {name: one for name, one in values.items() if one.value is not None}
    made = rounds.of(split.valued, target.logged(split.valued), split.reward, split.q)
    logged = rounds.estimates(made)[estimator]
    if not some or logged.value is None:
        return None, refused
    ids = [split.valued.decision_ids[i] for i in made.at]
    terms = np.stack([one.terms for one in some.values()], axis=1)
    doubts = [one.doubt or logged.doubt for one in some.values()]
    return sweep.compare(list(some), terms, logged.terms, ids, doubts=doubts), refused


def text(compared: Comparison | None, refused: Mapping[str, str], estimator: str) -> list[str]:
    if compared is None:
        return [f"{name}: {why}" for name, why in refused.items()]
    order = np.argsort([-one.estimate for one in compared.values], kind="stable").tolist()
    rows = [["candidate", estimator, "95% interval", "lead over the log", "95% interval"]]
    for i in order[:SHOWN]:
        value, lead = compared.values[i], compared.leads[i]
        name, values = compared.names[i], (figure(value.estimate), _marked(value))
        rows.append([name, *values, f"{lead.estimate:+.4f}", _marked(lead)])
    more = len(order) - SHOWN
    lead = compared.lead
    return [
        "",
        *aligned(rows),
        *([f"and {more:,} more"] if more > 0 else []),
        f"(intervals hold for all {len(order)} together)",
        *([MARKED] if any("!" in cell for row in rows for cell in row) else []),
        *(f"{name}: {why}" for name, why in refused.items()),
        "",
        f"best: {lead.winner}, which seems to lead by {lead.naive.estimate:+.4f}"
        f" ({_marked(lead.naive)}, whoever wins)",
        f"of that, {lead.selection:+.4f} is selection: chosen on some rows and valued on others,"
        f" the winner leads by {lead.honest:+.4f}; {lead.agreement:.0%} of the choices agree",
        sweep.NOTE,
    ]


def _marked(interval: Interval) -> str:
    return between(interval) + ("!" if interval.warning and math.isfinite(interval.low) else "")


def figures(
    compared: Comparison | None, refused: Mapping[str, str], file: Path | None
) -> dict[str, Any]:
    if file is None:
        return {}
    told: dict[str, Any] = {"candidates": {}, "not_evaluable": dict(refused), "note": sweep.NOTE}
    if compared is not None:
        each = zip(compared.names, compared.values, compared.leads, strict=True)
        told["candidates"] = {
            name: {"reward": logs.interval_figures(value), "lead": logs.interval_figures(lead)}
            for name, value, lead in each
        }
        told["best"] = {
            "candidate": compared.lead.winner,
            "naive_lead": logs.interval_figures(compared.lead.naive),
            "honest_lead": {"value": compared.lead.honest},
            "selection": compared.lead.selection,
            "agreement": compared.lead.agreement,
        }
    return {"sweep": told}

"""Quality against cost and latency per task type: of arms, and of a policy under other weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pointsman.plots.canvas import ALARM, GREY, blank

Body = Mapping[str, Any]
COLUMNS = 3
FEW = 12  # arms that all have their intervals drawn; of more, those that none beats have
APART = (0.6, 0.05)  # decades of cost, or quality, between arms that are named
MARKERS = {
    "own": "o",
    "ultra_fast": ">",
    "fast": "^",
    "balanced": "D",
    "quality": "*",
    "cheap": "s",
}
FREE = 1e-7  # USD, where a logarithmic axis shows what costs nothing


def frontier(body: Body) -> Figure:
    """What `GET /policies/NAME/frontier` answers: a panel per task type, cost on a logarithmic
    axis, latency as colour, intervals as bars. Arms whose quality nobody knows are left out."""
    tasks = [task for task in body["task_types"] if _seen(task["arms"])]
    columns, rows = min(max(len(tasks), 1), COLUMNS), max(math.ceil(len(tasks) / COLUMNS), 1)
    figure = blank(1.5 + 4.5 * columns, 1.4 + 3.4 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    points = [point for task in tasks for of in ("arms", "policies") for point in _seen(task[of])]
    colour = _colours(points)
    for axes, task in zip(panels, tasks, strict=False):
        _panel(axes, task, colour)
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel("quality")
    bar = figure.colorbar(colour, ax=panels.tolist(), label="latency (ms)", shrink=0.6)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    bar.ax.yaxis.set_major_formatter("{x:,.0f}")
    bar.ax.yaxis.set_minor_locator(NullLocator())
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(
        f"policy {body['policy']}, version {body['version']}: what {body['events']:,} outcomes "
        f"tell (bars: {body['probability']:.0%} intervals)",
        fontsize="medium",
    )
    return figure


def _seen(points: Sequence[Body]) -> list[Body]:
    """Those that have a place in the picture."""
    return [p for p in points if None not in (p["quality"]["mean"], p["cost_usd"]["mean"])]


def _colours(points: Sequence[Body]) -> ScalarMappable:
    """From latency to colour, logarithmic over what there is; grey where it isn't known."""
    known = [latency for point in points if (latency := point["latency_ms"]["mean"])]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    map_ = mpl.colormaps["viridis"].with_extremes(bad="lightgrey")
    return ScalarMappable(LogNorm(low, max(high, 1.01 * low)), map_)


def _panel(axes: Axes, task: Body, colour: ScalarMappable) -> None:
    arms, policies = _seen(task["arms"]), _seen(task["policies"])
    for best, size in ((True, 7.0), (False, 3.5)):
        label = "an arm; small: another one is better in all"
        for arm in (arm for arm in arms if arm["best"] == best):
            _draw(axes, arm, colour, "o", markersize=size, label=label if best else None)
            if best or len(arms) <= FEW:
                _bars(axes, arm)
            label = "_" + label
    for arm in _named([arm for arm in arms if arm["best"]]):
        at = (_cost(arm), arm["quality"]["mean"])
        axes.annotate(arm["arm"], at, (5, 4), textcoords="offset points", fontsize="x-small")
    trades = [p for p in policies if p["name"].startswith("cost ") or p["name"] == "quality"]
    trades.sort(key=_cost)
    line = [_cost(p) for p in trades], [p["quality"]["mean"] for p in trades]
    axes.plot(*line, color=ALARM, linewidth=1, label="the policy, quality against cost")
    for point in policies:
        if marker := MARKERS.get(point["name"]):
            style = {"markersize": 8.0, "markeredgecolor": ALARM, "markeredgewidth": 1.3}
            _draw(axes, point, colour, marker, label=f"its {point['name']}", zorder=4, **style)
            _bars(axes, point)
    axes.set(xscale="log", xlabel="cost of a call (USD)")
    axes.margins(x=0.15)
    axes.set_title(task["task_type"], fontsize="medium")
    axes.grid(alpha=0.3)


def _cost(point: Body) -> float:
    return max(float(point["cost_usd"]["mean"]), FREE)


def _named(arms: Sequence[Body]) -> list[Body]:
    """Those of the highest quality that lie far enough apart for their names."""
    found: list[Body] = []
    for arm in sorted(arms, key=lambda arm: -float(arm["quality"]["mean"])):
        if all(
            abs(math.log10(_cost(arm) / _cost(other))) > APART[0]
            or abs(arm["quality"]["mean"] - other["quality"]["mean"]) > APART[1]
            for other in found
        ):
            found.append(arm)
    return found


def _draw(axes: Axes, point: Body, colour: ScalarMappable, marker: str, **style: Any) -> None:
    latency = point["latency_ms"]["mean"] or math.nan
    face = colour.to_rgba(np.ma.masked_invalid([latency]))[0]
    at = _cost(point), point["quality"]["mean"]
    axes.plot(*at, marker, color=face, **{"zorder": 3, **style})


def _bars(axes: Axes, point: Body) -> None:
    """Its intervals, where there are any."""
    x, quality, cost = _cost(point), point["quality"], point["cost_usd"]
    style: dict[str, Any] = {"color": GREY, "linewidth": 0.7, "alpha": 0.5, "zorder": 1}
    if quality["low"] is not None:
        axes.plot([x, x], [quality["low"], quality["high"]], **style)
    if cost["low"] is not None:
        ends = [max(cost["low"], FREE), max(cost["high"], FREE)]
        axes.plot(ends, [quality["mean"]] * 2, **style)

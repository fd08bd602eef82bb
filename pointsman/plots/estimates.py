"""Estimates with their intervals, and where these can't be trusted or there are none."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from offline_eval.estimating.estimators import Estimate
from offline_eval.estimating.intervals import Interval
from pointsman.plots.canvas import ALARM, BLUE, GREY, blank, colours

WRAPPED = 100  # characters of a reason, per line

Row = Estimate | Interval
"""An interval is drawn as it is, an estimate with the Student-t interval of its terms."""


def values(
    rows: Mapping[str, Row],
    alpha: float = 0.05,
    lines: Mapping[str, float] | None = None,
    quantity: str = "mean reward",
) -> Figure:
    """One row per policy or estimator: point, interval and both in figures. An interval that can't
    be trusted is dashed and says why, what can't be evaluated is named with the reason. `lines` are
    levels to see them by."""
    figure = blank(9, 1.4 + 0.55 * len(rows))
    axes = figure.subplots()
    for y, row in enumerate(rows.values()):
        interval = _interval(row, alpha)
        if interval is None:
            assert isinstance(row, Estimate)
            _reason(axes, y, f"not evaluable: {row.why}", GREY)
            continue
        _bar(axes, y, interval, BLUE if interval.warning is None else ALARM)
        _told(axes, y, interval)
        if interval.warning is not None:
            _reason(axes, y + 0.33, interval.warning, ALARM)
    for (name, level), style in zip((lines or {}).items(), ("--", "-.", ":"), strict=False):
        axes.axvline(level, color=GREY, linestyle=style, label=f"{name}: {level:.3f}")
    _as_rows(axes, list(rows))
    axes.set_xlabel(quantity)
    _legend(figure, axes, alpha)
    return figure


def reward_by_task(
    series: Mapping[str, Mapping[str, Row]], alpha: float = 0.05, quantity: str = "mean reward"
) -> Figure:
    """Per task type, one point and interval for each arm, version or policy: series -> task -> row.
    Hollow and dashed where the interval can't be trusted; a cross at the edge where a task can't be
    evaluated."""
    tasks = list(dict.fromkeys(task for rows in series.values() for task in rows))
    figure = blank(9, 1.6 + len(tasks) * (0.3 + 0.2 * len(series)))
    axes = figure.subplots()
    offsets = (np.arange(len(series)) - (len(series) - 1) / 2) * 0.8 / max(len(series), 1)
    for (name, rows), colour, offset in zip(
        series.items(), colours(len(series)), offsets.tolist(), strict=True
    ):
        axes.plot([], [], "o", color=colour, label=name)
        for task, row in rows.items():
            y = tasks.index(task) + offset
            interval = _interval(row, alpha)
            if interval is None:
                across = axes.get_yaxis_transform()
                axes.plot(0.01, y, "x", color=colour, transform=across, clip_on=False)
            else:
                _bar(axes, y, interval, colour)
    _as_rows(axes, tasks)
    axes.set_xlabel(quantity)
    for y in range(1, len(tasks)):
        axes.axhline(y - 0.5, color=GREY, linewidth=0.5, alpha=0.5)
    _legend(figure, axes, alpha, crosses=True)
    return figure


def _interval(row: Row, alpha: float) -> Interval | None:
    """None where nothing can be said."""
    return row if isinstance(row, Interval) else row.interval(alpha)


def _bar(axes: Axes, y: float, interval: Interval, colour: str) -> None:
    """The point, filled where its interval can be trusted, and the bar, where it has ends."""
    safe = interval.warning is None
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        ends = [interval.low, interval.high]
        style = "-" if safe else (0, (2, 1.5))
        axes.plot(ends, [y, y], color=colour, linestyle=style, linewidth=2, gid="interval")
    axes.plot(interval.estimate, y, "o", color=colour, markerfacecolor=None if safe else "white")


def _told(axes: Axes, y: float, interval: Interval) -> None:
    """The figures, right of the axes."""
    ends = (
        f"  [{interval.low:.3f}, {interval.high:.3f}]"
        if math.isfinite(interval.low) and math.isfinite(interval.high)
        else ""
    )
    axes.text(
        1.01,
        y,
        f"{interval.estimate:.3f}{ends}",
        transform=axes.get_yaxis_transform(),
        verticalalignment="center",
        family="monospace",
        fontsize="small",
    )


def _reason(axes: Axes, y: float, reason: str, colour: str) -> None:
    axes.text(
        0.01,
        y,
        textwrap.fill(reason, WRAPPED),
        transform=axes.get_yaxis_transform(),
        verticalalignment="center",
        fontsize="x-small",
        color=colour,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
    )


def _as_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)


def _legend(figure: Figure, axes: Axes, alpha: float, crosses: bool = False) -> None:
    """Below the axes: what the marks mean, beside what has a name."""
    named, labels = axes.get_legend_handles_labels()
    marks = {
        f"{1 - alpha:.0%} interval": Line2D([], [], color=GREY, marker="o"),
        "not to be trusted": Line2D(
            [], [], color=GREY, marker="o", markerfacecolor="white", linestyle=(0, (2, 1.5))
        ),
    }
    if crosses:
        marks["not evaluable"] = Line2D([], [], color=GREY, marker="x", linestyle="none")
    figure.legend(
        [*named, *marks.values()],
        [*labels, *marks],
        loc="outside lower center",
        ncols=min(len(labels) + len(marks), 5),
        fontsize="small",
        frameon=False,
    )

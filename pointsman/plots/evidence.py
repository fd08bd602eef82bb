"""How a gate's evidence grew, and the line that decides."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offline_eval.gate.difference import Trail
from offline_eval.log.data import Vector
from pointsman.plots.canvas import ALARM, BLUE, GREY, blank

FLOOR = -2.0  # log e-values below it say no more than "nothing"


def evidence(trail: Trail) -> Figure:
    """Log e-values over the judged rounds, for "better" and for "worse" than the champion. What has
    once reached the line is shown, though it may fall again later."""
    figure = blank(9, 4)
    axes = figure.subplots()
    _line(axes, trail, trail.better, "challenger is better", BLUE)
    _line(axes, trail, trail.worse, "challenger is worse", ALARM)
    axes.axhline(
        trail.needed,
        color=GREY,
        linestyle="--",
        label=f"decides: log(1 / {math.exp(-trail.needed):.3g}) = {trail.needed:.2f}",
    )
    axes.set(
        xlabel="rounds judged, in the order of decisions",
        ylabel="evidence: log e-value (nats)",
        ylim=(FLOOR, None),
    )
    axes.legend(loc="upper left", fontsize="small")
    axes.grid(alpha=0.3)
    return figure


def _line(axes: Axes, trail: Trail, log_e: Vector, label: str, colour: str) -> None:
    axes.plot(trail.rounds, log_e, color=colour, label=label)
    shown = trail.first(log_e)
    if shown is not None:
        axes.plot(trail.rounds[shown], log_e[shown], "o", color=colour)
        axes.annotate(
            f"after {trail.rounds[shown]:,} rounds",
            (trail.rounds[shown], log_e[shown]),
            textcoords="offset points",
            xytext=(6, -12),
            fontsize="small",
            color=colour,
        )

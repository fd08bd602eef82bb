"""How a policy fares that learns on its way over a log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from offline_eval.estimating.intervals import Interval
from offline_eval.log.data import Vector
from pointsman.plots.canvas import BLUE, GREY, blank, colours

NAMED_ARMS = 7  # of a picture of many: with the others, as many as there are colours


def learning_curve(
    curve: Sequence[Interval | None],
    logged: Sequence[float | None],
    shares: Vector,
    arms: Sequence[str],
) -> Figure:
    """A replayed policy's reward over equal stretches of its way, beside the log's own on the same
    rows, and below it the probability (stretches, arms) that it gave each arm."""
    figure = blank(9, 7)
    rewards, below = figure.subplots(2, 1, height_ratios=(3, 2))
    at = np.arange(1, len(curve) + 1)
    known = [(x, one) for x, one in zip(at, curve, strict=True) if one is not None]
    rewards.plot([x for x, _ in known], [one.estimate for _, one in known], "o-", color=BLUE)
    for x, one in known:
        if np.isfinite(one.low):
            rewards.plot([x, x], [one.low, one.high], color=BLUE, alpha=0.6)
    rewards.plot(at, [np.nan if v is None else v for v in logged], ":", color=GREY)
    rewards.set(ylabel="mean reward, 95%", title="the replayed policy; dotted: the log itself")
    rewards.grid(alpha=0.3)
    often = np.argsort(-shares.mean(axis=0), kind="stable")
    shown, rest = often[:NAMED_ARMS], often[NAMED_ARMS:]
    bands, labels = [*shares[:, shown].T], [arms[i] for i in shown]
    if len(rest):
        bands, labels = [*bands, shares[:, rest].sum(axis=1)], [*labels, f"{len(rest)} others"]
    below.stackplot(at, bands, labels=labels, colors=colours(len(labels)))
    below.set(xlabel="stretch of the way", ylabel="probability", ylim=(0, 1))
    below.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", reverse=True)
    return figure

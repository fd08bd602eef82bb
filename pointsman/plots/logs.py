"""What a log holds: how far it weighs for a target, which arms it drew, and whether as it says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from offline_eval.estimating.diagnostics import Drawn, effective_sample_size
from offline_eval.log.data import Index, LoggedData, Vector
from pointsman.plots.canvas import ALARM, BLUE, GREY, blank, colours

BINS = 40
STANDARD_ERRORS = 4.0


def weights(importance: Vector) -> Figure:
    """Importance weights (n,) on a logarithmic axis; those of 0, which it can't show, are told,
    with the effective sample size and the largest weight."""
    figure = blank(9, 4)
    axes = figure.subplots()
    n, positive = len(importance), importance[importance > 0]
    if len(positive):
        low, high = float(positive.min()), float(positive.max())
        edges = np.geomspace(min(low, 0.1) / 1.1, max(high, 10.0) * 1.1, BINS + 1)
        axes.hist(positive, bins=edges.tolist(), color=BLUE, edgecolor="white", linewidth=0.5)
        axes.axvline(1.0, color=GREY, linestyle="--", label="1: target and log alike")
        axes.axvline(high, color=ALARM, linestyle=":", label=f"largest: {high:.3g}")
        axes.legend(fontsize="small")
    axes.set(xscale="log", xlabel="importance weight (no unit)", ylabel="logged rounds")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    effective = effective_sample_size(importance)
    axes.set_title(
        f"{n:,} rounds are worth {effective:,.0f} (effective sample size); "
        f"{n - len(positive):,} weigh 0",
        fontsize="medium",
    )
    return figure


def arm_shares(
    data: LoggedData, pmf: Vector | None = None, target: str = "the target", bins: int = BINS
) -> Figure:
    """Which arms were drawn over time, and below it what a target's `pmf` (n, kmax) would have
    drawn of the same action sets. A bin without rounds is left blank."""
    panels = 1 if pmf is None else 2
    figure = blank(9, 1.2 + 2.8 * panels)
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    edges = np.linspace(data.made_at_ms.min(), data.made_at_ms.max() + 1, bins + 1)
    which = np.searchsorted(edges, data.made_at_ms, side="right") - 1
    drawn = (data.actions == data.arm[:, None]).astype(np.float64)
    _stack(axes[0], data, _shares(data, drawn, which, bins), edges, "drawn by the log")
    if pmf is not None:
        _stack(axes[1], data, _shares(data, pmf, which, bins), edges, f"would be drawn by {target}")
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", reverse=True)
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_formatter(formatter)
    axes[-1].set_xlabel("time of the decision (UTC)")
    return figure


def calibration(groups: Sequence[Drawn]) -> Figure:
    """How often each arm, or any arm of a propensity bin, was drawn, beside how often the logged
    probabilities say it should have been, with a bar of 4 standard errors either way."""
    figure = blank(9, 1.2 + 0.4 * len(groups))
    axes = figure.subplots()
    for y, group in enumerate(groups):
        outside = abs(group.drawn - group.expected) > STANDARD_ERRORS * group.se
        axes.errorbar(
            group.expected,
            y,
            xerr=STANDARD_ERRORS * group.se,
            color=GREY,
            fmt="|",
            capsize=4,
            label=f"expected ± {STANDARD_ERRORS:g} standard errors" if not y else None,
        )
        axes.plot(group.drawn, y, "X" if outside else "o", color=ALARM if outside else BLUE)
        axes.text(
            1.01,
            y,
            f"{group.drawn:,} drawn, {group.expected:,.0f} expected",
            transform=axes.get_yaxis_transform(),
            verticalalignment="center",
            fontsize="small",
            color=ALARM if outside else "black",
        )
    axes.plot([], [], "o", color=BLUE, label="drawn")
    axes.plot([], [], "X", color=ALARM, label="drawn, beyond the bar")
    axes.set_yticks(range(len(groups)), labels=[group.name for group in groups])
    axes.invert_yaxis()
    axes.set_xlabel("draws (rounds)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return figure


def _shares(data: LoggedData, of_arms: Vector, which: Index, bins: int) -> Vector:
    """(bins, arms) mean of (n, kmax), each row counting as what it stands for; NaN without rows."""
    held = data.actions >= 0
    total = np.zeros((bins, len(data.ids)))
    counted = of_arms * data.stands_for[:, None]
    rows = np.broadcast_to(which[:, None], held.shape)
    np.add.at(total, (rows[held], data.actions[held]), counted[held])
    rounds = total.sum(axis=1, keepdims=True)
    shares: Vector = np.divide(total, rounds, out=np.full_like(total, np.nan), where=rounds > 0)
    return shares


def _stack(axes: Axes, data: LoggedData, shares: Vector, edges: Vector, title: str) -> None:
    at = edges.astype("datetime64[ms]")
    # Each bin is as wide as its time: its last edge repeats its shares.
    axes.stackplot(
        at,
        np.concatenate([shares, shares[-1:]]).T,
        labels=data.ids,
        colors=colours(len(data.ids)),
        step="post",
    )
    axes.set(ylabel="share of rounds", ylim=(0, 1), xlim=(at[0], at[-1]))
    axes.set_title(title, fontsize="medium")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))

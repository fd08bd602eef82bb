"""Pictures of simulated traffic. Knows no policy and no service."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pointsman.plots.canvas import BLUE, GREY, blank, colours
from pointsman.trying.result import Result
from policy.arms.catalog import Index, Vector

BINS = 40
POINTS = 400
TRAILING = 200
SKIPPED = 0.01  # of the rounds, at the start: their running mean is noise


def running(result: Result) -> Figure:
    """The running mean reward beside the baselines, and below it which arms got the rounds."""
    figure = blank(9, 7.5)
    rewards, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _rewards(rewards, result)
    _shares(shares, result)
    figure.suptitle(_title(result))
    return figure


def compared(rewards: Mapping[str, Vector], lines: Mapping[str, float], title: str) -> Figure:
    """The running mean reward of several policies, each (m, n): mean of the m shuffles within a
    band of a standard error; `lines` are levels to see them by."""
    figure = blank(10, 6)
    axes = figure.subplots()
    for (name, earned), colour in zip(rewards.items(), colours(len(rewards)), strict=True):
        m, n = earned.shape
        shown = np.unique(np.linspace(int(n * SKIPPED), n - 1, POINTS).astype(int))
        running = (earned.cumsum(axis=1)[:, shown]) / (shown + 1)
        mean = running.mean(axis=0)
        axes.plot(shown + 1, mean, color=colour, label=name)
        if m > 1:
            error = running.std(axis=0, ddof=1) / np.sqrt(m)
            axes.fill_between(shown + 1, mean - error, mean + error, color=colour, alpha=0.2)
    for (name, level), style in zip(lines.items(), ("--", "-.", ":"), strict=False):
        axes.axhline(level, color=GREY, linestyle=style, label=name)
    axes.set(xlabel="round", ylabel="running mean reward", title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    axes.grid(alpha=0.3)
    return figure


def regrets(scenes: Mapping[str, tuple[int, Mapping[str, Vector]]], title: str) -> Figure:
    """One panel per scene: the round of its change, and the regrets (m, n) of several policies,
    mean of the m shuffles over the last TRAILING rounds."""
    figure = blank(9, 2.2 * len(scenes) + 0.6)
    panels = figure.subplots(len(scenes), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, (change, by_policy)) in zip(panels, scenes.items(), strict=True):
        for (policy, regret), colour in zip(
            by_policy.items(), colours(len(by_policy)), strict=True
        ):
            sums = np.cumsum(np.pad(regret.mean(axis=0), (TRAILING, 0)))
            trailing = (sums[TRAILING:] - sums[:-TRAILING]) / TRAILING
            rounds = np.arange(TRAILING, regret.shape[1])
            axes.plot(rounds, trailing[TRAILING:], color=colour, label=policy)
        axes.axvline(change, color=GREY, linestyle=":")
        axes.set(ylabel="regret", title=name)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    panels[-1].set_xlabel("round")
    figure.suptitle(title)
    return figure


def before_and_after(result: Result, rounds: int) -> Figure:
    """Which arms each category got in the first and in the last rounds, one bar per category."""
    figure = blank(10, 4.5)
    first, last = figure.subplots(1, 2, sharey=True)
    n = result.order.shape[1]
    rounds = min(rounds, n // 2)
    _bars(first, result, slice(rounds), f"the first {rounds:,} rounds")
    _bars(last, result, slice(n - rounds, n), f"the last {rounds:,} rounds")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    figure.suptitle("Which arm answers which task")
    return figure


def _title(result: Result) -> str:
    m, n = result.order.shape
    mean = f", mean of {m} shuffles" if m > 1 else ""
    return f"{result.outcomes.name}: {n:,} rounds{mean}"


def _rewards(axes: Axes, result: Result) -> None:
    uniform, single, rule = result.in_hindsight
    n = result.order.shape[1]
    rounds = np.arange(1, n + 1)
    start = int(n * SKIPPED)
    lines = (
        ("best arm per category,\nin hindsight", "--", rule),
        ("best single arm,\nin hindsight", "-.", single),
        ("uniform choice", ":", uniform),
    )
    ours = _running_mean(result.rewards)
    axes.plot(rounds[start:], ours[start:], color=BLUE, linewidth=2.2, label="Pointsman")
    for label, style, rewards in lines:
        theirs = _running_mean(rewards)
        axes.plot(rounds[start:], theirs[start:], color=GREY, linestyle=style, label=label)
    axes.set_ylabel("running mean reward")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    axes.grid(alpha=0.3)


def _shares(axes: Axes, result: Result) -> None:
    n = result.order.shape[1]
    edges = np.unique(np.linspace(0, n, min(BINS, n) + 1).astype(int))
    bins = [slice(a, b) for a, b in pairwise(edges.tolist())]
    shares = np.stack([result.share(rounds) for rounds in bins])
    arms = result.outcomes.catalog.ids
    middles = np.concatenate([[0], (edges[:-1] + edges[1:]) / 2, [n]])
    shares = np.concatenate([shares[:1], shares, shares[-1:]])
    axes.stackplot(middles, shares.T, labels=arms, colors=colours(len(arms)))
    axes.set(xlabel="round", ylabel="share of rounds", ylim=(0, 1), xlim=(0, n))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", reverse=True)


def _bars(axes: Axes, result: Result, rounds: slice, title: str) -> None:
    outcomes = result.outcomes
    names = np.unique(np.array(outcomes.categories))
    counts = np.zeros((len(names), len(outcomes.catalog)))
    rows, arms = result.order[:, rounds].ravel(), result.arms[:, rounds].ravel()
    np.add.at(counts, (outcomes.category_index[rows], arms), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    left = np.zeros(len(names))
    for column, (arm, colour) in enumerate(
        zip(outcomes.catalog.ids, colours(len(outcomes.catalog)), strict=True)
    ):
        axes.barh(names, shares[:, column], left=left, color=colour, label=arm)
        left += shares[:, column]
    axes.set(title=title, xlabel="share of rounds", xlim=(0, 1))
    axes.invert_yaxis()


def _running_mean(rewards: Vector) -> Vector:
    """(n,) from (m, n): the mean of all rounds so far, over all shuffles."""
    rounds: Index = np.arange(1, rewards.shape[1] + 1)
    mean: Vector = (rewards.cumsum(axis=1) / rounds).mean(axis=0)
    return mean

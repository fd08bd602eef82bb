"""Pictures of evaluation: what is drawn is what was estimated, and what isn't known is said."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from offline_eval.estimating import diagnostics, estimators, target
from offline_eval.estimating.intervals import Interval, student_t
from offline_eval.gate.judging import Case, judge, trail
from pointsman import plots
from pointsman.plots.canvas import ALARM, colours
from tests.offline_eval import simulated

RNG = np.random.default_rng(0)
SAFE = estimators.ips(np.ones(400), RNG.random(400))
RARE = estimators.ips(np.where(np.arange(400) < 3, 90.0, 0.0), RNG.random(400))
NONE = estimators.not_evaluable("nobody tried it")


def texts(figure: Figure) -> str:
    """All that is written in a figure."""
    axes = [text.get_text() for ax in figure.axes for text in ax.texts]
    titles = [ax.get_title() for ax in figure.axes]
    return "\n".join(axes + titles)


def intervals(figure: Figure) -> list[tuple[float, float, str]]:
    """Ends and line style of each interval that is drawn."""
    lines = [line for line in figure.axes[0].lines if line.get_gid() == "interval"]
    return [(*map(float, line.get_xdata()), str(line.get_linestyle())) for line in lines]


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def legend(figure: Figure) -> list[str]:
    boxes = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    return [text.get_text() for box in boxes if box is not None for text in box.get_texts()]


def test_a_figure_becomes_a_png(tmp_path: Path):
    """Its bytes, its file and what a notebook shows are the same, and it needs no display."""
    figure = plots.weights(np.ones(10))
    plots.save(figure, tmp_path / "weights.png")
    assert plots.png(figure).startswith(b"\x89PNG")
    assert figure._repr_png_() == plots.png(figure)
    assert (tmp_path / "weights.png").read_bytes() == plots.png(figure)
    assert matplotlib.image.imread(BytesIO(plots.png(figure))).shape == (480, 1080, 4)


@pytest.mark.parametrize("k", [1, 8, 9, 20])
def test_no_two_of_k_things_have_the_same_colour(k: int):
    assert len(set(colours(k))) == k


def test_each_estimate_is_a_row_with_its_interval():
    """The ends are those of its Student-t interval, and stand there in figures."""
    figure = plots.values({"log": SAFE, "target": Interval(0.5, 0.4, 0.6)}, lines={"true": 0.45})
    expected = student_t(SAFE.terms)
    assert names(figure) == ["log", "target"]
    assert intervals(figure) == [
        (pytest.approx(expected.low), pytest.approx(expected.high), "-"),
        (0.4, 0.6, "-"),
    ]
    assert f"[{expected.low:.3f}, {expected.high:.3f}]" in texts(figure)
    assert figure.axes[0].get_xlabel() == "mean reward"
    assert {"true: 0.450", "95% interval"} <= set(legend(figure))


def test_an_interval_that_cannot_be_trusted_looks_so():
    """It is dashed, hollow, and gives its reason."""
    figure = plots.values({"safe": SAFE, "rare": RARE})
    assert [style for *_, style in intervals(figure)] == ["-", "--"]
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [line.get_color() for line in hollow] == [ALARM]
    assert "few rows carry the estimate" in texts(figure)


def test_what_cannot_be_evaluated_is_named_with_the_reason():
    """It has a row, and neither point nor interval."""
    figure = plots.values({"safe": SAFE, "never tried": NONE})
    assert names(figure) == ["safe", "never tried"]
    assert len(intervals(figure)) == 1
    assert "not evaluable: nobody tried it" in texts(figure)


def test_an_interval_without_ends_is_a_point():
    """One round tells a value and nothing of its spread."""
    figure = plots.values({"one": estimators.ips(np.ones(1), np.array([0.7]))})
    assert not intervals(figure)
    assert "0.700" in texts(figure)
    assert "spread is unknown" in texts(figure)
    plots.png(figure)


def test_the_title_of_weights_tells_what_they_are_worth():
    """Half of 100 rounds with weight 2, one with 50: by hand (100 + 50)^2 / (200 + 2500) = 8.3."""
    w = np.concatenate([np.full(50, 2.0), np.zeros(49), [50.0]])
    figure = plots.weights(w)
    axes = figure.axes[0]
    assert "100 rounds are worth 8 (effective sample size); 49 weigh 0" in texts(figure)
    assert axes.get_xscale() == "log"
    assert sum(bar.get_height() for bar in axes.patches) == 51
    assert "largest: 50" in legend(figure)


def test_weights_that_are_all_zero_are_told():
    """A logarithmic axis has no place for them."""
    figure = plots.weights(np.zeros(7))
    assert "7 rounds are worth 0 (effective sample size); 7 weigh 0" in texts(figure)
    assert not figure.axes[0].patches
    plots.png(figure)


def test_arm_shares_are_those_of_the_log_and_the_target():
    """In one bin: how often each arm was drawn, and the mean pmf of the target."""
    data = simulated.logged(500)
    figure = plots.arm_shares(data, target.challenger(data), bins=1)
    drawn, wanted = (tops(figure, panel) for panel in (0, 1))
    counts = np.bincount(data.arm, minlength=3) / len(data)
    assert drawn == pytest.approx(counts.cumsum())
    assert wanted == pytest.approx(np.cumsum(simulated.CHALLENGER))
    assert legend(figure) == ["c", "b", "a"]
    assert figure.axes[1].get_xlabel() == "time of the decision (UTC)"
    assert figure.axes[0].get_ylabel() == "share of rounds"


def tops(figure: Figure, panel: int) -> list[float]:
    """The upper edge of each arm's area."""
    areas = figure.axes[panel].collections
    return [float(area.get_paths()[0].vertices[:, 1].max()) for area in areas]


def test_calibration_shows_which_draws_do_not_follow_the_log():
    """A point outside of four standard errors is marked, one within is not."""
    honest = diagnostics.Drawn("a", 104, 100.0, 5.0, 0.4, 0.1)
    wrong = diagnostics.Drawn("b", 121, 100.0, 5.0, 0.0, 9.0)
    figure = plots.calibration([honest, wrong])
    assert names(figure) == ["a", "b"]
    assert "121 drawn, 100 expected" in texts(figure)
    bars = figure.axes[0].collections
    assert [bar.get_segments()[0][:, 0].tolist() for bar in bars] == [[80.0, 120.0]] * 2
    points = [line for line in figure.axes[0].lines if list(line.get_xdata()) in ([104], [121])]
    assert [point.get_marker() for point in points] == ["o", "X"]
    assert figure.axes[0].get_xlabel() == "draws (rounds)"


def test_the_standard_error_of_draws_is_that_of_the_logged_probabilities():
    """1,000 draws with probability 0.2 have a standard error of sqrt(1000 * 0.2 * 0.8)."""
    pmf, actions = np.tile([0.2, 0.8], (1_000, 1)), np.tile([0, 1], (1_000, 1))
    groups, _ = diagnostics.calibration(pmf, actions, np.zeros(1_000, dtype=int), ("a", "b"))
    assert [group.se for group in groups] == pytest.approx([np.sqrt(160)] * len(groups))


def test_reward_by_task_has_a_point_for_each_series_and_task():
    """Side by side; a cross where a task can't be evaluated."""
    one, other = Interval(0.5, 0.4, 0.6), Interval(0.7, 0.6, 0.8, "few rows")
    figure = plots.reward_by_task({"a": {"code": one, "math": one}, "b": {"code": other}})
    assert names(figure) == ["code", "math"]
    assert [style for *_, style in intervals(figure)] == ["-", "-", "--"]
    assert {"a", "b", "not evaluable"} <= set(legend(figure))
    crossed = plots.reward_by_task({"a": {"code": one}, "b": {"code": NONE}})
    assert len(intervals(crossed)) == 1
    assert [line.get_marker() for line in crossed.axes[0].lines].count("x") == 1


def test_the_evidence_ends_where_the_verdict_says():
    """The last point is the gate's own log e-value, the line is what it needs."""
    data = simulated.logged(1_000, quality=(0.4, 0.7, 0.4))
    case = Case(data, "1", "2", simulated.SCALES)
    grown, verdict = trail(case), judge(case, int(data.made_at_ms[-1]))
    assert grown.better[-1] == pytest.approx(verdict.figures["log_e_better"])
    assert grown.needed == pytest.approx(verdict.figures["log_e_needed"])
    assert grown.rounds[-1] == verdict.figures["rewarded"]
    figure = plots.evidence(grown)
    better = figure.axes[0].lines[0]
    assert better.get_ydata()[-1] == grown.better[-1]
    assert verdict.verdict == "pass"
    assert f"after {grown.rounds[grown.first(grown.better)]:,} rounds" in texts(figure)
    assert "decides: log(1 / 0.04) = 3.22" in legend(figure)


def test_evidence_of_no_rounds_is_none():
    """A trail without a reward has no point above the line."""
    data = simulated.logged(3, closed=np.zeros(3, dtype=bool), outcomes=np.full((3, 3), np.nan))
    grown = trail(Case(data, "1", "2", simulated.SCALES))
    assert grown.first(grown.better) is None
    plots.png(plots.evidence(grown))

"""The gate passes what is shown to be better, fails what is shown to be harmful, and says why."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline_eval.gate.verdict import DAY_MS, Check, Settings, Verdict
from offline_eval.log.data import LoggedData
from offline_eval.log.reading import read_log
from offline_eval.log.writing import write_log
from policy.objective import PRESETS, Weights
from tests.offline_eval.rows import NOON, row
from tests.offline_eval.simulated import CHALLENGER, judged, logged

BETTER = (0.4, 0.8, 0.5)  # the challenger prefers the second arm, by 0.4
WORSE = (0.8, 0.4, 0.5)


def check(verdict: Verdict, name: str) -> Check:
    return next(check for check in verdict.checks if check.name == name)


def states(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.state for check in verdict.checks if check.state != "ok"}


def test_a_better_challenger_passes():
    """With the evidence in words, and figures that agree."""
    verdict = judged(logged(1_500, quality=BETTER))
    assert verdict.verdict == "pass"
    assert "the challenger is better: +0.1" in verdict.reasons[0]
    assert "later half" in verdict.reasons[1]
    assert states(verdict) == {}
    assert verdict.figures["low"] > 0
    assert verdict.figures["log_e_better_peak"] >= verdict.figures["log_e_needed"]
    assert verdict.rounds_needed is None


def test_the_estimate_is_the_difference():
    """0.4 of the draw moves from quality 0.4 to 0.8: 0.16, within 4 standard errors; the interval
    holds it."""
    figures = judged(logged(20_000, quality=BETTER)).figures
    assert figures["estimate"] == pytest.approx(0.16, abs=4 * math.sqrt(0.7 / 20_000))
    assert figures["low"] < 0.16 < figures["high"]


def test_a_worse_challenger_fails():
    """The reverse is shown, not only the lack of evidence."""
    verdict = judged(logged(1_500, quality=WORSE))
    assert verdict.verdict == "fail"
    assert "the challenger is worse" in verdict.reasons[0]
    assert verdict.figures["high"] < 0


def test_too_little_data_is_undecided_and_says_how_much_it_takes():
    """After 60 rounds; by ten times what it asks for, it has passed."""
    verdict = judged(logged(60, quality=(0.4, 0.7, 0.5), seed=1))
    assert verdict.verdict == "undecided"
    assert "not shown to be better" in verdict.reasons[0]
    assert verdict.rounds_needed is not None
    assert f"about {verdict.rounds_needed:,} more rounds" in verdict.reasons[-1]
    more = logged(60 + 10 * verdict.rounds_needed, quality=(0.4, 0.7, 0.5), seed=1)
    assert judged(more).verdict == "pass"


def test_a_share_of_the_draw_is_advised_where_it_would_shorten():
    """Under the 1% floor alone a tenth of the draw is worth ten times the rounds."""
    firm = {"champion": (0.98, 0.01, 0.01), "challenger": (0.01, 0.98, 0.01)}
    verdict = judged(logged(3_000, quality=(0.4, 0.6, 0.5), share=0.0, **firm))
    assert verdict.verdict == "undecided"
    assert (verdict.share, bool(verdict.rounds_needed)) == (0.1, True)
    assert verdict.rounds_with_share * 5 < verdict.rounds_needed
    assert "if the challenger were given 10% of the draw" in verdict.reasons[-1]
    shared = judged(logged(300, quality=(0.45, 0.55, 0.5), **firm))
    assert shared.share is None


def test_a_challenger_that_does_not_look_better_is_not_promised_a_number_of_rounds():
    """More of the same wouldn't show it."""
    verdict = judged(logged(40, quality=(0.9, 0.3, 0.5)))
    assert (verdict.verdict, verdict.rounds_needed) == ("undecided", None)
    assert "more rounds would not show it" in verdict.reasons[-1]


def test_no_data_is_undecided():
    """Of an empty log, and of one in which other versions were at work: an infinite interval."""
    other = logged(500, quality=BETTER, challengers=("3",) * 500)
    for data in (logged(0), other, logged(500, versions=("0",) * 500)):
        verdict = judged(data)
        assert verdict.verdict == "undecided"
        assert verdict.reasons == (
            "there is no closed or complete row in which both versions were at work",
        )
        assert verdict.figures == {"rounds": 0.0, "low": -math.inf, "high": math.inf}


def test_no_support_is_not_evaluable():
    """The challenger wants an arm that is never drawn: no number, but what it needs."""
    data = logged(800, champion=(0.7, 0.3, 0.0), challenger=(0.0, 0.0, 1.0), share=0.0)
    verdict = judged(data)
    assert verdict.verdict == "undecided"
    assert check(verdict, "overlap").state == "not evaluable"
    assert "needs a share" in verdict.reasons[0]
    assert "estimate" not in verdict.figures


def test_partial_support_blocks():
    """A tenth of its choices can't be drawn."""
    data = logged(
        2_000, quality=BETTER, champion=(0.7, 0.3, 0.0), challenger=(0.0, 0.9, 0.1), share=0.0
    )
    verdict = judged(data)
    assert verdict.verdict == "undecided"
    assert states(verdict)["overlap"] == "blocks"
    assert "10.0% of the challenger's choices could not be drawn" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("quality", {"quality": WORSE}),
        ("latency", {"latency_ms": (200.0, 800.0, 500.0)}),
        ("cost", {"cost_usd": (0.002, 0.008, 0.005)}),
        ("errors", {"errors": (0.0, 0.3, 0.0)}),
    ],
)
def test_each_guardrail_blocks_harm(name: str, changes: dict[str, Any]):
    """Shown to be beyond its margin; the same harm within a wider margin is let pass."""
    data = logged(3_000, **changes)
    found = check(judged(data), name)
    assert found.state == "fails"
    assert found.text in judged(data).reasons
    assert f"shown to be beyond the margin of {found.figures['margin']:g}" in found.text
    wider = replace(Settings(), **{f"{name.rstrip('s')}_margin": 0.5})
    assert check(judged(data, settings=wider), name).state == "ok"


def test_better_on_the_whole_but_slower_fails():
    """A guardrail holds against a pass."""
    verdict = judged(logged(3_000, quality=BETTER, latency_ms=(200.0, 800.0, 500.0)))
    assert check(verdict, "difference").state == "ok"
    assert verdict.verdict == "fail"


def test_a_task_type_that_is_harmed_fails():
    """Better on chat, which is most of the traffic; worse on code."""
    n = 6_000
    code = np.arange(n) % 4 == 0
    good, bad = logged(n, quality=(0.2, 0.9, 0.5)), logged(n, quality=(0.9, 0.2, 0.5))
    data = replace(good, outcomes=np.where(code[:, None], bad.outcomes, good.outcomes))
    tasks = np.where(code, "code", "chat").tolist()
    verdict = judged(data, tasks=tasks)
    assert judged(data).verdict == "pass"
    assert verdict.verdict == "fail"
    assert states(verdict) == {"task type code": "fails"}
    assert check(verdict, "task type chat").state == "ok"


def test_a_log_of_wrong_propensities_fails():
    """The arms were drawn by another pmf than is logged."""
    data = logged(3_000, quality=BETTER)
    wrong = np.array([0.5, 0.3, 0.2])
    other = (wrong - 0.1 * np.array(CHALLENGER)) / 0.9
    told = replace(data, pmf=np.tile(wrong, (3_000, 1)), propensity=wrong[data.arm])
    assert other.min() > 0
    verdict = judged(told)
    assert verdict.verdict == "fail"
    assert "not drawn with the logged probability" in verdict.reasons[0]
    assert "expected" in verdict.reasons[0]


def test_an_old_log_fails():
    """The newest row is eight days old."""
    data = logged(1_500, quality=BETTER)
    verdict = judged(data, now_ms=int(data.made_at_ms[-1]) + 8 * DAY_MS)
    assert verdict.verdict == "fail"
    assert verdict.reasons == ("the newest row is 8.0 days old, more than 7",)
    week = int(data.made_at_ms[-1]) + 7 * DAY_MS
    assert judged(data, now_ms=week).verdict == "pass"


def test_fingerprints_must_match():
    """Each that differs is named with both sides."""
    data = logged(1_500, quality=BETTER)
    same, other = {"encoder": ("e1", "e1")}, {"encoder": ("e1", "e1"), "catalog": ("c1", "c2")}
    assert judged(data, fingerprints=same).verdict == "pass"
    verdict = judged(data, fingerprints=other)
    assert verdict.verdict == "fail"
    assert verdict.reasons == ("the catalog differs: c1 in the log, c2 in the challenger",)


def test_a_recent_half_that_is_not_better_blocks():
    """The null is "never better", so what was better once must still be."""
    n = 4_000
    then, now = logged(n, quality=(0.2, 0.9, 0.5)), logged(n, quality=(0.55, 0.5, 0.5))
    early = (np.arange(n) < n // 2)[:, None]
    verdict = judged(replace(then, outcomes=np.where(early, then.outcomes, now.outcomes)))
    assert check(verdict, "difference").state == "ok"
    assert states(verdict) == {"recent half": "blocks"}
    assert verdict.verdict == "undecided"
    assert verdict.reasons == (check(verdict, "recent half").text,)


def test_rows_behind_one_that_may_still_change_are_not_read():
    """In the order of decisions: the first open row without its cost holds up all after it."""
    data = logged(1_500, quality=BETTER)
    outcomes, closed = data.outcomes.copy(), data.closed.copy()
    outcomes[1_000, 2], closed[1_000] = np.nan, False
    waiting = replace(data, outcomes=outcomes, closed=closed)
    assert judged(waiting).figures["rounds"] == 1_000
    assert judged(data).figures["rounds"] == 1_500
    # Complete rows need not be closed, and closed ones not complete.
    assert judged(replace(data, closed=np.zeros(1_500, dtype=bool))).figures["rounds"] == 1_500
    assert judged(replace(waiting, closed=data.closed)).figures["rounds"] == 1_500


def test_rows_that_stand_for_several_decisions_are_refused():
    """A bet is on one decision at a time."""
    data = logged(20, quality=BETTER)
    stands_for = np.where(np.arange(20) == 3, 2.0, 1.0)
    with pytest.raises(ValueError, match=r"rows stand for several: row 3 \(decision"):
        judged(replace(data, stands_for=stands_for))


def test_rewards_missing_alike_are_left_out():
    """A tenth of each arm's."""
    data = logged(3_000, quality=BETTER)
    outcomes = data.outcomes.copy()
    outcomes[np.random.default_rng(1).random(3_000) < 0.1, 0] = np.nan
    verdict = judged(replace(data, outcomes=outcomes))
    assert verdict.verdict == "pass"
    assert verdict.figures["rewarded"] == np.isfinite(outcomes[:, 0]).sum()
    assert verdict.figures["worst_if_missing"] < verdict.figures["estimate"]


def test_without_any_reward_there_is_no_number():
    """Closed rows to which nothing has come."""
    verdict = judged(logged(500, outcomes=np.full((500, 3), np.nan)))
    assert verdict.verdict == "undecided"
    assert verdict.reasons[0] == "no reward has come in 500 rounds"
    assert verdict.rounds_needed is None
    assert (verdict.figures["low"], verdict.figures["high"]) == (-math.inf, math.inf)


def lossy(better: tuple[float, ...], n: int) -> LoggedData:
    """Where a bad outcome of the challenger's arm is never told."""
    data = logged(n, quality=better)
    outcomes = data.outcomes.copy()
    outcomes[(data.arm == 1) & (outcomes[:, 0] == 0), 0] = np.nan
    return replace(data, outcomes=outcomes)


def test_rewards_missing_because_of_what_they_were_block():
    """Equal arms look unequal. The gate names it, and bounds what the truth may be."""
    verdict = judged(lossy((0.6, 0.6, 0.6), 3_000))
    assert verdict.figures["estimate"] > 0.05  # taken at face value, a clear gain
    assert verdict.verdict == "undecided"
    assert states(verdict)["arrival"] == "blocks"
    assert "missing because of what they were" in verdict.reasons[0]
    assert "whatever they were" in verdict.reasons[0]
    assert verdict.figures["worst_if_missing"] < 0.05


def test_better_whatever_the_missing_rewards_were_passes():
    """The worst case is shown to be better too."""
    verdict = judged(lossy((0.2, 0.9, 0.5), 3_000))
    assert verdict.verdict == "pass"
    assert "better even at the worst" in check(verdict, "arrival").text


def test_an_arm_that_was_not_executed_has_no_outcome():
    """The caller fell back where the challenger's arm was bad: that is a missing reward, not a row
    to leave out."""
    data = logged(3_000, quality=(0.6, 0.6, 0.6))
    fell_back = (data.arm == 1) & (data.outcomes[:, 0] == 0)
    verdict = judged(replace(data, executed=~fell_back))
    assert states(verdict)["arrival"] == "blocks"
    assert verdict.figures["rewarded"] == (~fell_back).sum()


def test_the_objective_may_be_given():
    """Each row's own, or one for all: the challenger is better by quality, worse by cost."""
    data = logged(3_000, quality=(0.4, 0.6, 0.5), cost_usd=(0.001, 0.01, 0.005))
    assert judged(data).figures["estimate"] > 0
    assert judged(data, weights=Weights.of(cost=1)).figures["estimate"] < 0
    own = replace(data, weights=np.tile(PRESETS["cheap"].as_tuple(), (3_000, 1)))
    by_row, by_all = judged(own).figures, judged(data, weights=PRESETS["cheap"]).figures
    assert by_row == pytest.approx(by_all)


def test_an_offline_candidate_is_judged_on_the_rows_after_its_training():
    """Whoever watched, the champion is what is left of the draw without the watcher's share."""
    data = logged(3_000, quality=BETTER)
    watched = judged(data)
    candidate = np.tile(CHALLENGER, (3_000, 1))
    offline = judged(data, challenger="offline", candidate=candidate)
    assert offline.figures == watched.figures
    candidate[:2_000] = np.nan
    assert judged(data, candidate=candidate).figures["rounds"] == 1_000
    other = replace(data, challenger_pmf=np.tile([0.0, 0.0, 1.0], (3_000, 1)))
    with pytest.raises(ValueError, match="must be a mixture"):
        judged(replace(other, share=np.full(3_000, 0.5)), candidate=candidate)


def test_a_versions_windows_share_one_alpha():
    """The first has most of it, all together no more than it."""
    data = logged(100, quality=BETTER)
    alphas = [judged(data, windows_before=w).figures["alpha"] for w in range(20)]
    assert alphas == sorted(alphas, reverse=True)
    assert alphas[0] == pytest.approx(0.04)
    assert 0.049 < sum(alphas) <= 0.05


@pytest.mark.parametrize(
    ("changes", "arguments", "expected"),
    [
        ({}, {"tasks": ["chat"]}, "tasks must name all 50 rows, got 1"),
        ({}, {"windows_before": -1}, "windows_before must be >= 0"),
        ({"propensity": np.full(50, 1.5)}, {}, "propensities must be in"),
        ({"decision_ids": ("d",) * 50}, {}, "must not repeat"),
        ({"policies": ("a", "b") * 25}, {}, "one policy, got \\['a', 'b'\\]"),
        ({"made_at_ms": np.arange(50)[::-1]}, {}, "in the order in which they were decided"),
        ({"share": np.full(50, 0.9)}, {}, "must be a mixture of champion and challenger: 50 rows"),
        ({}, {"candidate": np.full((50, 3), 0.5)}, "must be >= 0 and sum to 1: 50 rows"),
        ({}, {"candidate": np.full((50, 2), 0.5)}, r"candidate must be \(50, 3\), got \(50, 2\)"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], arguments: dict[str, Any], expected: str):
    """With what is wrong, never with a verdict."""
    with pytest.raises(ValueError, match=expected):
        judged(replace(logged(50), **changes), **arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", 0.0), ("alpha", 1.0), ("quality_margin", -0.1), ("max_age_ms", -1)],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: float):
    """By name."""
    with pytest.raises(ValueError, match=name):
        replace(Settings(), **{name: value})


def test_a_log_from_parquet_is_judged(tmp_path: Path):
    """Rows in which no challenger watched are passed over."""
    watched = {"challenger": "4", "challenger_pmf": np.array([0.0, 0.0, 1.0]), "share": 0.1}
    rows = [row(f"d{i:03}", made_at_ms=NOON + i, **(watched if i % 3 else {})) for i in range(300)]
    write_log(rows, str(tmp_path))
    verdict = judged(read_log(str(tmp_path)), champion="3", challenger="4")
    assert verdict.figures["rounds"] == 200
    assert verdict.verdict == "fail"  # as "b" was always drawn
    assert "propensity" in verdict.reasons[0] or "drawn" in verdict.reasons[0]


def test_asking_again_changes_nothing():
    """The verdict is a function of its arguments."""
    data = logged(700, quality=(0.45, 0.55, 0.5))
    assert judged(data) == judged(data)

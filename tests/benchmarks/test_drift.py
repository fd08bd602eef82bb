"""Scenes change what they say they change, and the figures count from the change."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import drift
from benchmarks.common import scenes
from benchmarks.common.scenes import Scene
from benchmarks.drift import Changing, Played
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.routers import asked
from policy.config.schema import ObjectiveConfig, PolicyConfig
from policy.values import models
from tests.pointsman.sets import arm, tiny

POLICY = PolicyConfig(objective=ObjectiveConfig(quality=0.9, cost=0.1, cost_ref_usd=0.02))


def told(name: str, outcomes: OutcomeSet | None = None, rounds: int = 40) -> Scene:
    found = scenes.scene(name, outcomes or tiny(), POLICY, rounds)
    assert found is not None
    return found


def renamed(name: str) -> OutcomeSet:
    """The tiny set, with another name for its big arm."""
    outcomes = tiny()
    arms = outcomes.catalog.arms
    big = arms[0].model_copy(update={"id": name})
    return replace(outcomes, catalog=type(outcomes.catalog)((big, *arms[1:])))


def test_a_swap_exchanges_outcomes():
    """Quality and cost of the best single arm and the median one; the rule follows."""
    scene = told("swap")
    assert (scene.change, scene.failing, scene.rising) == (20, 0, 1)
    assert scene.changed.outcomes.quality[:, 0].tolist() == [0, 0, 1, 1]
    assert scene.changed.outcomes.cost_usd[0].tolist() == [0.01, 0.02]
    assert scene.phases[0].rule.tolist() == [0, 0, 1, 1]
    assert scene.changed.rule.tolist() == [1, 1, 0, 0]


def test_a_plunge_is_a_swap_with_the_worst():
    """Of four arms in falling order, the first with the last; a swap, with the third."""
    assert (told("plunge", four()).failing, told("plunge", four()).rising) == (0, 3)
    assert (told("swap", four()).failing, told("swap", four()).rising) == (0, 2)


def test_a_price_changes_in_the_catalog_and_in_what_calls_cost():
    """The list cost acts at once; the outcomes follow it."""
    scene = told("prices")
    after = scene.changed.outcomes
    assert scene.rising == 0
    assert after.catalog.arms[0].usd_per_mtok_in == pytest.approx(0.2)
    assert after.cost_usd[0].tolist() == pytest.approx([0.002, 0.01])


def test_an_arm_that_joins_is_there_for_nobody_before():
    """Neither for the policy nor for the rule that it is compared with."""
    scene = told("joins")
    before, after = scene.phases
    assert before.outcomes.catalog.enabled.tolist() == [False, True]
    assert before.rule.tolist() == [1] * 4
    assert after.rule.tolist() == [0, 0, 1, 1]
    assert scene.deserved == pytest.approx(0.5)


def test_an_upgrade_joins_the_worse_half():
    """The better half of the others stays away, so that there is a clear gain."""
    before, after = told("upgrade", four()).phases
    assert before.outcomes.catalog.enabled.tolist() == [False, False, True, True]
    assert after.outcomes.catalog.enabled.tolist() == [True, False, True, True]


def four() -> OutcomeSet:
    """Arms a to d whose quality falls from 1 to 0.7 and whose cost is one."""
    outcomes = tiny()
    return replace(
        outcomes,
        catalog=type(outcomes.catalog)(tuple(arm(name, 1.0) for name in "abcd")),
        quality=np.tile([1.0, 0.9, 0.8, 0.7], (4, 1)),
        cost_usd=np.full((4, 4), 0.01),
        latency_ms=np.full((4, 4), np.nan),
    )


def test_a_failing_arm_costs_what_it_did():
    """Only its quality is gone."""
    scene = told("fails")
    assert scene.failing == 0
    assert scene.changed.outcomes.quality[:, 0].tolist() == [0] * 4
    assert scene.changed.outcomes.cost_usd[:, 0].tolist() == [0.02] * 4


def test_paretobandits_scenes_are_of_its_own_arms():
    """Other sets pass them over."""
    assert scenes.scene("degrades", tiny(), POLICY, 40) is None
    assert scenes.scene("onboards", tiny(), POLICY, 40) is None
    degrades = told("degrades", renamed(scenes.FAILING))
    assert [phase.start for phase in degrades.phases] == [0, 2393, 3001]
    assert degrades.changed.outcomes.quality[:, 0].mean() == pytest.approx(0.75)
    assert told("onboards", renamed(scenes.NEWCOMER)).change == 1785


def test_the_world_changes_at_the_round_it_should():
    """What came in before is learned as it was then; from then on the new catalog decides."""
    phases = told("joins").phases
    queries = asked(tiny(), models.default_encoder(POLICY), True, lambda _: None)
    router = Changing(phases, POLICY, queries, "run")
    arms = []
    for i in range(200):
        routed = router.route([i % 4])
        arms.append(routed[0].arm)
        router.reward(routed)
    assert set(arms[:20]) == {1}
    assert 0 in arms[20:]
    assert router.policy.catalog.enabled.all()


def test_queries_come_as_often_as_it_takes():
    """Each pass over them is an order of its own, the same for every variant."""
    rows = drift.order(4, 10, number=3)
    assert sorted(rows[:4]) == sorted(rows[4:8]) == [0, 1, 2, 3]
    assert rows.tolist() == drift.order(4, 10, number=3).tolist()


def played(arms: list[int]) -> Played:
    """One shuffle whose rewards are its arms' numbers, where the rule would earn 1."""
    row = np.array([arms])
    return Played(row.astype(float), np.ones(row.shape), row)


def test_the_failing_arm_is_left_when_its_last_50_rounds_say_so():
    """By hand: all of 500 rounds before, 10 after; below a tenth, at most 4 of 50, after 56."""
    scene = replace(told("fails", rounds=1000), failing=0)
    row = drift.figures(scene, played([0] * 510 + [1] * 490), None)
    assert row["share_before"] == pytest.approx(1.0)
    assert row["left_after"] == 56
    assert row["left_after_own"] == 10
    assert row["share_after"] == pytest.approx(10 / 500)


def test_an_arm_that_is_never_left_has_no_such_round():
    """Too little is null, not the last round."""
    scene = replace(told("fails", rounds=1000), failing=0)
    row = drift.figures(scene, played([0] * 1000), None)
    assert row["left_after"] is None
    assert row["never_left"] == 1


def test_the_rising_arm_is_taken_up_at_half_of_what_it_deserves():
    """By hand: half of a half is more than 12 of the last 50; a tenth of the rounds for 50 rounds
    it has from its first one on."""
    scene = replace(told("joins", rounds=1000), rising=0)
    row = drift.figures(scene, played([1] * 500 + [0] * 500), None)
    assert row["deserved"] == pytest.approx(0.5)
    assert row["taken_up_after"] == 13
    assert row["sustained_after"] == 1
    assert row["share_at_end"] == pytest.approx(1.0)


def test_regret_is_told_from_the_change_and_beside_that_without_handling():
    """By hand: a regret of 1 in each of the 20 rounds before and in half of those after."""
    scene = told("steady")
    some = played([0] * 30 + [1] * 10)
    row = drift.figures(scene, some, played([0] * 40))
    assert row["regret"] == pytest.approx(0.5)
    assert row["regret_ratio"] == pytest.approx(0.5)
    assert row["gain"] == pytest.approx(0.25)
    assert row["regret_se"] is None


@pytest.mark.slow
def test_all_scenes_run(tmp_path: Path, capsys, monkeypatch):
    """Of a small set, in one process, with table, figures and plot."""
    folders.save(tiny(10), tmp_path / "tiny")
    files = tmp_path / "figures.json", tmp_path / "plot.png"
    options = ["--shuffles", "2", "--rounds", "120", "--processes", "1"]
    arguments = ["drift", str(tmp_path / "tiny"), *options, "--json", files[0], "--plot", files[1]]
    monkeypatch.setattr(sys, "argv", [str(one) for one in arguments])
    drift.main()
    shown = capsys.readouterr().out
    for name in ("steady", "swap", "prices", "joins", "fails"):
        assert f"{name}, from round 60" in shown
    assert "onboards, from" not in shown
    assert files[1].read_bytes().startswith(b"\x89PNG")

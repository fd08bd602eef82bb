"""What a target would have drawn from on a log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.query import Hints, Query
from offline_eval.estimating import target
from offline_eval.log.data import LoggedData
from offline_eval.log.reading import read_log
from offline_eval.log.writing import write_log
from policy.arms.constraints import Constraints
from policy.objective import PRESETS
from policy.policy import Policy, Request
from policy.records import LoggedDecision, Outcome
from tests.offline_eval import simulated
from tests.offline_eval.rows import row
from tests.policy.test_policy import arm, make, taught

TASKS = ("code", "chat", "summarization")
THREE = arm("a") + arm("b", 2.0) + arm("c", 0.1)
TAUGHT = taught("a", 0.9, 30), taught("c", 0.4, 30)
LINEAR = make(THREE, "", *TAUGHT)


def decided(path: Path, policy: Policy, n: int = 60) -> LoggedData:
    """A log of the policy's decisions, over several action sets and objectives."""
    sets = [Constraints(), Constraints(deny=("b",)), Constraints(allow=("a", "c"))]
    requests = [
        Request(
            Query(text="How many words? " * (1 + i % 7)),
            Hints(task_type=TASKS[i % 3]),
            sets[i % len(sets)],
            PRESETS["fast"] if i % 2 else None,
        )
        for i in range(n)
    ]
    decisions = [policy.decide(request, f"d{i:03}", i) for i, request in enumerate(requests)]
    write_log((LoggedDecision(one, Outcome(quality=0.5)) for one in decisions), str(path))
    return read_log(str(path))


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "floor = 0.2\nscale = 1.0",
        'exploration = "square_cb"',
        'model = "nearest"\nexploration = "softmax"',
        'model = "uniform"',
        'model = "fixed"\narm = "b"',
    ],
)
def test_a_policy_of_its_own_log_is_what_was_logged(tmp_path: Path, settings: str):
    """Replayed in batches it gives the pmfs it drew from, floor included, to 1e-6."""
    policy = make(THREE, settings, *TAUGHT)
    data = decided(tmp_path, policy)
    assert target.of_policy(data, policy) == pytest.approx(data.pmf, abs=1e-6)


def test_a_capped_new_arm_is_capped(tmp_path: Path):
    """What a running policy does beside its exploration rule is in the replay."""
    policy = make(THREE, "", *(taught(name, 0.5, 60) for name in ("a", "b", "c")))
    policy = replace(policy, rule=replace(policy.rule, is_new=np.array([False, False, True])))
    data = decided(tmp_path, policy)
    assert target.of_policy(data, policy) == pytest.approx(data.pmf, abs=1e-6)


def test_an_arm_that_the_policy_does_not_have_gets_nothing(tmp_path: Path):
    """The others share, in whatever order the policy's own catalog has them."""
    data = decided(tmp_path, LINEAR)
    other = make(arm("c") + arm("a"), 'model = "fixed"\narm = "a"\nfloor = 0.0')
    pmf = target.of_policy(data, other)
    assert (pmf == target.one_arm(data, "a")).all()


def test_no_arm_in_common_is_refused(tmp_path: Path):
    """With the rows."""
    data = decided(tmp_path, LINEAR, n=2)
    with pytest.raises(ValueError, match="none of the eligible arms: rows 0, 1"):
        target.of_policy(data, make(arm("z"), 'model = "uniform"'))


def test_another_encoder_is_refused(tmp_path: Path):
    """Its contexts aren't in the log; a policy that reads none doesn't mind."""
    data = replace(decided(tmp_path, LINEAR), encoder="another")
    with pytest.raises(
        ValueError, match="the log's contexts are of another, and its pmfs were not"
    ):
        target.of_policy(data, LINEAR)
    uniform = make(THREE, 'model = "uniform"')
    assert target.of_policy(data, uniform) == pytest.approx(target.uniform(data))


@pytest.mark.parametrize("model", ["rules", "caller"])
def test_what_decides_from_more_than_a_context_is_refused(tmp_path: Path, model: str):
    """The log doesn't hold a query's profile, nor what a caller's router would do."""
    data = decided(tmp_path, LINEAR, n=3)
    policy = make(THREE, f'model = "{model}"')
    with pytest.raises(ValueError, match="decides from more than a context"):
        target.of_policy(data, policy)


def test_uniform_and_one_arm_by_hand(tmp_path: Path):
    """Over each row's own action set; uniform where the arm isn't in it."""
    two = {"arms": ("a", "b"), "pmf": np.array([0.4, 0.6]), "predicted": np.ones((2, 3))}
    write_log([row("d1"), row("d2", **two, propensity=0.6)], str(tmp_path))
    data = read_log(str(tmp_path))
    assert target.uniform(data) == pytest.approx(np.array([[1 / 3] * 3, [0.5, 0.5, 0.0]]))
    assert target.one_arm(data, "c").tolist() == [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]
    assert (target.logged(data) == data.pmf).all()
    with pytest.raises(ValueError, match="'z' is in no action set"):
        target.one_arm(data, "z")


def test_the_champion_without_the_challengers_share():
    """By hand: 0.9 of what was drawn from is the champion's, 0.1 the challenger's."""
    data = simulated.logged(2, share=0.1)
    assert target.champion(data)[0] == pytest.approx(simulated.CHAMPION)
    alone = replace(data, share=np.array([0.0, 1.0]))
    assert target.champion(alone)[0].tolist() == data.pmf[0].tolist()
    assert np.isnan(target.champion(alone)[1]).all()


def test_a_logged_challenger(tmp_path: Path):
    """Its own pmf of each decision, refused where there is none or there are several versions."""
    pmf = np.array([0.2, 0.3, 0.5])
    shadow = row("d1", challenger="4", challenger_pmf=pmf)
    write_log([shadow], str(tmp_path / "one"))
    assert target.challenger(read_log(str(tmp_path / "one"))).tolist() == [[0.2, 0.3, 0.5]]
    write_log([shadow, row("d2")], str(tmp_path / "two"))
    with pytest.raises(ValueError, match="no challenger's pmf was logged: row 1"):
        target.challenger(read_log(str(tmp_path / "two")))
    five = row("d2", challenger="5", challenger_pmf=pmf)
    write_log([shadow, five], str(tmp_path / "three"))
    with pytest.raises(ValueError, match=r"2 versions \(4, 5\)"):
        target.challenger(read_log(str(tmp_path / "three")))

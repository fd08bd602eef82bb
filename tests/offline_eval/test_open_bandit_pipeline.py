"""Estimators and their tuning give what Open Bandit Pipeline gives."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from benchmarks.common import oracle
from offline_eval.estimating import estimators, tuning
from tests.offline_eval.bandits import EVERY, Logged, simulate


@pytest.fixture(scope="module")
def obp() -> tuple[Any, Any]:
    """Its estimators, on libraries that are younger than it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return oracle.estimators()
        except ImportError as error:
            pytest.skip(f"needs Open Bandit Pipeline: {error}")


def theirs(o: Logged) -> dict[str, Any]:
    return {
        "reward": o.reward,
        "action": o.arm,
        "pscore": o.propensity,
        "action_dist": o.target[:, :, None],
        "estimated_rewards_by_reg_model": o.q[:, :, None],
        "position": np.zeros(len(o.arm), dtype=int),
    }


NAMES = {
    "ips": ("InverseProbabilityWeighting", {}),
    "clipped_ips": ("InverseProbabilityWeighting", {"lambda_": 3.0}),
    "snips": ("SelfNormalizedInverseProbabilityWeighting", {}),
    "dm": ("DirectMethod", {}),
    "dr": ("DoublyRobust", {}),
    "sndr": ("SelfNormalizedDoublyRobust", {}),
    "switch_dr": ("SwitchDoublyRobust", {"lambda_": 2.0}),
    "dros": ("DoublyRobustWithShrinkage", {"lambda_": 20.0}),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_open_bandit_pipeline(obp: tuple[Any, Any], name: str, seed: int):
    """To 1e-9, over 2,000 rounds of 7 arms."""
    o = simulate(seed, 2_000, k=7)
    theirs_is, arguments = NAMES[name]
    oracle_of = getattr(obp[0], theirs_is)(**arguments)
    assert EVERY[name](o).value == pytest.approx(
        oracle_of.estimate_policy_value(**theirs(o)), abs=1e-9
    )


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize(
    ("theirs_is", "modified", "with_model"),
    [
        ("InverseProbabilityWeightingTuning", np.minimum, False),
        ("DoublyRobustTuning", np.minimum, True),
        ("SwitchDoublyRobustTuning", estimators.switched, True),
        ("DoublyRobustWithShrinkageTuning", estimators.shrunk, True),
    ],
)
def test_tuning_agrees_with_open_bandit_pipeline(
    obp: tuple[Any, Any], theirs_is: str, modified: Any, with_model: bool, bounded: bool
):
    """The same candidate wins, with the bias as estimated and with its upper bound."""
    candidates = [1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0]
    for seed in range(5):
        o = simulate(seed, 200, k=7)
        searched = getattr(obp[1], theirs_is)(
            lambdas=list(candidates), tuning_method="mse", use_bias_upper_bound=bounded, delta=0.1
        )
        searched.estimate_policy_value(**theirs(o))
        q, v = (o.q_logged, o.v_target) if with_model else (0.0, 0.0)
        # It goes through them from the largest down, and the first of equals wins.
        mine = tuning.tuned(
            sorted(candidates, reverse=True),
            o.weights,
            o.reward,
            q,
            v,
            modified,
            delta=0.1 if bounded else None,
        )
        assert mine == searched.best_hyperparam

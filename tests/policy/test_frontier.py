"""The frontier: what a snapshot expects of arms, and of the policy under other weights."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from features.encoder import Encoder
from features.query import Hints
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.config.schema import PolicyConfig
from policy.frontier import Frontier, Point, frontiers, undominated
from policy.objective import PRESETS
from policy.policy import Policy, Request, build
from policy.records import OutcomeBatch, packed
from policy.values.models import new_model

TASKS = ("code", "math", "translation", "chat")
K = 6
SIZES = Hints(context_tokens=1_000, output_tokens=500)
ARMS = Catalog(
    tuple(
        Arm(
            id=f"arm-{i}",
            provider="p",
            model="m",
            usd_per_mtok_in=0.1 * 2**i,
            usd_per_mtok_out=0.4 * 2**i,
            priors={"code": 0.5 + 0.05 * i},
        )
        for i in range(K)
    )
)
TRUTH = np.random.default_rng(7).uniform(0.2, 0.9, (K, len(TASKS)))
LATENCY_MS = np.exp(np.random.default_rng(8).normal(7.0, 0.7, (K, len(TASKS))))


def learned(n: int, **config: Any) -> Policy:
    """A policy that has seen n outcomes of arms drawn alike, on queries of four task types."""
    rng, encoder, made = np.random.default_rng(n), Encoder.default(), PolicyConfig(**config)
    model = new_model(made, encoder)
    if model is not None and n:
        arm, task = rng.integers(K, size=n), rng.integers(len(TASKS), size=n)
        bare = build(
            "p",
            "1",
            1,
            config=PolicyConfig(model="uniform"),
            encoder=encoder,
            catalog=ARMS,
            view=None,
        )
        x = np.array([_context(bare, one) for one in TASKS])
        costs = ARMS.list_cost_usd(1_000, 500, arm)
        model.learn(
            OutcomeBatch(
                arms=[f"arm-{a}" for a in arm],
                x=x[task],
                quality=np.clip(TRUTH[arm, task] + 0.1 * rng.standard_normal(n), 0.0, 1.0),
                latency_ms=LATENCY_MS[arm, task] * np.exp(0.3 * rng.standard_normal(n)),
                cost_usd=costs * np.exp(0.2 * rng.standard_normal(n)),
                error=np.zeros(n, dtype=bool),
                settled=np.zeros((n, 3), dtype=bool),
                list_cost_usd=costs,
                propensity=np.full(n, 1.0 / K),
                catalogs=[ARMS] * n,
                eligible=[packed(ARMS.enabled)] * n,
            )
        )
    view = None if model is None else model.view()
    return build("p", "1", 1, config=made, encoder=encoder, catalog=ARMS, view=view)


def _context(policy: Policy, task: str) -> Any:
    return policy.encoded(Request(hints=SIZES.model_copy(update={"task_type": task})), "x").x


def of(policy: Policy, *tasks: str) -> list[Frontier]:
    return frontiers(policy, tasks or TASKS, SIZES, 0.9)


def named(points: Any) -> dict[str, Point]:
    return {point.name: point for point in points}


def test_intervals_hold_what_is_true():
    """Of 90% intervals of quality some nine in ten do, and they narrow as outcomes come; those of
    cost lie about what calls really cost, beside the list price."""
    some, more = of(learned(400)), of(learned(4_000))
    for found, widest in ((some, 0.5), (more, 0.15)):
        low = np.array([[arm.low for arm in one.arms] for one in found]).swapaxes(0, 1)
        high = np.array([[arm.high for arm in one.arms] for one in found]).swapaxes(0, 1)
        inside = (low[..., 0] <= TRUTH) & (high[..., 0] >= TRUTH)
        assert inside.mean() >= 0.8
        assert (high - low)[..., 0].max() < widest
    paid = ARMS.list_cost_usd(1_000, 500, np.arange(K)) * np.exp(0.02)
    mean = np.array([[arm.mean for arm in one.arms] for one in more])
    assert mean[..., 2] == pytest.approx(np.tile(paid, (4, 1)), rel=0.1)
    assert mean[..., 1] == pytest.approx(LATENCY_MS.T * np.exp(0.045), rel=0.2)


def test_a_policy_is_the_mixture_of_what_it_would_draw():
    """Under each preset, its own weights and trades between them: means by shares, intervals by
    their squares."""
    policy = learned(2_000)
    for one in of(policy):
        arms = named(one.arms)
        assert named(one.policies).keys() >= {"own", *PRESETS, "cost 0.1", "latency 0.4"}
        for point in one.policies:
            share = np.array([point.shares[name] for name in arms])
            assert share.sum() == pytest.approx(1.0)
            mean = np.array([arm.mean for arm in arms.values()])
            high = np.array([arm.high for arm in arms.values()])
            assert point.mean == pytest.approx(share @ mean)
            assert point.high - point.mean == pytest.approx(
                np.sqrt((share[:, None] ** 2 * (high - mean) ** 2).sum(axis=0))
            )


def test_weights_move_the_policy_along_the_frontier():
    """What is weighed is what is had: the most quality, the least cost, the least latency."""
    for one in of(learned(4_000)):
        points = named(one.policies)
        mean = {name: point.mean for name, point in points.items()}
        assert mean["quality"][0] >= max(m[0] for m in mean.values()) - 0.01
        for component, falling in (
            (2, ("quality", "cost 0.1", "cost 0.4", "cost 0.7")),
            (1, ("quality", "latency 0.1", "latency 0.4", "latency 0.7")),
        ):
            had = [mean[name][component] for name in falling]
            assert all(after <= 1.01 * before for before, after in pairwise(had)), (falling, had)
        assert named(one.arms)[max(points["quality"].shares, key=points["quality"].shares.get)].best  # type: ignore[arg-type]


def test_what_no_other_beats_is_marked():
    """Equal ones don't beat each other; what is unknown of either is no difference."""
    points = np.array(
        [
            *([0.9, 100.0, 1.0], [0.8, 100.0, 1.0], [0.7, 50.0, 1.0], [0.9, 100.0, 1.0]),
            *([np.nan, 200.0, 2.0], [0.1, np.nan, np.nan]),
        ]
    )
    assert undominated(points).tolist() == [True, False, True, True, False, False]


def test_before_anything_is_learned_the_catalog_tells():
    """Priors and list prices, without an interval; what it doesn't say is unknown."""
    (code, math) = of(learned(0), "code", "math")
    arm = named(code.arms)["arm-2"]
    assert arm.mean[0] == pytest.approx(0.6)
    assert arm.mean[2] == pytest.approx(ARMS.arm("arm-2").cost_usd(1_000, 500))
    assert np.isnan(arm.mean[1])
    assert np.isnan([arm.low, arm.high]).all()
    assert np.isnan(named(math.arms)["arm-2"].mean[0])


@pytest.mark.parametrize("config", [{"model": "nearest"}, {"model": "uniform"}], ids=str)
def test_without_a_posterior_there_are_no_intervals(config: dict[str, Any]):
    """Means by what the model expects, and the policy's."""
    for one in of(learned(300, **config)):
        assert all(np.isnan([arm.low, arm.high]).all() for arm in one.arms)
        assert len(one.policies) == 18


def test_a_task_without_an_arm_is_left_out_and_a_callers_router_has_no_weights():
    """Nobody here can embed; and nobody knows what the caller would choose."""
    assert [one.task_type for one in of(learned(0), "code", "embedding", "mine")] == [
        "code",
        "mine",
    ]
    assert of(learned(0, model="caller"), "code")[0].policies == []

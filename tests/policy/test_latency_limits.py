"""Limits on latency hold with their probability: on simulated and on real latencies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.arms.constraints import Constraints, NoEligibleArm
from policy.config.schema import PolicyConfig
from policy.policy import Policy, Request, build
from policy.records import Decision, OutcomeBatch, packed
from policy.values.models import new_model

REAL = Path(__file__).parents[2] / "../shared/data/llmperf_latency/requests.parquet"
TASKS = ("code", "math", "translation", "chat")
Latency = Callable[[np.random.Generator, int, int], float]


def contexts(encoder: Encoder) -> NDArray[np.float32]:
    """(number of tasks, d), of queries of which only the task is known."""
    hints = [Hints(task_type=task) for task in TASKS]
    return np.array([encoder.encode(None, one, profile(None, one)) for one in hints])


def catalog(k: int) -> Catalog:
    return Catalog(
        tuple(
            Arm(id=str(i), provider="p", model="m", usd_per_mtok_in=0.1, usd_per_mtok_out=0.4)
            for i in range(k)
        )
    )


def learned(latency: Latency, k: int, n: int, **config: Any) -> Policy:
    """A policy that has seen n latencies of arms drawn alike."""
    rng, arms, encoder = np.random.default_rng(1), catalog(k), Encoder.default()
    made = PolicyConfig(**config)
    drawn, tasks = rng.integers(k, size=n), rng.integers(len(TASKS), size=n)
    model = new_model(made, encoder)
    assert model is not None
    model.learn(
        OutcomeBatch(
            arms=[str(a) for a in drawn],
            x=contexts(encoder)[tasks],
            quality=rng.random(n),
            latency_ms=np.array([latency(rng, *one) for one in zip(drawn, tasks, strict=True)]),
            cost_usd=np.full(n, 1e-4),
            error=np.zeros(n, dtype=bool),
            settled=np.zeros((n, 3), dtype=bool),
            list_cost_usd=np.full(n, 1e-4),
            propensity=np.full(n, 1.0 / k),
            catalogs=[arms] * n,
            eligible=[packed(arms.enabled)] * n,
        )
    )
    return build("default", "1", 1, config=made, encoder=encoder, catalog=arms, view=model.view())


def within(
    policy: Policy, latency: Latency, ceilings_ms: NDArray[np.float64], probability: float
) -> tuple[float, int]:
    """Of queries with these limits: the share answered in time, and how many had an arm."""
    rng = np.random.default_rng(2)
    tasks = rng.integers(len(TASKS), size=len(ceilings_ms))
    asked = [
        Request(
            hints=Hints(task_type=TASKS[task]),
            constraints=Constraints(max_latency_ms=ceiling, latency_probability=probability),
        )
        for task, ceiling in zip(tasks.tolist(), ceilings_ms.tolist(), strict=True)
    ]
    made = policy.decide_all([(one, f"d{i}") for i, one in enumerate(asked)], 0)
    assert all(isinstance(one, Decision | NoEligibleArm) for one in made)
    in_time = [
        latency(rng, int(one.arm), task) <= ceiling
        for one, task, ceiling in zip(made, tasks.tolist(), ceilings_ms.tolist(), strict=True)
        if isinstance(one, Decision)
    ]
    return float(np.mean(in_time)), len(in_time)


K = 8
MEDIANS = np.exp(np.random.default_rng(0).normal(7.0, 0.6, (K, len(TASKS))))
SPREADS = np.linspace(0.1, 0.8, K)


def lognormal(rng: np.random.Generator, arm: int, task: int) -> float:
    """Arms differ in how long they take for what, and in how far that varies."""
    return float(MEDIANS[arm, task] * np.exp(SPREADS[arm] * rng.standard_normal()))


CEILINGS = np.geomspace(400.0, 6_000.0, 3_000)


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.99])
def test_a_limit_holds_with_its_probability(probability: float):
    """Whatever the limit: among the decisions under it, at least that share is in time."""
    policy = learned(lognormal, K, 2_000)
    share, n = within(policy, lognormal, CEILINGS, probability)
    assert n > 1_000
    assert share >= probability - 0.01


def test_quantiles_are_as_often_exceeded_as_they_say():
    """Of each arm, though some vary far more than others: so a limit costs no more than it must."""
    policy = learned(lognormal, K, 4_000)
    rng, index = np.random.default_rng(3), np.arange(K)
    x = contexts(policy.encoder)
    for probability in (0.5, 0.9, 0.99):
        told = policy.rule.values.latency_quantile(x, index, np.full(4, probability))  # type: ignore[union-attr]
        drawn = np.array(
            [[[lognormal(rng, a, t) for a in range(K)] for t in range(4)] for _ in range(1_000)]
        )
        kept = (drawn <= told).mean(axis=(0, 1))
        assert kept == pytest.approx(np.full(K, probability), abs=0.06)
        assert kept.mean() == pytest.approx(probability, abs=0.02)


def test_the_reason_names_the_quantile():
    """It isn't the latency that `predicted` has, so it says which one it is."""
    policy = learned(lognormal, K, 2_000)
    limits = Constraints(max_latency_ms=100.0)
    request = Request(hints=Hints(task_type="code"), constraints=limits)
    with pytest.raises(NoEligibleArm, match=r"0: predicted p90 latency \d+ ms > 100 ms"):
        policy.decide(request, "d", 0)
    surer = limits.model_copy(update={"latency_probability": 0.995})
    with pytest.raises(NoEligibleArm, match=r"predicted p99\.5 latency"):
        policy.decide(Request(hints=request.hints, constraints=surer), "d", 0)


def test_a_model_without_a_spread_keeps_to_what_it_expects():
    """The expected latency, and the reason says no quantile."""
    policy = learned(lognormal, K, 500, model="nearest")
    request = Request(constraints=Constraints(max_latency_ms=100.0))
    with pytest.raises(NoEligibleArm, match=r"0: predicted latency \d+ ms > 100 ms"):
        policy.decide(request, "d", 0)


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/data/llmperf_latency")
def test_real_latencies_keep_to_it():
    """16 models at 8 providers in December 2023: heavy tails, and none of them log-normal."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(REAL)
    table = table[table.latency_ms > 0]
    pools = [
        g.latency_ms.to_numpy() for _, g in table.groupby(["provider", "model"]) if len(g) > 50
    ]

    def real(rng: np.random.Generator, arm: int, task: int) -> float:
        return float(rng.choice(pools[arm]))

    policy = learned(real, len(pools), 3_000)
    share, n = within(policy, real, np.geomspace(800.0, 12_000.0, 3_000), 0.9)
    assert n > 2_000
    assert share >= 0.9

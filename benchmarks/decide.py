"""Microseconds from a context to a pmf: `python -m benchmarks.decide [--json FILE]`.

d = 64, spreads within a ratio of 10, one core. The budgets: 60 us at 10 arms and 400 us at 100
without `confidence`, 100 and 700 with it. `whole` is Policy.decide from text, encoding included.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: what serving runs with

import numpy as np

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query
from policy import policy as policies
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.choosing import explore
from policy.choosing.bandit import Bandit
from policy.config.schema import ObjectiveConfig, PolicyConfig
from policy.policy import Policy, Request
from policy.records import OutcomeBatch, packed
from policy.values import models

EVENTS, ROUNDS = 20_000, 3_000
TEXT = "Write a function that merges two sorted lists, then explain why it is linear. " * 3


def policy_of(k: int) -> Policy:
    """A policy of k arms that has learned from outcomes of all three components."""
    encoder = Encoder.default()
    config = PolicyConfig(objective=ObjectiveConfig(quality=0.8, latency=0.1, cost=0.1))
    model = models.new_model(config, encoder)
    assert model is not None
    catalog = Catalog(tuple(arm(i) for i in range(k)))
    model.learn(outcomes(catalog, encoder.d))
    return policies.build(
        "default",
        "1",
        1,
        config=config,
        encoder=encoder,
        catalog=catalog,
        view=model.view(),
    )


def arm(i: int) -> Arm:
    return Arm(
        id=f"arm-{i}",
        provider="p",
        model=f"m-{i}",
        context_window_tokens=128_000,
        usd_per_mtok_in=0.1 + 0.01 * i,
        usd_per_mtok_out=0.4 + 0.01 * i,
        prices_checked=datetime.date(2026, 1, 1),
        prices_source="made up",
    )


def outcomes(catalog: Catalog, d: int) -> OutcomeBatch:
    """Arms whose qualities lie close together, seen unequally often: spreads differ."""
    rng = np.random.default_rng(1)
    k = len(catalog)
    seen = np.geomspace(1.0, 100.0, k)
    arms = rng.choice(k, EVENTS, p=seen / seen.sum())
    quality = np.clip(0.6 + 0.1 * np.sin(arms) + 0.3 * rng.standard_normal(EVENTS), 0.0, 1.0)
    x = (rng.standard_normal((EVENTS, d)) / 8).astype(np.float32)
    x[:, 0] = 1.0
    return OutcomeBatch(
        arms=[f"arm-{i}" for i in arms],
        x=x,
        quality=quality,
        latency_ms=rng.lognormal(6.0, 0.5, EVENTS),
        cost_usd=rng.lognormal(-7.0, 0.3, EVENTS),
        error=np.zeros(EVENTS, dtype=bool),
        settled=np.zeros((EVENTS, 3), dtype=bool),
        list_cost_usd=np.full(EVENTS, 1e-3),
        propensity=np.full(EVENTS, 1.0 / k),
        catalogs=[catalog] * EVENTS,
        eligible=[packed(catalog.enabled)] * EVENTS,
    )


def median_us(call: Callable[[int], object]) -> float:
    """The median over single calls; the first tenth only warms up."""
    taken = []
    for i in range(ROUNDS):
        start = time.perf_counter_ns()
        call(i)
        taken.append(time.perf_counter_ns() - start)
    return median(taken[ROUNDS // 10 :]) / 1_000


def measure(k: int) -> dict[str, Any]:
    """Medians in microseconds, and how far apart the arms' spreads are."""
    policy = policy_of(k)
    two = replace(policy, challenger=replace(policy, version="2"))
    rule = policy.rule
    assert isinstance(rule, Bandit)
    rng = np.random.default_rng(2)
    contexts = (rng.standard_normal((ROUNDS, 64)) / 8).astype(np.float32)
    contexts[:, 0] = 1.0
    index, list_cost_usd = np.arange(k), np.full((1, k), 1e-3)
    request = Request(Query(text=TEXT[:180]), Hints(task_type="code"))
    known = profile(request.query, request.hints)

    def pmf(i: int) -> object:
        forecast = rule.values.forecast(contexts[i : i + 1], index, list_cost_usd, policy.weights)
        assert forecast.utility_sd is not None
        return explore.thompson(forecast.utility, policy.config.scale * forecast.utility_sd)

    sd = rule.values.forecast(contexts[:1], index, list_cost_usd, policy.weights).utility_sd
    assert sd is not None
    return {
        "arms": k,
        "spread_ratio": float(sd.max() / sd.min()),
        "pmf_us": median_us(pmf),
        "with_confidence_us": median_us(
            lambda i: rule.rule(contexts[i : i + 1], index, list_cost_usd, policy.weights, [known])
        ),
        "whole_us": median_us(lambda i: policy.decide(request, f"d-{i}", 0)),
        "with_challenger_us": median_us(lambda i: two.decide(request, f"d-{i}", 0)),
    }


def main() -> None:
    """Measure 10 and 100 arms, print a table, and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    rows = [measure(k) for k in (10, 100)]
    print(
        f"{'arms':>5} {'sd ratio':>9} {'pmf':>8} {'+confidence':>12} {'whole':>8} "
        f"{'+challenger':>11}   (us, median)"
    )
    for row in rows:
        print(
            f"{row['arms']:5} {row['spread_ratio']:9.1f} {row['pmf_us']:8.1f} "
            f"{row['with_confidence_us']:12.1f} {row['whole_us']:8.1f} "
            f"{row['with_challenger_us']:11.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()

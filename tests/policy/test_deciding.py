"""n queries are decided as each of them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.encoder import Encoder
from features.query import Hints, Query
from policy import policy as policies
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.arms.constraints import Constraints, NoEligibleArm
from policy.choosing.caller import Choice, WrongChoice
from policy.choosing.incumbent import Standing
from policy.config.schema import PolicyConfig
from policy.objective import Weights
from policy.policy import Policy, Request
from policy.records import Decision, OutcomeBatch, packed
from policy.values import models

TASKS = ("code", "math", "translation", "chat", None)


def arm(i: int) -> Arm:
    return Arm(
        id=f"arm-{i}",
        provider=f"provider-{i % 2}",
        model="m",
        usd_per_mtok_in=0.1 * 2**i,
        usd_per_mtok_out=0.3 * 2**i,
        capabilities=("chat", "vision") if i % 2 else ("chat",),
        priors={"code": 0.5 + 0.05 * i},
    )


CATALOG = Catalog(tuple(map(arm, range(6))))


def policy(**config: Any) -> Policy:
    """One that has learned, if it learns."""
    made = PolicyConfig(**config)
    encoder = Encoder.default()
    model = models.new_model(made, encoder)
    if model is not None:
        model.learn(outcomes(encoder.d))
    view = None if model is None else model.view()
    return policies.build(
        "default", "1", 1, config=made, encoder=encoder, catalog=CATALOG, view=view
    )


def outcomes(d: int, n: int = 600) -> OutcomeBatch:
    rng = np.random.default_rng(3)
    arms = rng.integers(4, size=n)  # of two, nothing is known
    x = (rng.standard_normal((n, d)) / 4).astype(np.float32)
    x[:, 0] = 1.0
    return OutcomeBatch(
        arms=[f"arm-{a}" for a in arms],
        x=x,
        quality=np.clip(0.5 + 0.05 * arms + 0.2 * rng.standard_normal(n), 0.0, 1.0),
        latency_ms=rng.lognormal(6.0, 0.5, n),
        cost_usd=rng.lognormal(-8.0, 0.5, n),
        error=np.zeros(n, dtype=bool),
        settled=np.zeros((n, 3), dtype=bool),
        list_cost_usd=np.full(n, 1e-4),
        propensity=np.full(n, 1 / 6),
        catalogs=[CATALOG] * n,
        eligible=[packed(CATALOG.enabled)] * n,
    )


def asked(n: int = 60) -> list[tuple[Request, str]]:
    """Queries of several lengths, tasks, objectives and action sets; some that no arm may serve."""
    kinds: list[dict[str, Any]] = [
        {},
        {"deny": ("arm-1",)},
        {"capabilities": ("vision",)},
        {"min_quality": 0.55},
        {"max_latency_ms": 500.0},
        {"allow": ()},
        {"min_quality": 1.0},
    ]
    weights = (None, Weights.of(quality=1.0), Weights.of(quality=0.5, latency=0.3, cost=0.2))
    return [
        (
            Request(
                Query(text=f"Question {i}: " + "why is the sky blue? " * (i % 9)),
                Hints(task_type=TASKS[i % len(TASKS)]),
                Constraints(**kinds[i % len(kinds)]),
                weights[i % len(weights)],
                Choice(f"arm-{i % 8}"),
            ),
            f"decision-{i}",
        )
        for i in range(n)
    ]


def alone(one: Policy, request: Request, decision_id: str) -> Decision | Exception:
    try:
        return one.decide(request, decision_id, 7)
    except (NoEligibleArm, WrongChoice) as error:
        return error


def alike(together: Sequence[Decision | Exception], apart: Sequence[Decision | Exception]) -> None:
    for one, other in zip(together, apart, strict=True):
        if isinstance(other, Exception):
            assert type(one) is type(other)
            assert str(one) == str(other)
            continue
        assert isinstance(one, Decision)
        for name in Decision.__slots__:
            mine, theirs = getattr(one, name), getattr(other, name)
            if isinstance(theirs, float | np.ndarray):
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12, err_msg=name)
            else:
                assert mine == theirs, name


KINDS: dict[str, dict[str, Any]] = {
    "linear": {},
    "greedy": {"exploration": "greedy"},
    "square_cb": {"exploration": "square_cb"},
    "softmax": {"exploration": "softmax"},
    "nearest": {"model": "nearest", "exploration": "epsilon_greedy"},
    "vw": {"model": "vw", "exploration": "square_cb"},
    "rules": {"model": "rules"},
    "uniform": {"model": "uniform"},
    "fixed": {"model": "fixed", "arm": "arm-2"},
    "caller": {"model": "caller"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_decision_does_not_depend_on_which_others_it_is_made_with(kind: str):
    """Arm, pmf (to 1e-12), predictions, refusals: in a batch, in its reverse, and alone."""
    one, queries = policy(**KINDS[kind]), asked()
    apart = [alone(one, *query) for query in queries]
    alike(one.decide_all(queries, 7), apart)
    alike(one.decide_all(queries[::-1], 7)[::-1], apart)
    assert sum(isinstance(made, Decision) for made in apart) > 20
    assert any(isinstance(made, NoEligibleArm) for made in apart)


@pytest.mark.parametrize("other", ["linear", "nearest", "caller"])
def test_nor_does_what_is_logged_of_a_challenger(other: str):
    """Its pmf, its share and its context, beside a cautious champion."""
    champion = policy(incumbent="arm-3", max_loss=0.05)
    assert champion.caution is not None
    standing = Standing(earned=6.0, variance=0.1, noise=0.05)
    champion = replace(champion, caution=replace(champion.caution, standing=standing))
    challenger = replace(policy(**KINDS[other]), version="2", encoder=Encoder.default(d=56))
    if other != "caller":
        challenger = policy(**KINDS[other], floor=0.05)
    both, queries = champion.beside(replace(challenger, version="2"), 0.2), asked()
    apart = [alone(both, *query) for query in queries]
    alike(both.decide_all(queries, 7), apart)
    assert any(isinstance(made, Decision) and 0 < made.share < 0.2 for made in apart) or (
        other == "caller"
    )


def test_many_at_once_are_worked_on_in_parts():
    """More rows than the cache is meant for: still each as if alone."""
    one = policy()
    queries = [(Request(Query(text=f"Question {i}")), f"d-{i}") for i in range(150)]
    alike(one.decide_all(queries, 7), [alone(one, *query) for query in queries])


def test_nothing_asked_is_nothing_decided():
    assert policy().decide_all([], 7) == []

"""Any policy, any request: what is logged of a decision is what it was drawn with, and comes out
again from the record alone; and a plan is one that the arms, the policy and the caller allow."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.encoder import Encoder
from features.query import Hints, Query
from policy import policy as policies
from policy.arms.availability import Availability
from policy.arms.constraints import Constraints
from policy.config.toml import parse
from policy.objective import PRESETS
from policy.plans.plan import DRAWN, arms_of, kind_of
from policy.policy import Policy, Request
from policy.records import Decision, OutcomeBatch, from_stored, packed, to_stored
from policy.values import models
from policy.verifying import Registered, contradicted, faults
from tests.fuzzing.damage import examples

ENCODER = Encoder.default()
ARMS = ("a", "b", "c", "d", "e")
PLANS = (
    'plans = { kinds = ["hedge", "race", "cascade", "fallback"], max_cost_ratio = 4.0 }',
    'plans = { kinds = ["cascade"], thresholds = [0.5, 0.9], width = 2 }\nfloor = 0.0',
    'plans = { kinds = ["race", "fallback"], width = 4 }\nexploration = "greedy"',
)
POLICIES = (
    "",
    "floor = 0.3",
    'exploration = "greedy"',
    'exploration = "epsilon_greedy"\nepsilon = 0.2',
    'exploration = "softmax"\ntemperature = 0.1',
    'exploration = "square_cb"\ngamma = 50.0',
    'model = "uniform"',
    'model = "fixed"\narm = "b"',
    'model = "rules"',
    'model = "nearest"',
    'incumbent = "a"\nmax_loss = 0.1',
)


@cache
def policy_of(text: str, k: int, events: int) -> Policy:
    """k arms, of which the policy has seen so many outcomes."""
    arms = "".join(
        f'[[arms]]\nid = "{name}"\nprovider = "{"pq"[i % 2]}"\nmodel = "m{i}"\n'
        f"usd_per_mtok_in = {0.1 * 3**i}\nusd_per_mtok_out = {0.3 * 3**i}\n"
        f"context_window_tokens = {8_192 * 2**i}\npriors = {{ code = {0.5 + 0.1 * i:.1f} }}\n"
        for i, name in enumerate(ARMS[:k])
    )
    config = parse(f"{arms}\n[policies.default]\n{text}", "test")
    wanted = config.policies["default"]
    model = models.new_model(wanted, ENCODER)
    if model is not None and events:
        rng = np.random.default_rng(events)
        chosen = rng.integers(k, size=events)
        x = np.zeros((events, ENCODER.d), dtype=np.float32)
        x[:, 0], x[:, 1:9] = 1.0, rng.random((events, 8)) / 4
        model.learn(
            OutcomeBatch(
                arms=[ARMS[i] for i in chosen],
                x=x,
                quality=np.clip(0.2 * chosen + 0.2 * rng.standard_normal(events), 0.0, 1.0),
                latency_ms=rng.lognormal(6.0, 0.4, events),
                cost_usd=rng.lognormal(-6.0, 0.4, events),
                error=rng.random(events) < 0.05,
                settled=np.zeros((events, 3), dtype=bool),
                list_cost_usd=np.full(events, 0.002),
                propensity=np.full(events, 1.0 / k),
                catalogs=[config.arms] * events,
                eligible=[packed(np.ones(k, dtype=bool))] * events,
            )
        )
    return policies.build(
        "default",
        "1",
        events,
        config=wanted,
        encoder=ENCODER,
        catalog=config.arms,
        view=None if model is None else model.view(),
    )


CONSTRAINTS = st.fixed_dictionaries(
    {},
    optional={
        "allow": st.lists(st.sampled_from(ARMS[:2]), min_size=1, unique=True),
        "max_cost_usd": st.sampled_from([1e-3, 1e-1]),
        "max_latency_ms": st.sampled_from([300.0, 30_000.0]),
        "context_tokens": st.sampled_from([100, 20_000]),
        "relax": st.just(["cost", "latency", "context"]),
    },
)
REQUESTS = st.builds(
    Request,
    query=st.none() | st.builds(Query, text=st.text(max_size=80)),
    hints=st.builds(
        Hints,
        task_type=st.none() | st.sampled_from(["code", "math", "other"]),
        labels=st.just({}) | st.just({"app": "x"}),
        output_tokens=st.none() | st.integers(0, 5_000),
    ),
    constraints=CONSTRAINTS.map(Constraints.model_validate),
    weights=st.none() | st.sampled_from([*PRESETS.values()]),
    plans=st.sets(st.sampled_from([*DRAWN, "fallback"])).map(sorted).map(tuple),
)


def states(texts: Sequence[str]) -> st.SearchStrategy[Policy]:
    return st.builds(
        policy_of, st.sampled_from(texts), st.integers(2, 5), st.sampled_from([0, 30, 200])
    )


@st.composite
def running(draw: st.DrawFn) -> Policy:
    """A policy, perhaps with a challenger that has a share of the draw, or with calls that fail."""
    policy = draw(states(POLICIES))
    if draw(st.booleans()):
        other = draw(states(POLICIES).filter(lambda p: len(p.catalog) == len(policy.catalog)))
        share = draw(st.sampled_from([0.0, 0.1, 0.5]))
        policy = policy.beside(replace(other, version="2"), share)
    if draw(st.booleans()):
        answered = np.linspace(0.5, 1.0, len(policy.catalog))
        policy = policy.given(Availability({"b": "out"}, answered=answered))
    return policy


@examples(20)
@given(running(), st.lists(REQUESTS, min_size=1, max_size=3), st.integers(0, 999))
def test_what_is_logged_is_what_was_drawn_with(policy: Policy, asked: list[Request], seed: int):
    """A pmf that sums to 1, its arm's part as the propensity, the arm by the id's own number; the
    same alone as among others; and the record, read back, gives it again."""
    check(policy, asked, seed)


@examples(20)
@given(
    states(PLANS),
    st.lists(REQUESTS.filter(lambda asked: bool(asked.plans)), min_size=1, max_size=3),
    st.integers(0, 999),
)
def test_plans_are_drawn_as_arms_are(policy: Policy, asked: list[Request], seed: int):
    """All of that of actions, and a plan is one that may be."""
    check(policy, asked, seed)


def check(policy: Policy, asked: list[Request], seed: int) -> None:
    ids = [f"{seed}-{i}" for i in range(len(asked))]
    made = policy.decide_all(list(zip(asked, ids, strict=True)), 1_000)
    alone = [policy.decide_all([pair], 1_000)[0] for pair in zip(asked, ids, strict=True)]
    for request, one, other in zip(asked, made, alone, strict=True):
        assert type(one) is type(other)
        if not isinstance(one, Decision):
            continue
        assert isinstance(other, Decision)
        assert to_stored(one) == to_stored(other)
        _assert_drawn(one)
        _assert_allowed(policy, request, one)
        back = from_stored(to_stored(one), one.x.tobytes(), _bytes(one.challenger_x))
        assert to_stored(back) == to_stored(one)
        if not any(kind_of(action) for action in one.arms):
            _assert_comes_out_again(policy, back)


def _bytes(x: Any) -> bytes | None:
    return None if x is None else x.tobytes()


def _assert_drawn(decision: Decision) -> None:
    pmf, at = decision.pmf, decision.arms.index(decision.arm)
    assert pmf.shape == (len(decision.arms),)
    assert np.isfinite(pmf).all()
    assert pmf.min() >= 0.0
    assert abs(pmf.sum() - 1.0) < 1e-9
    assert decision.propensity == pmf[at] > 0.0
    digest = hashlib.blake2b(decision.decision_id.encode(), key=b"default", digest_size=8)
    u = int.from_bytes(digest.digest(), "big") / 2**64
    below, above = pmf[:at].sum() / pmf.sum(), pmf[: at + 1].sum() / pmf.sum()
    assert below - 1e-9 <= u <= above + 1e-9


def _assert_allowed(policy: Policy, request: Request, decision: Decision) -> None:
    """Arms that the constraints leave, in the catalog's order; plans of these, of kinds that caller
    and policy know."""
    arms = [action for action in decision.arms if kind_of(action) is None]
    assert arms == [name for name in policy.catalog.ids if name in arms]
    if request.constraints.allow is not None:
        assert set(arms) <= set(request.constraints.allow)
    assert "b" not in policy.available.out or "b" not in arms
    config = policy.config.plans
    for action in decision.arms[len(arms) :]:
        kind, steps = kind_of(action), arms_of(action)
        assert kind in request.plans
        assert kind in config.kinds
        assert len(steps) == len(set(steps)) == 2
        assert set(steps) <= set(arms)
    plan = decision.plan
    if plan is not None:
        assert len({step.arm for step in plan.steps}) == len(plan.steps) <= config.width
        assert {step.arm for step in plan.steps} <= set(arms)
        assert plan.steps[0].arm == decision.first_arm
        assert plan.steps[0].at_ms == 0.0
    elif kind_of(decision.arm) is not None:
        raise AssertionError("an action that is a plan has none")


def _assert_comes_out_again(policy: Policy, decision: Decision) -> None:
    """Whoever has the policy's state and the record finds nothing that contradicts it."""

    def registered(of: Policy) -> Registered:
        return Registered(of.config, of.encoder.fingerprint, of.encoder.d, of.snapshot)

    other = policy.challenger
    found = faults(decision, policy.catalog, registered(policy), other and registered(other), 1_000)
    assert not list(found)
    if not decision.gave_way and policy.caution is None:
        assert not list(contradicted(policy, decision))

"""What every value model must do, whichever way it learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.profile import profile
from features.query import Hints
from policy.config.schema import ObjectiveConfig, PolicyConfig
from policy.objective import Weights
from policy.records import CorrectionBatch, OutcomeBatch
from policy.values import models
from policy.values.protocol import Forecast, ValueModel, ValuesView
from tests.policy.damaged import damaged
from tests.policy.linear_model import plain
from tests.policy.one_query import forecast_one

OBJECTIVE = ObjectiveConfig(quality=1.0, latency_ref_ms=1_000.0, cost_ref_usd=0.01)
MIXED = Weights.of(quality=0.7, latency=0.2, cost=0.1)
TASKS = ("code", "math", "translation")

# test_vw and test_vw_fold tell the like of vw, which needs a catalog for its arms' traits.
KINDS = [kind for kind in models.VALUE_MODELS if kind != "vw"]
pytestmark = pytest.mark.parametrize("kind", KINDS)


@cache
def config(kind: str) -> PolicyConfig:
    return PolicyConfig.model_validate({"model": kind, "objective": OBJECTIVE})


def fresh(kind: str) -> ValueModel:
    model = models.new_model(config(kind), models.default_encoder(config(kind)))
    assert model is not None
    return model


@cache
def context(kind: str, task: str) -> NDArray[np.float32]:
    hints = Hints(task_type=task)
    return models.default_encoder(config(kind)).encode(None, hints, profile(None, hints))


def events(kind: str, rows: Sequence[dict[str, Any]]) -> OutcomeBatch:
    """One event per row: `arm`, `task` and whatever is known of the outcome."""
    n = len(rows)

    def column(name: str, default: float = math.nan) -> NDArray[np.float64]:
        return np.array([row.get(name, default) for row in rows], dtype=np.float64)

    arms = [row.get("arm", "a") for row in rows]
    return OutcomeBatch(
        arms=arms,
        x=np.stack([context(kind, row.get("task", "code")) for row in rows]),
        quality=column("quality"),
        latency_ms=column("latency_ms"),
        cost_usd=column("cost_usd"),
        error=np.array([bool(row.get("error")) for row in rows]),
        settled=np.array([row.get("settled", (False, False, False)) for row in rows]),
        list_cost_usd=column("list_cost_usd", 0.001),
        propensity=np.full(n, np.nan),
        catalogs=[plain(arms)] * n,
        eligible=[b""] * n,
    )


def mixed(kind: str, n: int, seed: int = 0) -> OutcomeBatch:
    """n outcomes of three arms in three tasks, some components missing, some errors."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        arm = int(rng.integers(3))
        known = {
            "quality": float(np.clip(0.3 + 0.2 * arm + 0.1 * rng.standard_normal(), 0, 1)),
            "latency_ms": float(rng.lognormal(6.0, 0.3)),
            "cost_usd": float(rng.lognormal(-7.0, 0.3)),
        }
        row: dict[str, Any] = {name: v for name, v in known.items() if rng.random() > 0.2}
        row |= {"arm": "abc"[arm], "task": TASKS[rng.integers(3)], "error": rng.random() < 0.05}
        rows.append(row)
    return events(kind, rows)


def part(batch: OutcomeBatch, at: int, to: int) -> OutcomeBatch:
    return batch.take(np.arange(at, to))


def taught(kind: str, *batches: OutcomeBatch) -> ValueModel:
    model = fresh(kind)
    for batch in batches:
        model.learn(batch)
    return model


def forecast(
    kind: str,
    of: ValueModel | ValuesView,
    arms: Sequence[str] = ("a", "b", "c"),
    task: str = "code",
    list_cost_usd: float = 0.001,
    weights: Weights = MIXED,
) -> Forecast:
    view = of if hasattr(of, "bind") else of.view()
    k = len(arms)
    x, costs = context(kind, task), np.full(k, list_cost_usd)
    return forecast_one(view.bind(arms, usual=weights), x, np.arange(k), costs, weights)


def correction(
    batch: OutcomeBatch, rows: Sequence[int], since: Sequence[int], **values: float
) -> CorrectionBatch:
    """These events' components overruled, so many events after the one that taught them."""
    some = batch.take(np.array(rows, dtype=np.intp))
    nothing = dict.fromkeys(("quality", "latency_ms", "cost_usd"), np.full(len(rows), np.nan))
    old = {name: getattr(some, name) for name in values}
    new = {name: np.full(len(rows), value) for name, value in values.items()}
    return CorrectionBatch(
        replace(some, **{**nothing, **old}),
        replace(some, **{**nothing, **new}),
        np.repeat(np.array(since, dtype=np.intp)[:, None], 3, axis=1),
    )


def assert_same(one: Forecast, other: Forecast, rel: float = 1e-6) -> None:
    assert one.utility == pytest.approx(other.utility, rel=rel)
    assert one.outcome == pytest.approx(other.outcome, rel=rel, nan_ok=True)


@pytest.mark.parametrize("cuts", [(), (1,), (7, 7, 100), (150, 151, 299)], ids=str)
def test_batches_may_be_cut_anywhere(kind: str, cuts: tuple[int, ...]):
    """state = fold(events): what is learned doesn't depend on the batches."""
    batch = mixed(kind, 300)
    pieces = taught(kind, *(part(batch, a, b) for a, b in pairwise((0, *cuts, 300))))
    assert pieces.events == 300
    whole = taught(kind, batch)
    for task in TASKS:
        assert_same(forecast(kind, pieces, task=task), forecast(kind, whole, task=task))


def test_the_same_events_give_the_same_bytes(kind: str):
    """Nothing reads a clock or draws."""
    one, other = (taught(kind, mixed(kind, 100)) for _ in range(2))
    assert one.to_parts() == other.to_parts()
    assert one.view().to_parts() == other.view().to_parts()


def test_a_start_is_predicted_from_and_overruled(kind: str):
    """What was known before the first event counts as at most so many outcomes of an arm."""
    model = fresh(kind)
    known = [{"arm": arm, "quality": q} for arm, q in (("a", 0.9), ("b", 0.1))]
    model.start(events(kind, known * 300), at_most=20.0)
    assert forecast(kind, model, ("a", "b")).outcome[:, 0] == pytest.approx([0.9, 0.1], abs=0.1)
    again = models.read_model(kind, model.to_parts())
    assert_same(forecast(kind, again), forecast(kind, model))
    model.learn(events(kind, [{"arm": "a", "quality": 0.1}] * 200))
    assert forecast(kind, model, ("a",)).outcome[0, 0] < 0.3
    with pytest.raises(ValueError, match="before the first event"):
        model.start(events(kind, known), at_most=20.0)


@pytest.mark.parametrize("n", [0, 5, 300])
def test_bytes_round_trip(kind: str, n: int):
    """A model read back is the same, and goes on learning as if it had never been stored."""
    model = taught(kind, *([mixed(kind, n)] if n else []))
    again = models.read_model(kind, model.to_parts())
    assert again.to_parts() == model.to_parts()
    for one in (model, again):
        one.learn(mixed(kind, 50, seed=1))
    assert again.events == model.events == n + 50
    assert_same(forecast(kind, again), forecast(kind, model))


@pytest.mark.parametrize("n", [0, 5, 300])
def test_a_view_round_trips(kind: str, n: int):
    """Serving predicts what the learner's own view does."""
    view = taught(kind, *([mixed(kind, n)] if n else [])).view()
    again = models.read_view(kind, view.to_parts())
    assert again.to_parts() == view.to_parts()
    assert_same(forecast(kind, again), forecast(kind, view))


@pytest.mark.parametrize("n", [1, 5, 300])
def test_predictions_are_finite_and_in_range(kind: str, n: int):
    """For arms seen and unseen; an outcome is NaN only where nothing was taught."""
    made = forecast(kind, taught(kind, mixed(kind, n)), ("a", "b", "c", "new"))
    assert np.isfinite(made.utility).all()
    assert made.utility_sd is None or (made.utility_sd >= 0).all()
    known = made.outcome[:, ~np.isnan(made.outcome).all(axis=0)]
    assert np.isfinite(known).all()
    assert (known >= 0).all()
    assert (made.outcome[:, 0] <= 1).all()


def test_before_any_event_arms_differ_by_their_price_alone(kind: str):
    """There is a forecast, but no outcome that anybody knows of."""
    view = fresh(kind).view()
    costs = np.array([0.0, 0.01])
    made = forecast_one(
        view.bind(("a", "b")),
        context(kind, "code"),
        np.arange(2),
        costs,
        Weights.of(quality=0.5, cost=0.5),
    )
    assert made.utility[0] - made.utility[1] == pytest.approx(0.5, abs=1e-6)
    assert np.isnan(made.outcome).all()


def test_some_arms_of_a_catalog_are_predicted_as_they_are_among_all(kind: str):
    """`index` chooses; it changes no prediction."""
    bound = taught(kind, mixed(kind, 200)).view().bind(("a", "b", "new", "c"))
    x, costs = context(kind, "math"), np.array([0.001, 0.002, 0.003, 0.004])
    every, some = np.arange(4), np.array([1, 3])
    all_of_them = forecast_one(bound, x, every, costs, MIXED)
    two = forecast_one(bound, x, some, costs[some], MIXED)
    assert two.utility == pytest.approx(all_of_them.utility[some], rel=1e-6)
    assert two.outcome == pytest.approx(all_of_them.outcome[some], rel=1e-6)


def test_arms_are_told_apart_by_context(kind: str):
    """One is good at code, the other at maths, and so it is predicted."""
    rows = [
        {"arm": arm, "task": task, "quality": 0.9 if (arm, task) in good else 0.1}
        for good in [{("a", "code"), ("b", "math")}]
        for arm in "ab"
        for task in ("code", "math")
    ]
    model = taught(kind, events(kind, rows * 60))
    for task, better in (("code", 0), ("math", 1)):
        quality = forecast(kind, model, ("a", "b"), task).outcome[:, 0]
        assert quality[better] > quality[1 - better] + 0.3


@pytest.mark.parametrize("quality", [0.1, 0.9])
def test_an_arm_never_seen_is_predicted_from_the_rest(kind: str, quality: float):
    """Where all others are good, it is expected to be."""
    rows = [{"arm": arm, "quality": quality} for arm in "abcdef"] * 30
    model = taught(kind, events(kind, rows))
    assert forecast(kind, model, ("a", "new")).outcome[:, 0] == pytest.approx(quality, abs=0.15)
    bound = model.view().bind(("a", "new"))
    assert bound.events.tolist() == [30, 0]
    assert bound.joined.tolist() == [0, 180]


def test_what_is_missing_teaches_nothing(kind: str):
    """Latencies alone leave the expected quality where it was, but for what is forgotten."""
    good = events(kind, [{"quality": 0.8, "latency_ms": 100.0}] * 60)
    before = forecast(kind, taught(kind, good), ("a",)).outcome[0]
    slow = events(kind, [{"latency_ms": 900.0}] * 60)
    after = forecast(kind, taught(kind, good, slow), ("a",)).outcome[0]
    assert after[0] == pytest.approx(before[0], abs=0.02)
    assert after[1] > before[1] + 200
    assert np.isnan(after[2])
    empty = forecast(kind, taught(kind, good, events(kind, [{}])), ("a",)).outcome[0]
    assert empty == pytest.approx(before, rel=1e-2, nan_ok=True)


def test_an_error_teaches_the_worst(kind: str):
    """Quality 0 and the reference latency, unless a latency came with it; the list cost."""
    made = forecast(kind, taught(kind, events(kind, [{"error": True}] * 80)), ("a",))
    assert made.outcome[0, 0] < 0.1
    assert made.outcome[0, 1] == pytest.approx(1_000.0, rel=0.15)
    assert made.outcome[0, 2] == pytest.approx(0.001, rel=0.15)
    timed = events(kind, [{"error": True, "latency_ms": 250.0}] * 80)
    assert forecast(kind, taught(kind, timed), ("a",)).outcome[0, 1] == pytest.approx(250, rel=0.2)


def test_what_was_settled_is_not_taught_again(kind: str):
    """An error after the quality leaves the quality as it was."""
    good = events(kind, [{"quality": 0.9}] * 60)
    late = events(kind, [{"error": True, "settled": (True, False, False)}] * 60)
    assert forecast(kind, taught(kind, good, late), ("a",)).outcome[0, 0] > 0.85


def test_a_price_acts_at_once(kind: str):
    """An arm that costs twice its list price goes on to, at a new list price."""
    twice = events(kind, [{"cost_usd": 0.002, "list_cost_usd": 0.001, "quality": 0.5}] * 150)
    model = taught(kind, twice)
    for price in (0.001, 0.003):
        made = forecast(kind, model, ("a",), list_cost_usd=price)
        assert made.outcome[0, 2] == pytest.approx(2 * price, rel=0.15)


KNOWN = [{"arm": arm, "quality": 0.9, "latency_ms": 300.0, "cost_usd": 0.002} for arm in "ab"] * 3
BETTER = {"quality": 0.2, "latency_ms": 700.0}


def test_a_correction_puts_new_values_in_the_place_of_old_ones(kind: str):
    """What is learned is what would have been learned had they come so in the first place; other
    components of the event stay, and so do the counts."""
    model = taught(kind, events(kind, KNOWN))
    model.correct(correction(events(kind, KNOWN), [0, 3], [5, 2], **BETTER))
    right = [row | BETTER if i in (0, 3) else row for i, row in enumerate(KNOWN)]
    as_right = taught(kind, events(kind, right))  # too few for a model to have tuned anything
    assert_same(forecast(kind, model), forecast(kind, as_right), rel=1e-5)
    assert model.events == 6
    assert model.view().bind(("a", "b")).events.tolist() == [3, 3]


def test_a_correction_may_be_corrected(kind: str):
    """The value that holds now is the one that is taken back."""
    model = taught(kind, events(kind, KNOWN))
    before = forecast(kind, model)
    wrong = [row | {"quality": 0.1} for row in KNOWN]
    model.correct(correction(events(kind, KNOWN), [1], [4], quality=0.1))
    model.correct(correction(events(kind, wrong), [1], [4], quality=0.9))
    assert_same(forecast(kind, model), before)


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3)], ids=str)
def test_corrections_may_be_cut_anywhere_and_survive_a_restart(kind: str, cuts: tuple[int, ...]):
    """Between batches, and between a model and the same one read back from its bytes."""
    batch = mixed(kind, 200)
    rows = np.flatnonzero(~np.isnan(batch.quality) & ~batch.error)[[3, 40, 90, 120]].tolist()
    whole, pieces = taught(kind, batch), taught(kind, batch)
    since = [199 - row for row in rows]
    whole.correct(correction(batch, rows, since, quality=0.5))
    for a, b in pairwise((0, *cuts, 4)):
        pieces = models.read_model(kind, pieces.to_parts())
        pieces.correct(correction(batch, rows[a:b], since[a:b], quality=0.5))
    assert pieces.to_parts() == whole.to_parts()


@pytest.mark.parametrize("since", [2, 7, 1_000])
def test_what_was_never_learned_here_is_not_taken_back(kind: str, since: int):
    """An event before the first of this model, whether its start holds it or not."""
    model = fresh(kind)
    model.start(events(kind, KNOWN), at_most=20.0)
    model.learn(events(kind, KNOWN[:2]))
    before = model.to_parts()
    model.correct(correction(events(kind, KNOWN), [0], [since], **BETTER))
    unseen = events(kind, [KNOWN[0] | {"arm": "never-seen"}])
    model.correct(correction(unseen, [0], [1_000], **BETTER))
    assert model.to_parts() == before


def test_a_context_that_is_not_finite_stops_learning(kind: str):
    """Loudly: it would spoil what was learned for ever."""
    batch = mixed(kind, 3)
    batch.x[1, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        taught(kind, batch)


def test_other_bytes_are_refused(kind: str):
    """With a ValueError, whatever they are."""
    model = taught(kind, mixed(kind, 20))
    for parts, read in (
        (model.to_parts(), models.read_model),
        (model.view().to_parts(), models.read_view),
    ):
        for wrong in damaged(parts):
            with pytest.raises(ValueError, match=r"."):
                read(kind, wrong)

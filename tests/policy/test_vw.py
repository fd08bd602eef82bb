"""Vowpal Wabbit as a value model: by hand, as a fold of its events, and past the library's traps.

Each trap is shown in the library itself, so that a version that mends it is noticed, and then not
to be in our way.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.config.problems import ConfigError
from policy.config.schema import Config, PolicyConfig
from policy.config.toml import parse, to_toml
from policy.objective import Scales, Weights
from policy.records import CorrectionBatch, OutcomeBatch, packed
from policy.values.snapshot import Header, pack, unpack
from serving.store.learning import LearnerStore
from tests.servers import CONFIG, fold_again, http_service, learn_all, settings_for, until

vw = pytest.importorskip("vowpal_wabbit_next", reason="no build of vowpal-wabbit-next here")

from policy.values.vw import (  # noqa: E402 - which imports it
    ARGUMENTS,
    CB_TYPES,
    VwModel,
    VwValues,
    VwView,
    arguments,
)

EXAMPLES = Path(__file__).parents[2] / "../shared/data/vw_examples"
GROUPS = {"bias": slice(0, 1), "task": slice(1, 3), "hints": slice(3, 6), "text": slice(6, 8)}
D = 8
SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
QUALITY = Weights.of(quality=1.0)
NAMES = ("a", "b", "c")


def arm(name: str, **more: Any) -> Arm:
    given = {
        "provider": "p",
        "model": name,
        "context_window_tokens": 8192,
        "usd_per_mtok_in": 1.0,
        "usd_per_mtok_out": 2.0,
        "prices_checked": datetime.date(2026, 1, 1),
        "prices_source": "made up for tests",
    }
    return Arm(id=name, **{**given, **more})


CATALOG = Catalog(tuple(map(arm, NAMES)))


def events(n: int, seed: int = 0, missing: float = 0.0) -> OutcomeBatch:
    """n outcomes of arms whose quality differs, some components missing, some errors."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(NAMES), size=n)
    x = (rng.standard_normal((n, D)) / 3).astype(np.float32)
    x[:, 0] = 1.0

    def some(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(rng.random(n) < missing, np.nan, values)

    return OutcomeBatch(
        arms=[NAMES[i] for i in chosen],
        x=x,
        quality=some(np.clip(0.2 + 0.3 * chosen + 0.1 * rng.standard_normal(n), 0.0, 1.0)),
        latency_ms=some(rng.uniform(100.0, 900.0, n)),
        cost_usd=some(rng.uniform(0.001, 0.009, n)),
        error=rng.random(n) < 0.1 * missing,
        settled=rng.random((n, 3)) < 0.1 * missing,
        list_cost_usd=np.full(n, 0.005),
        propensity=rng.uniform(0.05, 1.0, n),
        catalogs=[CATALOG] * n,
        eligible=[packed(np.ones(3, dtype=bool))] * n,
    )


def part(batch: OutcomeBatch, at: int, to: int) -> OutcomeBatch:
    return OutcomeBatch(**{n: getattr(batch, n)[at:to] for n in OutcomeBatch.__slots__})


def taught(*batches: OutcomeBatch, cb_type: str = "mtr") -> VwModel:
    model = VwModel(GROUPS, SCALES, cb_type)
    for batch in batches:
        model.learn(batch)
    return model


def bound(model: VwModel, catalog: Catalog = CATALOG, **more: Any) -> VwValues:
    return model.view().bind(catalog.ids, catalog=catalog, **more)


def context(*x: float) -> NDArray[np.float32]:
    made = np.zeros(D, dtype=np.float32)
    made[: len(x)] = x
    return made


def outcome(model: VwModel, x: NDArray[np.float32], catalog: Catalog = CATALOG) -> Any:
    k = len(catalog)
    return bound(model, catalog).forecast(x, np.arange(k), np.full(k, 0.005), QUALITY).outcome


# What a value model does


def test_what_was_never_taught_is_middling_and_unknown():
    """Before any event: quality 0.5, half the reference latency and the list cost in the utility,
    NaN in the outcomes."""
    forecast = bound(VwModel(GROUPS, SCALES)).forecast(
        context(1.0), np.arange(3), np.array([0.0, 0.005, 0.01]), Weights.of(1.0, 1.0, 2.0)
    )
    assert forecast.utility == pytest.approx([0.75, 0.5, 0.25])
    assert forecast.utility_sd is None
    assert np.isnan(forecast.outcome).all()


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_it_learns_which_arm_is_best(cb_type: str):
    """Three arms of quality 0.2, 0.5 and 0.8 are ranked as they are."""
    learned = outcome(taught(events(600), cb_type=cb_type), context(1.0))
    assert learned[:, 0].argsort().tolist() == [0, 1, 2]
    if cb_type == "mtr":
        assert learned[:, 0] == pytest.approx([0.2, 0.5, 0.8], abs=0.1)
        assert learned[:, 1] == pytest.approx(np.full(3, 500.0), rel=0.2)
        assert learned[:, 2] == pytest.approx(np.full(3, 0.005), rel=0.2)


@pytest.mark.parametrize("cb_type", ["mtr", "dr"])
def test_constant_outcomes_are_predicted_as_they_are(cb_type: str):
    """VW clips to the labels seen so far; an overshoot beyond the smallest would stay for ever."""
    batch = events(3_000)
    quality = np.array([0.3 if name == "a" else 0.95 for name in batch.arms])
    batch = replace(batch, quality=quality, latency_ms=np.full(3_000, 500.0))
    expected = outcome(taught(batch, cb_type=cb_type), context(1.0))
    assert expected[:, 0] == pytest.approx([0.3, 0.95, 0.95], abs=0.06)
    assert expected[:, 1] == pytest.approx([500.0] * 3, abs=80.0)


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_corrections_draw_towards_the_right_values(cb_type: str):
    """A fifth of the qualities was reported the wrong way round: each that is overruled teaches
    what is right beside what was wrong, and predictions come nearer to what the right ones teach.
    No correction counts as an outcome."""
    n = 1_000
    right = events(n)
    wrong = np.flatnonzero(np.arange(n) % 5 == 0)
    reported = right.quality.copy()
    reported[wrong] = 1.0 - reported[wrong]
    batch = replace(right, quality=reported)
    uncorrected, corrected = (taught(batch, cb_type=cb_type) for _ in range(2))
    alone = {name: np.full(len(wrong), np.nan) for name in ("latency_ms", "cost_usd")}
    since = np.repeat(n - 1 - wrong[:, None], 3, axis=1)
    old, new = (replace(some.take(wrong), **alone) for some in (batch, right))
    corrected.correct(CorrectionBatch(old, new, since))
    xs = [context(1.0, a, b) for a in (-0.3, 0.3) for b in (-0.3, 0.3)]
    aim = taught(right, cb_type=cb_type)

    def off(model: VwModel) -> float:
        gaps = [outcome(model, x)[:, 0] - outcome(aim, x)[:, 0] for x in xs]
        return float(np.sqrt(np.mean(np.square(gaps))))

    assert off(corrected) < off(uncorrected)
    assert corrected.events == n
    assert corrected.view().events.tolist() == aim.view().events.tolist()


def test_a_correction_of_what_was_never_learned_teaches_nothing():
    """Its event came before this model's first."""
    model = taught(events(20))
    before = model.to_bytes()
    one = part(events(1, seed=5), 0, 1)
    model.correct(CorrectionBatch(one, one, np.full((1, 3), 20)))
    assert model.to_bytes() == before


def test_an_arm_is_known_by_its_id_wherever_it_stands():
    """Predictions belong to arms, not to positions: another catalog order, the same forecast."""
    model = taught(events(300))
    turned = Catalog(CATALOG.arms[::-1])
    x = context(1.0, 0.3)
    np.testing.assert_allclose(outcome(model, x, turned)[::-1], outcome(model, x), atol=1e-6)


def test_a_new_arm_is_judged_by_its_traits():
    """One that nobody has drawn is expected to be more like its provider's other arms."""
    known = (arm("a", provider="good"), arm("b", provider="bad"), arm("c", provider="good"))
    batch = events(600)
    quality = np.array([0.2 if name == "b" else 0.8 for name in batch.arms])
    learned = taught(replace(batch, quality=quality, catalogs=[Catalog(known)] * 600))
    new = Catalog((*known, arm("good-new", provider="good"), arm("bad-new", provider="bad")))
    forecast = outcome(learned, context(1.0), new)
    assert forecast[3, 0] > forecast[4, 0] + 0.05
    assert bound(learned, new).joined[3:].tolist() == [600, 600]


def test_an_arm_whose_window_nobody_has_told_is_judged_by_the_rest():
    """An unknown trait is absent; the prediction is still a number, near that of an arm alike."""
    told, untold = arm("told"), arm("untold", context_window_tokens=None)
    forecast = outcome(taught(events(600)), context(1.0), Catalog((*CATALOG.arms, told, untold)))
    assert np.isfinite(forecast[:, 0]).all()
    assert forecast[4, 0] == pytest.approx(forecast[3, 0], abs=0.3)


def test_a_price_acts_at_once():
    """Cost is learned relative to the list cost: a list price that doubles is predicted at once."""
    batch = events(300)
    model = taught(replace(batch, cost_usd=batch.list_cost_usd))
    forecast = bound(model).forecast(
        context(1.0), np.arange(3), np.array([0.002, 0.005, 0.01]), QUALITY
    )
    assert forecast.outcome[:, 2] == pytest.approx([0.002, 0.005, 0.01], abs=1e-4)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_saturated_score_means_the_reference_or_more(scale: Any):
    """Beyond the references nothing is told apart: the reference, or a list cost above it."""
    batch = events(400)
    model = VwModel(GROUPS, replace(SCALES, scale=scale))
    model.learn(replace(batch, latency_ms=np.full(400, 9e9), cost_usd=np.full(400, 9e9)))
    forecast = bound(model).forecast(context(1.0), np.arange(3), np.full(3, 0.02), QUALITY)
    assert forecast.outcome[:, 1] == pytest.approx(np.full(3, 1_000.0), rel=0.1)
    assert forecast.outcome[:, 2] == pytest.approx(np.full(3, 0.02))


def test_missing_and_settled_components_are_not_learned():
    """An event teaches what it brings: here quality alone."""
    batch = events(50)
    settled = np.zeros((50, 3), dtype=bool)
    settled[:, 1] = True
    model = taught(replace(batch, cost_usd=np.full(50, np.nan), settled=settled))
    assert np.isnan(outcome(model, context(1.0))[:, 1:]).all()
    assert bound(model).events.sum() == 50


def test_an_arm_that_nobody_drew_counts_once():
    """Where a caller executed another arm there is no propensity: importance 1, and it may be one
    that wasn't eligible."""
    batch = events(60)
    executed = replace(
        batch,
        arms=["c"] * 60,
        propensity=np.full(60, np.nan),
        eligible=[packed(np.array([True, True, False]))] * 60,
        quality=np.full(60, 1.0),
    )
    sure = replace(executed, propensity=np.ones(60), eligible=[packed(np.ones(3, dtype=bool))] * 60)
    x = context(1.0)
    np.testing.assert_allclose(outcome(taught(executed), x), outcome(taught(sure), x), atol=1e-3)
    assert outcome(taught(executed), x)[2, 0] > 0.9


@pytest.mark.parametrize("place", [0, 2])
def test_the_logged_propensity_counts_wherever_the_arm_stands(place: int):
    """A rarer choice teaches more, for the first arm as for the last."""
    batch = replace(events(40), arms=[NAMES[place]] * 40, quality=np.arange(40) % 2.0)
    x = context(1.0)
    good_was_rare, bad_was_rare = (
        outcome(taught(replace(batch, propensity=np.where(batch.quality == of, 0.3, 0.9))), x)
        for of in (1.0, 0.0)
    )
    assert good_was_rare[place, 0] > bad_was_rare[place, 0] + 0.1


def test_an_expected_quality_fades_as_outcomes_arrive():
    """What an operator expects moves a new arm's quality, and hardly that of a known one."""
    expected = ({1: 0.9}, {}, {})
    x = context(1.0, 1.0)

    def moved(model: VwModel) -> float:
        args = (x, np.arange(3), np.full(3, 0.005), QUALITY)
        plain = bound(model).forecast(*args).utility
        return float((bound(model, expected=expected).forecast(*args).utility - plain)[0])

    assert moved(VwModel(GROUPS, SCALES)) == pytest.approx(0.4)
    assert 0.0 < moved(taught(events(600))) < 0.05


def test_a_start_counts_as_at_most_so_many_outcomes():
    """What was known before the first event is thinned evenly; live outcomes overrule it."""
    batch = events(300)
    model = VwModel(GROUPS, SCALES)
    model.start(batch, at_most=20.0)
    assert bound(model).events.tolist() == [20, 20, 20]
    assert outcome(model, context(1.0))[:, 0].argsort().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="before the first event"):
        model.start(batch, at_most=20.0)


# What is learned is a fold


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_where_the_stream_is_cut_changes_nothing(cb_type: str):
    """One batch, or five: the same bytes."""
    batch = events(200, missing=0.3)
    whole = taught(batch, cb_type=cb_type)
    cuts = (0, 1, 50, 51, 130, 200)
    pieces = [part(batch, a, b) for a, b in pairwise(cuts)]
    assert taught(*pieces, cb_type=cb_type).to_bytes() == whole.to_bytes()


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_learning_goes_on_after_a_reload_as_if_there_had_been_none(cb_type: str):
    """And storing a model, or looking at it, leaves no trace."""
    batch = events(400, missing=0.3)
    uninterrupted = taught(batch, cb_type=cb_type)
    model = taught(part(batch, 0, 150), cb_type=cb_type)
    for at in range(150, 400, 50):
        bound(model).forecast(context(1.0), np.arange(3), np.full(3, 0.01), QUALITY)
        model = VwModel.from_bytes(model.to_bytes())
        model.learn(part(batch, at, at + 50))
    assert model.to_bytes() == uninterrupted.to_bytes()
    assert model.view().to_bytes() == uninterrupted.view().to_bytes()


def test_a_view_survives_its_bytes():
    """The same forecast, the same bytes."""
    view = taught(events(100)).view()
    again = VwView.from_bytes(view.to_bytes())
    assert again.to_bytes() == view.to_bytes()
    args = (context(1.0, 0.5), np.arange(3), np.full(3, 0.005), QUALITY)
    one, other = (v.bind(NAMES, catalog=CATALOG).forecast(*args) for v in (view, again))
    np.testing.assert_array_equal(one.outcome, other.outcome)
    assert again.bind(NAMES, catalog=CATALOG).events.sum() == 100


def test_predicting_changes_neither_the_next_prediction_nor_the_model():
    """A workspace is read a thousand times and still answers as at first."""
    model = taught(events(100))
    values, stored = bound(model), model.to_bytes()
    args = (context(1.0, 0.5), np.array([2, 0]), np.full(2, 0.005), QUALITY)
    first = values.forecast(*args).utility
    for _ in range(1_000):
        values.forecast(context(1.0, 1.0), np.arange(3), np.full(3, 0.005), QUALITY)
    np.testing.assert_array_equal(values.forecast(*args).utility, first)
    assert model.to_bytes() == stored


def test_decisions_at_the_same_time_do_not_mix():
    """Four threads that ask one view get what one thread gets."""
    values = bound(taught(events(200)))
    contexts = [x / 2 for x in events(200, seed=1).x]

    def utility(x: NDArray[np.float32]) -> list[float]:
        return values.forecast(x, np.arange(3), np.full(3, 0.005), QUALITY).utility.tolist()

    alone = [utility(x) for x in contexts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(utility, contexts)) == alone


def test_a_model_is_small():
    """Publishing it ten times a second is no burden."""
    assert len(taught(events(600)).to_bytes()) < 100_000


# Traps


Q = (1.0, 0.5, -0.2, 0.3)


def workspace(*arguments: str, model: bytes | None = None) -> Any:
    return vw.Workspace(["--quiet", *arguments], model_data=model)


def asked(place: int | None = None, cost: float = 0.0, p: float = 0.5, x: Any = Q) -> list[Any]:
    """A shared example and three actions; that at `place` has a label."""
    shared = vw.Example()
    shared.set_label(vw.CBLabel(shared=True))
    for i, value in enumerate(x):
        shared["s"].push_feature(1 + i, float(value))
    made = [shared]
    for i in range(3):
        action = vw.Example()
        action.set_label(vw.CBLabel(label=(cost, p)) if i == place else vw.CBLabel())
        action["a"].push_feature(1_000 + 64 * i, 1.0)
        made.append(action)
    return made


def teach(regressor: Any, n: int, seed: int = 0) -> Any:
    """n random events, each with the first one, two or three actions."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        k = int(rng.integers(1, 4))
        place, cost, p = int(rng.integers(k)), float(rng.random()), float(rng.uniform(0.1, 1.0))
        regressor.learn_one(asked(place, cost, p, rng.standard_normal(4))[: k + 1])
    return regressor


def learned_by(regressor: Any) -> bytes:
    """What a workspace would still know after a reload."""
    return bytes(workspace(model=regressor.serialize()).serialize())


@pytest.mark.parametrize("explorer", [["--squarecb"], ["--regcb", "--mellowness", "0.1"]])
def test_trap_vw_explorers_heed_the_propensity_of_the_last_action_only(explorer: list[str]):
    """So VW explores nothing for us: it estimates, with --cb_adf."""

    def heeds(place: int, *arguments: str) -> bool:
        learned = []
        for p in (0.2, 0.9):
            regressor = workspace(*arguments)
            for _ in range(5):
                regressor.learn_one(asked(place, 1.0, p))
                regressor.learn_one(asked(place, 0.0, 1.0))
            learned.append(learned_by(regressor))
        return learned[0] != learned[1]

    assert [heeds(i, "--cb_explore_adf", *explorer) for i in range(3)] == [False, False, True]
    assert [heeds(i, *ARGUMENTS) for i in range(3)] == [True, True, True]


def test_trap_answers_come_sorted_by_cost():
    """A forecast puts them back in the order of the arms."""
    regressor = workspace("--cb_adf")
    for place, cost in ((0, 0.9), (1, 0.1), (2, 0.5)):
        for _ in range(50):
            regressor.learn_one(asked(place, cost, 1.0))
    assert [action for action, _ in regressor.predict_one(asked())] == [1, 2, 0]
    batch = events(300)
    quality = np.array([{"a": 0.1, "b": 0.9, "c": 0.5}[name] for name in batch.arms])
    learned = outcome(taught(replace(batch, quality=quality)), context(1.0))
    assert learned[:, 0] == pytest.approx([0.1, 0.9, 0.5], abs=0.1)


def test_trap_a_delta_loses_counters():
    """A model that is put together from deltas learns on differently, and only one of -b 18 can be
    put together at all: we publish whole models."""
    base = teach(workspace("--cb_adf"), 50).serialize()
    derived = teach(workspace(model=base), 50, seed=1)
    delta = vw.calculate_delta(workspace(model=base), derived)
    merged = vw.apply_delta(workspace(model=base), delta)
    assert learned_by(merged) != learned_by(derived)
    small = workspace("--cb_adf", "-b", "16")
    with pytest.raises(RuntimeError, match="num_bits"):
        vw.apply_delta(small, vw.calculate_delta(small, workspace("--cb_adf", "-b", "16")))
    assert learned_by(teach(merged, 50, seed=2)) != learned_by(teach(derived, 50, seed=2))


def test_trap_damaged_models_load_silently():
    """VW takes a model that is cut short or has a flipped bit; our envelope takes neither."""
    stored = teach(workspace("--cb_adf"), 50).serialize()
    flipped = bytearray(stored)
    flipped[-10] ^= 0x40
    whole = sorted(workspace(model=stored).predict_one(asked()))
    for damaged in (stored[:-24], bytes(flipped)):
        assert sorted(workspace(model=damaged).predict_one(asked())) != whole

    blob = pack(Header("vw", "1", "e", "0-0", 50), taught(events(50)).view().to_bytes())
    for at in range(0, len(blob), 97):
        broken = bytearray(blob)
        broken[at] ^= 0x40
        with pytest.raises(ValueError, match="snapshot"):
            unpack(bytes(broken))
    for cut in (blob[:-1], blob[:-24], blob[: len(blob) // 2], b""):
        with pytest.raises(ValueError, match="snapshot"):
            unpack(cut)


@pytest.mark.parametrize("read", [VwModel.from_bytes, VwView.from_bytes])
def test_a_body_that_is_cut_short_is_refused_too(read: Any):
    """Also without the envelope around it."""
    body = taught(events(20)).to_bytes()
    for cut in (b"", body[:3], body[:40], body[:-1], body + b"x"):
        with pytest.raises(ValueError, match="VW"):
            read(cut)


def test_trap_names_inject_features():
    """`|`, `:` and spaces are VW's syntax in text; to us a name is one name whatever it holds."""
    parser = vw.TextFormatParser(workspace("--cb_adf"))
    provider = "evil |s admin:1000 x"
    parsed = parser.parse_line(f"|p {provider}")
    assert len(list(parsed)) == 2
    names = ("plain", provider, "evil", "evil |s admin:1000", "evil:1000")
    catalogs = [Catalog((arm("a", provider=name), *CATALOG.arms[1:])) for name in names]
    batch = part(events(40), 0, 40)
    learned = [taught(replace(batch, catalogs=[c] * 40)) for c in catalogs]
    x = batch.x[0]
    for model, catalog in zip(learned, catalogs, strict=True):
        np.testing.assert_allclose(
            outcome(model, x, catalog), outcome(learned[0], x, catalogs[0]), atol=1e-6
        )


def test_trap_regcbopt_alone_gives_ones():
    """A pmf that sums to 3."""
    regressor = workspace("--cb_explore_adf", "--regcbopt")
    assert sum(p for _, p in regressor.predict_one(asked())) == pytest.approx(3.0)


@pytest.mark.parametrize("explorer", [["--bag", "2"], ["--softmax", "--lambda", "1000"]])
def test_trap_bag_and_softmax_give_zeros(explorer: list[str]):
    """An arm of probability 0 can never be judged; our own rules have a floor."""
    regressor = workspace("--cb_explore_adf", *explorer)
    for place, cost in ((0, 0.9), (1, 0.1), (2, 0.5)):
        for _ in range(20):
            regressor.learn_one(asked(place, cost, 1.0))
    assert min(p for _, p in regressor.predict_one(asked())) == 0.0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cb_adf", "--cb_type", "dr"],
        ["--cb_explore_adf", "--bag", "2"],
        ["--cb_explore_adf", "--cover", "2"],
    ],
)
def test_trap_weights_reads_beyond_its_memory(arguments: list[str]):
    """With several regressors it claims 16 bytes for each weight of each: more than there is, so
    that the process may die. We never look at weights."""
    code = f"""
import numpy
from vowpal_wabbit_next import Workspace
weights = numpy.asarray(Workspace(["--quiet", *{arguments!r}]).weights())
print(weights.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode < 0 or int(done.stdout) > 16 * 2**18


def test_trap_predicting_changes_the_stored_bytes():
    """So what is stored is made where nothing predicts."""
    regressor = teach(workspace("--cb_adf"), 20)
    before = regressor.serialize()
    regressor.predict_one(asked())
    assert regressor.serialize() != before


def goes_on(*arguments: str) -> bool:
    """Whether learning after a reload equals learning without one."""
    one = teach(workspace(*arguments), 100)
    other = workspace(model=one.serialize())
    return learned_by(teach(one, 100, seed=1)) == learned_by(teach(other, 100, seed=1))


@pytest.mark.parametrize("cb_type", CB_TYPES)
def test_our_arguments_go_on_after_a_reload(cb_type: str):
    assert goes_on(*arguments(cb_type))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cb_explore_adf", "--bag", "3"],
        ["--cb_explore_adf", "--cover", "3"],
        ["--cb_explore_adf", "--rnd", "2", "--epsilon", "0.1"],
        ["--cb_adf", "--cb_type", "dr"],
        ["--cb_adf", "--l2", "0.001"],
    ],
)
def test_trap_some_go_on_differently_after_a_reload(arguments: list[str]):
    """Why ours runs without VW's own exploration, without --normalized and without --l2."""
    assert not goes_on(*arguments)


def test_trap_sparse_weights_are_not_stored():
    """A model with --sparse_weights is stored without any weight."""
    regressor = teach(workspace("--cb_adf", "--sparse_weights"), 100)
    again = workspace(model=regressor.serialize())
    assert [cost for _, cost in again.predict_one(asked())] == [0.0, 0.0, 0.0]
    assert [cost for _, cost in regressor.predict_one(asked())] != [0.0, 0.0, 0.0]


# Files of VW's own

CCB, SLATES, CB = ("--ccb_explore_adf",), ("--slates",), ("--cb", "10")
CATS = ("--cats", "8", "--min_value", "0", "--max_value", "100", "--bandwidth", "5")
IGL = ("--cb_explore_adf", "--experimental_igl", "--coin", "--noconstant", "-q", "UF")
FILES: tuple[tuple[str, str, Sequence[str], int], ...] = (
    ("cb_test.ldf", "text", ARGUMENTS, 2),
    ("cb_test_medium.ldf", "text", ARGUMENTS, 10),
    ("cb_test_non_binary_costs.ldf", "text", ARGUMENTS, 10),
    ("cb_adf_sm.data", "text", ARGUMENTS, 3),
    ("cb_load.dat", "text", CB, 904),
    ("cb_explore_cover.dat", "text", ("--cb_explore", "2"), 8),
    ("cb_eval", "text", CB, 8),
    ("rcv1_cb_eval", "text", CB, 1000),
    ("rcv1_raw_cb_small.vw", "text", CB, 1000),
    ("cb_test.json", "json", ARGUMENTS, 3),
    ("cb_test256.json", "json", ARGUMENTS, 260),
    ("decisionservice.json", "dsjson", ARGUMENTS, 3),
    ("dsjson_cb.json", "dsjson", ARGUMENTS, 23),
    ("dsjson_cb_part1.json", "dsjson", ARGUMENTS, 12),
    ("dsjson_cb_part2.json", "dsjson", ARGUMENTS, 11),
    ("dsjson_cb_default_ns.json", "dsjson", ARGUMENTS, 4),
    ("cb_simple.json", "dsjson", ARGUMENTS, 1),
    ("cb_features_w_zero_vals.dsjson", "dsjson", ARGUMENTS, 2),
    ("no_shared_features.json", "dsjson", ARGUMENTS, 1),
    ("datascience_cb_100_0.json", "dsjson", ARGUMENTS, 100),
    ("datascience_cb_1000_0.json", "dsjson", ARGUMENTS, 1000),
    ("datascience_cb_1000_1.json", "dsjson", ARGUMENTS, 1000),
    ("ccb_test.dat", "text", CCB, 24),
    ("ccb_data.json", "json", CCB, 59),
    ("ccb_automl.dsjson", "dsjson", CCB, 9),
    ("ccb_reuse_medium.dsjson", "dsjson", CCB, 4),
    ("slates_simple.txt", "text", SLATES, 3),
    ("slates_simple_unlabeled.dsjson", "dsjson", SLATES, 2),
    ("cats_train.json", "json", CATS, 10),
    ("cats_room_temp.json", "json", CATS, 100),
    ("igl.dsjson", "dsjson", IGL, 200),
)
needs_examples = pytest.mark.skipif(
    not EXAMPLES.exists(), reason="needs the VW files in ../shared/data/vw_examples"
)


def parsed(regressor: Any, path: Path, form: str) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        if form == "text":
            yield from vw.TextFormatReader(regressor, file)
            return
        parsers = {"json": vw.JsonFormatParser, "dsjson": vw.DSJsonFormatParser}
        parser: Any = parsers[form](regressor)
        for line in file:
            if line.strip():
                yield parser.parse_json(line)


def numbers(prediction: Any) -> list[float]:
    if isinstance(prediction, list | tuple):
        return [number for inner in prediction for number in numbers(inner)]
    return [float(prediction)]


@needs_examples
@pytest.mark.parametrize(("name", "form", "arguments", "n"), FILES, ids=[row[0] for row in FILES])
def test_files_of_vws_own_run(name: str, form: str, arguments: Sequence[str], n: int):
    """Each is parsed, predicted finitely and learned, --cb_adf with the arguments that we use."""
    regressor = workspace(*arguments)
    seen = 0
    for example in parsed(regressor, EXAMPLES / name, form):
        assert np.isfinite(numbers(regressor.predict_one(example))).all()
        regressor.learn_one(example)
        seen += 1
    assert seen >= n


@needs_examples
def test_a_line_that_is_no_decision_is_refused():
    """This log holds observations, which have no action, and ends in a line that is no object."""
    regressor = workspace(*ARGUMENTS)
    examples = parsed(regressor, EXAMPLES / "b1848_dsjson_parser_regression.txt", "dsjson")
    assert [len(next(examples)) for _ in range(7)] == [7, 1, 1, 1, 1, 1, 1]
    with pytest.raises(RuntimeError, match="JSON parser error"):
        next(examples)


# Configuration


def configured(more: str) -> PolicyConfig:
    return parse(CONFIG + f'model = "vw"\n{more}', "t.toml").policies["default"]


def test_square_cb_explores_unless_something_else_is_asked_for():
    """VW has no posterior, so thompson can't be its default."""
    assert configured("").exploration == "square_cb"
    assert configured("gamma = 7.0").gamma == 7.0
    assert configured('exploration = "softmax"').exploration == "softmax"
    assert configured("").gamma == 5_000.0


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ('exploration = "thompson"', "'thompson' needs a posterior, which model 'vw' has not"),
        ("scale = 0.5", "scale is for 'thompson'"),
        ("forgetting = 0.999", "forgetting does nothing with model 'vw', it is for 'linear'"),
        ('cb_type = "dm"', "cb_type: must be one of 'mtr', 'dr', 'ips'"),
    ],
)
def test_what_vw_cannot_do_is_refused_when_the_configuration_is_loaded(more: str, what: str):
    with pytest.raises(ConfigError, match="default") as caught:
        configured(more)
    assert what in str(caught.value)


def test_cb_type_is_for_vw_alone():
    with pytest.raises(ConfigError, match="cb_type does nothing with model 'linear'"):
        parse(CONFIG + 'cb_type = "dr"\n', "t.toml")


def test_a_configuration_comes_back_from_its_text():
    policy = configured('cb_type = "dr"\nexploration = "epsilon_greedy"\nepsilon = 0.2')
    others = {"other": configured(""), "low": configured("gamma = 100.0")}
    config = Config(parse(CONFIG, "t.toml").arms, {"default": policy, **others})
    assert parse(to_toml(config), "t.toml") == config


def test_cb_type_makes_a_version():
    prints = [configured(f'cb_type = "{cb_type}"').fingerprint("e") for cb_type in CB_TYPES]
    assert len({*prints, PolicyConfig().fingerprint("e")}) == 4


# Over HTTP


def test_a_vw_policy_decides_learns_and_serves_its_snapshot(
    redis_url: str, raw: redis.Redis, tmp_path: Path
):
    """The loop with another model: better by rewards, checkpoint equal to an undisturbed fold."""
    config = CONFIG + 'model = "vw"\ngamma = 1000.0\n'
    number = count()
    with http_service(settings_for(redis_url, tmp_path, config)) as http:

        def best(rounds: int) -> float:
            hits = 0
            for i in range(rounds):
                task = ("code", "chat")[i % 2]
                body = {"decision_id": f"vw-{next(number)}", "hints": {"task_type": task}}
                made = http.post("/route", json=body).json()
                assert made["confidence"] is None
                hit = made["arm"] == {"code": "small", "chat": "large"}[task]
                told = {"decision_id": made["decision_id"], "quality": 0.9 if hit else 0.2}
                assert http.post("/reward", json=told).status_code == 200
                hits += hit
            return hits / rounds

        def learn() -> None:
            learn_all(redis_url)
            newest = int(raw.hget("pm:{default}:snapshot:1", "number"))
            until(
                lambda: http.get("/policies/default").json()["snapshot"] == newest,
                "the snapshot serves",
            )

        for _ in range(6):
            best(30)
            learn()
        assert best(50) > 0.8
        learn()
        predicted = http.post("/route", json={"hints": {"task_type": "code"}}).json()["predicted"]
        assert predicted["quality"] > 0.5
        assert predicted["latency_ms"] is None
    with closing(LearnerStore(redis_url, "default")) as store:
        assert store.checkpoint("1") == fold_again(store)

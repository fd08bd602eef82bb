"""The library's traps, and that we are past them.

Each trap is shown in the library itself, so that a version that mends it is noticed, and then not
to be in our way.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policy.arms.catalog import Catalog
from policy.values.snapshot import Header, State, unpack

pytest.importorskip("vowpal_wabbit_next", reason="no build of vowpal-wabbit-next here")

import vowpal_wabbit_next as vw

from policy.values.vw.regressors import ARGUMENTS, CB_TYPES, arguments
from tests.policy.vw_model import (
    CATALOG,
    arm,
    context,
    events,
    outcome,
    part,
    taught,
    workspace,
)

Q = (1.0, 0.5, -0.2, 0.3)


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

    blob = State(Header("vw", "1", "e", "0-0", 50), taught(events(50)).view().to_parts()).pack()
    for at in range(0, len(blob), 97):
        broken = bytearray(blob)
        broken[at] ^= 0x40
        with pytest.raises(ValueError, match=r"snapshot|checksum"):
            unpack(bytes(broken))
    for cut in (blob[:-1], blob[:-24], blob[: len(blob) // 2], b""):
        with pytest.raises(ValueError, match=r"snapshot|checksum"):
            unpack(cut)


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

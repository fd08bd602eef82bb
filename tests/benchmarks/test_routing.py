"""The grid runs on a tiny set, ours and peers alike; its figures are not judged here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import routing
from benchmarks.common import peers, plays
from benchmarks.common.calibration import calibration
from benchmarks.common.lints import WIDTHS, LinTS
from benchmarks.common.peers import PEERS, PeerRouter
from benchmarks.common.typos import garbled
from pointsman.trying import outcomes as folders
from pointsman.trying.routers import Routed
from pointsman.trying.simulate import in_process
from policy.values.warm import fitted_encoder
from tests.pointsman.sets import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny set, 40 queries."""
    folders.save(tiny(10), tmp_path / "tiny")
    return tmp_path / "tiny"


def cell(folder: Path, start: str = "cold") -> plays.Cell:
    return plays.Cell(folder, start, "hints", "at-once")


class Noted:
    """A peer that always takes arm 0 and notes what it is taught."""

    def __init__(self, batched: bool = False) -> None:
        self.batched = batched
        self.known: list[object] = []

    def choose(self, x: np.ndarray) -> tuple[int, str]:
        return 0, f"kept of {x[0]:.0f}"

    def learn(self, x: np.ndarray, arms: np.ndarray, rewards: np.ndarray, kept: object) -> None:
        self.known.append((x[:, 0].tolist(), arms.tolist(), rewards.tolist(), kept))

    def warm(self, x: np.ndarray, rewards: np.ndarray) -> None:
        self.known.append((x[:, 0].tolist(), rewards.tolist()))


X = np.arange(3, dtype=np.float32)[:, None]
REWARDS = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])


def test_a_peer_sees_the_contexts_and_rewards_of_its_rounds():
    """And again what it kept of each decision, which may come back in another order."""
    peer = Noted()
    router = PeerRouter(peer, X, REWARDS)
    routed = router.route([2, 0])
    router.reward(routed[::-1])
    assert peer.known == [([0.0, 2.0], [0, 0], [0.1, 0.3], ["kept of 0", "kept of 2"])]


def test_a_warm_start_shows_every_arm():
    """Of the queries that are known beforehand, and of no other."""
    peer = Noted()
    PeerRouter(peer, X, REWARDS).warm(np.array([1]))
    assert peer.known == [([1.0], [[0.2, 0.8]])]


def test_a_peer_that_inverts_matrices_learns_in_growing_batches():
    """One by one at first, then as our learner does."""
    peer = Noted(batched=True)
    router = PeerRouter(peer, X, REWARDS)
    for _ in range(100):
        router.reward(router.route([1]))
    sizes = [len(rows) for rows, *_ in peer.known]
    assert sizes[:17] == [1] * 17
    assert sizes[-1] > 1
    assert sum(sizes) > 90


@pytest.mark.filterwarnings("ignore")  # of other libraries
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_learns_which_arm_pays(name: str):
    """Cold and warm; one that isn't installed is passed over."""
    if not peers.installed(name):
        pytest.skip(f"{PEERS[name].package} is not installed")
    rng = np.random.default_rng(0)
    x = np.ones((240, 3), dtype=np.float32)
    x[:, 1:] = rng.normal(size=(240, 2))
    rewards = np.tile([0.1, 0.9], (240, 1))
    for warm in (0, 40):
        router = PeerRouter(PEERS[name].make(3, 2, 1), x, rewards)
        router.warm(np.arange(warm))
        for row in range(warm, 200):
            router.reward(router.route([row]))
        late: list[Routed] = router.route(range(200, 240))
        if warm or name not in LOCK_IN:
            assert np.mean([one.arm for one in late]) > 0.5, (name, warm)


LOCK_IN = {"paretobandit", "paretobandit-0.05"}
"""Cold, with so small a bonus, they may stay with the first arm that paid at all."""


def test_the_grid_says_who_is_missing(folder: Path, tmp_path: Path, capsys, monkeypatch):
    """And gives the others a row each, with what the default captured more than they."""
    monkeypatch.setattr(routing, "installed", lambda name: False)
    made = routing.report(
        [cell(folder)], ["default", "uniform", "vw-squarecb"], 2, 1, tmp_path / "plot.png"
    )
    shown = capsys.readouterr().out
    assert "vw-squarecb          not installed: vowpal-wabbit-next" in shown
    assert made[0]["best_single"] == pytest.approx(0.675)
    rows = made[0]["rows"]
    assert list(rows) == ["default", "uniform"]
    assert rows["default"]["default_ahead"] == pytest.approx(0.0)
    assert rows["uniform"]["default_ahead_se"] >= 0
    assert rows["uniform"]["decide_us"] > 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_single_arm_captures_nothing(folder: Path):
    """It is where captured is counted from."""
    played = plays.play(cell(folder), "best_single", 1)
    assert played.captured == pytest.approx([0.0])


def test_one_shuffle_has_no_standard_error(folder: Path):
    """Too little data is not zero."""
    played = plays.play(cell(folder), "uniform", 0)
    assert routing.figures(played, played, 1.0)["captured_se"] is None


@pytest.mark.parametrize("name", ["best_single", "lints-0.2"])
def test_of_a_warm_start_only_the_rounds_after_it_count(name: str, folder: Path, monkeypatch):
    """For ours and for others, in the order of the shuffle, so that differences are paired; it is
    these rounds that hindsight judges."""
    monkeypatch.setitem(plays.STARTS, "warm", 10)
    outcomes, hindsight, _ = plays._load(folder)
    order, _ = cell(folder).traffic.shuffle(len(outcomes), 3)
    for start, rows in (("cold", order), ("warm", order[10:])):
        played = plays.play(cell(folder, start), name, 3)
        assert played.single == pytest.approx([hindsight.single(rows).mean()])
        arms = (hindsight.reward[rows] == played.rewards[0][:, None]).any(axis=1)
        assert arms.all()
        assert played.rewards.shape == (1, len(rows))


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_ours_is_the_policy_that_simulate_plays(start: str, tmp_path: Path, monkeypatch):
    """With an encoder that was fitted beforehand, too."""
    monkeypatch.setitem(plays.STARTS, "warm", 60)
    folder = tmp_path / "varied"
    words = np.random.default_rng(0).integers(40, size=(100, 8))
    told = tiny(25).categories  # only the words tell, so the encoder must have read them
    texts = (" ".join(f"{c}{i}" for i in row) for c, row in zip(told, words, strict=True))
    folders.save(replace(tiny(25), texts=tuple(texts)), folder)
    cell = plays.Cell(folder, start, "text", "at-once")
    outcomes, _, config = plays._load(folder)
    alone = in_process(outcomes, config, cell.traffic, [2])
    assert plays.play(cell, "default", 2).rewards == pytest.approx(alone.rewards)


def test_a_shuffle_fits_one_encoder(folder: Path, monkeypatch):
    """Which all policies and peers of a cell share."""
    monkeypatch.setitem(plays.STARTS, "warm", 10)
    fitted = []

    def noted(config, queries):
        fitted.append(len(queries))
        return fitted_encoder(config, queries)

    monkeypatch.setattr(plays, "fitted_encoder", noted)
    for number in (4, 5):
        for name in ("default", "softmax", "uniform", "lints-0.2"):
            plays.play(cell(folder, "warm"), name, number)
    assert fitted == [10, 10]


def test_the_yardstick_is_bayesian_least_squares():
    """Of a bias and one indicator per category, cold and warm; checked against the normal
    equations."""
    rng = np.random.default_rng(0)
    categories = rng.integers(3, size=60)
    rewards = rng.random((60, 2))
    x = categories[:, None].astype(np.float32)
    yardstick = LinTS(0.2, 3, 2, 0)
    yardstick.warm(x[:20], rewards[:20])
    yardstick.learn(x[20:], np.ones(40, dtype=np.intp), rewards[20:, 1], [None] * 40)
    design = np.column_stack([np.ones(60), np.eye(3)[categories]])
    for arm, n in ((0, 20), (1, 60)):
        precision = np.diag([1.0, 4.0, 4.0, 4.0]) + design[:n].T @ design[:n]
        mean = np.linalg.solve(precision, design[:n].T @ (rewards[:n, arm] - 0.5))
        assert yardstick._mean[arm] == pytest.approx(mean)
        assert yardstick._cov[arm] == pytest.approx(np.linalg.inv(precision))


def test_the_yardstick_draws_each_arm_by_its_spread():
    """With no outcome all arms are alike; with many the better one is drawn."""
    x = np.zeros((300, 1), dtype=np.float32)
    yardstick = LinTS(0.35, 1, 3, 0)
    drawn = [yardstick.choose(x[0])[0] for _ in range(300)]
    assert np.bincount(drawn, minlength=3).min() > 70
    yardstick.warm(x, np.tile([0.1, 0.9, 0.1], (300, 1)))
    assert {yardstick.choose(x[0])[0] for _ in range(300)} == {1}


def test_text_alone_tells_the_yardstick_no_category(folder: Path):
    """Where the traffic has no hint, it must not see one either."""
    told, untold = (
        plays._router(plays.Cell(folder, "cold", context, "at-once"), "lints-0.2", 0)
        for context in ("hints", "text")
    )
    assert len(np.unique(told._x)) == 2
    assert len(np.unique(untold._x)) == 1


def test_empty_labels_come_with_each_query(folder: Path):
    """As many as are asked for, of the same values for whoever plays the cell."""
    queries = cell(folder).outcomes
    assert queries.labels == ()
    told = replace(cell(folder), noise_labels=2).outcomes
    assert [list(labels) for labels in told.labels] == [["id-0", "id-1"]] * len(queries)
    assert len({labels["id-0"] for labels in told.labels}) > 30
    assert told.take(np.array([3, 1])).labels == (told.labels[3], told.labels[1])
    assert "2 empty labels" in str(replace(cell(folder), noise_labels=2))


def test_a_category_may_be_a_label_of_another_name(folder: Path):
    """Then it is no task type, not in a warm start either."""
    told = replace(cell(folder), context="label")
    assert [labels["kind"] for labels in told.outcomes.labels] == list(told.outcomes.categories)
    router = plays._router(told, "default", 0)
    assert {query.request.hints.task_type for query in router._queries} == {None}
    assert not told.traffic.warm_labels


def test_typing_errors_replace_letters():
    """About one character in twenty, each by another; the rest stays, and so does the length."""
    text = "a quick brown fox " * 500
    typed = garbled(text, np.random.default_rng(0))
    changed = sum(a != b for a, b in zip(text, typed, strict=True))
    assert changed / len(text) == pytest.approx(0.05, abs=0.01)


def test_typing_errors_change_only_what_reads_the_text(folder: Path, capsys):
    """A rule that looks at no text keeps its arm; what others do is in the table, and a yardstick
    of categories has no figure."""
    typed = replace(cell(folder), context="text", typos=True)
    names = ["default", "best_single", "lints-0.2"]
    rows = routing.report([typed], names, 2, 1)[0]["rows"]
    assert rows["best_single"]["flips"] == 0.0
    assert 0.0 <= rows["default"]["flips"] < 1.0
    assert rows["lints-0.2"]["flips"] is None
    assert "default: typing errors change 0." in capsys.readouterr().out


def test_calibration_sets_what_was_said_beside_what_is_true():
    """In ten bins, 1 in the last one; a decision without a confidence is in none."""
    confidence = np.array([[0.05, 0.95, 1.0, np.nan], [0.07, 0.91, 0.95, 0.5]])
    right = np.array([[False, True, True, True], [True, False, True, False]])
    bins = calibration(confidence, right)
    assert [one.n for one in bins] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 4]
    assert (bins[0].said, bins[0].true) == (pytest.approx(0.06), 0.5)
    assert bins[-1].true == 0.75
    assert bins[1].true is None


def test_confidence_is_known_of_ours_only(folder: Path):
    """Each of its decisions is in the table."""
    ours, other = (plays.play(cell(folder), name, 0) for name in ("default", "lints-0.2"))
    assert sum(one.n for one in calibration(ours.confidence, ours.right)) == 40
    assert np.isnan(other.confidence).all()


def test_the_best_width_is_marked(folder: Path, capsys):
    """The one that earned most in this cell."""
    made = routing.report([cell(folder)], ["default", *WIDTHS], 2, 1, calibrated=True)
    shown = capsys.readouterr().out
    rows = made[0]["rows"]
    best = max(WIDTHS, key=lambda name: rows[name]["captured"])
    assert [line.split()[0] for line in shown.splitlines() if "*" in line] == [f"{best}*"]
    assert sum(one["n"] for one in made[0]["calibration"]) == 80

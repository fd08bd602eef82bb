"""The grid runs on a tiny set, ours and peers alike; its figures are not judged here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import routing
from benchmarks.common import peers
from benchmarks.common.peers import PEERS, PeerRouter
from pointsman.trying import outcomes as folders
from pointsman.trying.routers import Routed
from tests.pointsman.sets import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny set, 40 queries."""
    folders.save(tiny(10), tmp_path / "tiny")
    return tmp_path / "tiny"


def cell(folder: Path, start: str = "cold") -> routing.Cell:
    return routing.Cell(folder, start, "hints", "at-once")


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
    played = routing.play(cell(folder), "best_single", (0, 1))
    assert played.captured == pytest.approx(np.zeros(2))


def test_one_shuffle_has_no_standard_error(folder: Path):
    """Too little data is not zero."""
    played = routing.play(cell(folder), "uniform", (0,))
    assert routing.figures(played, played, 1.0)["captured_se"] is None


def test_of_a_warm_start_only_the_rounds_after_it_count(folder: Path, monkeypatch):
    """For ours and for peers, on the same rounds, which hindsight then judges."""
    pytest.importorskip("vowpal_wabbit_next")
    monkeypatch.setitem(routing.STARTS, "warm", 10)
    ours = routing.play(cell(folder, "warm"), "best_single", (3,))
    rows, _ = routing._play_peer(cell(folder, "warm"), "vw-squarecb", 3)
    outcomes, hindsight, _ = routing._load(folder)
    order, _ = cell(folder).traffic.shuffle(len(outcomes), 3)
    assert rows.tolist() == order[10:].tolist()
    assert ours.rewards.shape == (1, 30)
    assert ours.single == pytest.approx([hindsight.single(rows).mean()])


def test_peers_play_the_same_rounds_as_we_do(folder: Path):
    """In the same order, so that differences are paired."""
    pytest.importorskip("vowpal_wabbit_next")
    ours = routing.play(cell(folder), "best_single", (3,))
    outcomes = folders.load(folder)
    order, _ = cell(folder).traffic.shuffle(len(outcomes), 3)
    rows, _ = routing._play_peer(cell(folder), "vw-squarecb", 3)
    assert rows.tolist() == order.tolist()
    assert len(ours.rewards[0]) == len(rows)

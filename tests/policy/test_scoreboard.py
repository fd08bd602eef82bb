"""Running estimates of a challenger, by hand and against what they estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policy.comparing import Scoreboard, ShadowBatch, Tally, values_of
from policy.objective import Scales, Weights

SCALES = Scales(latency_ref_ms=1000.0, cost_ref_usd=0.01)
QUALITY = Weights.of(quality=1.0)
NONE = float("nan")


def batch(n: int, **given: Any) -> ShadowBatch:
    """n events of a champion that chose between two arms evenly, with defaults for the rest."""
    columns: dict[str, Any] = {
        "propensity": np.full(n, 0.5),
        "challenger": np.full(n, 0.5),
        "champion": np.full(n, 0.5),
        "top": np.full(n, 0.5),
        "support": np.ones(n),
        "quality": np.full(n, NONE),
        "latency_ms": np.full(n, NONE),
        "cost_usd": np.full(n, NONE),
        "error": np.zeros(n, dtype=bool),
        "settled": np.zeros((n, 3), dtype=bool),
        "first": np.ones(n, dtype=bool),
        "evaluable": np.ones(n, dtype=bool),
    } | {name: np.array(value) for name, value in given.items()}
    values = values_of(
        *(columns.pop(name) for name in ("quality", "latency_ms", "cost_usd", "error", "settled")),
        SCALES,
    )
    return ShadowBatch(champions=["1"] * n, values=values, **columns)


def tally(*batches: ShadowBatch) -> Tally:
    board = Scoreboard()
    for one in batches:
        board.add(one)
    return board.against("1")


def test_a_weighted_mean_by_hand():
    """q / p of 1.6 and 0.4 make (1.6 * 0.9 + 0.4 * 0.4) / 2 of the qualities 0.9 and 0.4; the
    effective sample size is 2^2 / (1.6^2 + 0.4^2)."""
    found = tally(batch(2, challenger=[0.8, 0.2], quality=[0.9, 0.4])).compare(QUALITY)
    assert found["quality"].challenger.value == pytest.approx(0.8)
    assert found["quality"].challenger.ess == pytest.approx(4 / 2.72)
    assert found["quality"].champion.value == pytest.approx(0.65)
    assert found["quality"].difference.value == pytest.approx(0.15)
    assert found["reward"].challenger.value == pytest.approx(0.8)


def test_agreement_by_hand():
    """The mean probability of the arm that acted, and how often it was the most probable one."""
    found = tally(batch(4, challenger=[0.9, 0.1, 0.6, 0.4], top=[1, 0, 1, 0], quality=[1] * 4))
    assert (found.decisions, found.probability, found.top) == (4, pytest.approx(0.5), 0.5)


def test_a_decision_in_parts_counts_once():
    """Its later events add what they bring, and no second decision."""
    parts = (
        batch(1, quality=[0.5]),
        batch(1, latency_ms=[200.0], first=[False]),
        batch(1, cost_usd=[0.002], first=[False]),
    )
    found = tally(*parts)
    assert found.decisions == 1
    estimates = found.compare(Weights.of(quality=1, latency=1, cost=2))
    assert estimates["latency_ms"].challenger.value == pytest.approx(200.0)
    expected = 0.25 * 0.5 + 0.25 * (1 - 0.2) + 0.5 * (1 - 0.2)
    assert estimates["reward"].challenger.value == pytest.approx(expected)


def test_a_correction_replaces_a_value_and_counts_nothing():
    """The estimates are those of the value that holds; decisions and effective sizes stay."""
    board = Scoreboard()
    board.add(batch(3, challenger=[0.8, 0.2, 0.5], quality=[0.9, 0.4, 0.1], latency_ms=[9.0] * 3))
    later: dict[str, Any] = {"challenger": [0.2], "first": [False]}
    board.correct(batch(1, quality=[0.4], **later), batch(1, quality=[1.0], **later))
    right = tally(
        batch(3, challenger=[0.8, 0.2, 0.5], quality=[0.9, 1.0, 0.1], latency_ms=[9.0] * 3)
    )
    assert board.against("1").sums == pytest.approx(right.sums)


def test_an_error_is_quality_zero():
    """And, as in the reward, it stands for what is absent: the reference latency, no cost."""
    found = tally(batch(1, error=[True])).compare(Weights.of(quality=1, latency=1, cost=1))
    assert found["quality"].champion.value == 0.0
    assert found["latency_ms"].why == "no latency_ms was reported yet"
    assert found["reward"].champion.value == pytest.approx(1 / 3)


def test_a_reward_needs_what_the_objective_weighs():
    """A component that was never reported leaves it unknown, and is named."""
    found = tally(batch(30, quality=[0.5] * 30)).compare(Weights.of(quality=1, cost=1))
    assert found["reward"].challenger.value is None
    assert found["reward"].why == "no cost was reported yet, which the objective weighs"
    assert found["quality"].challenger.value == 0.5


def test_without_support_there_is_no_number():
    """A router that never tries what the challenger prefers can't tell of it."""
    found = tally(batch(50, support=[0.6] * 50, quality=[0.5] * 50))
    assert found.covered == pytest.approx(0.6)
    for one in (found.compare(QUALITY)[name] for name in ("reward", "quality")):
        assert one.challenger.value is one.challenger.se is one.difference.value is None
        assert "never tried the arms that the challenger prefers in 40% of its choices" in one.why
        assert one.champion.value == 0.5


def test_without_outcomes_nothing_is_known():
    """Too little data is not zero."""
    found = Scoreboard().against("1")
    assert (found.decisions, found.probability, found.covered) == (0, None, None)
    reward = found.compare(QUALITY)["reward"]
    assert reward.champion.value is None
    assert reward.why == "no decision has an outcome yet"


def test_of_few_decisions_no_error_is_told():
    """Where the weights leave little, the linearised error would be far too small."""
    found = tally(batch(5, quality=[0.1, 0.9, 0.3, 0.4, 0.5])).compare(QUALITY)
    assert found["quality"].challenger.value == pytest.approx(0.44)
    assert found["quality"].challenger.se is found["quality"].difference.se is None


def test_another_arm_is_left_out():
    """And counted, once per decision."""
    other = batch(2, quality=[0.0, 0.0], evaluable=[False] * 2, first=[True, False])
    found = tally(batch(2, quality=[1.0, 1.0]), other)
    assert (found.decisions, found.other_arm) == (2, 1)
    assert found.compare(QUALITY)["quality"].champion.value == 1.0


def random_batch(seed: int, n: int) -> tuple[ShadowBatch, float, float]:
    """Events of an exploring champion, with the true means of challenger and champion: of two
    arms the first yields 0.7 and the second 0.4 on average, plus the query's own ease."""
    rng = np.random.default_rng(seed)
    q, own = rng.uniform(0.05, 0.95, n), rng.uniform(0.2, 0.8, n)
    p = 0.9 * own + 0.1 * q  # the challenger has a share
    first = rng.random(n) < p
    ease = rng.uniform(-0.2, 0.2, n)
    mean = np.where(first, 0.7, 0.4) + ease
    noisy = np.clip(mean + rng.normal(0, 0.05, n), 0, 1)
    one = batch(
        n,
        propensity=np.where(first, p, 1 - p),
        challenger=np.where(first, q, 1 - q),
        champion=np.where(first, own, 1 - own),
        quality=noisy,
    )
    true = [float((s * 0.7 + (1 - s) * 0.4 + ease).mean()) for s in (q, own)]
    return one, true[0], true[1]


def test_estimates_and_their_errors_are_right():
    """Over 200 logs, (estimate - truth) / se has mean 0 and variance 1, each within four standard
    errors (0.28, and 0.4 of the variance)."""
    scores: list[list[float]] = []
    for seed in range(200):
        events, challenger, champion = random_batch(seed, 300)
        found = tally(events).compare(QUALITY)["quality"]
        truth = (challenger, champion, challenger - champion)
        figures = (found.challenger, found.champion, found.difference)
        scores.append([(f.value - t) / f.se for f, t in zip(figures, truth, strict=True)])
    z = np.array(scores)
    assert (np.abs(z.mean(axis=0)) < 4 / np.sqrt(200)).all()
    assert (z.var(axis=0) < 1.4).all()


def test_the_sums_do_not_depend_on_how_the_stream_is_cut():
    """To the last bit: a learner that was killed repeats nothing."""
    parts = [random_batch(seed, 7)[0] for seed in range(3)]
    whole = Scoreboard()
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ShadowBatch.__slots__
        if name != "champions"
    }
    whole.add(ShadowBatch(champions=["1"] * 21, **columns))
    cut = Scoreboard()
    for part in parts:
        cut.add(part)
        cut = Scoreboard.from_record(cut.to_record())
    assert whole.to_record() == cut.to_record()


def test_each_champion_has_sums_of_its_own():
    """What was earned beside one says nothing of another."""
    board = Scoreboard()
    board.add(batch(3, quality=[1.0] * 3))
    assert board.against("1").decisions == 3
    assert board.against("7").decisions == 0


def test_sums_of_another_shape_are_refused():
    """A checkpoint of other code must not be misread."""
    with pytest.raises(ValueError, match="sums of a challenger"):
        Scoreboard.from_record({"1": [0.0]})

"""Many candidates on one log, and what of the winner's lead is selection."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from offline_eval.estimating import sweep
from offline_eval.estimating.intervals import student_t
from offline_eval.estimating.reward_models import folds
from offline_eval.estimating.sweep import Lead, Vector

N, M, RUNS = 1_000, 12, 200
NAMES = tuple(f"c{i}" for i in range(M))
IDS = tuple(f"d{i}" for i in range(N))


def simulated(seed: int, better: float = 0.0) -> tuple[Vector, Vector]:
    """Terms of candidates that have much in common with the champion; the first is better."""
    rng = np.random.default_rng(seed)
    common = rng.random(N)
    terms = common[:, None] + 0.5 * rng.standard_normal((N, M))
    terms[:, 0] += better
    return terms, common


@cache
def leads(better: float) -> list[Lead]:
    """The winner's, in each of RUNS logs."""
    found = []
    for seed in range(RUNS):
        terms, champion = simulated(seed, better)
        differences = terms - champion[:, None]
        intervals = sweep.simultaneous(differences, seed=seed)
        found.append(sweep.lead_of_winner(NAMES, differences, intervals, IDS))
    return found


def naive_and_honest(better: float) -> Vector:
    """Estimates, (2, RUNS)."""
    return np.array([(one.naive.estimate, one.honest) for one in leads(better)]).T


@pytest.mark.parametrize("better", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
def test_the_naive_interval_holds_whoever_wins(better: float):
    """Of equals, and where one stands out: the true lead of the one that won is in it as often as
    is said, though it was chosen for being high."""
    truth = dict.fromkeys(NAMES, 0.0) | {NAMES[0]: better}
    covered = np.mean([truth[one.winner] in one.naive for one in leads(better)])
    assert covered >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / RUNS)


def test_of_equals_one_always_leads_and_honestly_none_does():
    """The naive lead is what the best of twelve draws exceeds 0 by; the honest one is 0."""
    naive, honest = naive_and_honest(0.0)
    se = 0.5 / math.sqrt(N)
    assert 1.3 * se < naive.mean() < 2.0 * se  # the largest of 12 normal draws: 1.63
    assert abs(honest.mean()) < 4 * honest.std(ddof=1) / math.sqrt(RUNS)


def test_one_that_is_really_better_keeps_its_lead():
    """Where it stands out, choosing costs nothing and the honest lead is the true one."""
    naive, honest = naive_and_honest(0.1)
    assert abs(honest.mean() - 0.1) < 4 * honest.std(ddof=1) / math.sqrt(RUNS)
    assert naive.mean() >= honest.mean()


def test_simultaneous_intervals_hold_together():
    """All twelve hold their means in 95% of logs, which Student-t's don't."""
    together = singly = 0
    for seed in range(RUNS):
        terms, _ = simulated(seed)
        terms -= 0.5
        together += all(0.0 in one for one in sweep.simultaneous(terms, seed=seed))
        singly += all(0.0 in student_t(column) for column in terms.T)
    se = math.sqrt(0.05 * 0.95 / RUNS)
    assert together / RUNS > 0.95 - 4 * se
    assert singly < together


def test_the_honest_lead_by_hand():
    """Each fold counts what the winner of the others earned in it."""
    fold = folds(IDS, 2)
    terms = np.zeros((N, 2))
    terms[fold == 0, 0] = 1.0  # wins fold 0, and so is chosen for fold 1, where it earns nothing
    terms[fold == 1, 1] = 0.5
    found = sweep.compare(("x", "y"), terms, np.zeros(N), IDS, count=2).lead
    assert found.winner == "x"
    assert found.naive.estimate == pytest.approx((fold == 0).mean())
    assert found.honest == 0.0
    assert found.selection == found.naive.estimate
    assert found.agreement == pytest.approx((fold == 1).mean())


def test_one_candidate_is_no_selection():
    """Then naive and honest are the same."""
    terms, champion = simulated(0)
    found = sweep.compare(NAMES[:1], terms[:, :1], champion, IDS)
    assert found.lead.selection == 0.0
    assert found.lead.agreement == 1.0
    own = student_t(terms[:, 0])
    assert found.values[0].low == pytest.approx(own.low, abs=0.005)


def test_what_is_doubted_of_a_candidate_is_doubted_of_its_lead():
    """Its bounds stay as they are, and so do the other candidates'."""
    terms, champion = simulated(2, better=1.0)
    doubts = ["it is biased", *[None] * (M - 1)]
    found, plain = (
        sweep.compare(NAMES, terms, champion, IDS, doubts=some) for some in (doubts, None)
    )
    assert [one.warning for one in found.values] == doubts
    assert [one.warning for one in found.leads] == doubts
    assert found.lead.naive == plain.lead.naive.doubted("it is biased")


def test_the_champion_itself_has_no_lead():
    """Its lead has no spread, which spoils nobody else's interval."""
    terms, champion = simulated(1)
    terms[:, 3] = champion
    found = sweep.compare(NAMES, terms, champion, IDS)
    assert found.leads[3].estimate == 0.0
    assert found.leads[3].warning is not None
    assert all(math.isfinite(one.low) for i, one in enumerate(found.leads) if i != 3)


@pytest.mark.parametrize(
    ("shape", "names", "says"),
    [
        ((5, 0), (), "0 candidates"),
        ((5, 2), ("x",), "1 candidates"),
        ((1, 2), ("x", "y"), "too few"),
    ],
)
def test_nothing_to_compare_is_refused(shape: tuple[int, int], names: tuple[str, ...], says: str):
    """With what there is."""
    with pytest.raises(ValueError, match=says):
        sweep.compare(names, np.ones(shape), np.zeros(shape[0]), IDS[: shape[0]])

"""How late snapshots come in process."""

from __future__ import annotations

import pytest

from pointsman.trying.lag import Published
from pointsman.trying.routers import InProcess, asked
from pointsman.trying.simulate import Traffic, in_process, silent
from policy.values import models
from tests.pointsman.test_simulate import POLICY, tiny


def seen(lag: Published, rounds: int, delay: int = 0) -> list[int]:
    """What each of some rounds' snapshots has, where rewards come `delay` rounds later."""
    return [lag(done, max(done - delay, 0)) for done in range(rounds)]


def test_the_first_outcome_is_published_at_once_and_then_every_gap():
    """Each snapshot has all that has come until it is made, and is seen `late` rounds later."""
    assert seen(Published(3, 0), 9) == [0, 1, 1, 1, 4, 4, 4, 7, 7]
    assert seen(Published(3, 2), 9) == [0, 0, 0, 1, 1, 1, 4, 4, 4]
    assert seen(Published(3, 0), 9, delay=2) == [0, 0, 0, 1, 1, 1, 4, 4, 4]


def test_several_snapshots_may_be_on_their_way():
    """Where one takes longer to be seen than the next takes to be made."""
    assert seen(Published(1, 3), 7) == [0, 0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(("rate", "has"), [(1.0, [0, 1, 2, 3]), (1_000.0, [0, 0, 0, 0])])
def test_the_rate_says_how_late(rate: float, has: list[int]):
    """A service that is asked slowly has each outcome in force before the next question."""
    assert seen(Published.at(rate), 4) == has


def test_decisions_are_by_the_snapshot_that_the_lag_allows():
    """And it has learned the outcomes that came first."""
    outcomes = tiny(2)
    encoder = models.default_encoder(POLICY)
    queries = asked(outcomes, encoder, True, silent)
    router = InProcess(outcomes, POLICY, encoder, queries, "run", lag=Published(3, 0))
    had, snapshots = [], []
    for row in range(8):
        (routed,) = router.route([row])
        had.append(router.policy.events)
        snapshots.append(routed.snapshot)
        router.reward([routed])
    assert had == [0, 1, 1, 1, 4, 4, 4, 7]
    assert snapshots == [0, 1, 1, 1, 2, 2, 2, 3]


def test_a_rate_is_part_of_the_traffic():
    """Asked so fast that no snapshot comes in time, a policy acts as one that gets no rewards."""
    fast, none, slow = (
        in_process(tiny(30), POLICY, traffic).arms.tolist()
        for traffic in (Traffic(rate=100_000.0), Traffic(loss=1.0), Traffic(rate=1.0))
    )
    assert fast == none
    assert slow != none

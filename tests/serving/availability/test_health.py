"""Which endpoints are out, and until when: a pure function of what was reported."""

from __future__ import annotations

import random

import pytest

from policy.records import OF_HEALTH
from serving.availability.health import (
    AHEAD_MS,
    KEPT,
    LONGEST_OUT_MS,
    TRIED_MS,
    WELL,
    Health,
    Report,
    after,
    all_fail,
    as_of,
    tried,
)


def told(outcomes: str, health: Health = WELL, at_ms: int = 1_000) -> Health:
    """After these outcomes, one a millisecond: 1 for a timeout."""
    for n, outcome in enumerate(outcomes):
        error = "timeout" if outcome == "1" else None
        health = after(health, Report(at_ms + n, error), at_ms + n)
    return health


def down(at_ms: int = 1_000) -> Health:
    return told("111", at_ms=at_ms)


def test_what_never_fails_is_not_remembered():
    """So nothing is stored, nor asked, where all is well."""
    assert told("0" * 50) == WELL
    assert told("10" + "0" * KEPT) == WELL


@pytest.mark.parametrize("error", sorted(OF_HEALTH))
def test_three_failures_in_a_row_put_an_endpoint_out(error: str):
    """For 5 s, whatever kind they are of."""
    health = WELL
    for n in range(3):
        assert health.is_in()
        health = after(health, Report(n, error), n)
    assert not health.is_in()
    assert health.until_ms == 2 + 5_000
    assert health.why == error


@pytest.mark.parametrize("error", ["bad_request", "content_filter", "wrong answer"])
def test_what_is_the_querys_fault_puts_nothing_out(error: str):
    """The endpoint has answered."""
    health = told("11")
    for n in range(50):
        health = after(health, Report(2_000 + n, error), 2_000 + n)
    assert health.is_in()
    assert "111" not in health.recent


def test_half_of_the_last_twenty_puts_an_endpoint_out():
    """Though never three failed in a row."""
    assert told("01" * 9 + "0").is_in()
    assert not told("01" * 10).is_in()


def test_each_time_it_is_out_for_twice_as_long():
    """Up to five minutes; twenty good calls make it 5 s again."""
    health, now_ms, waits = down(0), 2, []
    for _ in range(9):
        waits.append(health.until_ms - now_ms)
        now_ms = health.until_ms
        assert health.may_be_tried(now_ms)
        assert not health.may_be_tried(now_ms - 1)
        health = after(tried(health, now_ms), Report(now_ms, "timeout"), now_ms)
    assert waits == [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, *3 * [LONGEST_OUT_MS]]
    health = after(health, Report(health.until_ms), health.until_ms)
    assert health.outs == 10
    assert told("0" * 19, health, at_ms=health.since_ms).outs == 10
    assert told("0" * 20, health, at_ms=health.since_ms) == WELL


def test_one_request_at_a_time_tries_it():
    """Until its outcome is reported, or half a minute has passed."""
    health = down()
    at_ms = health.until_ms
    trying = tried(health, at_ms)
    assert not trying.may_be_tried(at_ms)
    assert not trying.may_be_tried(at_ms + TRIED_MS - 1)
    assert trying.may_be_tried(at_ms + TRIED_MS)
    cancelled = after(trying, Report(at_ms, "cancelled"), at_ms + 1)
    assert cancelled.may_be_tried(at_ms + 1)
    assert after(trying, Report(at_ms), at_ms + 1).is_in()


def test_a_clock_that_goes_back_keeps_nothing_out_for_longer():
    """Nor does it make old news of what is reported then; an endpoint that is in as well. Another
    host's clock may be some seconds ahead."""
    health = down(at_ms=3_600_000)
    assert as_of(health, 60_000).until_ms - 60_000 == health.until_ms - health.since_ms
    assert as_of(health, health.since_ms - AHEAD_MS) == health
    tried_for_ms = tried(health, health.since_ms).tried_until_ms - health.since_ms
    assert as_of(tried(health, health.since_ms), 0).tried_until_ms == tried_for_ms
    came_in = as_of(after(health, Report(health.until_ms), health.until_ms), 60_000)
    assert came_in.is_in()
    assert not told("111", came_in, at_ms=60_000).is_in()


def test_it_comes_back_with_what_it_was_known_for():
    """An outage says nothing of how often it fails otherwise."""
    health = told("0000100000" + "0" * 20)
    out = told("111", health, at_ms=5_000)
    assert not out.is_in()
    back = after(out, Report(out.until_ms), out.until_ms)
    assert back.is_in()
    assert back.recent == health.recent


def test_a_rate_fades_while_nothing_is_called():
    """To half in a minute, so that what lost its share is tried again."""
    health = told("0101" + "0" * 20)
    assert health.rate(health.seen_ms) == 2 / 50
    assert health.rate(health.seen_ms + 60_000) == 1 / 50


def test_old_news_changes_nothing():
    """Of what was sent before it went out, or came in, the outcome says nothing of it now."""
    out = down(at_ms=1_000)
    assert after(out, Report(900, "timeout"), 1_100) == out
    assert after(out, Report(900), out.until_ms + 1) == out
    back = after(out, Report(out.until_ms), out.until_ms)
    for n in range(9):
        assert after(back, Report(1_500 + n, "timeout"), out.until_ms + n) == back


def test_a_rate_limit_is_left_alone_for_as_long_as_it_asks():
    """At once, whatever the endpoint was known for, and never for less."""
    asked = after(WELL, Report(0, "rate_limited", 7.5), 100)
    assert asked.until_ms == 7_600
    assert after(asked, Report(50, "rate_limited", 2.0), 200) == asked
    assert after(asked, Report(50, "rate_limited", 60.0), 200).until_ms == 60_200
    assert asked.outs == 0
    assert after(asked, Report(7_600), 7_700).is_in()
    assert after(WELL, Report(0, "rate_limited"), 0).is_in()  # it doesn't say


def test_a_brown_out_does_not_flap():
    """What fails three times in ten goes out 0.4 times in 300 calls, and not the 6 times that three
    in a row or ten of twenty would be counted."""
    rng, outs = random.Random(1), 0
    for _ in range(200):
        health, now_ms = WELL, 0
        for _ in range(300):
            now_ms += 1
            health = after(
                health, Report(now_ms, "timeout" if rng.random() < 0.3 else None), now_ms
            )
            if not health.is_in():
                outs += 1
                now_ms = health.until_ms
                health = after(health, Report(now_ms), now_ms)
        assert 0.1 < health.rate(now_ms) < 0.5
    assert outs / 200 < 0.6


def test_what_fails_half_the_time_goes_out_again_and_again():
    """Being used to it is no excuse."""
    rng, health, now_ms, outs = random.Random(2), WELL, 0, 0
    for _ in range(400):
        now_ms += 1
        health = after(health, Report(now_ms, "timeout" if rng.random() < 0.6 else None), now_ms)
        if not health.is_in():
            outs += 1
            now_ms = health.until_ms
            health = after(health, Report(now_ms), now_ms)
    assert outs >= 5


def test_an_arm_fails_when_each_of_its_endpoints_does():
    """Five failures since any of them answered; one dead endpoint isn't the arm."""
    assert not all_fail([told("11"), told("11")])
    assert all_fail([told("11"), down()])
    assert not all_fail([down(), WELL])
    assert not all_fail([down(), told("110")])
    asked = after(WELL, Report(1_000, "rate_limited", 2.0), 1_000)
    assert not all_fail([asked, asked])
    assert not all_fail([asked, down()])
    assert all_fail([asked, down(), told("11")])
    assert after(asked, Report(2_000, "timeout", out_until_ms=9_000), 2_000) == asked
    alike = Report(2_000, "timeout", out_until_ms=9_000)
    for health in (WELL, told("0111100011"), down()):
        assert after(health, alike, 2_000).until_ms == 9_000
    assert after(told("10110011"), alike, 2_000).recent == "101100"

"""Which endpoints are out, and until when: a pure function of what was reported of their calls.

Three failures in a row, or half of the last twenty, and an endpoint is out for 5 s, then 10, up to
5 minutes, or for as long as a Retry-After says; then one request at a time tries it, and an answer
brings it back. What it has been doing anyway is no news, though: of an endpoint that fails three
times in ten, three in a row are expected every 50 calls. So failures count as far as they are
improbable at its rate before. Knows no clock and no store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from policy.records import OF_HEALTH

KEPT = 100  # outcomes that are remembered, from the first failure among them on
IN_A_ROW = 3
IN_A_ROW_OF_ARM = 5  # of its endpoints together, each of which failed at last
LAST = 20  # of which half may fail
IMPROBABLE = 2e-4
"""Chance, at the rate before, from which failures are news. At 30% failures an endpoint goes out
0.4 times in 300 calls, where plain counting would put it out 6 times; three in a row are news
where there was no failure before."""
PRIOR_FAILURES, PRIOR_CALLS = 0.5, 10.0  # what a rate counts for before anything was seen
RATE_OVER = 50  # calls that a rate of failure is taken over, until there are more
HALF_MS = 60_000  # without a call, in which it halves
FIRST_OUT_MS, LONGEST_OUT_MS = 5_000, 300_000
LONGEST_RETRY_AFTER_MS = 86_400_000  # a day: what says longer is tried once a day
TRIED_MS = 30_000  # that a request which tries an endpoint may take, before the next one does

AHEAD_MS = 5_000  # that another host's clock may be

RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one call of a decision that was made at `made_at_ms`; `error` is None where
    nothing went wrong."""

    made_at_ms: int
    error: str | None = None
    retry_after_s: float | None = None
    out_until_ms: int = 0
    """Where all endpoints of the arm fail alike: when the one that is tried next is tried."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one endpoint."""

    recent: str = ""
    """Its last outcomes, oldest first, 1 for a failure; empty where none of them failed."""
    seen_ms: int = 0
    """When the last of them was told."""
    since_ms: int = 0
    """When it went out or came in: what was sent before says nothing of it now."""
    outs: int = 0
    """How often it went out without twenty good calls between."""
    until_ms: int = 0
    """It is out until then, and then being tried; 0 where it is in."""
    tried_until_ms: int = 0
    """A request is trying it, until then at the latest."""
    why: str = ""
    """What put it out."""
    asked: bool = False
    """A Retry-After said until when: that time is its own, whatever others of the arm do."""

    def is_in(self) -> bool:
        return self.until_ms == 0

    def may_be_tried(self, now_ms: int) -> bool:
        return 0 < self.until_ms <= now_ms and self.tried_until_ms <= now_ms

    def row(self) -> int:
        """How many of its last calls failed in a row."""
        return _row(self.recent)

    def back_ms(self) -> int:
        """When it may be tried, 0 where it is in."""
        return max(self.until_ms, self.tried_until_ms)

    def rate(self, now_ms: int) -> float:
        """The share of its calls that fail. It fades, or what isn't called for its failures would
        never be called again."""
        faded: float = 0.5 ** (max(now_ms - self.seen_ms, 0) / HALF_MS)
        return faded * self.recent.count("1") / max(len(self.recent), RATE_OVER)


WELL = Health()


def as_of(health: Health, now_ms: int) -> Health:
    """The same; where the clock has gone back since it went out or came in, by the clock as it is
    now: out for no longer than it was to be.

    >>> as_of(Health(since_ms=3_600_000, until_ms=3_605_000), now_ms=60_000).until_ms
    65000
    """
    back_ms = health.since_ms - now_ms
    if back_ms <= AHEAD_MS:
        return health
    return replace(
        health,
        seen_ms=min(health.seen_ms, now_ms),
        since_ms=now_ms,
        until_ms=max(health.until_ms - back_ms, 0),
        tried_until_ms=max(health.tried_until_ms - back_ms, 0),
    )


def tried(health: Health, now_ms: int) -> Health:
    """The same, while one request is trying it."""
    return replace(health, tried_until_ms=now_ms + TRIED_MS)


def after(health: Health, report: Report, now_ms: int) -> Health:
    """What is known after one more report.

    >>> down = WELL
    >>> for at_ms in (0, 10, 20):
    ...     down = after(down, Report(made_at_ms=at_ms, error="timeout"), now_ms=at_ms + 5)
    >>> down.until_ms, down.why
    (5025, 'timeout')
    """
    if report.out_until_ms:
        return _out_as_well(health, report, now_ms)
    wait_ms = _asked_to_wait(report)
    if now_ms + wait_ms > max(health.until_ms, now_ms):
        return replace(
            health,
            since_ms=now_ms,
            until_ms=now_ms + wait_ms,
            tried_until_ms=0,
            why=RATE_LIMITED,
            asked=True,
        )
    if wait_ms or report.made_at_ms < health.since_ms:
        return health
    if report.error == "cancelled":
        return replace(health, tried_until_ms=0)
    return _counted(health, report, now_ms) if health.is_in() else _tried(health, report, now_ms)


def all_fail(healths: Sequence[Health]) -> bool:
    """Whether an arm fails, whichever of its endpoints is called: each one failed at last, and
    they did so often enough together. One that only asked to be left alone says nothing of that."""
    failing = [health for health in healths if not health.asked]
    rows = [health.row() if health.is_in() else IN_A_ROW for health in failing]
    return min(rows, default=0) > 0 and sum(rows) >= IN_A_ROW_OF_ARM


def _out_as_well(health: Health, report: Report, now_ms: int) -> Health:
    if health.asked or health.until_ms >= report.out_until_ms:
        return health
    recent = health.recent[: len(health.recent) - _row(health.recent)]
    return replace(
        health,
        recent=recent,
        since_ms=now_ms,
        outs=max(health.outs, 1),
        until_ms=report.out_until_ms,
        tried_until_ms=0,
        why=str(report.error),
    )


def _row(recent: str) -> int:
    """How many of the last outcomes failed in a row."""
    return len(recent) - len(recent.rstrip("1"))


def _asked_to_wait(report: Report) -> int:
    """For how long a rate limit asks to be left alone, in ms."""
    if report.error != RATE_LIMITED or not report.retry_after_s:
        return 0
    return min(math.ceil(report.retry_after_s * 1_000), LONGEST_RETRY_AFTER_MS)


def _tried(health: Health, report: Report, now_ms: int) -> Health:
    if report.error not in OF_HEALTH:
        return replace(health, since_ms=now_ms, until_ms=0, tried_until_ms=0, why="", asked=False)
    if now_ms < health.until_ms:
        return health
    return _out(health, health.recent, str(report.error), now_ms)


def _counted(health: Health, report: Report, now_ms: int) -> Health:
    failed = report.error in OF_HEALTH
    if not failed and not health.recent and not health.outs:
        return WELL
    recent = (health.recent + "01"[failed])[-KEPT:]
    if failed and (before := _before(recent)) is not None:
        return _out(health, before, str(report.error), now_ms)
    outs = 0 if recent[-LAST:] == LAST * "0" else health.outs
    if "1" not in recent and not outs:
        return WELL
    return replace(health, recent=recent, seen_ms=now_ms, outs=outs)


def _out(health: Health, recent: str, why: str, now_ms: int) -> Health:
    outs = health.outs + 1
    wait_ms = min(FIRST_OUT_MS * 2 ** min(outs - 1, 10), LONGEST_OUT_MS)
    return Health(
        recent, seen_ms=now_ms, since_ms=now_ms, outs=outs, until_ms=now_ms + wait_ms, why=why
    )


def _before(recent: str) -> str | None:
    """The outcomes before those that put an endpoint out; None where nothing does.

    What put it out is forgotten, so that it comes back with what it was known for.
    """
    row = _row(recent)
    if row >= IN_A_ROW and _chance(row, row, recent[:-row]) <= IMPROBABLE:
        return recent[:-row]
    before, last = recent[:-LAST], recent[-LAST:]
    failures = last.count("1")
    half = 2 * failures >= LAST and _chance(failures, LAST, before) <= IMPROBABLE
    if half or (len(recent) == KEPT and 2 * recent.count("1") >= KEPT):
        return before
    return None


def _chance(failures: int, calls: int, before: str) -> float:
    """Of at least so many failures in so many calls, at the rate before."""
    p = (before.count("1") + PRIOR_FAILURES) / (len(before) + PRIOR_CALLS)
    return sum(
        math.comb(calls, n) * p**n * (1.0 - p) ** (calls - n) for n in range(failures, calls + 1)
    )

"""Estimates that add up over the parts of a log.

Parts are read three times (see `sums`). One process holds one part at a time, and so does each
worker of a cluster. What parts say is added up in their order, wherever it was computed. The
estimators are those of `rounds.estimates`, to rounding.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from offline_eval.estimating import estimators, rounds
from offline_eval.estimating.intervals import (
    NOTHING,
    Interval,
    ValueSequence,
    effective_of,
    t_interval,
    unspread,
)
from offline_eval.log.data import LoggedData
from offline_eval.streaming.parts import Part, read
from offline_eval.streaming.sums import (
    Estimates,
    Known,
    Spread,
    Tally,
    Target,
    View,
    know,
    spread_of,
    tallied,
)
from policy.objective import Scales, Weights

Found = TypeVar("Found")
Adds = TypeVar("Adds", "Known", "Tally")

READINGS = 3
NAMES = ("ips", "clipped_ips", "snips", "dm", "dr", "sndr", "switch_dr", "dros")


class Cluster(Protocol):
    """What is asked of a `distributed.Client`."""

    def scatter(self, data: Any, /) -> Any: ...
    def map(self, function: Any, /, *over: Any, **given: Any) -> Any: ...
    def cancel(self, futures: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Value:
    """An estimate without its terms; `value` is None where nothing can be said, and `why` says
    why."""

    value: float | None
    se: float | None
    interval: Interval  # Student-t, with the estimator's doubt
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a log says of a target: `counted` of its `rows` count, the others were `dropped`.

    `effective_rows` is the effective sample size of the weights. `clip`, `threshold` and
    `shrinkage` were tuned, None where nothing can be estimated; `sequence` is the confidence
    sequence of the value, where it was asked for.
    """

    rows: int
    counted: int
    dropped: Mapping[str, int]
    unsupported: float
    effective_rows: float
    max_weight: float
    values: Mapping[str, Value]
    clip: float | None = None
    threshold: float | None = None
    shrinkage: float | None = None
    sequence: tuple[float, float] | None = None


def evaluate(
    parts: Sequence[Part],
    target: Target,
    scales: Scales,
    weights: Weights | None,
    *,
    alpha: float = 0.05,
    sequence: bool = False,
    client: Cluster | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """All estimates of a target's value under an objective (`weights` None: each row's own).

    As `rounds.estimates` with `reward_models.ridge` gives them, on a log of any length. `sequence`
    asks for the confidence sequence, too, which takes up the rows one after the other, in this
    process. With a `client`, a `distributed.Client`, its workers read the parts: they must find
    the log at the same path. `progress` hears how many of how many readings of a part are done.

    Raises
    ------
    ValueError
        If a row can't be used, as `rounds.of` says, or the log changes meanwhile; it names the
        part. That a decision id repeats is only noticed within a part.
    """
    parts = [part for part in parts if part.rows]
    run = _Run(parts, client, progress)
    known = run.total(Known(), partial(know, scales=scales, weights=weights))
    known.check(target, sequence)
    view = View(target, scales, weights, known.sums.coefficients())
    tally = run.total(Tally(), partial(tallied, view=view))
    rows = sum(part.rows for part in parts)
    if why := rounds.why_not(tally.counted, tally.unsupported, tally.dropped):
        return _summary(rows, tally, dict.fromkeys(NAMES, _unknown(why)))
    found = Estimates.of(tally)
    bets = ValueSequence(alpha) if sequence else None
    spread = _spread_around(found, run, view, bets)
    if spread.counted != tally.counted:
        raise ValueError("the log has changed: other rows count now than a moment ago")
    values = {name: _value(name, found, spread, alpha) for name in NAMES}
    return _summary(rows, tally, values, found.tuned, bets.interval if bets is not None else None)


def _unknown(why: str | None) -> Value:
    return Value(None, None, NOTHING, why)


def _summary(
    rows: int,
    tally: Tally,
    values: Mapping[str, Value],
    tuned: Mapping[str, float] | None = None,
    sequence: tuple[float, float] | None = None,
) -> Summary:
    tuned = tuned or {}
    return Summary(
        rows=rows,
        counted=tally.counted,
        dropped=tally.dropped,
        unsupported=tally.unsupported,
        effective_rows=tally.effective_rows,
        max_weight=tally.max_weight,
        values=values,
        clip=tuned.get("clipped_ips"),
        threshold=tuned.get("switch_dr"),
        shrinkage=tuned.get("dros"),
        sequence=sequence,
    )


def _value(name: str, found: Estimates, spread: Spread, alpha: float) -> Value:
    if name not in found.values:
        return _unknown(estimators.NO_SUPPORT.why)
    value, n = found.values[name], spread.counted
    squares, fourths = spread.powers[name].tolist()
    if n < 2:
        return Value(value, None, unspread(value))
    se = math.sqrt(squares / (n - 1) / n)
    interval = t_interval(n, value, se, effective_of(n, value, squares, fourths), alpha)
    if name in estimators.NEED_REWARDS:
        doubt = estimators.few_rewards(n, found.values["snips"], *spread.powers["snips"].tolist())
    else:
        doubt = estimators.BIASED.get(name)
    return Value(value, se, interval.doubted(doubt))


def _spread_around(found: Estimates, run: _Run, view: View, bets: ValueSequence | None) -> Spread:
    """The third reading; `bets` take up the rows on the way, in their order."""
    total = Spread()
    rowwise = bets is not None
    for spread, row_by_row in run.each(partial(spread_of, view=view, found=found, rowwise=rowwise)):
        total += spread
        if bets is not None and row_by_row is not None:
            bets.fold(*row_by_row)
    return total


class _Run:
    """Does something with each part, three times over, here or on a cluster."""

    def __init__(
        self,
        parts: Sequence[Part],
        client: Cluster | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.parts = parts
        self.client = client
        self.progress = progress
        self.done = 0

    def each(self, task: Callable[[LoggedData], Found]) -> Iterator[Found]:
        """What `task` makes of each part, in the order of the parts."""
        for found in self._here(task) if self.client is None else self._there(self.client, task):
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, READINGS * len(self.parts))
            yield found

    def total(self, start: Adds, task: Callable[[LoggedData], Adds]) -> Adds:
        """The sum of what `task` makes of each part."""
        for found in self.each(task):
            start = start + found
        return start

    def _here(self, task: Callable[[LoggedData], Found]) -> Iterator[Found]:
        for part in self.parts:
            yield _of_part(part, task)

    def _there(self, client: Cluster, task: Callable[[LoggedData], Found]) -> Iterator[Found]:
        # A task may hold a policy's posterior: it is sent once, not with every part.
        sent = client.scatter(task)
        futures = deque(client.map(_of_part, self.parts, task=sent, pure=False))
        try:
            while futures:
                yield futures.popleft().result()
        finally:
            client.cancel(list(futures))


def _of_part(part: Part, task: Callable[[LoggedData], Found]) -> Found:
    try:
        return task(read(part))
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error

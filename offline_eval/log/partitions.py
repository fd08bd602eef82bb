"""A log cut into parts that fit in memory, and estimates that add up over them.

A part is a stretch of time, so parts come in the order that decisions were made in, whatever files
they lie in. They are read three times: for the sums that the reward model is solved from; for those
that values are made of, with each candidate of what is tuned; for the spread around these values.
One process holds one part at a time, and so does each worker of a cluster. What parts say is added
up in their order, wherever it was computed. The estimators are those of `rounds.estimates`, to
rounding.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating import estimators, rounds
from offline_eval.estimating import target as targets
from offline_eval.estimating.estimators import Trials
from offline_eval.estimating.intervals import (
    NOTHING,
    Interval,
    ValueSequence,
    effective_of,
    t_interval,
    unspread,
)
from offline_eval.estimating.reward_models import Coefficients, Sums
from offline_eval.estimating.rounds import UNSUPPORTED, Rounds
from offline_eval.log import reading as log
from offline_eval.log.reading import LoggedData
from policy.objective import Scales, Weights

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Found = TypeVar("Found")
Adds = TypeVar("Adds", "_Known", "_Tally")
Target = Callable[[LoggedData], Vector]
"""Rows -> pmfs (n, kmax), as the functions of `target` give; a cluster needs one that pickles."""

ROWS = 100_000  # of a part
READINGS = 3
NAMES = ("ips", "clipped_ips", "snips", "dm", "dr", "sndr", "switch_dr", "dros")


class Cluster(Protocol):
    """What is asked of a `distributed.Client`."""

    def scatter(self, data: Any, /) -> Any: ...
    def map(self, function: Any, /, *over: Any, **given: Any) -> Any: ...
    def cancel(self, futures: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Part:
    """The `rows` rows of a log, of `policy` unless None, that were made in [from_ms, to_ms)."""

    path: str
    policy: str | None
    from_ms: int
    to_ms: int
    rows: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows made from {_written(self.from_ms)} to {_written(self.to_ms)}"


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


def parts(
    path: str,
    policy: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    rows: int = ROWS,
) -> list[Part]:
    """The log's rows made in [from_ms, to_ms), in parts of at most `rows`, in order.

    Rows of the same millisecond stay together, however many they are. Only times are read for it,
    those of a day at once.

    Raises
    ------
    ValueError
        If there is no log at `path`, or `rows` is less than 1.
    """
    if rows < 1:
        raise ValueError(f"a part must have room for at least 1 row, got {rows}")
    return [
        Part(path, policy, int(times[at]), int(times[to - 1]) + 1, to - at)
        for times in log.times(path, policy, from_ms, to_ms)
        for at, to in _stretches(times, rows)
    ]


def _stretches(times: Index, rows: int) -> Iterator[tuple[int, int]]:
    """Where parts of ascending times (n,) begin and end."""
    at = 0
    while at < len(times):
        to = min(at + rows, len(times))
        if to < len(times):
            first = int(np.searchsorted(times, times[to]))  # of those alike
            to = first if first > at else int(np.searchsorted(times, times[to], side="right"))
        yield at, to
        at = to


def read(part: Part) -> LoggedData:
    """A part's rows.

    Raises
    ------
    ValueError
        If there are other rows than when the log was cut, or they come from several encoders.
    """
    data = log.read(part.path, part.policy, part.from_ms, part.to_ms)
    if len(data) != part.rows:
        raise ValueError(f"the log has changed: {len(data):,} rows are there now")
    return data


def evaluate(
    parts: Sequence[Part],
    target: Target,
    scales: Scales,
    weights: Weights | None,
    *,
    alpha: float = 0.05,
    tolerance: float = UNSUPPORTED,
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
    known = run.total(_Known(), partial(_know, scales=scales, weights=weights))
    known.check(target, sequence)
    view = _View(target, scales, weights, known.sums.coefficients())
    tally = run.total(_Tally(), partial(_tally, view=view))
    rows = sum(part.rows for part in parts)
    if why := rounds.why_not(tally.counted, tally.unsupported, tally.dropped, tolerance):
        return _summary(rows, tally, dict.fromkeys(NAMES, _unknown(why)))
    found = _Estimates.of(tally)
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
    tally: _Tally,
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


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What the first reading tells: sums for the reward model, and what all parts must share."""

    sums: Sums = field(default_factory=Sums.nothing)
    encoders: frozenset[str] = frozenset()
    challengers: frozenset[str | None] = frozenset()
    alike: bool = True  # each row stands for itself

    def __add__(self, other: _Known) -> _Known:
        encoders = self.encoders | other.encoders
        log.expect_one_encoder(sorted(encoders))
        return _Known(
            self.sums + other.sums,
            encoders,
            self.challengers | other.challengers,
            self.alike and other.alike,
        )

    def check(self, target: Target, sequence: bool) -> None:
        if target is targets.challenger:
            targets.expect_one(self.challengers)
        if sequence and not self.alike:
            raise ValueError("rows that stand for several have no confidence sequence")


def _know(data: LoggedData, *, scales: Scales, weights: Weights | None) -> _Known:
    return _Known(
        Sums.of(data, data.rewards(weights, scales)),
        frozenset([data.encoder] if len(data) else []),
        frozenset(data.challengers),
        bool((data.stands_for == 1.0).all()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """How each part is looked at."""

    target: Target
    scales: Scales
    weights: Weights | None
    model: Coefficients

    def of(self, data: LoggedData) -> Rounds:
        """Among the arms of the whole log: a target may name one that this part hasn't."""
        data = _among(data, self.model.ids)
        reward = data.rewards(self.weights, self.scales)
        return rounds.of(data, self.target(data), reward, self.model.predict(data))


def _among(data: LoggedData, ids: tuple[str, ...]) -> LoggedData:
    """The rows with arms as positions in `ids`, which has all of theirs."""
    if ids == data.ids:
        return data
    at = np.array([ids.index(arm) for arm in data.ids] + [-1])  # padding is -1, the last
    return replace(data, ids=ids, arm=at[data.arm], actions=at[data.actions])


@dataclass(frozen=True, slots=True, eq=False)
class _Arrays:
    """What the estimators take, each (m,)."""

    weights: Vector
    reward: Vector
    stands_for: Vector
    q: Vector
    v: Vector

    @classmethod
    def of(cls, some: Rounds) -> _Arrays:
        if some.q_logged is None or some.v_target is None:
            raise ValueError("expected rounds with a reward model")
        stands_for = np.ones(len(some)) if some.stands_for is None else some.stands_for
        return cls(some.weights, some.reward, stands_for, some.q_logged, some.v_target)


@dataclass(frozen=True, slots=True, eq=False)
class _Tally:
    """What the second reading tells: sums over the rows that count."""

    counted: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    max_weight: float = 0.0
    sums: Mapping[str, float] = field(default_factory=dict)
    trials: Mapping[str, Trials] = field(default_factory=dict)  # by estimator that is tuned

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(
            self.counted + other.counted,
            _added(self.dropped, other.dropped),
            max(self.max_weight, other.max_weight),
            _added(self.sums, other.sums),
            _added(self.trials, other.trials),
        )

    @property
    def unsupported(self) -> float:
        return self.sums["s silent"] / self.sums["s"] if self.counted else 0.0

    @property
    def effective_rows(self) -> float:
        return self.sums["w"] ** 2 / self.sums["w w"] if self.max_weight else 0.0


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: value + other[name] for name, value in one.items() if name in other}
    return {**one, **other, **both}


def _tally(data: LoggedData, *, view: _View) -> _Tally:
    some = view.of(data)
    if not len(some):
        return _Tally(dropped=some.dropped)
    a = _Arrays.of(some)
    w, r, s, q, v = a.weights, a.reward, a.stands_for, a.q, a.v
    sw = s * w
    sums = {
        "s": s.sum(),
        "s silent": s.sum() * some.unsupported,
        "w": w.sum(),
        "w w": w @ w,
        "s w": sw.sum(),
        "s w r": sw @ r,
        "s w (r - q)": sw @ (r - q),
        "s v": s @ v,
    }
    each = estimators
    return _Tally(
        counted=len(some),
        dropped=some.dropped,
        max_weight=float(w.max()),
        sums={name: float(total) for name, total in sums.items()},
        trials={
            "clipped_ips": Trials.of(each.THRESHOLDS, w, r, 0.0, 0.0, np.minimum, s),
            "switch_dr": Trials.of(each.THRESHOLDS, w, r, q, v, each.switched, s),
            "dros": Trials.of(each.SHRINKAGES, w, r, q, v, each.shrunk, s),
        },
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Estimates:
    """Values by estimator, what was tuned, and the two parts that `sndr` is the sum of."""

    values: Mapping[str, float]
    tuned: Mapping[str, float]
    correction: float
    per_row: float  # what makes a mean of terms, of `s` and of `s w`
    per_weight: float

    @classmethod
    def of(cls, tally: _Tally) -> _Estimates:
        sums, counted = tally.sums, tally.counted
        bound = estimators.margin(counted, sums["w w"], tally.max_weight)
        best = {name: trials.best(bound) for name, trials in tally.trials.items()}
        s, sw = sums["s"], sums["s w"]
        values = {
            "ips": sums["s w r"] / s,
            "dm": sums["s v"] / s,
            "dr": (sums["s v"] + sums["s w (r - q)"]) / s,
        }
        for name, trials in tally.trials.items():
            values[name] = float(trials.total[best[name]]) / s
        correction = 0.0
        if sw:
            correction = sums["s w (r - q)"] / sw
            values |= {"snips": sums["s w r"] / sw, "sndr": values["dm"] + correction}
        return cls(
            values=values if sw else {"dm": values["dm"]},
            tuned={n: tally.trials[n].candidates[at] for n, at in best.items()} if sw else {},
            correction=correction,
            per_row=counted / s,
            per_weight=counted / sw if sw else math.nan,
        )

    def deviations(self, a: _Arrays) -> Iterator[tuple[str, Vector]]:
        """Each estimator's terms (m,) less their mean."""
        w, s, v, residual = a.weights, a.stands_for, a.v, a.reward - a.q
        yield "dm", self._around("dm", v, s)
        if len(self.values) == 1:
            return
        kept = {
            "clipped_ips": np.minimum(w, self.tuned["clipped_ips"]),
            "switch_dr": estimators.switched(w, self.tuned["switch_dr"]),
            "dros": estimators.shrunk(w, self.tuned["dros"]),
        }
        yield "ips", self._around("ips", w * a.reward, s)
        yield "clipped_ips", self._around("clipped_ips", kept["clipped_ips"] * a.reward, s)
        yield "snips", s * w * (a.reward - self.values["snips"]) * self.per_weight
        yield "dr", self._around("dr", v + w * residual, s)
        corrections = s * w * (residual - self.correction) * self.per_weight
        yield "sndr", corrections + self._around("dm", v, s)
        yield "switch_dr", self._around("switch_dr", v + kept["switch_dr"] * residual, s)
        yield "dros", self._around("dros", v + kept["dros"] * residual, s)

    def _around(self, name: str, per_row: Vector, s: Vector) -> Vector:
        around: Vector = s * (per_row - self.values[name]) * self.per_row
        return around


@dataclass(frozen=True, slots=True, eq=False)
class _Spread:
    """What the third reading tells: of deviations d, (Σ d², Σ d⁴) by estimator."""

    counted: int = 0
    powers: Mapping[str, Vector] = field(default_factory=dict)

    def __add__(self, other: _Spread) -> _Spread:
        return _Spread(self.counted + other.counted, _added(self.powers, other.powers))


def _spread_around(
    found: _Estimates, run: _Run, view: _View, bets: ValueSequence | None
) -> _Spread:
    """The third reading; `bets` take up the rows on the way, in their order."""
    total = _Spread()
    rowwise = bets is not None
    for spread, row_by_row in run.each(partial(_spread, view=view, found=found, rowwise=rowwise)):
        total += spread
        if bets is not None and row_by_row is not None:
            bets.fold(*row_by_row)
    return total


def _spread(
    data: LoggedData, *, view: _View, found: _Estimates, rowwise: bool
) -> tuple[_Spread, tuple[Vector, Vector] | None]:
    """And the weights and rewards themselves, if wanted."""
    some = view.of(data)
    if not len(some):
        return _Spread(), None
    powers = {}
    for name, d in found.deviations(_Arrays.of(some)):
        squares = d * d
        powers[name] = np.array([squares.sum(), squares @ squares])
    spread = _Spread(len(some), powers)
    return spread, (some.weights, some.reward) if rowwise else None


def _value(name: str, found: _Estimates, spread: _Spread, alpha: float) -> Value:
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


def _written(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds")

"""Bayesian linear regression, arms x components, with a prior that the arms share.

`LinearModel` learns: float64 sums, a pure function of the events' order. `LinearView` is what
serving decides with: float32 posteriors. Neither reads a clock, draws or knows a catalog.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights, components
from policy.records import Context, CorrectionBatch, OutcomeBatch, Vector
from policy.values import pooling
from policy.values.arrays import expect, pack, unpack
from policy.values.pooling import MATRIX, TARGETS, Spread, Sums
from policy.values.protocol import Forecast

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Index = NDArray[np.intp]
Expected = Mapping[int, float]  # feature -> quality

FORGETTING = 0.998
PASSING = frozenset({"signals", "text"})
"""Groups of features whose uncertainty isn't explored: what a query with these very values teaches,
hardly another one has a use for. What recurs (tasks and labels) is worth trying arms out on."""
C, T = 3, len(TARGETS)
TINY_SHARE = 1e-6  # of the reference cost: added before logs, so that a free arm has one
LOG_BOUND = 30.0
TUNE_FIRST = 8  # events before the variances are first learned
TUNE_GROWTH = 8  # then again whenever an eighth more has been seen, 16 events apart at least ...
TUNE_EVERY = 4096  # ... and at most
START_LASTS = 10.0  # times as long as events do
START_STEPS = 20  # of the variances on what a model starts from: then they have settled
MAX_D = 4_096  # a checkpoint that claims more is damaged


class LinearModel:
    """What a checkpoint holds: sums per arm and component, and the spreads learned from them.

    Parameters
    ----------
    groups
        Contiguous slices that cover the features 0..d; each has prior variances of its own.
    scales
        How latency and cost become numbers in [0, 1].
    forgetting
        What is left of an event's weight after as many further events as there are arms: so an arm
        remembers as much of its own, on average, whether it is one of four or of a hundred.
    """

    def __init__(
        self, groups: Mapping[str, slice], scales: Scales, forgetting: float = FORGETTING
    ) -> None:
        if not 0.0 < forgetting <= 1.0:
            raise ValueError(f"forgetting must be in (0, 1], got {forgetting!r}")
        self.sizes = {name: part.stop - part.start for name, part in groups.items()}
        self.d = sum(self.sizes.values())
        self.scales = scales
        self.forgetting = forgetting
        self.events = 0
        self.start_events = 0  # the first of them, that no correction takes back
        self.arms: list[str] = []
        self._position: dict[str, int] = {}
        self._xx = np.zeros((0, C, self.d, self.d))
        self._xy = np.zeros((0, T, self.d))
        self._yy = np.zeros((0, T))
        self._weight = np.zeros((0, C))
        self._taught = np.zeros((0, C), dtype=np.int64)
        self._joined = np.zeros(0, dtype=np.int64)  # events before an arm's first
        self._started = self._sums()  # what is left of the start, of the arms known then
        self._group = np.repeat(np.arange(len(self.sizes)), list(self.sizes.values()))
        self._spread = pooling.guess(tuple(self.sizes))
        self._start = _start(self.d, scales)

    def start(self, batch: OutcomeBatch, at_most: float, query: Index | None = None) -> None:
        """Learn from what was known before the first event, all of it alike.

        Where several arms answered the same `query` (n,), what they had in common (a hard query is
        hard for all) is no noise to a comparison of them: it is taken out, and such outcomes count
        for more than live ones. Then an arm's outcomes count together as at most `at_most` live
        ones, so that these can overrule them (a power prior: Ibrahim and Chen 2000), and are
        forgotten START_LASTS times as slowly: a start is a prior rather than events.
        """
        if self.events:
            raise ValueError(f"a start comes before the first event, {self.events} were learned")
        arm, x, y = self._columns(batch)
        self._settle(arm, x, y)
        noise = self._spread.noise
        worth = np.ones(C)
        answers = np.ones(1) if query is None else np.bincount(query)[query]
        if query is not None and (answers > 1).any():
            mean = pooling.solve(self._sums(), self._spread, self._start, self._group).mean
            y = y - _in_common(y - np.einsum("nd,ntd->nt", x, mean[arm]), query)
            self._settle(arm, x, y)
            lost = float((1.0 / answers).mean())  # of the squares, with the means taken out
            worth = np.maximum(noise * (1.0 - lost) / self._spread.noise, 1.0)[:C]
            self._spread = replace(self._spread, noise=noise)
        self.events = self.start_events = len(batch)
        self._scale(np.minimum(worth, at_most / np.maximum(self._weight, 1.0)))
        self._started = Sums(*(part.copy() for part in self._sums().parts))

    def _settle(self, arm: Index, x: Array, y: Array) -> None:
        """Sums of these outcomes alone, and the variances that they tell."""
        self._scale(np.zeros((len(self.arms), C)))
        self._taught[:] = 0
        self._fold(arm, x, y, forgetting=1.0)
        for _ in range(START_STEPS):
            self._tune()

    def _scale(self, share: Array) -> None:
        """Let sums count for a share (k, c) of what they did."""
        self._xx *= share[:, :, None, None]
        self._xy *= share[:, MATRIX, None]
        self._yy *= share[:, MATRIX]
        self._weight *= share

    def learn(self, batch: OutcomeBatch) -> None:
        """Fold events in; the same state results wherever the stream is cut into batches."""
        before = len(self.arms)
        arm, x, y = self._columns(batch)
        known = np.maximum(np.maximum.accumulate(arm) + 1, before)  # arms by then
        at = 0
        while at < len(batch):
            due = _next_tuning(self.events)
            joins = int(np.searchsorted(known, known[at], side="right"))
            to = min(at + due - self.events, joins)
            self._fold(arm[at:to], x[at:to], y[at:to], self.forgetting ** (1.0 / known[at]))
            self.events += to - at
            at = to
            if self.events == due:
                self._tune()

    def correct(self, batch: CorrectionBatch) -> None:
        """Put new values in the place of old ones, as if they had come so in the first place.

        The sums are then the same, to rounding. The variances, which were learned from the old
        values at their time, follow when they are learned next.
        """
        rows = np.flatnonzero([arm in self._position for arm in batch.new.arms])
        _, x, old = self._columns(batch.old.take(rows))
        arm, _, new = self._columns(batch.new.take(rows))
        left = self._left(batch.since[rows])[:, MATRIX]
        known = ~np.isnan(new[:, MATRIX])
        change = np.where(known, left * (new - old), 0.0)
        np.add.at(self._xy, arm, change[:, :, None] * x[:, None])
        np.add.at(self._yy, arm, np.where(known, left * (new**2 - old**2), 0.0))

    def _left(self, since: Index) -> Array:
        """What is left of the weight of events, by how many were learned since; 0 for those that
        were learned before the first of this model or with its start."""
        number = self.events - 1 - since
        # Each event ages those before it by forgetting ** (1 / arms known by then).
        joined = np.append(self._joined, self.events)
        turns = np.zeros(len(joined))
        turns[1:] = np.cumsum(np.diff(joined) / np.arange(1, len(joined)))
        passed = turns[-1] - np.interp(number + 1, joined, turns)
        learned: Array = np.where(number >= self.start_events, self.forgetting**passed, 0.0)
        return learned

    def _columns(self, batch: OutcomeBatch) -> tuple[Index, Array, Array]:
        """Of each event its arm's position, x (n, d) and targets (n, t)."""
        x = batch.x.astype(np.float64)
        if x.shape != (len(batch), self.d) or not np.isfinite(x).all():
            raise ValueError(f"x must be finite and of shape {(len(batch), self.d)}, got {x.shape}")
        return self._positions(batch.arms), x, _targets(batch, self.scales)

    def _tune(self) -> None:
        self._spread = pooling.improve(
            self._sums(), self._spread, tuple(self.sizes), self._start, self._group
        )

    def _fold(self, arm: Index, x: Array, y: Array, forgetting: float) -> None:
        """Add a run of events, each weighted by those that follow it, grouped by arm."""
        n = len(arm)
        left, of_start = forgetting**n, forgetting ** (n / START_LASTS)
        for sums, start in zip(self._sums().parts, self._started.parts, strict=True):
            np.multiply(sums, left, out=sums)
            sums[: len(start)] += (of_start - left) * start
            np.multiply(start, of_start, out=start)
        age = forgetting ** np.arange(n - 1, -1, -1.0)
        known = ~np.isnan(y[:, :C])
        key = arm * 8 + known @ (1, 2, 4)
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        for rows in np.split(order, cuts):
            a, present = int(arm[rows[0]]), known[rows[0]]
            which = np.flatnonzero(present)
            targets = np.flatnonzero(present[list(MATRIX)])
            weighted = x[rows] * age[rows, None]
            values = y[np.ix_(rows, targets)]
            self._xx[a, which] += weighted.T @ x[rows]
            self._xy[a, targets] += values.T @ weighted
            self._yy[a, targets] += age[rows] @ values**2
            self._weight[a, which] += age[rows].sum()
            self._taught[a, which] += len(rows)

    def _positions(self, arms: Sequence[str]) -> Index:
        """Of each event's arm; one never seen is appended."""
        new = [arm for arm in dict.fromkeys(arms) if arm not in self._position]
        if new:
            self._position.update({arm: len(self.arms) + i for i, arm in enumerate(new)})
            self.arms += new
            before = [self.events + arms.index(arm) for arm in new]
            self._joined = np.append(self._joined, np.array(before, dtype=np.int64))
            for name in ("_xx", "_xy", "_yy", "_weight", "_taught"):
                old = getattr(self, name)
                more = np.zeros((len(new), *old.shape[1:]), dtype=old.dtype)
                setattr(self, name, np.concatenate([old, more]))
        return np.array([self._position[arm] for arm in arms], dtype=np.intp)

    def _sums(self) -> Sums:
        return Sums(self._xx, self._xy, self._yy, self._weight)

    def sums(self) -> dict[str, Array]:
        """The learned sums by name, arms first."""
        return {
            "xx": self._xx,
            "xy": self._xy,
            "yy": self._yy,
            "weight": self._weight,
            "taught": self._taught.astype(np.float64),
        }

    def view(self) -> LinearView:
        """The posterior of each arm, as of now."""
        posterior = pooling.solve(self._sums(), self._spread, self._start, self._group)
        seen = self._taught.sum(axis=0) > 0 if self.arms else np.zeros(C, dtype=bool)
        fresh = self._spread.arm[:, self._group]
        return LinearView(
            scales=self.scales,
            arms=tuple(self.arms),
            events=self._taught.max(axis=1, initial=0),
            joined=np.append(self._joined, self.events),
            seen=seen,
            noise=self._spread.noise,
            recurring=np.repeat(
                [name not in PASSING for name in self.sizes], list(self.sizes.values())
            ),
            mean=posterior.mean.astype(np.float32),
            cov=_packed(posterior.cov).astype(np.float32),
            fresh_mean=posterior.pooled.astype(np.float32),
            fresh_cov=_packed(fresh[:, :, None] * np.eye(self.d)).astype(np.float32),
        )

    def to_bytes(self) -> bytes:
        """Sums, spreads and configuration; equal models give equal bytes."""
        header = {
            "sizes": self.sizes,
            "scales": asdict(self.scales),
            "forgetting": self.forgetting,
            "events": self.events,
            "start_events": self.start_events,
            "arms": self.arms,
        }
        return pack(
            header,
            {
                "xx": _packed(self._xx),
                "xy": self._xy,
                "yy": self._yy,
                "weight": self._weight,
                "taught": self._taught,
                "joined": self._joined,
                "pooled": self._spread.pooled,
                "arm": self._spread.arm,
                "noise": self._spread.noise,
                "start_xx": _packed(self._started.xx),
                "start_xy": self._started.xy,
                "start_yy": self._started.yy,
                "start_weight": self._started.weight,
            },
        )

    @classmethod
    def from_bytes(cls, body: bytes) -> LinearModel:
        """Read `to_bytes` back; ValueError for anything else."""
        header, arrays = unpack(body)
        try:
            sizes: dict[str, int] = header["sizes"]
            if sum(sizes.values()) > MAX_D:
                raise ValueError(f"expected at most {MAX_D} features, got {sizes}")
            stops = np.cumsum(list(sizes.values())).tolist()
            groups = {n: slice(e - s, e) for (n, s), e in zip(sizes.items(), stops, strict=True)}
            model = cls(groups, Scales(**header["scales"]), header["forgetting"])
            model.events, model.start_events = header["events"], header["start_events"]
            model._positions(header["arms"])
            model._restore(arrays)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a linear model: {error!r}") from error
        return model

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        k, g = len(self.arms), len(self.sizes)
        shapes = {"xy": (k, T, self.d), "yy": (k, T), "weight": (k, C), "taught": (k, C)}
        shapes["joined"] = (k,)
        shapes |= {"xx": (k, C, _triangle(self.d)), "pooled": (C, g), "arm": (C, g), "noise": (T,)}
        known = len(arrays["start_weight"])
        if known > k:
            raise ValueError(f"expected a start with at most {k} arms, got {known}")
        shapes |= {"start_xx": (known, C, _triangle(self.d)), "start_xy": (known, T, self.d)}
        expect(arrays, shapes | {"start_yy": (known, T), "start_weight": (known, C)})
        self._started = Sums(
            _unpacked(arrays["start_xx"], self.d),
            *(arrays[f"start_{name}"] for name in ("xy", "yy", "weight")),
        )
        self._xx = _unpacked(arrays["xx"], self.d)
        self._xy, self._yy = arrays["xy"], arrays["yy"]
        self._weight, self._taught = arrays["weight"], arrays["taught"]
        self._joined = arrays["joined"]
        self._spread = Spread(arrays["pooled"], arrays["arm"], arrays["noise"])


@dataclass(frozen=True, slots=True, eq=False)
class LinearView:
    """What a snapshot holds: the posterior of k arms, and what an arm never seen starts from.

    `mean` (k, t, d) and `cov` (k, c, d (d + 1) / 2, upper triangles by rows) are of coefficients;
    `fresh_mean` (t, d) and `fresh_cov` (c, ...) of a new arm's. `seen` (c,) tells which components
    were ever taught, `noise` (t,) is residual variance, `recurring` (d,) tells of which features
    the uncertainty is explored. `joined` (k + 1,) counts all
    events before an arm's first, and ends with all events there are.
    """

    scales: Scales
    arms: tuple[str, ...]
    events: NDArray[np.int64]
    joined: NDArray[np.int64]
    seen: NDArray[np.bool_]
    noise: Array
    recurring: NDArray[np.bool_]
    mean: Single
    cov: Single
    fresh_mean: Single
    fresh_cov: Single

    def bind(
        self,
        arms: Sequence[str],
        expected: Sequence[Expected] = (),
        usual: Weights | None = None,
        catalog: Catalog | None = None,
    ) -> LinearValues:
        """Stack for these arm ids; one never seen gets the shared prior.

        `expected`, parallel to `arms`, is what somebody expects of an arm's quality where a
        feature is 1 (beside the bias, feature 0). It moves the mean of that arm's prior, and so
        counts for less the more the arm has taught. Under the `usual` weights forecasts are faster.
        """
        position = {arm: i for i, arm in enumerate(self.arms)}
        at = np.array([position.get(arm, -1) for arm in arms], dtype=np.intp)  # -1: the last
        mean = np.concatenate([self.mean, self.fresh_mean[None]])[at]
        cov = np.concatenate([self.cov, self.fresh_cov[None]])[at]
        for i, of_features in enumerate(expected):
            if of_features:
                mean[i, 0] += self._moved(cov[i, 0], of_features)
        return LinearValues(self, np.append(self.events, 0)[at], self.joined[at], mean, cov, usual)

    def _moved(self, cov: Single, of_features: Expected) -> Single:
        """V T^-1 (m' - m): how an arm's posterior mean moves when its prior's does, (d,)."""
        pooled = self.fresh_mean[0]
        move = np.zeros(len(pooled), dtype=np.float32)
        for feature, quality in of_features.items():
            move[feature] = quality - pooled[0] - pooled[feature]
        variance = np.diagonal(_unpacked(self.fresh_cov[0], len(pooled)))
        moved: Single = _unpacked(cov, len(pooled)) @ (move / variance)
        return moved

    def to_bytes(self) -> bytes:
        """Equal views give equal bytes."""
        names = [
            "events",
            "joined",
            "seen",
            "noise",
            "recurring",
            "mean",
            "cov",
            "fresh_mean",
            "fresh_cov",
        ]
        header = {"scales": asdict(self.scales), "arms": self.arms}
        return pack(header, {name: getattr(self, name) for name in names})

    @classmethod
    def from_bytes(cls, body: bytes) -> LinearView:
        """Read `to_bytes` back; ValueError for anything else."""
        header, arrays = unpack(body)
        try:
            k, d = len(header["arms"]), arrays["fresh_mean"].shape[-1]
            shapes = {
                "events": (k,),
                "joined": (k + 1,),
                "seen": (C,),
                "noise": (T,),
                "recurring": (d,),
                "mean": (k, T, d),
            }
            shapes |= {"cov": (k, C, _triangle(d)), "fresh_mean": (T, d)}
            expect(arrays, shapes | {"fresh_cov": (C, _triangle(d))})
            return cls(scales=Scales(**header["scales"]), arms=tuple(header["arms"]), **arrays)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not a linear view: {error!r}") from error


class LinearValues:
    """A view stacked in the order of one catalog's arms; k of them."""

    def __init__(
        self,
        view: LinearView,
        events: NDArray[np.int64],
        joined: NDArray[np.int64],
        mean: Single,
        cov: Single,
        usual: Weights | None,
    ) -> None:
        self.events, self.joined = events, joined
        k, _, d = mean.shape
        self._k, self._scales = k, view.scales
        self._rows, self._columns = np.triu_indices(d)
        self._recurring = view.recurring
        both = view.recurring[self._rows] & view.recurring[self._columns]
        self._explored = np.stack([np.ones_like(both), both], axis=1).astype(np.float32)
        twice = np.where(self._rows == self._columns, 1.0, 2.0).astype(np.float32)
        self._mean = np.ascontiguousarray(mean.swapaxes(0, 1)).reshape(T * k, d)
        self._cov = np.ascontiguousarray((cov * twice).swapaxes(0, 1))  # (c, k, triangle)
        self._usual = usual
        self._usual_cov = None if usual is None else self._utility_cov(usual)
        # A log-normal's mean lies above its median; not by more than its own size, though.
        self._lift = np.minimum(0.5 * view.noise[C:], math.log(2.0))[:, None]
        self._unknown = ~view.seen

    def forecast(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """Forecast for the arms at positions `index` (m,) with list costs (m,).

        The cost regressions are of what differs from the list cost, so a price acts at once.
        """
        y = (self._mean @ x).astype(np.float64).reshape(T, self._k)
        cov = self._cov_under(weights)
        variance = cov @ (self._explored * (x[self._rows] * x[self._columns])[:, None])
        if len(index) < self._k:
            y, variance = y[:, index], variance[index]
        y[2] += self._scales.cost(list_cost_usd)
        sd = np.sqrt(np.maximum(variance, 0.0), dtype=np.float64)
        return Forecast(_utility(y, weights), sd[:, 0], self._outcome(y, list_cost_usd), sd[:, 1])

    def utilities(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> tuple[Array, Array]:
        """Of `forecast` the utility and its explored sd, each (n, m), for contexts (n, d) and list
        costs (n, m)."""
        arms = self._mean.reshape(T, self._k, -1)[:C, index]
        y = (arms @ x.T).astype(np.float64)  # (c, m, n)
        y[2] += self._scales.cost(list_cost_usd).T
        cov = self._cov_under(weights)
        square = np.zeros((len(index), x.shape[1], x.shape[1]), dtype=np.float32)
        square[:, self._rows, self._columns] = cov[index]
        z = np.where(self._recurring, x, np.float32(0.0))
        variance = np.einsum("mnd,nd->nm", z @ square, z)
        sd = np.sqrt(np.maximum(variance, 0.0), dtype=np.float64)
        return np.ascontiguousarray(_utility(y, weights).T), sd

    def _cov_under(self, weights: Weights) -> Single:
        if weights == self._usual and self._usual_cov is not None:
            return self._usual_cov
        return self._utility_cov(weights)

    def _utility_cov(self, weights: Weights) -> Single:
        """(k, triangle): components are independent, so their variances add by squared weight."""
        squares = np.square(weights.as_tuple(), dtype=np.float32)
        mixed: Single = np.tensordot(squares, self._cov, axes=1)
        return mixed

    def _outcome(self, y: Array, list_cost_usd: Vector) -> Array:
        """(m, 3) in their own units; NaN where no arm has taught a component."""
        tiny = TINY_SHARE * self._scales.cost_ref_usd
        by_component = np.empty((C, y.shape[1]))
        by_component[0] = np.minimum(y[0], 1.0)
        np.exp(np.minimum(y[C:] + self._lift, LOG_BOUND), out=by_component[1:])
        by_component[1] -= 1.0
        by_component[2] *= list_cost_usd + tiny
        by_component[2] -= tiny
        np.maximum(by_component, 0.0, out=by_component)
        if self._unknown.any():
            by_component[self._unknown] = np.nan
        return np.ascontiguousarray(by_component.T)


def _utility(y: Array, weights: Weights) -> Array:
    """The expected reward, for components (c or more, ...) as they are predicted."""
    wq, wl, wc = weights.as_tuple()
    utility: Array = wq * y[0] - wl * y[1] - wc * y[2] + (wl + wc)
    return utility


def _targets(batch: OutcomeBatch, scales: Scales) -> Array:
    """Events as (n, t); NaN marks what an event doesn't teach.

    Cost counts relative to the list cost. Where an error stands for a latency or a cost that is
    absent, so it does in the logs: the reference latency, the list cost.
    """
    y = np.empty((len(batch), T))
    y[:, :C] = components(batch.quality, batch.latency_ms, batch.cost_usd, batch.error, scales)
    y[:, :C][batch.settled] = np.nan
    y[:, 2] -= scales.cost(batch.list_cost_usd)
    latency_ms = np.where(np.isnan(batch.latency_ms), scales.latency_ref_ms, batch.latency_ms)
    cost_usd = np.where(np.isnan(batch.cost_usd), batch.list_cost_usd, batch.cost_usd)
    tiny = TINY_SHARE * scales.cost_ref_usd
    y[:, 3] = np.log1p(latency_ms)
    y[:, 4] = np.log((cost_usd + tiny) / (batch.list_cost_usd + tiny))
    return y


def _in_common(residual: Array, query: Index) -> Array:
    """(n, t) the mean residual of all answers to the same query; 0 where there is but one."""
    known = ~np.isnan(residual)
    sums = np.zeros((int(query.max()) + 1, residual.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, query, np.where(known, residual, 0.0))
    np.add.at(counts, query, known)
    mean = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 1)
    shared: Array = mean[query]
    return shared


def _start(d: int, scales: Scales) -> Array:
    """(t, d): a middling quality, half the reference latency, and costs as listed."""
    start = np.zeros((T, d))
    start[:, 0] = 0.5, scales.latency(scales.latency_ref_ms / 2), 0.0, 0.0, 0.0
    start[3, 0] = math.log1p(scales.latency_ref_ms / 2)
    return start


@cache
def _tunings() -> tuple[int, ...]:
    due = [TUNE_FIRST]
    while due[-1] < TUNE_EVERY * TUNE_GROWTH:
        due.append(due[-1] + max(16, due[-1] // TUNE_GROWTH))
    return tuple(due)


def _next_tuning(events: int) -> int:
    """The count of events at which the variances are learned next: a rule of the count alone."""
    due = _tunings()
    if events < due[-1]:
        return due[bisect_right(due, events)]
    return due[-1] + ((events - due[-1]) // TUNE_EVERY + 1) * TUNE_EVERY


def _triangle(d: int) -> int:
    return d * (d + 1) // 2


def _packed(matrices: NDArray[Any]) -> NDArray[Any]:
    """Symmetric (..., d, d) -> upper triangles (..., d (d + 1) / 2) by rows."""
    rows, columns = np.triu_indices(matrices.shape[-1])
    return matrices[..., rows, columns]


def _unpacked(triangles: NDArray[Any], d: int) -> NDArray[Any]:
    rows, columns = np.triu_indices(d)
    matrices = np.zeros((*triangles.shape[:-1], d, d), dtype=triangles.dtype)
    matrices[..., rows, columns] = triangles
    matrices[..., columns, rows] = triangles
    return matrices

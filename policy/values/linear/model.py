"""Learning: outcome events into sums, variances and what changed. Reads no clock, draws nothing.

`LinearModel` is float64 and a pure function of the events' order; its `view` is what serving
decides with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.objective import Scales
from policy.records import CorrectionBatch, OutcomeBatch
from policy.values.arrays import expect, pack, slices, triangles, unpack
from policy.values.linear import pooling, targets
from policy.values.linear.changes import REFERENCE, Watch
from policy.values.linear.comparing import Compared
from policy.values.linear.inverses import Inverses
from policy.values.linear.pooling import MATRIX, Array, C, Posterior, Spread, T
from policy.values.linear.sums import Learned
from policy.values.linear.view import LinearView
from policy.values.parts import VALUES, Part, Parts

Index = NDArray[np.intp]

FORGETTING = 1.0
PASSING = frozenset({"signals", "text"})
"""Groups of features whose uncertainty isn't explored: what a query with these very values teaches,
hardly another one has a use for. What recurs (tasks and labels) is worth trying arms out on."""
TUNE_FIRST = 8  # events before the variances are first learned
TUNE_GROWTH = 8  # then again whenever an eighth more has been seen, but so many events apart ...
TUNE_APART = 16  # ... at least, and at least as many as there are arms, for each costs its share
TUNE_EVERY = 4096  # ... and at most, where there are no more arms
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
        remembers as much of its own, on average, whether it is one of four or of a hundred;
        `notice` tells whether evidence loses weight where its arm is seen to have changed.
    """

    def __init__(
        self,
        groups: Mapping[str, slice],
        scales: Scales,
        forgetting: float = FORGETTING,
        notice: bool = True,
    ) -> None:
        if not 0.0 < forgetting <= 1.0:
            raise ValueError(f"forgetting must be in (0, 1], got {forgetting!r}")
        self.sizes = {name: part.stop - part.start for name, part in groups.items()}
        self.d = sum(self.sizes.values())
        self.scales = scales
        self.forgetting, self.notice = forgetting, notice
        self.events = 0
        self.start_events = 0  # the first of them, that no correction takes back
        self._settled = 0  # events before the last alarm, or the first event
        self._due = TUNE_FIRST  # events by which the variances are learned next
        self._learned = Learned(self.d)
        self.watch = Watch(self.d)
        self.compared = Compared()
        self._group = np.repeat(np.arange(len(self.sizes)), list(self.sizes.values()))
        self._spread = pooling.guess(tuple(self.sizes))
        self._start = targets.start(self.d, scales)
        self._inverses = Inverses(self._group)

    @property
    def arms(self) -> list[str]:
        """All that were ever seen, in that order."""
        return self._learned.arms

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
            posterior = self._posterior()
            predicted = np.einsum("nd,ntd->nt", x, posterior.mean[arm])
            y = y - targets.in_common(y - predicted, query)
            self._settle(arm, x, y)
            lost = float((1.0 / answers).mean())  # of the squares, with the means taken out
            worth = np.maximum(noise * (1.0 - lost) / self._spread.noise, 1.0)[:C]
            self._spread = replace(self._spread, noise=noise)
        self.events = self.start_events = len(batch)
        most = at_most / np.maximum(self._learned.sums.weight, 1.0)
        self._learned.scale(np.minimum(worth, most))
        self._learned.begin()
        self._due = self.events + _apart(self.events, len(self.arms))

    def _settle(self, arm: Index, x: Array, y: Array) -> None:
        """Sums of these outcomes alone, and the variances that they tell."""
        self._learned.clear()
        self._learned.fold(arm, x, y, forgetting=1.0)
        for _ in range(START_STEPS):
            self._tune(len(self.arms))

    def learn(self, batch: OutcomeBatch) -> None:
        """Fold events in; the same state results wherever the stream is cut into batches."""
        before = len(self.arms)
        arm, x, y = self._columns(batch)
        query = batch.query
        known, at = np.maximum(np.maximum.accumulate(arm) + 1, before), 0  # arms by then
        while at < len(batch):
            to = min(at + self._due - self.events, len(batch))
            if self.forgetting < 1.0:  # which each arm that joins slows down
                to = min(to, int(np.searchsorted(known, known[at], side="right")))
            run = arm[at:to], x[at:to], y[at:to]
            changed = self.watch.first(*run, self.events) if self.notice else None
            if changed is not None:
                to = at + changed + 1
            forgetting = self.forgetting ** (1.0 / known[at])
            run = arm[at:to], x[at:to], y[at:to]
            if query is None:
                self._learned.fold(*run, forgetting)
            else:
                self._compare(*run, query[at:to], forgetting)
            self.events += to - at
            at = to
            if changed is not None:
                self._learned.scale(self.watch.kept(len(self.arms)))
                self._settled = self.events
            if self.events in (self._due, self._settled):
                k = int(known[at - 1])
                self._tune(k)
                self._due = self.events + _apart(self.events - self._settled, k)

    def _compare(self, arm: Index, x: Array, y: Array, query: Index, forgetting: float) -> None:
        """Fold a run of events of which some answer the same query (n,)."""
        residual, sd = self.watch.residuals(arm, x, y)
        common, worth = self.compared.take_out(query, residual, sd, self._spread.noise[:C])
        y = y.copy()
        y[:, :C] -= common
        self._learned.fold(arm, x, y, forgetting, worth)

    def correct(self, batch: CorrectionBatch) -> None:
        """Put new values in the place of old ones, as if they had come so in the first place.

        The sums are then the same, to rounding. The variances and what was noticed of changes,
        which were learned from the old values at their time, stay; the variances follow when they
        are learned next.
        """
        rows = np.flatnonzero([arm in self._learned for arm in batch.new.arms])
        _, x, old = self._columns(batch.old.take(rows))
        arm, _, new = self._columns(batch.new.take(rows))
        number = self.events - 1 - batch.since[rows]
        left = self.forgetting ** self._learned.turns(self.events, number)
        left = np.where(number >= self.start_events, left * self.watch.left(arm, number), 0.0)
        self._learned.replace(arm, x, old, new, left[:, MATRIX])

    def _columns(self, batch: OutcomeBatch) -> tuple[Index, Array, Array]:
        """Of each event its arm's position, x (n, d) and targets (n, t)."""
        x = batch.x.astype(np.float64)
        if x.shape != (len(batch), self.d) or not np.isfinite(x).all():
            raise ValueError(f"x must be finite and of shape {(len(batch), self.d)}, got {x.shape}")
        before = len(self.arms)
        arm = self._learned.positions(batch.arms, self.events)
        self._learned.describe(before, batch.arms, batch.catalogs)
        return arm, x, targets.targets(batch, self.scales)

    def _tune(self, k: int) -> None:
        """Learn the variances anew from the first k arms, which are all that had an event."""
        learned, groups = self._learned, tuple(self.sizes)
        sums, changes = learned.sums.first(k), learned.changes[:k]
        inverse = self._inverses.of(sums, changes, self._spread)
        fitted = pooling.improve(
            sums, learned.traits[:k], inverse, self._spread, groups, self._start, self._group
        )
        self._spread = fitted.spread
        self.watch.refer(fitted, learned.taught[:k] > 0)

    def _posterior(self) -> Posterior:
        learned, spread = self._learned, self._spread
        inverse = self._inverses.of(learned.sums, learned.changes, spread)
        return pooling.solve(
            learned.sums, learned.traits, inverse, spread, self._start, self._group
        )

    def sums(self) -> dict[str, Array]:
        """The learned sums by name, arms first."""
        return self._learned.named()

    def view(self) -> LinearView:
        """The posterior of each arm, as of now."""
        learned, spread, sizes = self._learned, self._spread, self.sizes
        posterior = self._posterior()
        inverse = self._inverses.of(learned.sums, learned.changes, spread)
        fresh = spread.arm[:, self._group]
        recurring = np.array([name not in PASSING for name in sizes])
        return LinearView(
            scales=self.scales,
            arms=tuple(learned.arms),
            events=learned.taught.max(axis=1, initial=0),
            joined=np.append(learned.joined, self.events),
            seen=learned.taught.sum(axis=0) > 0,
            noise=spread.noise,
            scatter=pooling.scatter(learned.sums, inverse, posterior, spread, self._group),
            recurring=recurring[self._group],
            mean=posterior.mean.astype(np.float32),
            fresh_mean=posterior.pooled.astype(np.float32),
            slopes=posterior.slopes.astype(np.float32),
            fresh_cov=triangles(fresh[:, :, None] * np.eye(self.d)).astype(np.float32),
            cov=tuple(self._inverses.parts()),
        )

    def to_parts(self) -> dict[str, Part]:
        """Sums, spreads and configuration, a part per arm; equal models give equal parts."""
        arrays = self._learned.arrays() | asdict(self._spread) | self.watch.arrays()
        arrays["compared"] = self.compared.pairs
        values = Part.of(pack(_header(self), arrays))
        return {VALUES: values, REFERENCE: self.watch.reference(), **self._learned.parts()}

    @classmethod
    def from_parts(cls, parts: Parts) -> LinearModel:
        """Read `to_parts` back; ValueError for anything else."""
        try:
            return _read(*unpack(parts[VALUES].data), parts)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a linear model: {error!r}") from error


def _header(model: LinearModel) -> dict[str, Any]:
    return {
        "sizes": model.sizes,
        "scales": asdict(model.scales),
        "forgetting": model.forgetting,
        "notice": model.notice,
        "events": model.events,
        "start_events": model.start_events,
        "settled": model._settled,
        "due": model._due,
        "arms": model.arms,
    }


def _read(
    header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], parts: Parts
) -> LinearModel:
    sizes: dict[str, int] = header["sizes"]
    if sum(sizes.values()) > MAX_D:
        raise ValueError(f"expected at most {MAX_D} features, got {sizes}")
    scales = Scales(**header["scales"])
    model = LinearModel(slices(sizes), scales, header["forgetting"], header["notice"])
    model.events, model.start_events = header["events"], header["start_events"]
    model._settled, model._due = header["settled"], header["due"]
    model._spread = _spread(arrays, len(sizes))
    model._learned.restore(header["arms"], arrays, parts)
    model.watch.restore(arrays, parts[REFERENCE])
    expect({"compared": arrays["compared"]}, {"compared": (C, 2)})
    model.compared.pairs = arrays["compared"]
    return model


def _spread(arrays: Mapping[str, NDArray[Any]], g: int) -> Spread:
    spread = {name: arrays[name] for name in ("pooled", "arm", "noise")}
    expect(spread, {"pooled": (C, g), "arm": (C, g), "noise": (T,)})
    return Spread(**spread)


def _apart(since: int, k: int) -> int:
    """How many events later the variances of k arms are learned again, `since` so many after the
    first or after an alarm: a function of the events' order, as all of the state is."""
    apart = min(max(since // TUNE_GROWTH, TUNE_APART), TUNE_EVERY) if since else TUNE_FIRST
    return max(apart, k)

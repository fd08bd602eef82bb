"""The mean of the nearest outcomes: a baseline that every report should show.

`NearestModel` learns by remembering the last events, `NearestView` is what serving decides with.
Use something else where arms or outcomes are many: a decision looks at every remembered event, and
there is no posterior, so nothing tells a sure mean from a lucky one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights, components
from policy.records import Context, CorrectionBatch, OutcomeBatch, Vector
from policy.values.arrays import aligned, expect, pack, unpack
from policy.values.parts import VALUES, Part, Parts
from policy.values.protocol import Expected, Forecast

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

C = 3  # components: quality, latency, cost
T = 5  # what is remembered of them: the components as scored, latency_ms, cost by list cost
TINY_SHARE = 1e-6  # of the reference cost: added before dividing, so that a free arm has one
MAX_RATIO = 1e3  # of a cost to its list cost
NEWER = 1e-4  # of a squared distance: what the oldest event is farther than it is, for of events
# that are equally near the newer ones count
MAX_D, MAX_WINDOW = 4_096, 65_536  # a checkpoint that claims more is damaged


class NearestModel:
    """What a checkpoint holds: the last `window` events, each at its number modulo `window`.

    Parameters
    ----------
    d
        Features.
    scales
        How latency and cost become numbers in [0, 1].
    neighbours
        How many outcomes of an arm a prediction is the mean of.
    """

    def __init__(self, d: int, scales: Scales, neighbours: int, window: int) -> None:
        self.d, self.scales = d, scales
        self.neighbours, self.window = neighbours, window
        self.events = 0
        self.start_events = 0  # the first of them, that no correction takes back
        self.arms: list[str] = []
        self._position: dict[str, int] = {}
        self._taught = np.zeros((0, C), dtype=np.int64)
        self._joined = np.zeros(0, dtype=np.int64)  # events before an arm's first
        self._x = np.zeros((0, d), dtype=np.float32)
        self._arm = np.zeros(0, dtype=np.int64)
        self._y = np.zeros((0, T), dtype=np.float32)
        self._known = np.zeros((0, C), dtype=bool)

    def start(self, batch: OutcomeBatch, at_most: float, query: Index | None = None) -> None:
        """Remember at most `at_most` outcomes of each arm, evenly spread over the batch, and no
        more of one arm than of another when the window is short."""
        if self.events:
            raise ValueError(f"a start comes before the first event, {self.events} were learned")
        most = min(int(at_most), self.window // max(len(set(batch.arms)), 1))
        self.learn(batch.thinned(most))
        self.start_events = self.events

    def learn(self, batch: OutcomeBatch) -> None:
        """Remember events; the same state results wherever the stream is cut into batches."""
        n = len(batch)
        x = np.asarray(batch.x, dtype=np.float32)
        if x.shape != (n, self.d) or not np.isfinite(x).all():
            raise ValueError(f"x must be finite and of shape {(n, self.d)}, got {x.shape}")
        y, known = _targets(batch, self.scales)
        arm = self._positions(batch.arms)
        np.add.at(self._taught, arm, known)
        # Rows beyond the window would be overwritten at once.
        first = max(n - self.window, 0)
        at = (self.events + np.arange(first, n)) % self.window
        rows = min(self.events + n, self.window)
        for name, values in (("_x", x), ("_arm", arm), ("_y", y), ("_known", known)):
            kept = _lengthened(getattr(self, name), rows)
            kept[at] = values[first:]
            setattr(self, name, kept)
        self.events += n

    def correct(self, batch: CorrectionBatch) -> None:
        """Put new values in the place of old ones, where their events are still remembered."""
        y, known = _targets(batch.new, self.scales)
        number = self.events - 1 - batch.since
        known &= number >= max(self.start_events, self.events - self.window)
        arms = [self._position.get(arm, -1) for arm in batch.new.arms]
        for row, component in np.argwhere(known).tolist():
            at, targets = number[row, component] % self.window, component == _COMPONENT_OF
            # Where a store lost events that had been learned, its count of them is off.
            if self._arm[at] == arms[row] and np.array_equal(self._x[at], batch.new.x[row]):
                self._y[at, targets] = y[row, targets]

    def _positions(self, arms: Sequence[str]) -> NDArray[np.int64]:
        """Of each event's arm; one never seen is appended."""
        new = [arm for arm in dict.fromkeys(arms) if arm not in self._position]
        self._position.update({arm: len(self.arms) + i for i, arm in enumerate(new)})
        self.arms += new
        before = [self.events + arms.index(arm) for arm in new]
        self._joined = np.append(self._joined, np.array(before, dtype=np.int64))
        self._taught = _lengthened(self._taught, len(self.arms))
        return np.array([self._position[arm] for arm in arms], dtype=np.int64)

    def view(self) -> NearestView:
        """The remembered events, as of now."""
        oldest = self.events % self.window if self.events > self.window else 0
        order = np.roll(np.arange(len(self._x)), -oldest)
        return NearestView(
            scales=self.scales,
            neighbours=self.neighbours,
            arms=tuple(self.arms),
            events=self._taught.max(axis=1, initial=0),
            joined=np.append(self._joined, self.events),
            x=self._x[order],
            arm=self._arm[order],
            y=self._y[order],
            known=self._known[order],
        )

    def to_parts(self) -> dict[str, Part]:
        """Memory and configuration; equal models give equal parts."""
        header = {
            "d": self.d,
            "scales": asdict(self.scales),
            "neighbours": self.neighbours,
            "window": self.window,
            "events": self.events,
            "start_events": self.start_events,
            "arms": self.arms,
        }
        names = ("taught", "joined", "x", "arm", "y", "known")
        return {VALUES: Part.of(pack(header, {name: getattr(self, f"_{name}") for name in names}))}

    @classmethod
    def from_parts(cls, parts: Parts) -> NearestModel:
        """Read `to_parts` back; ValueError for anything else."""
        try:
            header, arrays = unpack(parts[VALUES].data)
            d, window, events = header["d"], header["window"], header["events"]
            if not (d <= MAX_D and window <= MAX_WINDOW):
                raise ValueError(f"expected d <= {MAX_D} and window <= {MAX_WINDOW}, got {header}")
            model = cls(d, Scales(**header["scales"]), header["neighbours"], window)
            model._positions(header["arms"])
            k = len(model.arms)
            expect(arrays, {"taught": (k, C), "joined": (k,)} | _shapes(min(events, window), d))
            _check_arms(arrays["arm"], k)
            model.events, model.start_events = events, header["start_events"]
            for name, values in arrays.items():
                setattr(model, f"_{name}", values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a nearest model: {error!r}") from error
        return model


@dataclass(frozen=True, slots=True, eq=False)
class NearestView:
    """What a snapshot holds: n remembered events of k arms, the oldest first.

    `x` (n, d), `arm` (n,), targets `y` (n, t) and which components each event taught, `known`
    (n, c). `events` (k,) and `joined` (k + 1,) are as LinearView has them.
    """

    scales: Scales
    neighbours: int
    arms: tuple[str, ...]
    events: NDArray[np.int64]
    joined: NDArray[np.int64]
    x: Single
    arm: NDArray[np.int64]
    y: Single
    known: Flags

    def bind(
        self,
        arms: Sequence[str],
        expected: Sequence[Expected] = (),
        usual: Weights | None = None,
        catalog: Catalog | None = None,
    ) -> NearestValues:
        """Stack for these arm ids; one never seen is predicted as the others are on average.

        `expected`, parallel to `arms`, is what somebody expects of an arm's quality where a
        feature is 1; it counts as one outcome of that arm.
        """
        at = aligned(self.arms, arms)
        return NearestValues(self, np.append(self.events, 0)[at], self.joined[at], at, expected)

    def to_parts(self) -> dict[str, Part]:
        """Equal views give equal parts."""
        header = {"scales": asdict(self.scales), "neighbours": self.neighbours, "arms": self.arms}
        names = ("events", "joined", "x", "arm", "y", "known")
        return {VALUES: Part.of(pack(header, {name: getattr(self, name) for name in names}))}

    @classmethod
    def from_parts(cls, parts: Parts) -> NearestView:
        """Read `to_parts` back; ValueError for anything else."""
        try:
            header, arrays = unpack(parts[VALUES].data)
            k, (n, d) = len(header["arms"]), arrays["x"].shape
            expect(arrays, {"events": (k,), "joined": (k + 1,)} | _shapes(n, d))
            _check_arms(arrays["arm"], k)
            scales = Scales(**header["scales"])
            return cls(scales, header["neighbours"], tuple(header["arms"]), **arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a nearest view: {error!r}") from error


class NearestValues:
    """A view stacked in the order of one catalog's arms; k of them.

    An arm's mean is shrunk to the mean of all arms' by one outcome, and the mean of its nearest
    outcomes to that by one: so an arm with few outcomes is not thought better than it was.
    """

    def __init__(
        self,
        view: NearestView,
        events: NDArray[np.int64],
        joined: NDArray[np.int64],
        at: Index,
        expected: Sequence[Expected],
    ) -> None:
        self.events, self.joined = events, joined
        self._scales, self._neighbours = view.scales, view.neighbours
        order = np.argsort(view.arm, kind="stable")
        x = view.x[order]
        self._minus_2x = -2.0 * x
        age = np.linspace(NEWER, 0.0, len(x), dtype=np.float32)[order]
        self._norm = np.einsum("nd,nd->n", x, x) + age
        self._y, known = view.y[order], view.known[order]
        bounds = np.searchsorted(view.arm[order], np.arange(len(view.arms) + 1))
        parts = [slice(a, b) for a, b in pairwise(bounds.tolist())]
        nobody = slice(0, 0)
        self._groups = [_groups(known, parts[i] if i >= 0 else nobody) for i in at.tolist()]

        # What an event doesn't teach is 0 in y, so that sums need not mind.
        sums = np.array([self._y[p].sum(axis=0, dtype=np.float64) for p in parts]).reshape(-1, T)
        counts = np.array([known[part].sum(axis=0) for part in parts]).reshape(-1, C)
        counts = counts[:, _COMPONENT_OF]
        means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        taught = counts.sum(axis=0) > 0
        self._pooled = _start(view.scales)
        self._pooled[taught] = np.nanmean(means[:, taught], axis=0)
        none = np.zeros((1, T))
        self._sums, self._counts = np.append(sums, none, 0)[at], np.append(counts, none, 0)[at]
        self._mean = (self._sums + self._pooled) / (self._counts + 1.0)
        self._unknown = ~taught[:C]
        self._lifts = _lifts(expected, x.shape[1], float(self._pooled[0]))

    def latency_quantile(self, x: Context, index: Index, probability: Vector) -> None:
        return None  # it knows no spread

    def bounds(self, x: Context, index: Index, list_cost_usd: Vector, probability: float) -> None:
        return None  # nor a posterior

    def forecast(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """Forecast for contexts (n, d), the arms at positions `index` (m,), list costs (n, m)."""
        y = np.stack([self._expected(one, index) for one in x])  # (n, m, t)
        quality, latency, cost = y[..., 0], y[..., 1], y[..., 2] + self._scales.cost(list_cost_usd)
        wq, wl, wc = weights.as_tuple()
        utility = wq * quality - wl * latency - wc * cost + (wl + wc)
        tiny = TINY_SHARE * self._scales.cost_ref_usd
        cost_usd = np.maximum(y[..., 4] * (list_cost_usd + tiny) - tiny, 0.0)
        outcome = np.stack([np.clip(quality, 0.0, 1.0), y[..., 3], cost_usd], axis=-1)
        outcome[..., self._unknown] = np.nan
        return Forecast(utility, None, outcome)

    def _expected(self, x: Context, index: Index) -> Array:
        """(m, t) for one context (d,)."""
        distance = self._minus_2x @ x  # squared, but for |x|^2, which is the same for all
        distance += self._norm
        y: Array = self._mean[index]
        if self._lifts is not None:
            y[:, 0] += (self._lifts[index] @ x) / (self._counts[index, 0] + 1.0)
        for i, arm in enumerate(index.tolist()):
            for rows, positions, targets in self._groups[arm]:
                near = self._y[positions[_smallest(distance[rows], self._neighbours)]]
                total = y[i] + near.sum(axis=0)
                y[i, targets] = total[targets] / (len(near) + 1.0)
        return y


_COMPONENT_OF = np.array([0, 1, 2, 1, 2])  # of each target


def _targets(batch: OutcomeBatch, scales: Scales) -> tuple[Single, Flags]:
    """Events as (n, t), 0 for what an event doesn't teach, and what it does teach as (n, c)."""
    y = np.empty((len(batch), T))
    y[:, :C] = components(batch.quality, batch.latency_ms, batch.cost_usd, batch.error, scales)
    y[:, 2] -= scales.cost(batch.list_cost_usd)
    # Where an error stands for a latency or a cost that is absent, so it does here.
    latency_ms = np.where(np.isnan(batch.latency_ms), scales.latency_ref_ms, batch.latency_ms)
    cost_usd = np.where(np.isnan(batch.cost_usd), batch.list_cost_usd, batch.cost_usd)
    tiny = TINY_SHARE * scales.cost_ref_usd
    y[:, 3] = latency_ms
    y[:, 4] = np.minimum((cost_usd + tiny) / (batch.list_cost_usd + tiny), MAX_RATIO)
    known = ~np.isnan(y[:, :C]) & ~batch.settled
    return np.where(known[:, _COMPONENT_OF], y, 0.0).astype(np.float32), known


def _start(scales: Scales) -> Array:
    """(t,): a middling quality, half the reference latency, and costs as listed."""
    half = scales.latency_ref_ms / 2
    return np.array([0.5, float(scales.latency(half)), 0.0, half, 1.0])


def _groups(known: Flags, part: slice) -> list[tuple[slice | Index, Index, Index]]:
    """An arm's rows, twice, by the targets that all of them teach.

    The first is the faster index where it is a slice, the second tells positions.
    """
    together: dict[bytes, list[int]] = {}
    for component in range(C):
        together.setdefault(known[part, component].tobytes(), []).append(component)
    made: list[tuple[slice | Index, Index, Index]] = []
    for of_components in together.values():
        teaching = known[part, of_components[0]]
        positions = part.start + np.flatnonzero(teaching)
        if len(positions):
            targets = np.flatnonzero(np.isin(_COMPONENT_OF, of_components))
            made.append((part if teaching.all() else positions, positions, targets))
    return made


def _lifts(expected: Sequence[Expected], d: int, pooled: float) -> Array | None:
    """(k, d): by how much an arm is expected to be better than all arms are, per feature."""
    if not any(expected):
        return None
    lifts = np.zeros((len(expected), d))
    for i, of_features in enumerate(expected):
        for feature, quality in of_features.items():
            lifts[i, feature] = quality - pooled
    return lifts


def _smallest(values: Single, count: int) -> Index | slice:
    """Where the `count` smallest stand, in no order; everywhere, if there are no more."""
    if len(values) <= count:
        return slice(None)
    return np.argpartition(values, count)[:count]


def _lengthened(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """With zeros up to so many rows."""
    missing = rows - len(array)
    if missing <= 0:
        return array
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), dtype=array.dtype)])


def _shapes(n: int, d: int) -> dict[str, tuple[int, ...]]:
    return {"x": (n, d), "arm": (n,), "y": (n, T), "known": (n, C)}


def _check_arms(arm: NDArray[np.int64], k: int) -> None:
    if len(arm) and not (arm.min() >= 0 and arm.max() < k):
        raise ValueError(f"an event is of an arm that isn't among the {k}")

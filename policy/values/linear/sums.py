"""What outcomes add up to, per arm and component, and how they lose weight. Knows no variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.arms import traits
from policy.arms.catalog import Catalog
from policy.values.arrays import expect, floats, symmetric, triangle, triangles
from policy.values.linear.pooling import MATRIX, Array, C, Sums, T
from policy.values.parts import Kept, Part, Parts, numbered, of_rows

Index = NDArray[np.intp]

START_LASTS = 10.0  # times as long as events do


class Learned:
    """The sums of all arms, in the order in which they came, and what is left of the start in them.

    `traits` (k, r) are the arms' when they came; `taught` (k, c) counts outcomes; `joined` (k,)
    counts all events before an arm's first; `changes` (k,) counts how often an arm's sums have
    changed since they were read or made.
    """

    def __init__(self, d: int) -> None:
        self.d = d
        self.arms: list[str] = []
        self._position: dict[str, int] = {}
        self.sums = Sums(
            np.zeros((0, C, d, d)), np.zeros((0, T, d)), np.zeros((0, T)), np.zeros((0, C))
        )
        self.traits = np.zeros((0, len(traits.NAMES)))
        self.taught = np.zeros((0, C), dtype=np.int64)
        self.joined = np.zeros(0, dtype=np.int64)
        self.started = self.sums  # of the arms known then
        self.changes = np.zeros(0, dtype=np.int64)
        self._start_changes = 0
        self._kept, self._kept_start = Kept(), Kept()

    def positions(self, arms: Sequence[str], events: int) -> Index:
        """Of each event's arm; one never seen is appended. `events` came before these."""
        new = [arm for arm in dict.fromkeys(arms) if arm not in self._position]
        if new:
            self._position.update({arm: len(self.arms) + i for i, arm in enumerate(new)})
            self.arms += new
            before = [events + arms.index(arm) for arm in new]
            self.joined = np.append(self.joined, np.array(before, dtype=np.int64))
            self.sums = Sums(*(_longer(part, len(new)) for part in self.sums.parts))
            self.traits = _longer(self.traits, len(new))
            self.taught = _longer(self.taught, len(new))
            self.changes = _longer(self.changes, len(new))
        return np.array([self._position[arm] for arm in arms], dtype=np.intp)

    def describe(self, before: int, arms: Sequence[str], catalogs: Sequence[Catalog]) -> None:
        """Note the traits of arms that came after the first `before`: those that the catalog of
        their first event tells, if it has them."""
        for i in range(before, len(self.arms)):
            catalog = catalogs[arms.index(self.arms[i])]
            if self.arms[i] in catalog:
                self.traits[i] = catalog.traits[catalog.index(self.arms[i])]

    def __contains__(self, arm: str) -> bool:
        return arm in self._position

    def clear(self) -> None:
        """Forget all outcomes, not the arms."""
        self.scale(np.zeros((len(self.arms), C)))
        self.taught[:] = 0

    def scale(self, share: Array) -> None:
        """Let sums count for a share (k, c) of what they did, the start's among them."""
        for sums in (self.sums, self.started):
            some = share[: len(sums.weight)]
            sums.xx[:] *= some[:, :, None, None]
            sums.xy[:] *= some[:, MATRIX, None]
            sums.yy[:] *= some[:, MATRIX]
            sums.weight[:] *= some
        self._all_changed()

    def _all_changed(self) -> None:
        self.changes += 1
        self._start_changes += 1

    def begin(self) -> None:
        """Take all that was learned so far for the start."""
        self.started = Sums(*(part.copy() for part in self.sums.parts))
        self._start_changes += 1

    def fold(
        self, arm: Index, x: Array, y: Array, forgetting: float, worth: Array | None = None
    ) -> None:
        """Add a run of events, each weighted by those that follow it, grouped by arm; `worth`
        (n, c) says how much less noise an event has than others, or 1."""
        n = len(arm)
        if forgetting < 1.0:
            self._age(forgetting**n, forgetting ** (n / START_LASTS))
        age = forgetting ** np.arange(n - 1, -1, -1.0)
        known = ~np.isnan(y[:, :C])
        key = arm * 8 + known @ (1, 2, 4)
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        weight = self.sums.weight
        for rows in np.split(order, cuts):
            a, present = int(arm[rows[0]]), known[rows[0]]
            which = np.flatnonzero(present)
            weight[a, which] += age[rows].sum()
            if worth is None:
                self._add(a, which, x[rows], y[rows], age[rows])
            else:
                for c in which:
                    self._add(a, np.array([c]), x[rows], y[rows], age[rows] * worth[rows, c])
            self.taught[a, which] += len(rows)
            self.changes[a] += 1

    def _add(self, arm: int, which: Index, x: Array, y: Array, weight: Array) -> None:
        """Products of events of one arm that teach the components `which`, weighted (n,)."""
        targets = np.flatnonzero(np.isin(MATRIX, which))
        weighted, values = x * weight[:, None], y[:, targets]
        self.sums.xx[arm, which] += weighted.T @ x
        self.sums.xy[arm, targets] += values.T @ weighted
        self.sums.yy[arm, targets] += weight @ values**2

    def _age(self, left: float, of_start: float) -> None:
        for sums, start in zip(self.sums.parts, self.started.parts, strict=True):
            np.multiply(sums, left, out=sums)
            sums[: len(start)] += (of_start - left) * start
            np.multiply(start, of_start, out=start)
        self._all_changed()

    def replace(self, arm: Index, x: Array, old: Array, new: Array, left: Array) -> None:
        """Put targets `new` (n, t) where they are known in the place of `old`, of which `left`
        (n, t) is left."""
        known = ~np.isnan(new[:, MATRIX])
        change = np.where(known, left * (new - old), 0.0)
        np.add.at(self.sums.xy, arm, change[:, :, None] * x[:, None])
        np.add.at(self.sums.yy, arm, np.where(known, left * (new**2 - old**2), 0.0))
        self.changes[arm] += 1

    def turns(self, events: int, number: Index) -> Array:
        """How often every arm has had another outcome, on average, since each event `number`,
        when `events` are learned; an event counts one over the arms known by then."""
        joined = np.append(self.joined, events)
        turns = np.zeros(len(joined))
        turns[1:] = np.cumsum(np.diff(joined) / np.arange(1, len(joined)))
        passed: Array = turns[-1] - np.interp(number + 1, joined, turns)
        return passed

    def named(self) -> dict[str, Array]:
        """The sums by name, arms first."""
        named = zip(("xx", "xy", "yy", "weight"), self.sums.parts, strict=True)
        return dict(named) | {"taught": self.taught.astype(np.float64)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is small of it, by name."""
        return {
            "traits": self.traits,
            "taught": self.taught,
            "joined": self.joined,
            **_small("", self.sums),
            **_small("start_", self.started),
        }

    def parts(self) -> dict[str, Part]:
        """What is large of it: a part per arm, and one of its start."""
        arms = self._kept.of(self.changes.tolist(), lambda i: _packed(self.sums, i))
        unchanged = [self._start_changes] * len(self.started.weight)
        start = self._kept_start.of(unchanged, lambda i: _packed(self.started, i))
        return numbered("arm", arms) | numbered("start", start)

    def restore(self, arms: Sequence[str], arrays: Mapping[str, NDArray[Any]], of: Parts) -> None:
        """Take over what `arrays` and `parts` gave; ValueError for anything else."""
        self.positions(arms, 0)
        k, known = len(self.arms), len(arrays["start_weight"])
        if known > k:
            raise ValueError(f"expected a start with at most {k} arms, got {known}")
        shapes = {"traits": self.traits.shape, "taught": (k, C), "joined": (k,)}
        for prefix, n in (("", k), ("start_", known)):
            shapes |= {f"{prefix}yy": (n, T), f"{prefix}weight": (n, C)}
        expect({name: arrays[name] for name in shapes}, shapes)
        self.sums = self._read("", arrays, of_rows("arm", of, k))
        self.started = self._read("start_", arrays, of_rows("start", of, known))
        self.traits = arrays["traits"]
        self.taught, self.joined = arrays["taught"], arrays["joined"]

    def _read(self, prefix: str, arrays: Mapping[str, NDArray[Any]], parts: Sequence[Part]) -> Sums:
        large = floats((part.data for part in parts), "<f8", _large(self.d))
        xx, xy = np.split(large, [C * triangle(self.d)], axis=1)
        return Sums(
            symmetric(xx.reshape(-1, C, triangle(self.d)), self.d),
            xy.reshape(-1, T, self.d),
            arrays[f"{prefix}yy"],
            arrays[f"{prefix}weight"],
        )


def _longer(array: NDArray[Any], rows: int) -> NDArray[Any]:
    return np.concatenate([array, np.zeros((rows, *array.shape[1:]), dtype=array.dtype)])


def _small(prefix: str, sums: Sums) -> dict[str, Array]:
    return {f"{prefix}yy": sums.yy, f"{prefix}weight": sums.weight}


def _large(d: int) -> int:
    """Numbers of an arm's part."""
    return C * triangle(d) + T * d


def _packed(sums: Sums, i: int) -> bytes:
    return b"".join([triangles(sums.xx[i]).tobytes(), sums.xy[i].tobytes()])

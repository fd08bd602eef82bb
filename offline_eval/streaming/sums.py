"""What each reading of a part tells, as sums that add up over parts.

The first reading gives those that the reward model is solved from; the second those that values are
made of, with each candidate of what is tuned; the third the spread around these values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from offline_eval.estimating import estimators, rounds
from offline_eval.estimating import target as targets
from offline_eval.estimating.reward_models import Coefficients, Sums
from offline_eval.estimating.rounds import Rounds
from offline_eval.estimating.tuning import SHRINKAGES, THRESHOLDS, Trials, margin
from offline_eval.log.data import LoggedData, Vector, expect_one_encoder
from policy.objective import Scales, Weights

Target = Callable[[LoggedData], Vector]
"""Rows -> pmfs (n, kmax), as the functions of `target` give; a cluster needs one that pickles."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the first reading tells: sums for the reward model, and what all parts must share."""

    sums: Sums = field(default_factory=Sums.nothing)
    encoders: frozenset[str] = frozenset()
    challengers: frozenset[str | None] = frozenset()
    alike: bool = True  # each row stands for itself

    def __add__(self, other: Known) -> Known:
        encoders = self.encoders | other.encoders
        expect_one_encoder(sorted(encoders))
        return Known(
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


def know(data: LoggedData, *, scales: Scales, weights: Weights | None) -> Known:
    return Known(
        Sums.of(data, data.rewards(weights, scales)),
        frozenset([data.encoder] if len(data) else []),
        frozenset(data.challengers),
        bool((data.stands_for == 1.0).all()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How each part is looked at."""

    target: Target
    scales: Scales
    weights: Weights | None
    model: Coefficients

    def of(self, data: LoggedData) -> Rounds:
        """Among the arms of the whole log: a target may name one that this part hasn't.

        Raises
        ------
        ValueError
            If the propensities aren't those that were drawn with: what is added up here has no
            place to say so.
        """
        if data.propensities != "logged":
            raise ValueError(
                f"the log's propensities are {data.propensities}: it can't be valued part by part"
            )
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
class Arrays:
    """What the estimators take, each (m,)."""

    weights: Vector
    reward: Vector
    stands_for: Vector
    q: Vector
    v: Vector

    @classmethod
    def of(cls, some: Rounds) -> Arrays:
        if some.q_logged is None or some.v_target is None:
            raise ValueError("expected rounds with a reward model")
        stands_for = np.ones(len(some)) if some.stands_for is None else some.stands_for
        return cls(some.weights, some.reward, stands_for, some.q_logged, some.v_target)


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What the second reading tells: sums over the rows that count."""

    counted: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    max_weight: float = 0.0
    sums: Mapping[str, float] = field(default_factory=dict)
    trials: Mapping[str, Trials] = field(default_factory=dict)  # by estimator that is tuned

    def __add__(self, other: Tally) -> Tally:
        return Tally(
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


def tallied(data: LoggedData, *, view: View) -> Tally:
    some = view.of(data)
    if not len(some):
        return Tally(dropped=some.dropped)
    a = Arrays.of(some)
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
    return Tally(
        counted=len(some),
        dropped=some.dropped,
        max_weight=float(w.max()),
        sums={name: float(total) for name, total in sums.items()},
        trials={
            "clipped_ips": Trials.of(THRESHOLDS, w, r, 0.0, 0.0, np.minimum, s),
            "switch_dr": Trials.of(THRESHOLDS, w, r, q, v, estimators.switched, s),
            "dros": Trials.of(SHRINKAGES, w, r, q, v, estimators.shrunk, s),
        },
    )


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """Values by estimator, what was tuned, and the two parts that `sndr` is the sum of."""

    values: Mapping[str, float]
    tuned: Mapping[str, float]
    correction: float
    per_row: float  # what makes a mean of terms, of `s` and of `s w`
    per_weight: float

    @classmethod
    def of(cls, tally: Tally) -> Estimates:
        sums, counted = tally.sums, tally.counted
        bound = margin(counted, sums["w w"], tally.max_weight)
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

    def deviations(self, a: Arrays) -> Iterator[tuple[str, Vector]]:
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
class Spread:
    """What the third reading tells: of deviations d, (Σ d², Σ d⁴) by estimator."""

    counted: int = 0
    powers: Mapping[str, Vector] = field(default_factory=dict)

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.counted + other.counted, _added(self.powers, other.powers))


def spread_of(
    data: LoggedData, *, view: View, found: Estimates, rowwise: bool
) -> tuple[Spread, tuple[Vector, Vector] | None]:
    """And the weights and rewards themselves, if wanted."""
    some = view.of(data)
    if not len(some):
        return Spread(), None
    powers = {}
    for name, d in found.deviations(Arrays.of(some)):
        squares = d * d
        powers[name] = np.array([squares.sum(), squares @ squares])
    spread = Spread(len(some), powers)
    return spread, (some.weights, some.reward) if rowwise else None

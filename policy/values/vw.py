"""Vowpal Wabbit behind the value model's protocol: one regressor per component. Explores nothing.

VW estimates what each arm does with a query, `explore` makes a pmf of it, so that propensities
have one home. Nothing here reads a clock, draws, or knows a policy. Examples are built from
numbers: in VW's text format a `|`, a `:` or a space inside a name would inject features.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vowpal_wabbit_next import CBLabel, Example, Workspace

from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.objective import COMPONENTS, LOG_SLOPE, Scales, Weights, components
from policy.records import Context, CorrectionBatch, OutcomeBatch, Vector, positions
from policy.values.arrays import aligned
from policy.values.protocol import Forecast

Index = NDArray[np.intp]
Expected = Mapping[int, float]  # feature -> quality

FORMAT = 2  # raise it when the same events would be taught differently
C = len(COMPONENTS)
SIGNS = np.array([-1.0, 1.0, 1.0])  # VW's numbers are costs: less quality is more of it
CB_TYPES = ("mtr", "dr", "ips")
LETTERS: Mapping[str, str] = {"task": "t", "signals": "s", "hints": "h", "text": "x"}
ARM, TRAITS = "a", "p"
"""VW's namespaces: one per group of the encoder's features, and two of an arm."""
ARGUMENTS = (
    "--cb_adf",
    "--quiet",
    *("-b", "18"),
    *(word for letter in LETTERS.values() for word in ("-q", letter + ARM)),
    # Coin betting needs no learning rate; and a model file keeps all that it goes on with, so that
    # learning after a reload equals learning without one. A file doesn't keep what `--l2` needs,
    # nor what `--normalized` (in VW's default) needs for the second regressor of dr.
    "--coin",
    # A propensity below 0.2 counts as 0.2. Unclipped, the rare outcome of a floor of 1% weighed a
    # hundred times as much as a usual one, and brought more noise than news.
    *("--clip_p", "0.2"),
)
"""Coin betting: after Orabona and Tommasi 2017, https://arxiv.org/abs/1705.07795. The cb types are
compared in Bietti, Agarwal and Langford 2018, https://arxiv.org/abs/1802.04064 (as iwr: mtr)."""
BOUNDS = ("--min_prediction", "-3", "--max_prediction", "3")
"""For mtr. Else VW clips what it predicts, while it learns, to the labels seen so far: a weight
that has overshot the smallest one gets no gradient any more, and the overshoot stays. dr, which
regresses on all actions, comes closer by itself, and with these a file wouldn't keep all that it
needs."""
EXPECTED_EVENTS = 10.0  # outcomes that an operator's expected quality is worth
CACHED_CATALOGS = 64


def arguments(cb_type: str) -> list[str]:
    """What a component's workspace is made with."""
    return [*ARGUMENTS, "--cb_type", cb_type, *(BOUNDS if cb_type == "mtr" else ())]


class VwModel:
    """What a checkpoint holds: a regressor per component, and how much each arm has taught.

    Parameters
    ----------
    groups
        Contiguous slices that cover the features 0..d; `bias` is left to VW's own constant.
    scales
        How latency and cost become numbers in [0, 1].
    cb_type
        How a regressor learns from the one arm that was drawn: importance-weighted regression on
        it ("mtr"), or on every arm with doubly robust ("dr") or inversely weighted ("ips") costs.
    """

    def __init__(self, groups: Mapping[str, slice], scales: Scales, cb_type: str = "mtr") -> None:
        if cb_type not in CB_TYPES:
            raise ValueError(f"cb_type must be one of {', '.join(CB_TYPES)}, got {cb_type!r}")
        self.sizes = {name: part.stop - part.start for name, part in groups.items()}
        self.d = sum(self.sizes.values())
        self.scales = scales
        self.cb_type = cb_type
        self.events = 0
        self.start_events = 0  # the first of them, that no correction takes back
        self.arms: dict[str, int] = {}
        self._taught: list[list[int]] = []  # per arm and component
        self._joined: list[int] = []  # events before an arm's first
        self._start = _start(scales)
        self._regressors = [Workspace(arguments(cb_type)) for _ in COMPONENTS]
        self._stored: list[bytes | None] = [None] * C  # until they learn again
        self._catalogs: dict[str, list[Example]] = {}

    def start(self, batch: OutcomeBatch, at_most: float, query: Index | None = None) -> None:
        """Learn at most `at_most` outcomes of each arm, evenly spread over the batch."""
        if self.events:
            raise ValueError(f"a start comes before the first event, {self.events} were learned")
        self.learn(batch.thinned(int(at_most)))
        self.start_events = self.events

    def learn(self, batch: OutcomeBatch) -> None:
        """Fold events in, one by one: where the stream is cut into batches changes nothing."""
        costs = self._costs(batch)
        for i, arm in enumerate(batch.arms):
            taught = self._taught[self._position(arm)]
            self.events += 1
            for c in self._teach(batch, i, costs[i]):
                taught[c] += 1

    def correct(self, batch: CorrectionBatch) -> None:
        """Teach the new values as one outcome more: VW can't take back what it has learned, it only
        forgets it in time. (Teaching 2 new - old, so that the two would average to the new value,
        made predictions worse: VW's steps are too large for labels that far off.)"""
        costs = self._costs(batch.new)
        costs[self.events - 1 - batch.since < self.start_events] = np.nan
        for i in range(len(costs)):
            self._teach(batch.new, i, costs[i])

    def _costs(self, batch: OutcomeBatch) -> Vector:
        """(n, 3) what VW is to predict, NaN of what an event doesn't teach."""
        if batch.x.shape != (len(batch), self.d) or not np.isfinite(batch.x).all():
            expected = (len(batch), self.d)
            raise ValueError(f"x must be finite and of shape {expected}, got {batch.x.shape}")
        y = components(batch.quality, batch.latency_ms, batch.cost_usd, batch.error, self.scales)
        y[batch.settled] = np.nan
        y[:, 2] -= self.scales.cost(batch.list_cost_usd)
        costs: Vector = (y - self._start) * SIGNS
        return costs

    def _teach(self, batch: OutcomeBatch, i: int, costs: Vector) -> list[int]:
        """Teach the i-th event's costs (3,), NaN but where they are known; which ones are."""
        known: list[int] = np.flatnonzero(~np.isnan(costs)).tolist()
        if not known:
            return known
        catalog, index = batch.catalogs[i], positions(batch.eligible[i])
        chosen = catalog.index(batch.arms[i])
        if chosen not in index:  # the caller chose for itself
            index = np.append(index, chosen)
        propensity = batch.propensity[i]
        if math.isnan(propensity):  # it wasn't drawn, so nothing was selected by a draw
            propensity = 1.0
        actions = self._actions(catalog)
        executed = _action(catalog.arms[chosen])
        examples = [
            _encoding(tuple(self.sizes.items())).shared(batch.x[i]),
            *(executed if j == chosen else actions[j] for j in index.tolist()),
        ]
        for c in known:
            executed.set_label(CBLabel(label=(float(costs[c]), float(propensity))))
            self._regressors[c].learn_one(examples)
            self._stored[c] = None
        return known

    def _position(self, arm: str) -> int:
        if arm not in self.arms:
            self.arms[arm] = len(self.arms)
            self._taught.append([0] * C)
            self._joined.append(self.events)
        return self.arms[arm]

    def _actions(self, catalog: Catalog) -> list[Example]:
        if catalog.revision not in self._catalogs:
            if len(self._catalogs) == CACHED_CATALOGS:
                self._catalogs.clear()
            self._catalogs[catalog.revision] = list(map(_action, catalog.arms))
        return self._catalogs[catalog.revision]

    def _models(self) -> tuple[bytes, ...]:
        """Each regressor as VW stores it; equal ones give equal bytes.

        A running one also counts what it has read since it was loaded; one that is loaded and
        stored at once has forgotten that, and nothing else.
        """
        for c, regressor in enumerate(self._regressors):
            if self._stored[c] is None:
                copy = Workspace(["--quiet"], model_data=regressor.serialize())
                self._stored[c] = copy.serialize()
        return tuple(model for model in self._stored if model is not None)

    def view(self) -> VwView:
        """The regressors, as of now."""
        taught = np.array(self._taught, dtype=np.int64).reshape(-1, C)
        return VwView(
            sizes=tuple(self.sizes.items()),
            scales=self.scales,
            arms=tuple(self.arms),
            events=taught.max(axis=1, initial=0),
            joined=np.array([*self._joined, self.events], dtype=np.int64),
            models=tuple(
                model if taught[:, c].any() else b"" for c, model in enumerate(self._models())
            ),
        )

    def to_bytes(self) -> bytes:
        """Regressors, counts and configuration; equal models give equal bytes."""
        header = {
            "format": FORMAT,
            "sizes": self.sizes,
            "scales": asdict(self.scales),
            "cb_type": self.cb_type,
            "events": self.events,
            "start_events": self.start_events,
            "arms": list(self.arms),
            "taught": self._taught,
            "joined": self._joined,
        }
        return _pack(header, self._models())

    @classmethod
    def from_bytes(cls, body: bytes) -> VwModel:
        """Read `to_bytes` back; ValueError for anything else."""
        header, models = _unpack(body)
        try:
            model = cls(_slices(header["sizes"]), Scales(**header["scales"]), header["cb_type"])
            model.events, model.start_events = header["events"], header["start_events"]
            model.arms = {arm: i for i, arm in enumerate(header["arms"])}
            model._taught, model._joined = header["taught"], header["joined"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a VW model: {error!r}") from error
        model._regressors = [Workspace(["--quiet"], model_data=data) for data in models]
        model._stored = list(models)
        return model


@dataclass(frozen=True, slots=True, eq=False)
class VwView:
    """What a snapshot holds: the stored regressors, b"" of a component that was never taught."""

    sizes: tuple[tuple[str, int], ...]
    scales: Scales
    arms: tuple[str, ...]
    events: NDArray[np.int64]
    joined: NDArray[np.int64]
    models: tuple[bytes, ...]

    def bind(
        self,
        arms: Sequence[str],
        expected: Sequence[Expected] = (),
        usual: Weights | None = None,
        catalog: Catalog | None = None,
    ) -> VwValues:
        """Load the regressors, for the arms of a catalog with their traits."""
        if catalog is None or catalog.ids != tuple(arms):
            raise ValueError("a VW view is bound to a catalog, for its arms' traits")
        return VwValues(self, catalog, expected)

    def to_bytes(self) -> bytes:
        """Equal views give equal bytes."""
        header = {
            "format": FORMAT,
            "sizes": dict(self.sizes),
            "scales": asdict(self.scales),
            "arms": self.arms,
            "events": self.events.tolist(),
            "joined": self.joined.tolist(),
        }
        return _pack(header, self.models)

    @classmethod
    def from_bytes(cls, body: bytes) -> VwView:
        """Read `to_bytes` back; ValueError for anything else."""
        header, models = _unpack(body)
        try:
            return cls(
                sizes=tuple(header["sizes"].items()),
                scales=Scales(**header["scales"]),
                arms=tuple(header["arms"]),
                events=np.array(header["events"], dtype=np.int64),
                joined=np.array(header["joined"], dtype=np.int64),
                models=models,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a VW view: {error!r}") from error


class VwValues:
    """A view's regressors, loaded read-only, and one example per arm of a catalog.

    One decision at a time: predicting writes into the workspace and into the examples.
    """

    def __init__(self, view: VwView, catalog: Catalog, expected: Sequence[Expected]) -> None:
        at = aligned(view.arms, catalog.ids)
        self.events = np.append(view.events, 0)[at]
        self.joined = view.joined[at]
        self._scales = view.scales
        self._start = _start(view.scales)
        self._encoding = _encoding(view.sizes)
        self._actions = list(map(_action, catalog.arms))
        self._expected = {i: of_features for i, of_features in enumerate(expected) if of_features}
        self._regressors = [
            Workspace(["--quiet", "-t"], model_data=model) if model else None
            for model in view.models
        ]
        self._lock = Lock()

    def forecast(
        self, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
    ) -> Forecast:
        """Forecast for the arms at positions `index` (k,) with list costs (k,); no sd.

        VW's cost regressor is of what differs from the list cost, so a price acts at once.
        """
        y = self._start + self._predict(x, index) * SIGNS
        self._expect(y[:, 0], x, index)
        y[:, 2] += self._scales.cost(list_cost_usd)
        wq, wl, wc = weights.as_tuple()
        utility = wq * y[:, 0] - wl * y[:, 1] - wc * y[:, 2] + (wl + wc)
        return Forecast(utility, None, self._outcome(y, list_cost_usd))

    def _predict(self, x: Context, index: Index) -> Vector:
        """(k, 3) VW's costs, 0 of a component that was never taught."""
        costs = np.zeros((len(index), C))
        with self._lock:
            examples = [self._encoding.shared(x), *(self._actions[i] for i in index.tolist())]
            for c, regressor in enumerate(self._regressors):
                if regressor is not None:
                    # VW sorts its (action, cost) pairs by cost; everyone else indexes by arm.
                    found: Any = regressor.predict_one(examples)
                    for action, cost in found:
                        costs[action, c] = cost
        return costs

    def _expect(self, quality: Vector, x: Context, index: Index) -> None:
        """Move each quality (k,) towards what somebody expects, the less the more it has taught."""
        for i, position in enumerate(index.tolist()):
            trust = EXPECTED_EVENTS / (EXPECTED_EVENTS + self.events[position])
            for feature, expected in self._expected.get(position, {}).items():
                quality[i] += trust * float(x[feature]) * (expected - quality[i])

    def _outcome(self, y: Vector, list_cost_usd: Vector) -> Vector:
        """(k, 3) in their own units; NaN of a component that was never taught.

        Latency and cost are what a mean score stands for: with the log scale nearer to a geometric
        than to an arithmetic mean. A score of 1 says only "the reference or more", so there the
        answer is the reference, or the list cost where that is more.
        """
        share = np.clip(y, 0.0, 1.0)
        if self._scales.scale == "log":
            share[:, 1:] = np.expm1(share[:, 1:] * math.log1p(LOG_SLOPE)) / LOG_SLOPE
        outcome = share * (1.0, self._scales.latency_ref_ms, self._scales.cost_ref_usd)
        saturated = y[:, 2] >= 1.0
        outcome[saturated, 2] = np.maximum(outcome[saturated, 2], list_cost_usd[saturated])
        outcome[:, [regressor is None for regressor in self._regressors]] = np.nan
        return outcome


def _start(scales: Scales) -> Vector:
    """(3,) what VW's zero stands for: a middling quality, half the reference latency, and a cost
    as listed."""
    return np.array([0.5, float(scales.latency(scales.latency_ref_ms / 2)), 0.0])


class _Encoding:
    """Where the features of x go: a namespace and hashed indices for each group."""

    def __init__(self, sizes: Sequence[tuple[str, int]]) -> None:
        self._parts = []
        start = 0
        for name, size in sizes:
            if name != "bias" and size:
                hashes = np.array([_hash(f"{name}:{i}") for i in range(size)], dtype=np.uint64)
                self._parts.append((LETTERS[name], slice(start, start + size), hashes))
            start += size

    def shared(self, x: Context) -> Example:
        example = Example()
        example.set_label(CBLabel(shared=True))
        for letter, part, hashes in self._parts:
            values = x[part]
            present = values.nonzero()[0]
            if len(present):
                _push(example, letter, hashes[present], values[present])
        return example


@cache
def _encoding(sizes: tuple[tuple[str, int], ...]) -> _Encoding:
    return _Encoding(sizes)


def _action(arm: Arm) -> Example:
    example = Example()
    example.set_label(CBLabel())
    example[ARM].push_feature(_hash(f"arm:{arm.id}"), 1.0)
    traits = _traits(arm)
    _push(
        example,
        TRAITS,
        np.array([_hash(f"trait:{name}") for name in traits], dtype=np.uint64),
        np.array(list(traits.values()), dtype=np.float32),
    )
    return example


def _push(example: Example, letter: str, hashes: NDArray[np.uint64], values: Context) -> None:
    group: Any = example[letter]  # its stubs mean arrays, and say something else
    group.push_many_features(hashes, values)


def _traits(arm: Arm) -> dict[str, float]:
    traits = {
        "price_in": math.log1p(100.0 * arm.usd_per_mtok_in) / 8.0,
        "price_out": math.log1p(100.0 * arm.usd_per_mtok_out) / 8.0,
    }
    if arm.context_window_tokens is not None:
        traits["context_window"] = math.log2(arm.context_window_tokens) / 20.0
    traits[f"provider:{arm.provider}"] = 0.5
    return traits | {f"capability:{name}": 0.5 for name in arm.capabilities}


@lru_cache(maxsize=16_384)
def _hash(name: str) -> int:
    """32 bits of any string: what it holds can't be mistaken for syntax."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def _slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    stops = np.cumsum(list(sizes.values())).tolist()
    return {n: slice(e - s, e) for (n, s), e in zip(sizes.items(), stops, strict=True)}


_LENGTH = struct.Struct("<I")


def _pack(header: dict[str, Any], models: Sequence[bytes]) -> bytes:
    """Header length, header as JSON, models one after the other."""
    head = json.dumps({**header, "bytes": [len(model) for model in models]}).encode()
    return b"".join([_LENGTH.pack(len(head)), head, *models])


def _unpack(body: bytes) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    try:
        (length,) = _LENGTH.unpack_from(body)
        at = _LENGTH.size + length
        header = json.loads(body[_LENGTH.size : at])
        if header["format"] != FORMAT:
            raise ValueError(f"expected VW format {FORMAT}, got {header['format']!r}")
        models = []
        for size in header["bytes"]:
            models.append(body[at : at + size])
            at += size
    except (struct.error, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not the bytes of a VW model or view: {error!r}") from error
    if at != len(body) or len(models) != C:
        raise ValueError(f"expected {C} VW regressors in {at} bytes, got {len(body)}")
    return header, tuple(models)

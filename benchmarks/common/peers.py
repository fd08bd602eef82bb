"""Other libraries' bandits on the same contexts and rewards. Knows no policy of ours.

Each is a `Router` (pointsman/trying/routers.py) that sees x (d,) and one scalar reward, the
objective's.
None is needed to run: `pip install -e '.[peers]'` brings them, and one that is missing is said to
be. Settings are a library's defaults and, beside them, the one that its authors or our probes
recommend: each line of `PEERS` says which.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pointsman.trying.routers import Routed

Matrix = NDArray[np.float32]
Vector = NDArray[np.float64]
Index = NDArray[np.intp]

MAX_GAP = 32  # outcomes between two learnings of a batched peer, in the long run


class Peer(Protocol):
    """A bandit over k arms and contexts (d,), as `PeerRouter` drives it."""

    batched: bool
    """Learning costs a matrix inversion, so it learns in batches as large as our learner's."""

    def choose(self, x: Matrix) -> tuple[int, Any]:
        """An arm, and what the peer wants to see again when its reward comes."""

    def learn(self, x: Matrix, arms: Index, rewards: Vector, kept: Sequence[Any]) -> None:
        """Fold (m, d) contexts, the arms and rewards (m,) they had, and what was kept of each."""

    def warm(self, x: Matrix, rewards: Vector) -> None:
        """Begin with (n, d) contexts of which all arms' rewards (n, k) are known."""


class PeerRouter:
    """A peer over a set whose contexts (n, d) and rewards (n, k) are known."""

    def __init__(self, peer: Peer, x: Matrix, rewards: Vector) -> None:
        self._peer = peer
        self._x = x
        self._rewards = rewards
        self._kept: dict[str, Any] = {}
        self._arrived: list[Routed] = []
        self._learned = 0
        self._rounds = 0

    def warm(self, rows: Index) -> None:
        """Begin with all arms' rewards of these rows."""
        if len(rows):
            self._peer.warm(self._x[rows], self._rewards[rows])
            self._learned = self._rewards[rows].size

    def route(self, rows: Sequence[int]) -> list[Routed]:
        return [self._route(row) for row in rows]

    def _route(self, row: int) -> Routed:
        arm, kept = self._peer.choose(self._x[row])
        self._rounds += 1
        decision_id = str(self._rounds)
        self._kept[decision_id] = kept
        return Routed(row, arm, decision_id)

    def reward(self, routed: Sequence[Routed]) -> None:
        self._arrived += routed
        gap = min(max(self._learned // 16, 1), MAX_GAP) if self._peer.batched else 1
        if len(self._arrived) < gap:
            return
        rows = np.array([one.row for one in self._arrived], dtype=np.intp)
        arms = np.array([one.arm for one in self._arrived], dtype=np.intp)
        kept = [self._kept.pop(one.decision_id) for one in self._arrived]
        self._peer.learn(self._x[rows], arms, self._rewards[rows, arms], kept)
        self._learned += len(rows)
        self._arrived = []


class MabWiser:
    """MABWiser's LinTS or LinUCB: a ridge regression per arm, l2_lambda 1 as by default.

    Another l2_lambda would give its untried arms the inverse of the spread that is meant. It can't
    predict before it was fitted once, so the first arms are drawn uniformly.
    """

    batched = True

    def __init__(self, policy: str, alpha: float, d: int, k: int, seed: int) -> None:
        mab = import_module("mabwiser.mab")
        policy = getattr(mab.LearningPolicy, policy)(alpha=alpha)
        self._mab = mab.MAB(list(range(k)), policy, seed=seed)
        self._k = k
        self._rng = np.random.default_rng(seed)
        self._fitted = False

    def choose(self, x: Matrix) -> tuple[int, None]:
        arm = self._mab.predict(x[None]) if self._fitted else self._rng.integers(self._k)
        return int(arm), None

    def learn(self, x: Matrix, arms: Index, rewards: Vector, kept: Sequence[Any]) -> None:
        fit = self._mab.partial_fit if self._fitted else self._mab.fit
        fit(arms, rewards, x)
        self._fitted = True

    def warm(self, x: Matrix, rewards: Vector) -> None:
        self.learn(*_long(x, rewards))


class ContextualBandits:
    """A policy of contextualbandits.

    Its documentation asks for rewards that are 0 or 1. The linear policies are least squares and
    take any number; what counts successes and failures, as a beta prior does, gets `binary` ones:
    1 with the reward as its probability, so of the same mean.
    """

    batched = True

    def __init__(self, policy: Any, binary: bool, seed: int) -> None:
        self._policy = policy
        self._binary = binary
        self._rng = np.random.default_rng(seed)

    def choose(self, x: Matrix) -> tuple[int, None]:
        return int(self._policy.predict(x[None].astype(np.float64))[0]), None

    def learn(self, x: Matrix, arms: Index, rewards: Vector, kept: Sequence[Any]) -> None:
        if self._binary:
            rewards = (self._rng.random(len(rewards)) < rewards).astype(np.float64)
        self._policy.partial_fit(x.astype(np.float64), arms, rewards)

    def warm(self, x: Matrix, rewards: Vector) -> None:
        self.learn(*_long(x, rewards))


def _contextual(
    make: Callable[[int, int], Any], binary: bool = False
) -> Callable[[int, int, int], Peer]:
    """`make` takes the number of arms and a seed."""
    return lambda d, k, seed: ContextualBandits(make(k, seed), binary, seed)


def _lin_ucb(alpha: float, k: int, seed: int) -> Any:
    """Its seeds are above 0."""
    online = import_module("contextualbandits.online")
    return online.LinUCB(k, alpha=alpha, random_state=1 + seed)


def _lin_ts(v: float, k: int, seed: int) -> Any:
    """Draws each arm's score at x with v times its spread, not coefficients, as by default: in
    0.3.30 these spread the more the more was learned. Smoothed so that an arm never tried scores
    1: by default it scores 0, and stays untried.
    """
    online = import_module("contextualbandits.online")
    scores = {"v_sq": v, "sample_from": "ci", "method": "sm"}
    return online.LinTS(k, smoothing=(2.0, 2.0), random_state=1 + seed, **scores)


def _bootstrapped_ts(k: int, seed: int) -> Any:
    online = import_module("contextualbandits.online")
    base = import_module("sklearn.linear_model").SGDClassifier(
        loss="log_loss", random_state=1 + seed
    )
    return online.BootstrappedTS(base, k, batch_train=True, random_state=1 + seed)


class VowpalWabbit:
    """VW's own squarecb over action-dependent features: x in a shared namespace, crossed with the
    arm's id; cost = 1 - reward. The draw from its pmf is ours, as always with VW.

    Features are given as numbers, never as text, and actions come sorted by probability.
    """

    batched = False

    def __init__(self, gamma_scale: float, d: int, k: int, seed: int) -> None:
        self._vw = import_module("vowpal_wabbit_next")
        explore = ["--cb_explore_adf", "--squarecb", "--gamma_scale", str(gamma_scale)]
        features = ["--quadratic", "sa", "--ignore_linear", "s"]
        self._workspace = self._vw.Workspace([*explore, *features, "--quiet"])
        self._shared = self._slots("s", d)
        self._arms = self._slots("a", k)[:, None]
        self._rng = np.random.default_rng(seed)

    def _slots(self, namespace: str, size: int) -> NDArray[np.uint64]:
        slot = self._workspace.get_index_for_scalar_feature
        slots = [slot(f"{namespace}{i}", namespace_name=namespace) for i in range(size)]
        return np.array(slots, dtype=np.uint64)

    def choose(self, x: Matrix) -> tuple[int, float]:
        answer = sorted(self._workspace.predict_one(self._examples(x)))
        pmf = np.array([p for _, p in answer])
        pmf /= pmf.sum()
        arm = int(self._rng.choice(len(pmf), p=pmf))
        return arm, float(pmf[arm])

    def learn(self, x: Matrix, arms: Index, rewards: Vector, kept: Sequence[Any]) -> None:
        told = zip(arms.tolist(), (1.0 - rewards).tolist(), kept, strict=True)
        for row, label in zip(x, told, strict=True):
            self._workspace.learn_one(self._examples(row, label))

    def warm(self, x: Matrix, rewards: Vector) -> None:
        self.learn(*_long(x, rewards, kept=1.0))

    def _examples(self, x: Matrix, told: tuple[int, float, float] | None = None) -> list[Any]:
        vw = self._vw
        shared = vw.Example()
        shared.set_label(vw.CBLabel(shared=True))
        shared["s"].push_many_features(self._shared, x)
        examples = [shared]
        for i, slot in enumerate(self._arms):
            example = vw.Example()
            label = told[1:] if told is not None and told[0] == i else None
            example.set_label(vw.CBLabel(label=label))
            example["a"].push_many_features(slot, _ONE)
            examples.append(example)
        return examples


_ONE = np.ones(1, dtype=np.float32)


class ParetoBandit:
    """The router of Taberner-Miller 2026 (https://arxiv.org/abs/2604.00136), without its budget.

    Its text features come from an embedding model; it is given x instead, the bias last as it
    wants it. The reward has the cost in it already, so its own penalty on list prices is off.
    All arms' outcomes known beforehand become its warm-up priors, of the strength it advises.
    """

    batched = False

    def __init__(self, alpha: float | None, d: int, k: int, seed: int) -> None:
        self._alpha = alpha
        self._d = d
        self._seed = seed
        self._arms = [str(i) for i in range(k)]
        self._router = self._make("none")

    def _make(self, priors: str) -> Any:
        pareto = import_module("pareto_bandit")
        prices = {"input_cost_per_m": 1.0, "output_cost_per_m": 1.0}
        chosen = {} if self._alpha is None else {"alpha": self._alpha}
        return pareto.BanditRouter.create(
            model_registry={arm: dict(prices) for arm in self._arms},
            feature_service=pareto.FeatureService.for_precomputed(self._d),
            priors=priors,
            cost_penalty=0.0,
            bandit_seed=self._seed,
            **chosen,
        )

    def choose(self, x: Matrix) -> tuple[int, str]:
        arm, log = self._router.route(np.roll(x, -1).astype(np.float64))
        return int(arm), log.request_id

    def learn(self, x: Matrix, arms: Index, rewards: Vector, kept: Sequence[Any]) -> None:
        for request_id, reward in zip(kept, rewards.tolist(), strict=True):
            self._router.process_feedback(request_id, reward=reward)

    def warm(self, x: Matrix, rewards: Vector) -> None:
        x = np.roll(x, -1, axis=1).astype(np.float64)
        precision = np.eye(self._d) + x.T @ x
        priors = {
            "A": {arm: precision.copy() for arm in self._arms},
            "b": {arm: x.T @ rewards[:, i] for i, arm in enumerate(self._arms)},
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "priors.joblib"
            import_module("joblib").dump(priors, file)
            self._router = self._make(str(file))


def _long(
    x: Matrix, rewards: Vector, kept: object = None
) -> tuple[Matrix, Index, Vector, list[object]]:
    """All arms' rewards (n, k) as n k rounds that each saw one of them."""
    n, k = rewards.shape
    return np.repeat(x, k, axis=0), np.tile(np.arange(k), n), rewards.ravel(), [kept] * (n * k)


@dataclass(frozen=True, slots=True)
class Entry:
    """How to make a peer for d features, k arms and a seed, and which distribution brings it."""

    package: str
    make: Callable[[int, int, int], Peer]


PEERS: Mapping[str, Entry] = {
    # mabwiser: alpha 1 is the default, the other the best of 0.03, 0.1, 0.3 and 0.5 on our sets
    "mabwiser-lints": Entry("mabwiser", partial(MabWiser, "LinTS", 1.0)),
    "mabwiser-lints-0.3": Entry("mabwiser", partial(MabWiser, "LinTS", 0.3)),
    "mabwiser-linucb": Entry("mabwiser", partial(MabWiser, "LinUCB", 1.0)),
    "mabwiser-linucb-0.5": Entry("mabwiser", partial(MabWiser, "LinUCB", 0.5)),
    # contextualbandits: 1 is the default, of which its documentation says to lower it
    "cb-linucb": Entry("contextualbandits", _contextual(partial(_lin_ucb, 1.0))),
    "cb-linucb-0.5": Entry("contextualbandits", _contextual(partial(_lin_ucb, 0.5))),
    "cb-lints": Entry("contextualbandits", _contextual(partial(_lin_ts, 1.0))),
    "cb-lints-0.3": Entry("contextualbandits", _contextual(partial(_lin_ts, 0.3))),
    "cb-bootstrapped-ts": Entry("contextualbandits", _contextual(_bootstrapped_ts, binary=True)),
    # vw: 10 is the default gamma scale, 200 was best in our probes
    "vw-squarecb": Entry("vowpal-wabbit-next", partial(VowpalWabbit, 10.0)),
    "vw-squarecb-200": Entry("vowpal-wabbit-next", partial(VowpalWabbit, 200.0)),
    # paretobandit: its default alpha of 0.01, and the 0.05 that it advises without priors
    "paretobandit": Entry("paretobandit", partial(ParetoBandit, None)),
    "paretobandit-0.05": Entry("paretobandit", partial(ParetoBandit, 0.05)),
}
SLOW = frozenset({"cb-bootstrapped-ts"})  # ten models per arm: minutes per shuffle, so by name only


def installed(name: str) -> bool:
    """Whether the distribution that brings a peer is there."""
    try:
        version(PEERS[name].package)
    except PackageNotFoundError:
        return False
    return True

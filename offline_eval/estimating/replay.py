"""Run a policy over a log, as it is or learning as it goes: terms per round, and what it drew.

A policy that learns changes with what it did before, so its value is that of a path: what it would
have earned, on average, in so many rounds from its start. It learns from the rows at which it might
have drawn what the log has drawn, in the order of the log. Knows no file and no verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoder
from offline_eval.estimating import estimators, rounds, target
from offline_eval.estimating.estimators import Estimate
from offline_eval.estimating.rounds import Rounds
from offline_eval.log.checking import check_log
from offline_eval.log.data import LoggedData, outcome_batch
from policy import policy as policies
from policy.arms.catalog import Catalog
from policy.config.schema import PolicyConfig
from policy.objective import Weights
from policy.policy import Policy
from policy.values import models
from policy.values.protocol import ValueModel

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

METHODS = ("frozen", "rejection", "dr")
EVERY = 256  # accepted events between two views: solving costs, and serving lags a little too
LEAST_BLOCK = 64  # rows at a time, so that a view that serves few rows isn't asked one by one
QUANTILE = 0.005  # of the ratios p / π: the share of rounds in which acceptance may be cut at 1
SAME = 1e-9  # of weights: nearer ones are the same objective
STREAM = 7_919  # of draws, so that a log that was simulated from the same seed shares none
MULTIPLIER = 1.0  # the largest; above 1 a policy like the log's would accept rows twice


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How many rows a policy may take for its own draws: c of `doubly_robust`, the `quantile` of
    ratios p / π, at most `multiplier`."""

    quantile: float = QUANTILE
    multiplier: float = MULTIPLIER

    def __post_init__(self) -> None:
        if not (0.0 <= self.quantile < 1.0 and self.multiplier > 0.0):
            raise ValueError(
                f"expected quantile in [0, 1) and multiplier > 0, got {self.quantile!r} and"
                f" {self.multiplier!r}"
            )

    def of(self, ratios: Vector) -> float:
        """c of ratios p / π."""
        return min(self.multiplier, float(np.quantile(ratios, self.quantile, method="lower")))


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What is replayed: a policy's configuration, with the encoder and the arms it decides with."""

    name: str
    config: PolicyConfig
    encoder: Encoder
    catalog: Catalog

    @classmethod
    def of(cls, name: str, config: PolicyConfig, catalog: Catalog) -> Candidate:
        """With the data-free encoder, and the arms that the configuration may choose from."""
        arms = tuple(a for a in catalog.arms if config.arms is None or a.id in config.arms)
        return cls(name, config, models.default_encoder(config), Catalog(arms))

    def policy(self, model: ValueModel | None) -> Policy:
        """Its state after what `model` has learned."""
        return policies.build(
            self.name,
            version="",
            snapshot=0,
            config=self.config,
            encoder=self.encoder,
            catalog=self.catalog,
            view=None if model is None else model.view(),
        )

    def taught(self, data: LoggedData) -> ValueModel | None:
        """A model that has learned all the outcomes of a log; None where nothing is learned.

        Raises
        ------
        ValueError
            If the candidate can't be replayed on such a log (`target.check`).
        """
        model = models.new_model(self.config, self.encoder)
        target.check(data, self.policy(model))
        if model is not None and len(data):
            model.learn(outcome_batch(data, self.catalog))
        return model

    def asked(self, data: LoggedData, usual: Weights) -> LoggedData:
        """The log as this candidate would have been asked: rows that were decided under the
        `usual` weights are decided under its own, those of a request's weights keep them."""
        was_usual = (np.abs(data.weights - np.array(usual.as_tuple())) < SAME).all(axis=1)
        own = np.array(self.config.weights.as_tuple())
        return replace(data, weights=np.where(was_usual[:, None], own, data.weights))


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A policy's way over the m rows of a log that count.

    `values` (l,) are what single rounds say of the reward, unbiased each, of the rows at `at`; a
    round counts as `counts_as` (l,). `pmf` (m, kmax) is what the policy would have drawn from in
    the rows at `rows`, after what it had learned by then; `accepted` (m,) are those in which the
    log's arm was taken for its own draw. `cut` is the share of rounds whose probability of that
    would have had to exceed 1, a bias where it isn't 0.
    """

    method: str
    rows: Index  # (m,)
    pmf: Vector  # (m, kmax)
    accepted: Mask  # (m,)
    learned: int  # events
    at: Index  # (l,)
    values: Vector  # (l,)
    counts_as: Vector  # (l,)
    rounds: Rounds  # of the m rows: weights, support, what was left out
    cut: float

    @property
    def estimate(self) -> Estimate:
        """The mean reward of the whole way, with terms (l,)."""
        return self._estimate(slice(None))

    def curve(self, parts: int) -> list[tuple[Index, Estimate]]:
        """The mean reward over time: of `parts` equal stretches of the way, each with the rows
        (in the log) that it is made of."""
        edges = np.linspace(0, len(self.at), min(parts, len(self.at)) + 1).astype(int).tolist()
        return [(self.at[a:b], self._estimate(slice(a, b))) for a, b in pairwise(edges)]

    def shares(self, data: LoggedData, parts: int) -> Vector:
        """The mean probability of each arm of the log in each of `curve`'s parts, (parts, arms)."""
        found = np.zeros((min(parts, len(self.at)), len(data.ids)))
        for part, (rows, _) in enumerate(self.curve(parts)):
            actions, pmf = data.actions[rows], self.pmf[np.searchsorted(self.rows, rows)]
            held = actions >= 0
            np.add.at(found[part], actions[held], pmf[held])
            found[part] /= len(rows)
        return found

    def _estimate(self, part: slice) -> Estimate:
        if why := self.rounds.why_not():
            return estimators.not_evaluable(why)
        values = self.values[part]
        if not len(values):
            return estimators.not_evaluable("no round was accepted")
        found = estimators.ips(np.ones(len(values)), values, self.counts_as[part])
        return found if self.rounds.doubt is None else found.doubted(self.rounds.doubt)


def frozen(data: LoggedData, policy: Policy, reward: Vector, q: Vector | None = None) -> Replay:
    """One state of a policy: doubly robust with a reward model's `q` (n, kmax), IPS without.

    Not for a policy that goes on learning when it serves: this says what it would earn if it
    stopped. `policy` must not have learned from rows of `data`.
    """
    some, reward, q, rows = _counting(data, reward, q)
    pmf = target.of_policy(some, policy)
    made = rounds.of(some, pmf, reward, q)
    return Replay(
        method="frozen",
        rows=rows,
        pmf=pmf,
        accepted=np.zeros(len(rows), dtype=bool),
        learned=0,
        at=rows,
        values=_doubly_robust(made),
        counts_as=some.stands_for,
        rounds=made,
        cut=0.0,
    )


def by_rejection(
    data: LoggedData,
    candidate: Candidate,
    reward: Vector,
    *,
    model: ValueModel | None = None,
    seed: int = 0,
    every: int = EVERY,
    bound: float | None = None,
    length: int | None = None,
) -> Replay:
    """A policy that learns: a row is accepted with probability π(a|x) / (bound p), else passed by.

    Accepted rows are rounds as the policy itself would have had them, so their mean reward is
    unbiased for its first so many rounds, on a log whose contexts and rewards don't drift. Without
    a `bound` it is the largest 1 / p of the log, which makes it exact: k for a uniform log of k
    arms. A smaller one accepts more rows and cuts probabilities at 1, which favours rows that the
    logging policy liked (see `cut`). `length` stops after so many accepted rows: compare policies
    over equally many. `model` has learned before, from other rows; it goes on learning.

    Not for a log with a small floor: of n rows only about n / bound are accepted, 10 of 10,000
    where p may be 0.001. Take `doubly_robust` there. Nor for a world that drifts: the way is as
    long as the log, but has fewer rounds.

    Li, Chu, Langford and Wang 2011, "Unbiased offline evaluation of contextual-bandit-based news
    article recommendation algorithms", https://arxiv.org/abs/1003.5956, for uniform logs; for
    others Dudík, Erhan, Langford and Li 2014, https://arxiv.org/abs/1503.02834, and Mandel, Liu,
    Brunskill and Popović 2016, "Offline evaluation of online reinforcement learning algorithms",
    AAAI. (The bound of the last differs from state to state; with contexts from a stream that would
    prefer contexts in which the policies agree, so ours is one for all.)
    """
    some, reward, _, rows = _counting(data, reward, None)
    largest = float((some.stands_for / some.propensity).max(initial=1.0))
    bound = largest if bound is None else bound
    if not bound > 0:
        raise ValueError(f"bound must be > 0, got {bound!r}")
    way = _way(some, candidate, model, seed, every, lambda ratios: 1.0 / bound, length)
    some, reward, rows = some.take(np.arange(way.end)), reward[: way.end], rows[: way.end]
    return Replay(
        method="rejection",
        rows=rows,
        pmf=way.pmf,
        accepted=way.accepted,
        learned=way.learned,
        at=rows[way.accepted],
        values=reward[way.accepted],
        counts_as=np.ones(int(way.accepted.sum())),
        rounds=rounds.of(some, way.pmf, reward),
        cut=way.cut,
    )


def doubly_robust(
    data: LoggedData,
    candidate: Candidate,
    reward: Vector,
    q: Vector | None = None,
    *,
    model: ValueModel | None = None,
    seed: int = 0,
    every: int = EVERY,
    acceptance: Acceptance | None = None,
) -> Replay:
    """A policy that learns from the rows it accepts, and is valued on every row: DR-ns.

    A row is accepted with probability min(1, c π(a|x) / p), and its doubly robust term, with a
    reward model's `q` (n, kmax), counts as c: a state of the policy meets about 1 / c rows until it
    moves on. c is what `acceptance` makes of p / π: of those so far, as in the paper, or of the
    next rows' where that is less, for a new view may be bolder than the ones before. It is renewed
    with each view, not with each accepted row. `model` has learned before, from other rows; it goes
    on learning.

    Not where a bias must be excluded: rows that would have to be accepted with more than
    probability 1 (about its `quantile` of them, see `cut`) are too rare in what the policy learns.
    Take `by_rejection` on a uniform log. Nor for a world that drifts, as there.

    Dudík, Erhan, Langford and Li 2012, "Sample-efficient nonstationary policy evaluation for
    contextual bandits", https://arxiv.org/abs/1210.4862, and 2014, "Doubly robust policy evaluation
    and optimization", https://arxiv.org/abs/1503.02834 (both: algorithm DR-ns).
    """
    some, reward, q, rows = _counting(data, reward, q)
    way = _way(some, candidate, model, seed, every, (acceptance or Acceptance()).of, None)
    made = rounds.of(some, way.pmf, reward, q)
    return Replay(
        method="dr",
        rows=rows,
        pmf=way.pmf,
        accepted=way.accepted,
        learned=way.learned,
        at=rows,
        values=_doubly_robust(made),
        counts_as=way.multiplier * some.stands_for,
        rounds=made,
        cut=way.cut,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """What happened in the first `end` rows of a log."""

    end: int
    pmf: Vector  # (end, kmax)
    accepted: Mask  # (end,)
    multiplier: Vector  # (end,) c
    learned: int
    cut: float


def _way(
    data: LoggedData,
    candidate: Candidate,
    model: ValueModel | None,
    seed: int,
    every: int,
    multiplier: Callable[[Vector], float],
    length: int | None,
) -> _Way:
    """Meet the rows one after the other; learn from those accepted, `every` so many a view.

    `multiplier` makes c of ratios p / π. Between two views the policy stands still, so
    that rows are met in blocks, which are cut where a view is due.
    """
    if every < 1:
        raise ValueError(f"every must be >= 1, got {every!r}")
    if model is None:
        model = models.new_model(candidate.config, candidate.encoder)
    policy = candidate.policy(model)
    target.check(data, policy)
    n = len(data)
    chosen = (data.actions == data.arm[:, None]).argmax(axis=1)
    draws = np.random.default_rng((seed, STREAM)).random(n)
    pmf = np.zeros(data.actions.shape)
    weights, c_of = np.zeros(n), np.zeros(n)
    accepted = np.zeros(n, dtype=bool)
    at = taken = learned = pending = 0
    c = None
    while at < n and (length is None or taken < length):
        block = np.arange(at, min(at + max(every, LEAST_BLOCK), n))
        pmf[block] = target.of_policy(data.take(block), policy)
        found = rounds.weights_of(pmf[block], chosen[block], data.propensity[block])
        weights[block] = found * data.stands_for[block]
        if c is None:
            c = min(multiplier(_ratios(weights[rows])) for rows in (slice(0, at), block))
        hits = draws[block] < c * weights[block]
        room = every - pending if length is None else min(every - pending, length - taken)
        stop = np.flatnonzero(np.cumsum(hits) == room)[:1]
        met = len(block) if not len(stop) else int(stop[0]) + 1
        accepted[block[:met]], c_of[block[:met]] = hits[:met], c
        new = int(hits[:met].sum())
        at, taken, pending = at + met, taken + new, pending + new
        if pending == every:
            if model is not None:
                last = np.flatnonzero(accepted[:at])[-every:]
                model.learn(outcome_batch(data.take(last), candidate.catalog))
                policy = candidate.policy(model)
                learned += every
            c, pending = None, 0
    cut = float((c_of[:at] * weights[:at] > 1.0 + 1e-9).mean()) if at else 0.0
    return _Way(at, pmf[:at], accepted[:at], c_of[:at], learned, cut)


def _ratios(weights: Vector) -> Vector:
    """p / π where the policy might have drawn so; infinite where it never would."""
    some = weights[weights > 0]
    return 1.0 / some if len(some) else np.full(1, np.inf)


def _counting(
    data: LoggedData, reward: Vector, q: Vector | None
) -> tuple[LoggedData, Vector, Vector | None, Index]:
    """The rows with a reward of the arm that was drawn: only these can be met."""
    check_log(data)
    rows = np.flatnonzero(data.executed & ~np.isnan(reward))
    return data.take(rows), reward[rows], None if q is None else q[rows], rows


def _doubly_robust(made: Rounds) -> Vector:
    if made.q_logged is None or made.v_target is None:
        return made.weights * made.reward
    values: Vector = made.v_target + made.weights * (made.reward - made.q_logged)
    return values

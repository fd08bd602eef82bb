"""Caution: explore only as far as what was earned against an incumbent arm, or rules, allows.

A conservative contextual bandit: Wu, Shariff, Lattimore and Szepesvari 2016, "Conservative
Bandits" (https://arxiv.org/abs/1602.04282), for the budget that the incumbent's rounds earn;
Kazerouni, Ghavamzadeh, Abbasi-Yadkori and Van Roy 2017, "Conservative Contextual Linear Bandits"
(https://arxiv.org/abs/1611.06426), for estimating the incumbent by a linear regression. They fall
back on the incumbent for a whole round; here it gets a part of each pmf, so that what is logged
stays exact. `Ledger` learns, `Caution` decides. Neither reads a clock or draws.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.profile import Profile
from policy.arms.catalog import Catalog, Index, Mask
from policy.choosing.rules import Rules, chosen_by
from policy.config.schema import RULES, PolicyConfig
from policy.objective import COMPONENTS, components
from policy.records import CorrectionBatch, OutcomeBatch, Vector, positions
from policy.values.arrays import expect, pack, unpack
from policy.values.protocol import Forecast

C = len(COMPONENTS)
Z = 2.2
"""Standard errors that must lie between what was earned and a loss: that the sum is never below 0,
whenever one looks, takes more than the 1.64 of a single look at 5%."""
LARGEST = Z * Z / 6.0
"""Bernstein's allowance for losses of up to 1 at a time, at as many standard errors."""
PRIOR_MEAN = 0.5  # of the incumbent's scores, ...
PRIOR_WEIGHT = 1.0  # ... which counts as so many outcomes, as does 0 for what a feature changes
NOISE, NOISE_WEIGHT = 0.25, 4.0  # the largest variance in [0, 1], that counts as so many outcomes


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a policy stands against its incumbent: the part of a snapshot that caution acts by.

    `earned` is the estimated sum, over all decisions with an outcome, of reward - (1 - max_loss) *
    incumbent's reward; `variance` is of that estimate's error, `noise` what one more decision of
    another arm adds to it.
    """

    earned: float = 0.0
    variance: float = 0.0
    noise: float = NOISE

    @classmethod
    def of(cls, record: Mapping[str, float] | None) -> Standing:
        """As a snapshot's header has it; START where it has none."""
        return START if record is None else cls(**record)


START = Standing()
"""Of a policy that has no outcomes yet: it acts as the incumbent."""


def affordable(standing: Standing, loss: float, under_way: int, noise: float) -> float:
    """The largest share s in [0, 1] of exploration that can't lead below what is allowed.

    earned - LARGEST - Z sqrt(variance + s under_way noise) - s under_way loss >= 0, where `loss`
    is expected of one decision, `noise` is the variance it adds, and `under_way` decisions may come
    before the next outcome does. 0 where even the incumbent alone is below. LARGEST is Bernstein's
    term (Boucheron, Lugosi and Massart 2013, "Concentration Inequalities", theorem 2.10): few
    decisions that may each lose all are no Gaussian.

    >>> affordable(Standing(earned=2.0 + LARGEST), loss=0.1, under_way=40, noise=0.0)
    0.5
    """
    budget = standing.earned - LARGEST

    def left(s: float) -> float:
        wide = math.sqrt(standing.variance + s * under_way * noise)
        return budget - Z * wide - s * under_way * loss

    if left(0.0) < 0.0:
        return 0.0
    if left(1.0) >= 0.0:
        return 1.0
    # (budget - s a)^2 = Z^2 (variance + s b), whose smaller root is between 0 and 1.
    a, b = under_way * loss, Z * Z * under_way * noise
    half = budget * a + b / 2.0
    rest = budget**2 - Z * Z * standing.variance
    share = rest / (half + math.sqrt(max(half * half - a * a * rest, 0.0)))
    return min(max(share, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Caution:
    """What holds a policy's exploration: the incumbent's catalog position, the share of its reward
    that may be lost, and how many decisions may await their outcome. With `rules` the position is
    that of their choice for each query."""

    position: int
    max_loss: float
    under_way: int
    standing: Standing
    rules: Rules | None = None

    @classmethod
    def of(cls, config: PolicyConfig, catalog: Catalog, standing: Standing) -> Caution | None:
        """That of a policy over a catalog; None where it has no incumbent."""
        name = config.incumbent
        if name is None:
            return None
        rules = Rules(catalog, config.rules) if name == RULES else None
        at = catalog.index(name) if rules is None and name in catalog else -1
        return cls(at, config.max_loss, config.under_way, standing, rules)

    def own(self, index: Index, known: Sequence[Profile]) -> Mask:
        """(n, k): where queries that arms `index` (k,) may answer have the incumbent."""
        if self.rules is None:
            at = np.full(len(known), self.position)
        else:
            at = np.array([self.rules.choice(index, *chosen_by(one)) for one in known])
        own: Mask = index == at[:, None]
        return own

    def share(self, pmf: Vector, own: Mask, forecast: Forecast) -> Vector:
        """The shares (n,) in [0, 1] that pmfs (n, k) get beside the incumbent, which is where `own`
        (n, k) says, for a forecast under the policy's own objective.

        1 where the incumbent isn't among the arms: it could have earned nothing. An arm of which a
        model has no posterior counts as one that earns nothing.
        """
        mean = np.clip(forecast.utility, 0.0, 1.0)
        due = (1.0 - self.max_loss) * np.vecdot(own, mean)[:, None]
        worst = np.zeros(mean.shape)
        if forecast.utility_sd is not None:
            theirs = np.vecdot(own, forecast.utility_sd)[:, None]
            worst = np.maximum(mean - Z * np.hypot(forecast.utility_sd, theirs), 0.0)
        worst = np.where(own, mean, worst)
        loss = due[:, 0] - np.vecdot(pmf, worst)
        square = np.where(own, 0.0, 2.0 * self.standing.noise + (due - worst) ** 2)
        each = zip(loss.tolist(), np.vecdot(pmf, square).tolist(), strict=True)
        shares = [affordable(self.standing, a, self.under_way, b) for a, b in each]
        return np.where(own.any(axis=1), shares, 1.0)

    def held(self, pmf: Vector, own: Mask, share: Vector) -> Vector:
        """`share` (n,) parts of pmfs (n, k), the rest the incumbent's."""
        rest: Vector = own * (1.0 - share[:, None])
        return share[:, None] * pmf + rest


class Ledger:
    """What was earned, and what is known of the incumbent: additive sums over outcome events, a
    pure function of their order.

    Where the incumbent acted, its own outcome counts for it; else what a Bayesian linear regression
    of its outcomes on the context (d,) expects there, which is asked again at each standing: so an
    early misjudgement is made good. Per component, as they may come in events of their own, scored
    so that more is better: quality, 1 - s(latency), 1 - s(cost). Nothing is forgotten.

    Decisions whose caller executed another arm than was drawn, or which the incumbent could not
    have been chosen for, tell of the incumbent at most: nothing was risked there. So do those that
    rules are the incumbent of but didn't note what rules choose by.
    """

    def __init__(self, d: int, config: PolicyConfig) -> None:
        self._config = config
        self._rules: dict[str, Rules] = {}  # by the revision of their catalog
        self._sums: dict[str, Vector] = {name: np.zeros(s) for name, s in _shapes(d).items()}
        self.events = 0
        self.start_events = 0  # the first of them, that no correction takes back

    @classmethod
    def of(cls, config: PolicyConfig, d: int) -> Ledger | None:
        """That of a policy with contexts (d,); None where it has no incumbent."""
        return None if config.incumbent is None else cls(d, config)

    def add(self, batch: OutcomeBatch) -> None:
        """Count events in."""
        self._add(batch, self._scores(batch), np.ones((len(batch), C)))
        self.events += len(batch)

    def correct(self, batch: CorrectionBatch) -> None:
        """Put new values in the place of old ones, as if they had come so in the first place."""
        learned = (self.events - 1 - batch.since >= self.start_events).astype(np.float64)
        old, new = self._scores(batch.old), self._scores(batch.new)
        both = ~(np.isnan(old) | np.isnan(new))
        old[~both] = new[~both] = np.nan
        self._add(batch.old, old, -learned)
        self._add(batch.new, new, learned)

    def _scores(self, batch: OutcomeBatch) -> Vector:
        y = components(
            batch.quality, batch.latency_ms, batch.cost_usd, batch.error, self._config.scales
        )
        y[:, 1:] = 1.0 - y[:, 1:]
        y[batch.settled] = np.nan
        return y

    def _add(self, batch: OutcomeBatch, score: Vector, count: Vector) -> None:
        x = batch.x.astype(np.float64)
        incumbents = [self._incumbent(batch, row) for row in range(len(batch))]
        own = np.array([a == b for a, b in zip(batch.arms, incumbents, strict=True)])
        rival = np.array([name is not None for name in incumbents])
        counted = rival & ~np.isnan(batch.propensity)
        known = ~np.isnan(score)
        y, w = np.where(known, score, 0.0), np.where(known, count, 0.0)
        sums, told = self._sums, w * own[:, None]
        for c in range(C):
            sums["xx"][c] += (told[:, c, None] * x).T @ x
        sums["xy"] += (told * y).T @ x
        sums["yy"] += (told * y * y).sum(axis=0)
        sums["n"] += told.sum(axis=0)
        sums["earned"] += (w * y)[counted].sum(axis=0)
        sums["own"] += (told * y)[counted].sum(axis=0)
        others = w * (counted & ~own)[:, None]
        sums["x"] += others.T @ x
        sums["others"] += others.sum(axis=0)

    def _incumbent(self, batch: OutcomeBatch, row: int) -> str | None:
        """The arm that an event's decision would have had without us; None where none would."""
        name, catalog = self._config.incumbent, batch.catalogs[row]
        eligible = positions(batch.eligible[row])
        if name == RULES:
            task, *lengths = (-1,) if batch.asked is None else batch.asked[row].tolist()
            if task < 0:
                return None
            rules = self._rules.get(catalog.revision)
            if rules is None:
                rules = self._rules[catalog.revision] = Rules(catalog, self._config.rules)
            return catalog.ids[rules.choice(eligible, task, *lengths)]
        known = name is not None and name in catalog and catalog.index(name) in eligible
        return name if known else None

    def to_record(self) -> str:
        """Text for the header of a checkpoint; equal ledgers give equal text."""
        header = {"events": self.events, "start_events": self.start_events}
        return base64.b64encode(pack(header, self._sums)).decode()

    def restore(self, record: str) -> None:
        """Go on from what `to_record` gave; ValueError for anything else."""
        header, sums = unpack(base64.b64decode(record, validate=True))
        expect(sums, {name: value.shape for name, value in self._sums.items()})
        self.events, self.start_events = header["events"], header["start_events"]
        self._sums = sums

    def standing(self) -> Standing:
        """As of now. Errors of several components are added, which is never too little."""
        earned = error = noise = 0.0
        for c, weight in enumerate(self._config.weights.as_tuple()):
            if not weight:
                continue
            s = {name: value[c] for name, value in self._sums.items()}
            prior = np.zeros(len(s["x"]))
            prior[0] = PRIOR_MEAN
            precision = s["xx"] + PRIOR_WEIGHT * np.eye(len(prior))
            moved, asked, used = _solve(precision, s["xy"] - s["xx"] @ prior, s["x"], s["xx"])
            mean = prior + moved
            squares = s["yy"] - 2.0 * mean @ s["xy"] + mean @ s["xx"] @ mean
            free = max(float(s["n"]) - used, 0.0)
            variance = (NOISE_WEIGHT * NOISE + max(squares, 0.0)) / (NOISE_WEIGHT + free)
            due = (1.0 - self._config.max_loss) * weight
            earned += weight * s["earned"] - due * (s["own"] + s["x"] @ mean)
            error += due * math.sqrt(variance * max(s["others"] + s["x"] @ asked, 0.0))
            noise += due * math.sqrt(variance)
        return Standing(float(earned), error**2, noise**2)


def _solve(
    precision: Vector, change: Vector, x: Vector, xx: Vector
) -> tuple[Vector, Vector, float]:
    """P^-1 change, P^-1 x, and how many coefficients the outcomes determine: tr(P^-1 X^T X)."""
    solved: Vector = np.linalg.solve(precision, np.column_stack([change, x, xx])).astype(np.float64)
    return solved[:, 0], solved[:, 1], float(np.trace(solved[:, 2:]))


def _shapes(d: int) -> Mapping[str, tuple[int, ...]]:
    return {
        "xx": (C, d, d),
        "xy": (C, d),
        "yy": (C,),
        "n": (C,),
        "earned": (C,),
        "own": (C,),
        "x": (C, d),
        "others": (C,),
    }

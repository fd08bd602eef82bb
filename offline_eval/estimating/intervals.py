"""Terms -> interval. For reading: Student-t and bootstrap; for deciding: bets that may be looked at
after every row.

Nothing here knows a policy or a log: terms are numbers (n,) whose mean is wanted, rows in the order
they were decided. `no data` is an interval of (-inf, inf), never 0.

The deciding side is a bet against "the mean is m" (Waudby-Smith and Ramdas 2024, "Estimating means
of bounded random variables by betting", JRSS-B 86, section 4; Waudby-Smith, Wu, Ramdas,
Karampatziakis and Mineiro 2022, https://arxiv.org/abs/2210.10768, section 2): with terms that can't
fall below a known bound, the wealth prod(1 + bet (term - m)) has expectation at most 1 while the
mean is at most m, so it ever reaches 1 / alpha with probability at most alpha (Ville). We hold a
fixed mixture of bets: its wealth is an average of products, so its state is a sum over rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Vector = NDArray[np.float64]

LEAST_EFFECTIVE = (
    50.0  # rows' worth of spread, below which neither t nor bootstrap is to be trusted
)
ROUNDING = 1e-12  # of a mean: terms that differ by no more are the same
RESAMPLES = 1_000
LOOK = 100  # rows between the looks that a confidence sequence remembers
STEPS = 33  # means that a confidence sequence follows; between them its wealth is interpolated
AT_STAKE = 0.8  # the most that one term may cost of a bet's wealth
CHUNK = 2_000  # rows at a time, so that a long log needs no more memory than a short one
HALVINGS = 30  # of a step between two means, when a bound is looked for


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with bounds; `warning` says why they can't be trusted, where that is so."""

    estimate: float
    low: float
    high: float
    warning: str | None = None

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def doubted(self, why: str | None) -> Interval:
        """With that warning, where there are bounds to be doubted; None leaves it as it is."""
        return self if why is None or math.isinf(self.low) else replace(self, warning=why)


NOTHING = Interval(math.nan, -math.inf, math.inf, "there is no data")


def effective_rows(terms: Vector) -> float:
    """How many rows carry the spread of terms (n,): (sum d^2)^2 / sum d^4, d = term - mean.

    About n / 3 for normal terms, 1 where one term is all there is, 0 where none differs.
    """
    if not len(terms):
        return 0.0
    mean = float(terms.mean())
    d = terms - mean
    most = max(float(d.max()), -float(d.min()))
    if not most > 0.0:
        return 0.0
    d /= most
    d *= d
    return effective_of(len(d), mean / most, float(d.sum()), float(np.einsum("n,n->", d, d)))


def effective_of(n: int, mean: float, squares: float, fourths: float) -> float:
    """`effective_rows` of n terms from their mean, sum d^2 and sum d^4."""
    there = fourths > 0.0 and differ(math.sqrt(squares / n), mean)
    return squares**2 / fourths if there else 0.0


def differ(sd: float, mean: float) -> bool:
    """Whether a standard deviation is more than rounding of terms around `mean`."""
    return sd > ROUNDING * abs(mean)


def student_t(terms: Vector, alpha: float = 0.05) -> Interval:
    """mean +- t sd / sqrt(n). For reading only: it is too narrow where few rows weigh much, and
    says so."""
    terms = _finite(terms)
    n = len(terms)
    if n < 2:
        return _unspread(terms)
    se = float(terms.std(ddof=1)) / math.sqrt(n)
    return t_interval(n, float(terms.mean()), se, effective_rows(terms), alpha)


def t_interval(n: int, mean: float, se: float, effective: float, alpha: float = 0.05) -> Interval:
    """`student_t` of n >= 2 terms from their mean, its standard error and effective rows."""
    if not differ(se * math.sqrt(n), mean):
        return unspread(mean)
    half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * se
    return Interval(mean, mean - half, mean + half, few_rows(n, effective))


def bootstrap(
    terms: Vector, seed: int, alpha: float = 0.05, resamples: int = RESAMPLES
) -> Interval:
    """The percentile bootstrap of the mean (Efron and Tibshirani 1993, chapter 13). For reading
    only, like `student_t`."""
    terms = _finite(terms)
    if len(terms) < 2 or not differ(float(terms.std()), float(terms.mean())):
        return _unspread(terms)
    rng = np.random.default_rng(seed)
    n = len(terms)
    means = np.array([terms[rng.integers(0, n, n)].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    warning = few_rows(n, effective_rows(terms))
    return Interval(float(terms.mean()), float(low), float(high), warning)


@dataclass(frozen=True, eq=False)
class Bets:
    """A mixture of bets: their sizes (j,) > 0, and how the first unit of wealth is spread (j,)."""

    sizes: Vector
    prior: Vector

    def __post_init__(self) -> None:
        if not ((self.sizes > 0).all() and np.isclose(self.prior.sum(), 1.0)):
            raise ValueError("bets must be > 0, and their prior must sum to 1")

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def within(cls, bound: float, high: float, count: int = 10) -> Bets:
        """Bets against means up to `high` on terms >= -bound: the largest that is safe, its half,
        and so on."""
        largest = AT_STAKE / (bound + high)
        return cls(largest * np.power(0.5, np.arange(float(count))), np.full(count, 1 / count))

    def log_wealth(self, sums: Vector) -> Vector:
        """Of log-wealths per bet (..., j): the log of what the mixture holds (...)."""
        most = sums.max(axis=-1, keepdims=True)
        wealth: Vector = most[..., 0] + np.log(np.exp(sums - most) @ self.prior)
        return wealth


class EProcess:
    """Evidence that the mean of terms exceeds `mean`: a one-sided test, valid at every look.

    Fold in terms >= -bound, in order and in batches of any size. `log_e` is the evidence now,
    `peak` the most that it ever was; the null "at most `mean`, in every round" is refuted at level
    alpha once `peak >= log(1 / alpha)`.

    >>> test = EProcess(0.0, Bets.within(bound=1.0, high=0.0))
    >>> test.fold(np.full(20, 0.9))
    >>> test.refutes(alpha=0.05), round(test.log_e, 2)
    (True, 8.55)
    """

    def __init__(self, mean: float, bets: Bets) -> None:
        self.mean = mean
        self.bets = bets
        self.rows = 0
        self.peak = 0.0
        self.sums = np.zeros(len(bets))  # (j,) log-wealth per bet

    @property
    def log_e(self) -> float:
        return float(self.bets.log_wealth(self.sums))

    def refutes(self, alpha: float) -> bool:
        return self.peak >= -math.log(alpha)

    def fold(self, terms: Vector) -> None:
        """Take in terms (n,), or (n, j) where each bet has its own."""
        for some in _chunks(terms):
            path = np.cumsum(np.vstack([self.sums, _logs(some, self.mean, self.bets)]), axis=0)
            self.peak = max(self.peak, float(self.bets.log_wealth(path[1:]).max()))
            self.sums = path[-1]
            self.rows += len(some)

    def growth(self) -> float:
        """Log-wealth per row that the best bet has made so far; what is still needed, divided by
        it, is how many more rounds it would take."""
        return float(self.sums.max()) / self.rows if self.rows else 0.0


class LowerSequence:
    """A lower bound of the mean of terms that holds at all times at once, with 1 - alpha.

    It bets against `STEPS` means in [low, high], where the mean is known to be, and keeps the best
    bound of all looks (one in `LOOK` rows, counted from the first row, so that it doesn't matter
    how the rows were cut into batches).
    """

    def __init__(self, alpha: float, low: float, high: float, bets: Bets) -> None:
        self.alpha = alpha
        self.bets = bets
        self.means = np.linspace(low, high, STEPS)
        self.rows = 0
        self.sums = np.zeros((STEPS, len(bets)))  # log-wealth per mean and bet
        self.best = low

    @property
    def bound(self) -> float:
        """-inf before the first row, then within [low, high]."""
        if not self.rows:
            return -math.inf
        return max(self.best, float(self._bounds(self.sums[None])[0]))

    def fold(self, terms: Vector) -> None:
        """Take in terms (n,), or (n, j) where each bet has its own."""
        for some in _chunks(terms):
            logs = np.stack([_logs(some, mean, self.bets) for mean in self.means.tolist()], axis=1)
            # Sums from look to look, then over the looks.
            first = -self.rows % LOOK
            cuts = np.unique([0, *range(first, len(some), LOOK)])
            path = np.cumsum(np.add.reduceat(logs, cuts, axis=0), axis=0) + self.sums
            at = self.rows + np.append(cuts[1:], len(some))  # rows behind each point of the path
            looks = path[at % LOOK == 0]
            if len(looks):
                self.best = max(self.best, float(self._bounds(looks).max()))
            self.sums = path[-1]
            self.rows += len(some)

    def _bounds(self, sums: Vector) -> Vector:
        """(l,) the largest mean that is refuted, of log-wealths (l, STEPS, j).

        Wealth falls as the mean rises, and its log is concave in the mean for each bet, so that
        interpolating never gives more than there is.
        """
        threshold = -math.log(self.alpha)
        refuted = self.bets.log_wealth(sums) >= threshold
        last = refuted.sum(axis=1) - 1
        inside = np.clip(last, 0, STEPS - 2)
        row = np.arange(len(sums))
        left, right = sums[row, inside], sums[row, inside + 1]
        low, high = np.zeros(len(sums)), np.ones(len(sums))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            between = left + middle[:, None] * (right - left)
            beyond = self.bets.log_wealth(between) >= threshold
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
        step = self.means[1] - self.means[0]
        bounds = self.means[inside] + low * step  # the last mean where all are refuted
        found: Vector = np.where(last < 0, self.means[0], bounds)
        return found


class ConfidenceSequence:
    """Both bounds of a mean in [low, high], at all times at once with 1 - alpha.

    Terms enter twice: as they are, and turned over (`-terms` for the mean -m). The two need not be
    the same estimate: each may be truncated where it would spoil the other's bound.
    """

    def __init__(
        self, alpha: float, low: float, high: float, bets: Bets, bets_above: Bets | None = None
    ) -> None:
        self._below = LowerSequence(alpha / 2, low, high, bets)
        self._above = LowerSequence(alpha / 2, -high, -low, bets_above or bets)

    def fold(self, terms: Vector, turned: Vector) -> None:
        """Take in terms and their opposites, each (n,) or (n, j)."""
        self._below.fold(terms)
        self._above.fold(turned)

    @property
    def interval(self) -> tuple[float, float]:
        """(-inf, inf) before the first row."""
        return self._below.bound, -self._above.bound


class ValueSequence:
    """The confidence sequence of a policy's value from importance weights >= 0, whose mean is 1,
    and rewards in [0, 1]; no bound of the weights is needed.

    Above it bets on w (1 - r), whose mean is 1 - value: it can't fall below 0 either
    (Waudby-Smith et al. 2022, section 2.2).
    """

    def __init__(self, alpha: float = 0.05) -> None:
        bets = Bets.within(bound=0.0, high=1.0)
        self._below, self._above = (LowerSequence(alpha / 2, 0.0, 1.0, bets) for _ in range(2))

    def fold(self, weights: Vector, rewards: Vector) -> None:
        """Take in rows, each (n,), in the order they were decided."""
        self._below.fold(weights * rewards)
        self._above.fold(weights * (1.0 - rewards))

    @property
    def interval(self) -> tuple[float, float]:
        """(-inf, inf) before the first row."""
        return self._below.bound, 1.0 - self._above.bound


def value_sequence(weights: Vector, rewards: Vector, alpha: float = 0.05) -> tuple[float, float]:
    """`ValueSequence` of weights (n,) and rewards (n,) that are all there."""
    sequence = ValueSequence(alpha)
    sequence.fold(weights, rewards)
    return sequence.interval


def bounded_sequence(
    terms: Vector, least: float, most: float, alpha: float = 0.05
) -> tuple[float, float]:
    """The confidence sequence of the mean of terms (n,) in [least, most]."""
    bets = Bets.within(bound=-least, high=most)
    sequence = ConfidenceSequence(alpha, least, most, bets)
    sequence.fold(terms, -terms)
    return sequence.interval


def _logs(terms: Vector, mean: float, bets: Bets) -> Vector:
    """(n, j) what a row adds to each bet's log-wealth."""
    of_bet = terms[:, None] if terms.ndim == 1 else terms
    won: Vector = bets.sizes * (of_bet - mean)
    if not (won > -1.0).all():  # NaN as well
        raise ValueError(
            f"a bet of {bets.sizes.max():.3g} on terms down to {np.min(terms):.3g} may lose all"
        )
    return np.log1p(won)


def _chunks(terms: Vector) -> Iterator[Vector]:
    for start in range(0, len(terms), CHUNK):
        yield terms[start : start + CHUNK]


def _finite(terms: Vector) -> Vector:
    terms = np.asarray(terms, dtype=np.float64)
    if not np.isfinite(terms).all():
        raise ValueError("terms must be finite")
    return terms


def _unspread(terms: Vector) -> Interval:
    return unspread(float(terms.mean())) if len(terms) else NOTHING


def unspread(mean: float) -> Interval:
    """Of a single term, or of terms that are all the same."""
    return Interval(mean, -math.inf, math.inf, "the terms don't differ, so their spread is unknown")


def few_rows(n: int, effective: float, what: str = "") -> str | None:
    """The warning that too few of n rows carry an estimate, or of it `what`; None if enough do."""
    if effective >= LEAST_EFFECTIVE:
        return None
    return (
        f"few rows carry the estimate ({what}{effective:.0f} effective of {n:,}): the interval is"
        " likely too narrow"
    )

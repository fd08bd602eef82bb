"""Logs with a champion, a challenger and a truth that is known."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_eval.gate.judging import Case, judge
from offline_eval.gate.verdict import Verdict
from offline_eval.log.data import LoggedData
from policy.objective import Scales

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

IDS = ("a", "b", "c")
SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
START_MS = 1_700_000_000_000
QUALITY = (0.5, 0.5, 0.5)
CHAMPION, CHALLENGER = (0.6, 0.2, 0.2), (0.2, 0.6, 0.2)


@dataclass(frozen=True)
class Truth:
    """Of each arm: its mean quality (binary), latency, cost and probability of an error."""

    quality: tuple[float, ...] = QUALITY
    latency_ms: tuple[float, ...] = (500.0, 500.0, 500.0)
    cost_usd: tuple[float, ...] = (0.005, 0.005, 0.005)
    errors: tuple[float, ...] = (0.0, 0.0, 0.0)

    def outcomes(self, arm: NDArray[np.intp], rng: np.random.Generator) -> tuple[Vector, Flags]:
        """(n, 3) what came of drawing these arms (n,), quality NaN where it failed, and (n,)
        where it did."""
        failed = rng.random(len(arm)) < np.array(self.errors)[arm]
        quality = np.where(failed, np.nan, rng.random(len(arm)) < np.array(self.quality)[arm])
        told = [quality, np.array(self.latency_ms)[arm], np.array(self.cost_usd)[arm]]
        return np.stack(told, axis=1), failed


def logged(
    n: int,
    seed: int = 0,
    champion: tuple[float, ...] = CHAMPION,
    challenger: tuple[float, ...] = CHALLENGER,
    share: float = 0.1,
    **more: Any,
) -> LoggedData:
    """n rounds a second apart, in which version "2" watched version "1" on three arms, all
    predicted to be of quality 0.5. `more` are fields of Truth, and of LoggedData to replace."""
    rng = np.random.default_rng(seed)
    pmf = (1 - share) * np.array(champion) + share * np.array(challenger)
    arm = np.searchsorted(np.cumsum(pmf)[:-1], rng.random(n))
    truth = Truth(
        **{field.name: more.pop(field.name) for field in fields(Truth) if field.name in more}
    )
    outcomes, failed = truth.outcomes(arm, rng)
    data = LoggedData(
        ids=IDS,
        decision_ids=tuple(f"d{i}" for i in range(n)),
        policies=("default",) * n,
        versions=("1",) * n,
        catalogs=("c0ffee",) * n,
        encoder="e1",
        made_at_ms=START_MS + 1_000 * np.arange(n, dtype=np.int64),
        contexts=np.zeros((n, 1), dtype=np.float32),
        arm=arm.astype(np.int64),
        actions=np.tile(np.arange(3), (n, 1)),
        counts=np.full(n, 3),
        propensity=pmf[arm],
        propensity_estimated=np.zeros(n, dtype=bool),
        pmf=np.tile(pmf, (n, 1)),
        predicted=np.tile([0.5, 500.0, 0.005], (n, 3, 1)),
        challengers=("2",) * n,
        challenger_pmf=np.tile(challenger, (n, 1)),
        share=np.full(n, share),
        tokens=np.tile([100.0, 300.0], (n, 1)),
        weights=np.tile([1.0, 0.0, 0.0], (n, 1)),
        stands_for=np.ones(n),
        outcomes=outcomes,
        quality_assumed=np.zeros(n, dtype=bool),
        reported=np.full((n, 3), np.nan),
        error=failed,
        teaches=np.ones(len(failed), dtype=bool),
        executed=np.ones(n, dtype=bool),
        closed=np.ones(n, dtype=bool),
    )
    return replace(data, **more)


def judged(data: LoggedData, **changes: Any) -> Verdict:
    """At the time of the newest row, unless told otherwise."""
    now_ms = changes.pop("now_ms", int(data.made_at_ms.max(initial=START_MS)))
    settings = changes.pop("settings", None)
    case = Case(data, **{"champion": "1", "challenger": "2", "scales": SCALES} | changes)
    return judge(case, now_ms, settings)

"""Logs of several days and files, and what makes two summaries of them alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from offline_eval.estimating import (
    diagnostics,
    reward_models,
    rounds,
)
from offline_eval.log.data import LoggedData
from offline_eval.log.writing import write_log
from offline_eval.streaming.evaluation import Summary
from policy.objective import PRESETS, Scales, Weights
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import DAY_MS, NOON, row

Vector = NDArray[np.float64]


SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)


WEIGHTS = PRESETS["quality"]


def logged(i: int, rng: np.random.Generator, arms: tuple[str, ...]) -> LoggedDecision:
    """One row that any estimator may use, somewhere in a day's half hour."""
    pmf = rng.dirichlet(np.full(len(arms), 2.0)) * 0.9 + 0.1 / len(arms)
    drawn = int(rng.choice(len(arms), p=pmf))
    x = np.append(1.0, rng.standard_normal(3)).astype(np.float32)
    quality = float(np.clip(0.4 + 0.1 * drawn + 0.2 * x[1] + 0.1 * rng.standard_normal(), 0, 1))
    outcome = Outcome(
        quality=None if rng.random() < 0.05 else quality,
        latency_ms=float(rng.uniform(100, 900)),
        cost_usd=float(rng.uniform(0, 0.01)),
        executed=bool(rng.random() > 0.03),
    )
    made = row(
        f"d{i}",
        outcome,
        arm=arms[drawn],
        arms=arms,
        pmf=pmf,
        propensity=float(pmf[drawn]),
        predicted=np.full((len(arms), 3), np.nan),
        made_at_ms=NOON + int(rng.integers(0, 1_800_000)),
        x=x,
        challenger="4",
        challenger_pmf=np.full(len(arms), 1.0 / len(arms)),
    )
    return made


def rows(days: int = 3, of_day: int = 150, seed: int = 0) -> Iterator[LoggedDecision]:
    """Days of three arms each, the middle one of a later fourth arm among them."""
    rng = np.random.default_rng(seed)
    for i in range(days * of_day):
        day = i // of_day
        made = logged(i, rng, ("b", "c", "d") if day == 1 else ("a", "b", "c"))
        at = made.decision.made_at_ms + day * DAY_MS
        yield replace(made, decision=replace(made.decision, made_at_ms=at))


def in_files(path: Path, made: Iterator[LoggedDecision] | list[LoggedDecision], size: int) -> str:
    """A log of files of `size` rows, which overlap in time."""
    made = list(made)
    for at in range(0, len(made), size):
        write_log(made[at : at + size], str(path))
    return str(path)


def agree(found: Summary, data: LoggedData, pmf: Vector, weights: Weights | None) -> None:
    """What was added up is what all rows in memory say."""
    reward = data.rewards(weights, SCALES)
    whole = rounds.of(data, pmf, reward, reward_models.ridge(data, reward))
    expected = rounds.estimates(whole)
    assert found.rows == len(data)
    assert found.counted == len(whole)
    assert found.dropped == whole.dropped
    assert found.unsupported == pytest.approx(whole.unsupported, abs=1e-12)
    ess = diagnostics.effective_sample_size(whole.weights)
    assert found.effective_rows == pytest.approx(ess, rel=1e-9)
    assert found.max_weight == whole.weights.max()
    assert found.values.keys() == expected.keys()
    for name, one in expected.items():
        of_parts, t = found.values[name], one.interval()
        assert of_parts.why == one.why
        if one.value is None:
            assert (of_parts.value, of_parts.se) == (None, None)
            continue
        assert t is not None
        assert of_parts.value == pytest.approx(one.value, rel=0, abs=1e-9), name
        assert of_parts.se == pytest.approx(one.se, rel=0, abs=1e-9), name
        assert of_parts.interval.low == pytest.approx(t.low, rel=0, abs=1e-9)
        assert of_parts.interval.high == pytest.approx(t.high, rel=0, abs=1e-9)
        assert of_parts.interval.warning == t.warning


def alike(one: Summary, other: Summary) -> None:
    """To 1e-9, in what is estimated."""
    for name, value in one.values.items():
        assert value.value == pytest.approx(other.values[name].value, rel=0, abs=1e-9), name
        assert value.se == pytest.approx(other.values[name].se, rel=0, abs=1e-9), name
    assert (one.rows, one.counted) == (other.rows, other.counted)

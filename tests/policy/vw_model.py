"""A VW model that learns: three arms, outcomes of theirs, and what is expected of them then."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vowpal_wabbit_next import Workspace

from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights
from policy.records import OutcomeBatch, packed
from policy.values.vw.model import VwModel
from policy.values.vw.view import VwValues
from tests.policy.one_query import forecast_one

GROUPS = {"bias": slice(0, 1), "task": slice(1, 3), "hints": slice(3, 6), "text": slice(6, 8)}
D = 8
SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
QUALITY = Weights.of(quality=1.0)
NAMES = ("a", "b", "c")


def arm(name: str, **more: Any) -> Arm:
    given = {
        "provider": "p",
        "model": name,
        "context_window_tokens": 8192,
        "usd_per_mtok_in": 1.0,
        "usd_per_mtok_out": 2.0,
        "prices_checked": datetime.date(2026, 1, 1),
        "prices_source": "made up for tests",
    }
    return Arm(id=name, **{**given, **more})


CATALOG = Catalog(tuple(map(arm, NAMES)))


def events(n: int, seed: int = 0, missing: float = 0.0) -> OutcomeBatch:
    """n outcomes of arms whose quality differs, some components missing, some errors."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(NAMES), size=n)
    x = (rng.standard_normal((n, D)) / 3).astype(np.float32)
    x[:, 0] = 1.0

    def some(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(rng.random(n) < missing, np.nan, values)

    return OutcomeBatch(
        arms=[NAMES[i] for i in chosen],
        x=x,
        quality=some(np.clip(0.2 + 0.3 * chosen + 0.1 * rng.standard_normal(n), 0.0, 1.0)),
        latency_ms=some(rng.uniform(100.0, 900.0, n)),
        cost_usd=some(rng.uniform(0.001, 0.009, n)),
        error=rng.random(n) < 0.1 * missing,
        settled=rng.random((n, 3)) < 0.1 * missing,
        list_cost_usd=np.full(n, 0.005),
        propensity=rng.uniform(0.05, 1.0, n),
        catalogs=[CATALOG] * n,
        eligible=[packed(np.ones(3, dtype=bool))] * n,
    )


def part(batch: OutcomeBatch, at: int, to: int) -> OutcomeBatch:
    return batch.take(np.arange(at, to))


def taught(*batches: OutcomeBatch, cb_type: str = "mtr") -> VwModel:
    model = VwModel(GROUPS, SCALES, cb_type)
    for batch in batches:
        model.learn(batch)
    return model


def bound(model: VwModel, catalog: Catalog = CATALOG, **more: Any) -> VwValues:
    return model.view().bind(catalog.ids, catalog=catalog, **more)


def context(*x: float) -> NDArray[np.float32]:
    made = np.zeros(D, dtype=np.float32)
    made[: len(x)] = x
    return made


def outcome(model: VwModel, x: NDArray[np.float32], catalog: Catalog = CATALOG) -> Any:
    k = len(catalog)
    return forecast_one(bound(model, catalog), x, np.arange(k), np.full(k, 0.005), QUALITY).outcome


def workspace(*arguments: str, model: bytes | None = None) -> Any:
    """One of the library's own, without what it prints."""
    return Workspace(["--quiet", *arguments], model_data=model)

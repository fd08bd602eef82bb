"""A linear model that learns: outcomes of arms, and what is expected of them then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights
from policy.records import OutcomeBatch
from policy.values.linear.model import LinearModel
from policy.values.linear.view import LinearValues

GROUPS = {"bias": slice(0, 1), "hints": slice(1, 5), "text": slice(5, 8)}
D = 8
SCALES = Scales(latency_ref_ms=1_000.0, cost_ref_usd=0.01)
QUALITY = Weights.of(quality=1.0)
MIXED = Weights.of(quality=0.7, latency=0.2, cost=0.1)


def plain(names: Sequence[str]) -> Catalog:
    """Arms of which nothing is known."""
    known = {"provider": "p", "usd_per_mtok_in": 0.0, "usd_per_mtok_out": 0.0}
    return Catalog(tuple(Arm(id=name, model=name, **known) for name in dict.fromkeys(names)))


def unseen(arms: Sequence[str]) -> dict[str, Any]:
    """How the arms were drawn, which this model doesn't look at, and that they have no traits."""
    n = len(arms)
    catalogs = [plain(arms)] * n
    return {"propensity": np.full(n, np.nan), "catalogs": catalogs, "eligible": [b""] * n}


def events(n: int, k: int = 3, seed: int = 0, missing: float = 0.0) -> OutcomeBatch:
    """n outcomes of k arms that differ, some components missing, some errors."""
    rng = np.random.default_rng(seed)
    arms = rng.integers(k, size=n)
    x = (rng.standard_normal((n, D)) / 3).astype(np.float32)
    x[:, 0] = 1.0

    def some(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(rng.random(n) < missing, np.nan, values)

    return OutcomeBatch(
        arms=[f"arm-{a}" for a in arms],
        x=x,
        quality=some(np.clip(0.3 + 0.1 * arms + 0.2 * rng.standard_normal(n), 0.0, 1.0)),
        latency_ms=some(rng.lognormal(6.0, 0.4, n)),
        cost_usd=some(rng.lognormal(-6.0, 0.4, n)),
        error=rng.random(n) < 0.1 * missing,
        settled=rng.random((n, 3)) < 0.1 * missing,
        list_cost_usd=rng.lognormal(-6.0, 0.4, n),
        **unseen([f"arm-{a}" for a in arms]),
    )


def one(arm: str = "a", x: Sequence[float] = (1.0,), **known: float) -> OutcomeBatch:
    """One outcome event; what isn't given is missing."""
    context = np.zeros((1, D), dtype=np.float32)
    context[0, : len(x)] = x

    def column(name: str, default: float = math.nan) -> NDArray[np.float64]:
        return np.array([known.get(name, default)])

    return OutcomeBatch(
        arms=[arm],
        x=context,
        quality=column("quality"),
        latency_ms=column("latency_ms"),
        cost_usd=column("cost_usd"),
        error=np.array([bool(known.get("error"))]),
        settled=np.array([[bool(known.get(f"settled_{c}")) for c in range(3)]]),
        list_cost_usd=column("list_cost_usd", 0.0),
        **unseen([arm]),
    )


def part(batch: OutcomeBatch, at: int, to: int) -> OutcomeBatch:
    return batch.take(np.arange(at, min(to, len(batch))))


def taught(*batches: OutcomeBatch, forgetting: float = 1.0) -> LinearModel:
    model = LinearModel(GROUPS, SCALES, forgetting)
    for batch in batches:
        model.learn(batch)
    return model


def values(model: LinearModel, *arms: str) -> LinearValues:
    return model.view().bind(arms or model.arms)


def all_of(k: int) -> NDArray[np.intp]:
    return np.arange(k)


def context(*x: float) -> NDArray[np.float32]:
    made = np.zeros(D, dtype=np.float32)
    made[: len(x)] = x
    return made

"""A tiny set of full-information outcomes whose figures can be checked on paper."""

from __future__ import annotations

import datetime

import numpy as np

from pointsman.trying.outcomes import OutcomeSet
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog


def arm(name: str, price: float) -> Arm:
    return Arm(
        id=name,
        provider="maker",
        model=f"{name}-model",
        context_window_tokens=1_000_000,
        usd_per_mtok_in=price,
        usd_per_mtok_out=2 * price,
        prices_checked=datetime.date(2026, 1, 1),
        prices_source="made up for tests",
    )


def tiny(repeat: int = 1) -> OutcomeSet:
    """Four queries, `repeat` times over: "big" is right on maths, "small" on chat, and once both.

    quality  big  small        cost: big 0.02, small 0.01, so s(cost) is 1 and 0.5 and the rewards
    math       1      0        at quality 0.9 and cost 0.1 are 0.9 q and 0.9 q + 0.05
    math       1      0
    chat       0      1        big    .9 .9  0 .9   mean 0.675
    chat       1      1        small .05 .05 .95 .95 mean 0.5
                               rule   .9 .9 .95 .95 mean 0.925
    """
    n = 4 * repeat
    quality = np.tile(np.array([[1.0, 0], [1, 0], [0, 1], [1, 1]]), (repeat, 1))
    return OutcomeSet(
        name="tiny",
        query_ids=tuple(f"q{i}" for i in range(n)),
        texts=("What is 1 + 1?", "Solve x + 2 = 5.", "Hello there!", "How are you?") * repeat,
        categories=("math", "math", "chat", "chat") * repeat,
        catalog=Catalog((arm("big", 2.0), arm("small", 1.0))),
        quality=quality,
        cost_usd=np.tile(np.array([0.02, 0.01]), (n, 1)),
        latency_ms=np.full((n, 2), np.nan),
    )

"""What the regressions are of: outcome events as numbers. Knows no sums."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from policy.objective import Scales, components
from policy.records import OutcomeBatch
from policy.values.linear.pooling import Array, C, T

TINY_SHARE = 1e-6  # of the reference cost: added before logs, so that a free arm has one


def targets(batch: OutcomeBatch, scales: Scales) -> Array:
    """Events as (n, t); NaN marks what an event doesn't teach.

    Cost counts relative to the list cost. Where an error stands for a latency or a cost that is
    absent, so it does in the logs: the reference latency, the list cost.
    """
    y = np.empty((len(batch), T))
    y[:, :C] = components(batch.quality, batch.latency_ms, batch.cost_usd, batch.error, scales)
    y[:, :C][batch.settled] = np.nan
    y[:, 2] -= scales.cost(batch.list_cost_usd)
    latency_ms = np.where(np.isnan(batch.latency_ms), scales.latency_ref_ms, batch.latency_ms)
    cost_usd = np.where(np.isnan(batch.cost_usd), batch.list_cost_usd, batch.cost_usd)
    tiny = TINY_SHARE * scales.cost_ref_usd
    y[:, 3] = np.log1p(latency_ms)
    y[:, 4] = np.log((cost_usd + tiny) / (batch.list_cost_usd + tiny))
    return y


def in_common(residual: Array, query: NDArray[np.intp]) -> Array:
    """(n, t) the mean residual of all answers to the same query; 0 where there is but one."""
    known = ~np.isnan(residual)
    sums = np.zeros((int(query.max()) + 1, residual.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, query, np.where(known, residual, 0.0))
    np.add.at(counts, query, known)
    mean = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 1)
    shared: Array = mean[query]
    return shared


def start(d: int, scales: Scales) -> Array:
    """(t, d): a middling quality, half the reference latency, and costs as listed."""
    middling = np.zeros((T, d))
    middling[:, 0] = 0.5, scales.latency(scales.latency_ref_ms / 2), 0.0, 0.0, 0.0
    middling[3, 0] = math.log1p(scales.latency_ref_ms / 2)
    return middling

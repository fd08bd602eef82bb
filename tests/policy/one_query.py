"""What models and rules say of n queries, asked for one of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.profile import Profile
from policy.choosing.protocol import Rule, Ruling
from policy.objective import Weights
from policy.records import Context, Vector
from policy.values.protocol import BoundValues, Forecast

Index = NDArray[np.intp]


def forecast_one(
    values: BoundValues, x: Context, index: Index, list_cost_usd: Vector, weights: Weights
) -> Forecast:
    """For one context (d,); arrays are (k, ...)."""
    return _first(values.forecast(x[None], index, list_cost_usd[None], weights))


def rule_one(
    rule: Rule,
    x: Context,
    index: Index,
    list_cost_usd: Vector,
    weights: Weights,
    known: Profile,
) -> Ruling:
    """For one context (d,); arrays are (k, ...)."""
    return _first(rule.rule(x[None], index, list_cost_usd[None], weights, [known]))


def _first(answer: Any) -> Any:
    arrays = {field.name: getattr(answer, field.name) for field in fields(answer)}
    return type(answer)(**{n: None if a is None else a[0] for n, a in arrays.items()})

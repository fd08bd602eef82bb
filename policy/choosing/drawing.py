"""From a forecast to the pmf that a configuration's exploration rule draws from. Draws nothing."""

from __future__ import annotations

import math

import numpy as np

from policy.choosing import explore
from policy.config.schema import PolicyConfig
from policy.records import Vector
from policy.values.protocol import Forecast

DOUBT = 0.05  # of thompson's draw, from the posterior as it is
WIDE = 1.2  # the scale of thompson's draw where nothing is known ...
FEW = 9  # ... of so many arms or fewer; of more, each gets less


def explored(config: PolicyConfig, forecast: Forecast) -> tuple[Vector, Vector | None]:
    """The pmf (n, k) that a configuration's exploration rule makes of a forecast, and each arm's
    probability (n, k) of being the best, at posterior scale 1; None where there is no posterior."""
    mean, sd = forecast.utility, forecast.utility_sd
    if config.exploration == "thompson":
        if sd is None:
            raise ValueError(f"thompson needs a posterior, which {config.model!r} has not")
        return thompson(config, forecast)
    best = None if sd is None else explore.thompson(mean, sd)
    return _without_posterior(config, mean), best


def thompson(config: PolicyConfig, forecast: Forecast) -> tuple[Vector, Vector]:
    """The pmf, and each arm's probability of being the best, (n, k) each.

    The posterior is drawn from at the scale `config.scale`, widened towards WIDE as far as an arm
    is unknown for this query: trying it is worth most where nothing was learned. So the scale
    follows the evidence, a warm start's among it, and settles. Of many arms it is worth less to
    find the very best (Bayati et al. 2020, "Unreasonable effectiveness of greedy algorithms in
    multi-armed bandit with many arms"), so WIDE falls as one over the root of their number. A
    share DOUBT is drawn as probable as each arm is to be the best: a few unlucky outcomes never
    shut an arm out.
    """
    mean, sd = forecast.utility, forecast.utility_sd
    assert sd is not None
    tried = sd if forecast.explored_sd is None else forecast.explored_sd
    scale: float | Vector = config.scale
    if forecast.unknown is not None:
        widest = WIDE * min(math.sqrt(FEW / mean.shape[-1]), 1.0)
        scale = scale + max(widest - scale, 0.0) * forecast.unknown
    pmf, best = explore.thompson(np.array((mean, mean)), np.array((scale * tried, sd)))
    return (1.0 - DOUBT) * pmf + DOUBT * best, best


def _without_posterior(config: PolicyConfig, mean: Vector) -> Vector:
    if config.exploration == "epsilon_greedy":
        return explore.epsilon_greedy(mean, config.epsilon)
    if config.exploration == "softmax":
        return explore.softmax(mean, config.temperature)
    if config.exploration == "square_cb":
        return explore.square_cb(mean, config.gamma)
    return explore.greedy(mean)

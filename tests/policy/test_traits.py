"""Traits: what is known of an arm before any outcome, and what outcomes of others say by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy.arms import traits
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.values.linear import pooling
from policy.values.linear.model import LinearModel
from policy.values.linear.pooling import TRAIT_SHARE
from tests.policy.linear_model import (
    GROUPS,
    QUALITY,
    SCALES,
    D,
    all_of,
    context,
    events,
    one,
    taught,
)
from tests.policy.one_query import forecast_one

PRICES = (0.05, 0.2, 0.8, 3.0, 12.0)


def priced(name: str, usd_per_mtok: float, **known: object) -> Arm:
    prices = {"usd_per_mtok_in": usd_per_mtok, "usd_per_mtok_out": usd_per_mtok}
    return Arm.model_validate({"id": name, "provider": "p", "model": name, **prices, **known})


ARMS = tuple(priced(f"arm-{i}", price) for i, price in enumerate(PRICES))
NEW = Catalog((priced("cheap", 0.05), priced("dear", 12.0)))


def learned(slope: float = 0.15) -> LinearModel:
    """Arms whose quality rises by `slope` with each power of ten of their price."""
    batch = events(400, k=5, seed=2)
    rises = slope * np.log10([PRICES[int(arm[-1])] for arm in batch.arms])
    noise = 0.1 * np.random.default_rng(2).standard_normal(400)
    batch = replace(batch, quality=0.5 + rises + noise, catalogs=[Catalog(ARMS)] * 400)
    model = LinearModel(GROUPS, SCALES)
    model.learn(batch)
    return model


def expected_quality(model: LinearModel, catalog: Catalog) -> list[float]:
    bound = model.view().bind(catalog.ids, catalog=catalog)
    k = len(catalog)
    forecast = forecast_one(bound, context(1.0), all_of(k), np.zeros(k), QUALITY)
    return [float(value) for value in forecast.utility]


def test_what_nobody_said_says_nothing():
    """An arm without a price to go by, size, window, maker and capabilities is all zeros."""
    assert not traits.traits(priced("a", 0.0)).any()
    assert len(traits.traits(priced("a", 0.0))) == len(traits.NAMES)


def test_prices_sizes_and_windows_count_in_powers_of_ten():
    described = priced("a", 100.0, parameters_b=3.0, context_window_tokens=1_280_000)
    assert traits.traits(described)[:3] == pytest.approx([2.0, -1.0, 1.0])


def test_arms_of_one_maker_are_alike():
    """However it is spelt; the code has norm 1, as any trait that says something has about."""
    one, same, other = (
        traits.traits(priced("a", 0.0, maker=maker)) for maker in ("Acme", "acme", "Zenith")
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.linalg.norm(other) == pytest.approx(1.0)


def test_a_new_arm_starts_from_what_its_price_tells():
    """Prices from 0.05 to 12 raise quality by 0.36: most of that is expected of new arms as well,
    and nothing of it where price says nothing of the others."""
    cheap, dear = expected_quality(learned(), NEW)
    assert 0.2 < dear - cheap < 0.36
    cheap, dear = expected_quality(learned(slope=0.0), NEW)
    assert abs(dear - cheap) < 0.1


def test_the_posterior_is_that_of_the_joint_gaussian_with_slopes():
    """θ_a = m + e z_a·b + δ_a: the same means as one dense solve over m, b and all δ."""
    batch = replace(events(7, k=2), catalogs=[Catalog(ARMS[1:3] + ARMS[:1])] * 7)
    model = LinearModel(GROUPS, SCALES)
    model.learn(batch)
    guess = pooling.guess(tuple(GROUPS))
    group = np.repeat([0, 1, 2], [1, 4, 3])
    r = len(traits.NAMES)
    slopes = np.full(r, TRAIT_SHARE * guess.arm[0, 0])
    of_arms = [guess.arm[0, group]] * 2
    prior = np.concatenate([guess.pooled[0, group], slopes, *of_arms])
    z = {arm.id: traits.traits(arm) for arm in ARMS}
    rows = np.zeros((7, D + r + 2 * D))
    for i, arm in enumerate(batch.arms):
        at = D + r + D * model.arms.index(arm)
        rows[i, :D] = rows[i, at : at + D] = batch.x[i]
        rows[i, D : D + r] = z.get(arm, np.zeros(r)) if arm in batch.catalogs[0] else 0.0
    precision = np.diag(1.0 / prior) + rows.T @ rows / guess.noise[0]
    joint = np.linalg.solve(precision, rows.T @ (batch.quality - 0.5) / guess.noise[0])
    joint[0] += 0.5
    view = model.view()
    assert view.slopes[0] == pytest.approx(joint[D : D + r], abs=1e-5)
    for i, arm in enumerate(model.arms):
        at = D + r + D * i
        expected = joint[:D] + joint[at : at + D]
        expected[0] += joint[D : D + r] @ z[arm] if arm in batch.catalogs[0] else 0.0
        assert view.mean[i, 0] == pytest.approx(expected, abs=1e-5)


def test_traits_are_kept_in_the_checkpoint():
    model = learned()
    again = LinearModel.from_parts(model.to_parts())
    assert expected_quality(again, NEW) == expected_quality(model, NEW)


def test_an_arm_that_its_catalog_lacks_has_no_traits():
    """An arm that the caller ended up using may have left the catalog since."""
    model = taught(replace(one("gone", quality=0.5), catalogs=[Catalog(ARMS)]))
    assert not model._learned.traits.any()

"""Many configurations of one policy: tables of candidates, and grids."""

import pytest

from policy.config.problems import ConfigError
from policy.config.schema import PolicyConfig
from policy.config.toml import parse
from policy.config.variants import variants

VARIED = parse(
    "".join(
        f'[[arms]]\nid = "{name}"\nprovider = "p"\nmodel = "m"\ncontext_window_tokens = 8000\n'
        "usd_per_mtok_in = 1.0\nusd_per_mtok_out = 1.0\nprices_checked = 2026-01-01\n"
        'prices_source = "made up for tests"\n'
        for name in ("a", "b")
    )
    + "[policies.default]\nscale = 0.5\nfloor = 0.05\n"
    + "objective = { quality = 0.5, cost = 0.5, cost_ref_usd = 0.02 }\n",
    "test",
)


def varied(text: str) -> dict[str, PolicyConfig]:
    return variants(text, "sweep.toml", VARIED.policies["default"], VARIED.arms)


def test_a_variant_says_only_what_differs():
    """The rest is its policy's; another rule takes over all but the old rule's parameter."""
    found = varied('[candidates.x]\nfloor = 0.1\n[candidates.y]\nexploration = "softmax"')
    assert (found["x"].scale, found["x"].floor) == (0.5, 0.1)
    assert (found["y"].exploration, found["y"].floor, found["y"].scale) == ("softmax", 0.05, 0.15)
    assert found["x"].objective == VARIED.policies["default"].objective


def test_a_variant_may_say_a_part_of_the_objective():
    """Of its weights, what isn't said is 0 as in a policy's table; references stay."""
    found = varied("[candidates.x]\nobjective = { quality = 1.0 }")["x"].objective
    assert (found.quality, found.cost, found.cost_ref_usd) == (1.0, 0.0, 0.02)
    slow = varied("[candidates.x.objective]\nlatency_ref_ms = 5000.0")["x"].objective
    assert (slow.quality, slow.cost, slow.latency_ref_ms) == (0.5, 0.5, 5000.0)


def test_a_grid_is_every_combination_that_means_something():
    """`scale` means nothing to a model without a posterior, so it makes one candidate there."""
    found = varied('[grid]\nscale = [0.2, 0.3]\nmodel = ["linear", "nearest"]')
    assert list(found) == ["scale=0.2 model=linear", "model=nearest", "scale=0.3 model=linear"]
    assert found["model=nearest"].exploration == "square_cb"
    assert found["scale=0.3 model=linear"].scale == 0.3


def test_a_grid_has_a_limit():
    """Its size is a product, so it is soon too large."""
    values = ", ".join(str(i / 100) for i in range(1, 30))
    with pytest.raises(ConfigError, match="grid: must not make more than 200 candidates"):
        varied(f"[grid]\nscale = [{values}]\nfloor = [{values}]")

"""The configuration file: what it means, and that it can be written back."""

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.config.schema import (
    Config,
    GateConfig,
    ObjectiveConfig,
    PolicyConfig,
    RulesConfig,
    current,
)
from policy.config.toml import parse, to_toml
from policy.objective import PRESETS, Scales, Weights
from serving.processes.config_file import ConfigFile

STARTER = Path(__file__).parents[2] / "pointsman.toml"

GOOD = """\
[[arms]]
id = "small"
provider = "local"
model = "m-7b"
context_window_tokens = 8192
usd_per_mtok_in = 0.1
usd_per_mtok_out = 0.2
prices_checked = 2026-01-31
prices_source = "p.example"

[[arms]]
id = "large"
provider = "hosted"
model = "m-70b"
context_window_tokens = 131072
usd_per_mtok_in = 1
usd_per_mtok_out = 2
prices_checked = 2026-01-31
prices_source = "p.example"
priors = { code = 0.9 }

[policies.default]
exploration = "thompson"
scale = 0.25
objective = { quality = 9, cost = 1, cost_ref_usd = 0.02 }

[policies.logging]
model = "uniform"
"""


def test_a_good_file():
    """Arms come in file order, policies by name, with defaults for what isn't said."""
    config = parse(GOOD, "pointsman.toml")
    assert config.arms.ids == ("small", "large")
    assert config.arms.arm("large").priors == {"code": 0.9}
    default = config.policies["default"]
    assert (default.scale, default.floor, default.forgetting) == (0.25, 0.003, 1.0)
    assert default.weights == Weights(quality=0.9, latency=0.0, cost=0.1)
    assert default.scales == Scales(10_000.0, 0.02, "linear")
    assert (default.reward_window_ms, default.retention_ms) == (3_600_000, 604_800_000)
    assert config.policies["logging"].model == "uniform"


ARMS_ALONE = """\
[[arms]]
id = "small"
provider = "local"
model = "m-7b"
usd_per_mtok_in = 0.1
usd_per_mtok_out = 0.2
"""


@pytest.mark.parametrize("more", ["", "[policies]\n", "[policies.default]\n"])
def test_arms_alone_suffice(more: str):
    """The policy `default` exists without a table; windows, dates and sources may be absent."""
    config = parse(ARMS_ALONE + more, "t")
    assert config.policies == {"default": PolicyConfig()}
    arm = config.arms.arm("small")
    assert (arm.context_window_tokens, arm.prices_checked, arm.prices_source) == (None, None, None)
    assert parse(to_toml(config), "written") == config


def test_another_policy_takes_the_place_of_the_default():
    """Where tables are given, what they say is all there is."""
    config = parse(ARMS_ALONE + '[policies.logging]\nmodel = "uniform"\n', "t")
    assert list(config.policies) == ["logging"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, line_end: str):
    """As Windows' editors write it: in a file, at the beginning of what is parsed."""
    file = tmp_path / "pointsman.toml"
    file.write_bytes(GOOD.replace("\n", line_end).encode("utf-8-sig"))
    assert ConfigFile(file).read() == parse("\ufeff" + GOOD, "t") == parse(GOOD, "t")


def test_objective_defaults():
    """With no weight given the objective is balanced; with one given the others are 0."""
    assert ObjectiveConfig().weights.as_tuple() == pytest.approx(PRESETS["balanced"].as_tuple())
    assert ObjectiveConfig(quality=2.0).weights == Weights(1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "floor"),
    [
        ({}, 0.003),
        ({"model": "nearest"}, 0.003),
        ({"model": "rules"}, 0.01),
        ({"model": "rules", "floor": 0.02}, 0.02),
    ],
)
def test_the_floor_is_higher_where_nothing_else_explores(changes: dict[str, Any], floor: float):
    """By default; what is said holds."""
    assert PolicyConfig(**changes).floor == floor


def test_what_a_model_has_in_the_place_of_a_default_can_be_overruled_and_written():
    """A usual default that is said where the model has another is no default: it is written."""
    arms = parse(GOOD, "t").arms
    rules = PolicyConfig(model="rules", floor=PolicyConfig().floor)
    challenger = PolicyConfig(model="nearest", gamma=PolicyConfig().gamma)
    softer = PolicyConfig(exploration="square_cb")
    policies = {"rules": rules, "default": softer}
    config = Config(arms, policies, {"default": challenger}, {"default": 0.1})
    assert parse(to_toml(config), "t") == config


def test_a_challenger_says_only_what_differs():
    """The rest is as in its policy's table, but for what another model or rule doesn't read."""
    table = "\n[policies.default.challenger]\n"
    again = parse(GOOD + table + "floor = 0.02\nshare = 0.1\n", "t")
    default, challenger = again.policies["default"], again.challengers["default"]
    assert challenger == default.model_copy(update={"floor": 0.02})
    assert again.shares == {"default": 0.1}
    other_rule = parse(GOOD + table + 'exploration = "greedy"\n', "t").challengers["default"]
    assert (other_rule.scale, other_rule.objective) == (0.15, default.objective)
    base = GOOD.replace('exploration = "thompson"', "floor = 0.3\nreward_window_s = 60")
    other_model = parse(base + table + 'model = "uniform"\n', "t").challengers["default"]
    assert (other_model.model, other_model.floor) == ("uniform", 0.003)
    assert (other_model.reward_window_s, other_model.objective) == (60, default.objective)


def test_a_stored_policy_reads_back():
    """A version's configuration, stored as JSON with every default, is the same afterwards."""
    for settings in (
        {},
        {"model": "fixed", "arm": "a"},
        {"model": "nearest"},
        {"model": "rules", "rules": RulesConfig(speed="fast", max_cost_usd=0.01)},
        {"exploration": "softmax", "temperature": 0.5, "objective": ObjectiveConfig(cost=1.0)},
    ):
        policy = PolicyConfig(**settings)
        assert PolicyConfig.model_validate_json(policy.model_dump_json()) == policy


def test_fingerprint_is_of_what_makes_a_version():
    """Another rule, scale, weight or encoder is another version; another set of arms is not."""
    base = PolicyConfig()
    other = [
        PolicyConfig(model="uniform"),
        PolicyConfig(model="fixed", arm="a"),
        PolicyConfig(model="fixed", arm="b"),
        PolicyConfig(model="rules"),
        PolicyConfig(model="rules", rules=RulesConfig(min_quality=0.9)),
        PolicyConfig(model="rules", rules=RulesConfig(task_min_quality={"code": 0.9})),
        PolicyConfig(model="nearest"),
        PolicyConfig(model="nearest", neighbours=7),
        PolicyConfig(model="nearest", window_events=100),
        PolicyConfig(exploration="greedy"),
        PolicyConfig(scale=0.5),
        PolicyConfig(floor=0.02),
        PolicyConfig(forgetting=0.99),
        PolicyConfig(notice_changes=False),
        PolicyConfig(objective=ObjectiveConfig(quality=1.0)),
        PolicyConfig(objective=ObjectiveConfig(scale="log")),
        PolicyConfig(objective=ObjectiveConfig(cost_ref_usd=1.0)),
    ]
    fingerprints = [policy.fingerprint("e1") for policy in (base, *other)]
    assert len({*fingerprints, base.fingerprint("e2")}) == len(other) + 2
    same = PolicyConfig(arms=("a",), retention_s=7200, store_text=True, new_arm_events=7)
    assert same.fingerprint("e1") == base.fingerprint("e1")
    doubled = PolicyConfig(objective=ObjectiveConfig(quality=1.4, latency=0.3, cost=0.3))
    assert doubled.fingerprint("e1") == base.fingerprint("e1")


def test_what_operators_say_of_promotions_makes_no_version():
    """The gate's settings and the share that a replaced champion keeps act at once."""
    text = f"{GOOD}keep_share = 0.1\n[policies.logging.gate]\nalpha = 0.01\n"
    config = parse(text, "test").policies["logging"]
    assert config.fingerprint("e1") == PolicyConfig(model="uniform").fingerprint("e1")
    assert config.gate.settings() == {"alpha": 0.01, "max_age_ms": 604_800_000}
    assert current(PolicyConfig(scale=0.5), config).gate.alpha == 0.01


def test_a_model_without_posterior_has_a_default_of_its_own():
    """`nearest` is explored by square_cb, unless another rule is named."""
    nearest = PolicyConfig(model="nearest")
    assert (nearest.exploration, nearest.gamma) == ("square_cb", 300.0)
    assert PolicyConfig(model="nearest", gamma=50.0).gamma == 50.0
    assert PolicyConfig(model="nearest", exploration="greedy").exploration == "greedy"


def test_the_starter_file_is_good_and_shows_every_kind_of_arm():
    """The shipped file parses, has an embedder, and names a source and a date for each price."""
    config = parse(STARTER.read_text(), "pointsman.toml")
    assert list(config.policies) == ["default"]
    assert config.arms.having("embeddings").sum() == 1
    assert {arm.provider for arm in config.arms.arms} >= {"local", "openai", "anthropic"}


def test_the_starter_file_shows_the_defaults():
    """What it says of a default in a comment is the default, but for a key that has none."""
    shown = re.findall(r"^# (\w+) = ([\d.]+|true|false) +#", STARTER.read_text(), re.MULTILINE)
    defaults = {name: field.default for name, field in PolicyConfig.model_fields.items()}
    defaults = {name: value for name, value in defaults.items() if value is not None}
    checked = {name: value for name, value in shown if name in defaults}
    assert len(checked) >= 10
    for name, value in checked.items():
        assert float({"true": "1", "false": "0"}.get(value, value)) == float(defaults[name]), name


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
AMOUNT = st.floats(0, 1e6)
TIERS = st.builds(
    lambda prices, above: ({"above_tokens": above, **prices},),
    st.fixed_dictionaries({"usd_per_mtok_in": AMOUNT, "usd_per_mtok_out": AMOUNT}),
    st.integers(1, 10**9),
)
CHANGES = st.builds(
    lambda day, prices, tiers: ({"on": day, **prices, "price_tiers": tiers},),
    st.dates(),
    st.fixed_dictionaries({"usd_per_mtok_in": AMOUNT, "usd_per_mtok_out": AMOUNT}),
    TIERS,
)
ARMS = st.builds(
    Arm,
    id=st.from_regex(r"\A[A-Za-z0-9._:/-]{1,20}\Z"),
    provider=TEXT,
    model=TEXT,
    context_window_tokens=st.none() | st.integers(1, 10**9),
    usd_per_mtok_in=AMOUNT,
    usd_per_mtok_out=AMOUNT,
    prices_checked=st.none() | st.dates(datetime.date(1000, 1, 1)),
    prices_source=st.none() | TEXT,
    capabilities=st.just(("chat", "vision")),
    priors=st.dictionaries(st.sampled_from(["code", "math", "qa"]), st.floats(0, 1)),
    tokens_per_second=st.none() | st.floats(1e-3, 1e5),
    endpoints=st.lists(TEXT, unique=True, max_size=3).map(tuple),
    enabled=st.booleans(),
    usd_per_mtok_cached_in=st.none() | AMOUNT,
    usd_per_mtok_cache_write=st.none() | AMOUNT,
    usd_per_request=AMOUNT,
    price_tiers=st.just(()) | TIERS,
    price_changes=st.just(()) | CHANGES,
)
OBJECTIVES = st.builds(
    ObjectiveConfig,
    quality=st.floats(0.1, 10),
    latency=st.floats(0, 10),
    cost=st.floats(0, 10),
    scale=st.sampled_from(["linear", "log"]),
    latency_ref_ms=st.floats(1e-3, 1e9),
    cost_ref_usd=st.floats(1e-9, 1e3),
)


@given(
    arms=st.lists(ARMS, min_size=1, max_size=4, unique_by=lambda arm: arm.id),
    objective=OBJECTIVES,
    floor=st.floats(0, 0.99),
    name=st.from_regex(r"\A[A-Za-z0-9_-]{1,20}\Z"),
)
def test_what_is_written_reads_back(
    arms: list[Arm], objective: ObjectiveConfig, floor: float, name: str
):
    """A configuration written as TOML and parsed again is the same, to the last bit."""
    policies = {
        name: PolicyConfig(objective=objective, floor=floor, arms=(arms[0].id,)),
        f"{name}-2": PolicyConfig(model="fixed", arm=arms[-1].id, store_text=True),
        f"{name}-3": PolicyConfig(exploration="square_cb", gamma=17.5),
        f"{name}-4": PolicyConfig(
            model="nearest", neighbours=9, keep_share=0.25, gate=GateConfig(alpha=0.5)
        ),
        f"{name}-5": PolicyConfig(
            model="rules",
            rules=RulesConfig(
                speed="fast", task_min_quality={"code": floor}, max_cost_usd=objective.cost
            ),
        ),
    }
    challengers = {
        name: policies[name].model_copy(update={"scale": 0.7}),
        f"{name}-2": PolicyConfig(floor=floor, store_text=True),
        f"{name}-3": PolicyConfig(exploration="softmax", temperature=0.3),
    }
    shares = {name: 0.5} if floor > 0.5 else {}
    config = Config(Catalog(tuple(arms)), policies, challengers, shares)
    assert parse(to_toml(config), "written") == config

"""The configuration file: what it means, how its faults read, and that it can be written back."""

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.arms.catalog import Arm, Catalog
from policy.config.problems import ConfigError
from policy.config.schema import (
    Config,
    GateConfig,
    ObjectiveConfig,
    PolicyConfig,
    RulesConfig,
    current,
)
from policy.config.toml import parse, to_toml
from policy.config.variants import variants
from policy.objective import PRESETS, Scales, Weights

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


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "pointsman.toml")
    assert str(caught.value) == "\n".join(caught.value.faults)
    return list(caught.value.faults)


def with_line(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1
    return GOOD.replace(old, new, 1)


def test_a_good_file():
    """Arms come in file order, policies by name, with defaults for what isn't said."""
    config = parse(GOOD, "pointsman.toml")
    assert config.arms.ids == ("small", "large")
    assert config.arms.arm("large").priors == {"code": 0.9}
    default = config.policies["default"]
    assert (default.scale, default.floor, default.forgetting) == (0.25, 0.01, 0.998)
    assert default.weights == Weights(quality=0.9, latency=0.0, cost=0.1)
    assert default.scales == Scales(10_000.0, 0.02, "linear")
    assert (default.reward_window_ms, default.retention_ms) == (3_600_000, 604_800_000)
    assert config.policies["logging"].model == "uniform"


def test_objective_defaults():
    """With no weight given the objective is balanced; with one given the others are 0."""
    assert ObjectiveConfig().weights.as_tuple() == pytest.approx(PRESETS["balanced"].as_tuple())
    assert ObjectiveConfig(quality=2.0).weights == Weights(1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "usd_per_mtok_in = 1\n",
            "usd_per_mtok_in = -1\n",
            "pointsman.toml:16: arms[2] (large).usd_per_mtok_in: must be >= 0, got -1",
        ),
        (
            "usd_per_mtok_in = 1\n",
            "usd_per_mtok_in = nan\n",
            "pointsman.toml:16: arms[2] (large).usd_per_mtok_in: must be finite, got NaN",
        ),
        (
            'model = "m-7b"\n',
            "",
            "pointsman.toml:1: arms[1] (small).model: is missing",
        ),
        (
            "context_window_tokens = 8192",
            "context_window_token = 8192",
            "pointsman.toml:5: arms[1] (small).context_window_token: unknown key, did you mean "
            "'context_window_tokens'?",
        ),
        (
            "context_window_tokens = 8192",
            'context_window_tokens = "8k"',
            "pointsman.toml:5: arms[1] (small).context_window_tokens: must be a whole number, "
            'got "8k"',
        ),
        (
            'id = "large"',
            'id = "very large"',
            'pointsman.toml:12: arms[2].id: must match ^[A-Za-z0-9._:/-]{1,128}$, got "very large"',
        ),
        (
            'id = "large"',
            'id = "small"',
            "pointsman.toml:12: arms[2] (small).id: must be unique, arms[1] has it too",
        ),
        (
            "prices_checked = 2026-01-31",
            'prices_checked = "2026-01-31"',
            "pointsman.toml:8: arms[1] (small).prices_checked: must be a date such as 2026-01-31, "
            'without quotes, got "2026-01-31"',
        ),
        (
            "priors = { code = 0.9 }",
            "priors = { code = 90 }",
            "pointsman.toml:20: arms[2] (large).priors.code: must be <= 1, got 90",
        ),
        (
            "scale = 0.25",
            "scael = 0.25",
            "pointsman.toml:24: policies.default.scael: unknown key, did you mean 'scale'?",
        ),
        (
            'exploration = "thompson"',
            'exploration = "tompson"',
            "pointsman.toml:23: policies.default.exploration: must be one of 'thompson', 'greedy', "
            "'epsilon_greedy', 'softmax', 'square_cb', got \"tompson\"",
        ),
        (
            "cost_ref_usd = 0.02",
            "cost_ref_usd = 0",
            "pointsman.toml:25: policies.default.objective.cost_ref_usd: must be > 0, got 0",
        ),
        (
            "quality = 9, cost = 1",
            "quality = 0",
            "pointsman.toml:25: policies.default.objective: needs a weight > 0: quality, latency "
            "and cost are all 0",
        ),
        (
            'exploration = "thompson"',
            'arms = ["small", "lagre"]',
            "pointsman.toml:23: policies.default.arms: there is no arm 'lagre', did you mean "
            "'large'?",
        ),
        (
            "[policies.logging]",
            "[policies.'lo gging']",
            'pointsman.toml:27: policies."lo gging": a policy\'s name is 1 to 64 letters, digits, '
            "_ and - only",
        ),
        (
            'model = "uniform"',
            'model = "fixed"',
            "pointsman.toml:27: policies.logging: model 'fixed' needs arm = \"...\", the arm it "
            "always chooses",
        ),
        (
            'model = "uniform"',
            'model = "fixed"\narm = "lost"',
            "pointsman.toml:29: policies.logging.arm: there is no arm 'lost'",
        ),
        (
            'model = "uniform"',
            'model = "rules"\n[policies.logging.rules]\nmin_qualty = 0.5',
            "pointsman.toml:30: policies.logging.rules.min_qualty: unknown key, did you mean "
            "'min_quality'?",
        ),
        (
            'model = "uniform"',
            'model = "rules"\n[policies.logging.rules]\nspeed = "slow"',
            "pointsman.toml:30: policies.logging.rules.speed: must be one of 'ultra_fast', 'fast', "
            "'balanced', 'quality', got \"slow\"",
        ),
        (
            'model = "uniform"',
            'model = "rules"\nrules.task_min_quality = { code = 1.5 }',
            "pointsman.toml:29: policies.logging.rules.task_min_quality.code: must be <= 1, "
            "got 1.5",
        ),
        (
            'model = "uniform"',
            'model = "rules"\nrules.task_min_quality = { coding = 0.5 }',
            "pointsman.toml:29: policies.logging.rules.task_min_quality: unknown task type "
            "'coding', known are code, math, creative, analysis, extraction, qa, translation, "
            "summarization, embedding, chat",
        ),
        (
            "[policies.default]",
            "[server]\nport = 80\n[policies.default]",
            "pointsman.toml:22: server: unknown key, known are arms, policies",
        ),
        (
            'model = "uniform"',
            'model = "uniform"\nchallenger = 5',
            "pointsman.toml:29: policies.logging.challenger: must be a table: write "
            "[policies.logging.challenger]",
        ),
        (
            'model = "uniform"',
            'model = "uniform"\nchallenger.share = 0.6\nchallenger.model = "linear"',
            "pointsman.toml:29: policies.logging.challenger.share: must be <= 0.5, got 0.6",
        ),
        (
            'model = "uniform"',
            'model = "uniform"\n[policies.logging.challenger]\nmodel = "linear"\nflor = 0.1',
            "pointsman.toml:31: policies.logging.challenger.flor: unknown key, did you mean "
            "'floor'?",
        ),
        (
            'model = "uniform"',
            'model = "uniform"\n[policies.logging.challenger]\nmodel = "linear"\narms = ["small"]',
            "pointsman.toml:31: policies.logging.challenger.arms: is the whole policy's: set it in "
            "[policies.logging]",
        ),
        (
            'model = "uniform"',
            'model = "uniform"\n[policies.logging.challenger]\nmodel = "linear"\n'
            "[policies.logging.challenger.objective]\nquality = 1",
            "pointsman.toml:31: policies.logging.challenger.objective: is the whole policy's: set "
            "it in [policies.logging]",
        ),
        (
            'model = "uniform"',
            'model = "uniform"\n[policies.logging.challenger]\nmodel = "linear"\n'
            "[policies.logging.challenger.challenger]",
            "pointsman.toml:31: policies.logging.challenger.challenger: a challenger has none of "
            "its own",
        ),
        (
            'model = "uniform"',
            'model = "uniform"\n[policies.logging.challenger]\nmodel = "fixed"\narm = "lost"',
            "pointsman.toml:31: policies.logging.challenger.arm: there is no arm 'lost'",
        ),
        (
            'model = "uniform"',
            'model = "uniform"\n[policies.logging.challenger]\nmodel = "uniform"',
            "pointsman.toml:29: policies.logging.challenger: is the same as its policy: give it a "
            "setting that differs",
        ),
        (
            'model = "uniform"',
            'model = "caller"\n[policies.logging.challenger]\nmodel = "linear"\nshare = 0.1',
            "pointsman.toml:31: policies.logging.challenger.share: must be 0: the draw of a "
            "caller's router can't be shared",
        ),
        (
            "usd_per_mtok_in = 1\n",
            "usd_per_mtok_in 1\n",
            "pointsman.toml:16: not valid TOML: Expected '=' after a key in a key/value pair",
        ),
    ],
)
def test_a_fault_is_one_line(old: str, new: str, expected: str):
    """Each fault names file, line, key, the value and what was expected."""
    assert faults(with_line(old, new)) == [expected]


def test_all_faults_are_told_at_once():
    """Faults in several places come together, in the order of their lines."""
    text = with_line("usd_per_mtok_in = 0.1", "usd_per_mtok_in = -1")
    text = text.replace("scale = 0.25", "scale = 0").replace('"uniform"', '"uniforn"')
    assert [int(line.split(":")[1]) for line in faults(text)] == [6, 24, 28]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "there must be at least one [[arms]] table"),
        ("arms = []", "there must be at least one [[arms]] table"),
        ("[arms.small]", "must be an array of tables: write [[arms]] above each arm"),
        ("arms = [5]", "must be a table, got 5"),
        ("policies = 5", "there must be at least one [policies.NAME] table"),
        ("policies.x = 5", "must be a table, got 5"),
        ("[[arms]]\nid = 'line\\nbreak'", "is missing"),
        ("a = [", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("a = " + "9" * 5000, "not valid TOML"),
    ],
)
def test_odd_shapes_are_faults_too(text: str, expected: str):
    """Whatever the text, the answer is a configuration or lines that say what is wrong."""
    found = faults(text)
    assert any(expected in line for line in found)
    assert all(re.match(r"pointsman\.toml:\d+: ", line) for line in found)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"arm": "a"}, "arm is for model 'fixed', not 'linear'"),
        ({"model": "fixed", "arm": "a", "arms": ["b"]}, "arm 'a' is not among its arms"),
        ({"model": "uniform", "exploration": "softmax"}, "exploration does nothing with model"),
        ({"model": "fixed", "arm": "a", "forgetting": 0.9}, "forgetting does nothing with model"),
        ({"model": "caller", "floor": 0.1}, "floor does nothing with model 'caller'"),
        ({"epsilon": 0.2}, "epsilon is for 'epsilon_greedy', it does nothing for 'thompson'"),
        ({"exploration": "greedy", "scale": 1.0}, "scale is for 'thompson'"),
        ({"rules": {"speed": "fast"}}, "rules does nothing with model 'linear', it is for 'rules'"),
        ({"model": "rules", "epsilon": 0.2}, "epsilon does nothing with model 'rules'"),
        ({"neighbours": 5}, "neighbours does nothing with model 'linear', it is for 'nearest'"),
        ({"model": "nearest", "forgetting": 0.9}, "forgetting does nothing with model 'nearest'"),
        (
            {"model": "nearest", "exploration": "thompson"},
            "exploration 'thompson' needs a posterior, which model 'nearest' has not: take one of "
            "greedy, epsilon_greedy, softmax, square_cb",
        ),
        ({"reward_window_s": 10, "retention_s": 9}, r"retention_s must be >= reward_window_s \(10"),
        ({"arms": ["a", "a"]}, "must not repeat itself, got 'a' twice"),
        ({"arms": []}, "at least 1 item"),
        ({"floor": 1.0}, "less than 1"),
        ({"forgetting": 0.0}, "greater than 0"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_together_are_refused(settings: dict[str, Any], expected: str):
    """A setting that would do nothing, or that contradicts another, is an error."""
    with pytest.raises(ValueError, match=expected):
        PolicyConfig(**settings)


def test_a_challenger_says_only_what_differs():
    """The rest is as in its policy's table, but for what another model or rule doesn't read."""
    table = "\n[policies.default.challenger]\n"
    again = parse(GOOD + table + "floor = 0.02\nshare = 0.1\n", "t")
    default, challenger = again.policies["default"], again.challengers["default"]
    assert challenger == default.model_copy(update={"floor": 0.02})
    assert again.shares == {"default": 0.1}
    other_rule = parse(GOOD + table + 'exploration = "greedy"\n', "t").challengers["default"]
    assert (other_rule.scale, other_rule.objective) == (0.35, default.objective)
    base = GOOD.replace('exploration = "thompson"', "floor = 0.3\nreward_window_s = 60")
    other_model = parse(base + table + 'model = "uniform"\n', "t").challengers["default"]
    assert (other_model.model, other_model.floor) == ("uniform", 0.01)
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
        PolicyConfig(forgetting=1.0),
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


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("keep_share = 0.6", "policies.logging.keep_share: must be <= 0.5, got 0.6"),
        ("gate = { alpha = 0.0 }", "policies.logging.gate.alpha: must be > 0, got 0.0"),
        ("gate = { max_age_s = 0 }", "policies.logging.gate.max_age_s: must be > 0, got 0"),
        (
            "gate = { alhpa = 0.1 }",
            "policies.logging.gate.alhpa: unknown key, did you mean 'alpha'?",
        ),
    ],
)
def test_wrong_settings_of_the_gate_are_told(line: str, says: str):
    """With their place, value and what was expected."""
    assert says in faults(f"{GOOD}{line}\n")[0]


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
    """What it says of a default in a comment is the default."""
    shown = re.findall(r"^# (\w+) = ([\d.]+|true|false) +#", STARTER.read_text(), re.MULTILINE)
    defaults = {name: field.default for name, field in PolicyConfig.model_fields.items()}
    checked = {name: value for name, value in shown if name in defaults}
    assert len(checked) >= 10
    for name, value in checked.items():
        assert float({"true": "1", "false": "0"}.get(value, value)) == float(defaults[name]), name


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
AMOUNT = st.floats(0, 1e6)
ARMS = st.builds(
    Arm,
    id=st.from_regex(r"\A[A-Za-z0-9._:/-]{1,20}\Z"),
    provider=TEXT,
    model=TEXT,
    context_window_tokens=st.integers(1, 10**9),
    usd_per_mtok_in=AMOUNT,
    usd_per_mtok_out=AMOUNT,
    prices_checked=st.dates(datetime.date(1000, 1, 1)),
    prices_source=TEXT,
    capabilities=st.just(("chat", "vision")),
    priors=st.dictionaries(st.sampled_from(["code", "math", "qa"]), st.floats(0, 1)),
    tokens_per_second=st.none() | st.floats(1e-3, 1e5),
    endpoints=st.lists(TEXT, unique=True, max_size=3).map(tuple),
    enabled=st.booleans(),
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
    assert (found["y"].exploration, found["y"].floor, found["y"].scale) == ("softmax", 0.05, 0.35)
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

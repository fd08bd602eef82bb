"""How a configuration's faults read: file, line, key, value and what was expected."""

import re
import sys
from typing import Any

import pytest

from policy.config.problems import ConfigError
from policy.config.schema import PolicyConfig
from policy.config.toml import parse
from tests.policy.test_config import GOOD


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "pointsman.toml")
    assert str(caught.value) == "\n".join(caught.value.faults)
    return list(caught.value.faults)


def with_line(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1
    return GOOD.replace(old, new, 1)


def test_a_list_of_one_wrong_item_is_not_called_empty():
    """The item is what is wrong, and all that is told."""
    text = with_line('model = "m-7b"\n', 'model = "m-7b"\ncapabilities = ["Vision"]\n')
    (fault,) = faults(text)
    assert "capabilities[1]: must be one of" in fault


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
            "pointsman.toml:22: server: unknown key, known are arms, policies, providers",
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
            'model = "uniform"\n[policies.logging.challenger]\nplans = {}',
            "pointsman.toml:30: policies.logging.challenger.plans: is the whole policy's: set it "
            "in [policies.logging]",
        ),
        (
            'model = "uniform"',
            'model = "caller"\n[policies.logging.challenger]\nmodel = "linear"\nshare = 0.1',
            "pointsman.toml:31: policies.logging.challenger.share: must be 0: the draw of a "
            "caller's router can't be shared",
        ),
        (
            "usd_per_mtok_in = 1\n",
            "usd_per_mtok_in = 1\nprice_tiers = [{ above_token = 5, usd_per_mtok_in = 1, "
            "usd_per_mtok_out = 1 }]\n",
            "pointsman.toml:17: arms[2] (large).price_tiers[1].above_token: unknown key, did you "
            "mean 'above_tokens'?",
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


def test_a_byte_order_mark_moves_no_fault():
    """Lines and keys of a text with one are those of the text without."""
    text = with_line('id = "small"', 'id = "very small"')
    assert faults("\ufeff" + text) == faults(text)
    assert faults("\ufeffa = [") == faults("a = [")


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
        ("policies = 5", "must be tables: write [policies.NAME] above each policy"),
        ("policies = []", "must be tables: write [policies.NAME] above each policy"),
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


def test_an_incumbent_must_be_an_arm():
    """A name that is none is told apart, with its line, and what was perhaps meant."""
    found = faults(GOOD + '[policies.careful]\nincumbent = "larg"\n')
    assert [re.sub(r":\d+:", "", line) for line in found] == [
        "pointsman.toml policies.careful.incumbent: there is no arm 'larg', did you mean 'large'?"
    ]


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
        ({"missing_quality": 1.1}, "less than or equal to 1"),
        (
            {"missing_quality": 0.0, "reward_window_s": 10, "retention_s": 69},
            "missing_quality needs retention_s >= 70: decisions must be there 60 s after",
        ),
        ({"arms": ["a", "a"]}, "must not repeat itself, got 'a' twice"),
        ({"arms": []}, "at least 1 item"),
        ({"floor": 1.0}, "less than 1"),
        ({"incumbent": "a", "arms": ["b"]}, "incumbent 'a' is not among its arms"),
        ({"incumbent": "a", "model": "rules"}, "incumbent does nothing with model 'rules'"),
        ({"incumbent": "a", "rules": {"speed": "fast"}}, "rules does nothing with model 'linear'"),
        ({"incumbent": "a", "max_loss": 0.0}, "greater than 0"),
        ({"incumbent": "a", "max_loss": 1.0}, "less than 1"),
        ({"incumbent": "a", "under_way": 0}, "greater than or equal to 1"),
        ({"max_loss": 0.02}, "max_loss does nothing without an incumbent"),
        ({"forgetting": 0.0}, "greater than 0"),
        ({"budget": {"usd": 0.0}}, "greater than 0"),
        ({"budget": {"usd": 1.0}, "model": "rules"}, "budget does nothing with model 'rules'"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_together_are_refused(settings: dict[str, Any], expected: str):
    """A setting that would do nothing, or that contradicts another, is an error."""
    with pytest.raises(ValueError, match=expected):
        PolicyConfig(**settings)


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


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("budget = { usd = -1.0 }", "policies.logging.budget.usd: must be > 0, got -1.0"),
        ('budget = { usd = 1.0, per = "week" }', "must be one of 'hour', 'day', 'month', got"),
        ("budget = { usd = 1.0, hrd = true }", "budget.hrd: unknown key, did you mean 'hard'?"),
    ],
)
def test_wrong_budgets_are_told(line: str, says: str):
    """With their place, value and what was expected."""
    assert says in faults(f"{GOOD}{line}\n")[0]


def test_a_budget_must_pay_a_call():
    """Of the cheapest arm, or it can't be meant."""
    (found,) = faults(GOOD + "[policies.poor]\nbudget = { usd = 1e-9 }\n")
    assert "policies.poor.budget.usd: 1e-09 pays no call: the cheapest arm, 'small', " in found


def test_without_vowpal_wabbit_its_model_is_refused(monkeypatch: pytest.MonkeyPatch):
    """In one line that names the package: Python 3.13 has no build of it."""
    monkeypatch.setitem(sys.modules, "vowpal_wabbit_next", None)
    [line] = faults(with_line('model = "uniform"', 'model = "vw"'))
    assert "model 'vw' needs vowpal-wabbit-next, which isn't installed here" in line

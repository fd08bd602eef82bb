"""The action set: who may serve a request, and why each other arm is out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from policy.arms.catalog import Catalog
from policy.arms.constraints import (
    CONTEXT_TOKENS,
    COST_CEILING_USD,
    LATENCY_CEILING_MS,
    ActionSet,
    Constraints,
    NoEligibleArm,
    action_set,
    unknown_names,
    within,
)
from tests.policy.test_catalog import arm

CATALOG = Catalog(
    (
        arm("small", context_window_tokens=4096),
        arm("seeing", capabilities=("chat", "vision"), provider="openai"),
        arm("off", enabled=False),
        arm("embedder", capabilities=("embeddings",)),
        arm("large", context_window_tokens=100_000, provider="openai"),
    )
)


@dataclass(frozen=True)
class Needs:
    capabilities: frozenset[str] = frozenset({"chat"})
    prompt_tokens: int = 100
    output_tokens: int = 200

    @property
    def reserved_tokens(self) -> int:
        return self.output_tokens


def choose(
    needs: Needs | None = None, arms: tuple[str, ...] | None = None, **constraints: Any
) -> ActionSet:
    return action_set(CATALOG, arms, needs or Needs(), Constraints(**constraints))


def eligible(chosen: ActionSet) -> list[str]:
    return [CATALOG.ids[i] for i in chosen.index]


def test_without_constraints_what_the_query_needs_decides():
    """A chat query goes to every enabled arm that can chat."""
    chosen = choose()
    assert eligible(chosen) == ["small", "seeing", "large"]
    assert chosen.excluded == (("off", "disabled"), ("embedder", "lacks chat"))


def test_an_embedding_goes_to_an_embedder():
    """Who needs embeddings doesn't need chat."""
    assert eligible(choose(Needs(frozenset({"embeddings"})))) == ["embedder"]


def test_constraints_may_ask_for_embeddings_too():
    """Chat is only presumed of a query, and both spellings are understood."""
    assert eligible(choose(capabilities=("embeddings",))) == ["embedder"]
    assert eligible(choose(capabilities=("embedding",))) == ["embedder"]


def test_what_is_named_and_not_there_is_told():
    """It has no effect; each name once, with its field."""
    given = Constraints(allow=("small", "gone", "gone"), deny=("nobody",), providers=("acme",))
    assert unknown_names(CATALOG, given) == [
        "constraints.allow: no such arm: 'gone'",
        "constraints.deny: no such arm: 'nobody'",
        "constraints.providers: no such provider: 'acme'",
    ]
    assert unknown_names(CATALOG, Constraints(allow=("small",), providers=("openai",))) == []


def test_prompt_and_output_must_fit_the_window():
    """3,997 + 100 tokens are one too many for 4,096; 3,996 + 100 fit."""
    assert "small" in eligible(choose(Needs(prompt_tokens=3996, output_tokens=100)))
    chosen = choose(Needs(prompt_tokens=3997, output_tokens=100))
    assert dict(chosen.excluded)["small"] == "context window 4096 < 4097 tokens needed"


def test_nothing_is_too_long_for_a_window_that_nobody_has_told():
    """What isn't known leaves no arm out."""
    catalog = Catalog((arm("unknown", context_window_tokens=None),))
    chosen = action_set(catalog, None, Needs(prompt_tokens=10**9), Constraints())
    assert chosen.index.tolist() == [0]


def test_the_larger_of_prompt_and_context_constraint_counts():
    """A wanted window of 8,000 tokens outweighs a prompt of 100, and not one of 9,000."""
    assert eligible(choose(context_tokens=7992)) == ["seeing", "large"]
    assert eligible(choose(context_tokens=7993)) == ["large"]
    assert eligible(choose(Needs(prompt_tokens=9000), context_tokens=10)) == ["large"]


def test_capabilities_of_query_and_constraint_add_up():
    """A capability may be wanted by the query, by the constraints, or by both."""
    assert eligible(choose(capabilities=("vision",))) == ["seeing"]
    assert eligible(choose(Needs(frozenset({"chat", "vision"})), capabilities=("vision",))) == [
        "seeing"
    ]
    assert dict(choose(capabilities=("vision",)).excluded)["small"] == "lacks vision"


def test_allow_deny_and_providers():
    """`allow` and `providers` keep only what they name, `deny` drops it."""
    assert eligible(choose(allow=("large", "small"))) == ["small", "large"]
    assert eligible(choose(deny=("large", "small"))) == ["seeing"]
    assert eligible(choose(providers=("openai",))) == ["seeing", "large"]
    chosen = choose(allow=("large", "small"), deny=("small",), providers=("openai",))
    assert dict(chosen.excluded)["small"] == "denied, provider local not in providers"
    assert dict(chosen.excluded)["seeing"] == "not in allow"


def test_a_policy_has_its_own_arms():
    """Arms that the policy doesn't name are out; one that has left the catalog is no fault."""
    chosen = choose(arms=("large", "gone"))
    assert eligible(chosen) == ["large"]
    assert dict(chosen.excluded)["small"] == "not one of this policy's arms"


def test_every_arm_is_either_eligible_or_explained():
    """Eligible and excluded arms make up the catalog, with every reason that holds."""
    chosen = choose(Needs(prompt_tokens=5000, output_tokens=0), providers=("local", "openai"))
    assert set(eligible(chosen)) | dict(chosen.excluded).keys() == set(CATALOG.ids)
    assert set(eligible(chosen)) & dict(chosen.excluded).keys() == set()
    both = choose(Needs(prompt_tokens=9000, output_tokens=0))
    assert dict(both.excluded)["off"] == "disabled, context window 8192 < 9000 tokens needed"


def test_nothing_left_says_why_for_each_arm():
    """An empty action set is an error that carries the reasons, never a silent wrong arm."""
    with pytest.raises(NoEligibleArm, match="small: lacks tools") as caught:
        choose(capabilities=("tools",))
    assert len(caught.value.excluded) == len(CATALOG)
    with pytest.raises(NoEligibleArm):
        choose(allow=())


def test_allowing_an_unknown_arm_is_told():
    """A name that is no arm's appears among the reasons, so that a typo is found."""
    with pytest.raises(NoEligibleArm) as caught:
        choose(allow=("lrage",))
    assert caught.value.excluded[-1] == ("lrage", "not in the catalog")


PRICED = Catalog(
    (
        arm("free", usd_per_mtok_in=0.0, usd_per_mtok_out=0.0),
        arm("low", usd_per_mtok_in=0.4, usd_per_mtok_out=0.8),
        arm("dear", usd_per_mtok_in=2.0, usd_per_mtok_out=10.0),
    )
)


@pytest.mark.parametrize(
    ("tier", "expected"),
    [("free", 1), ("budget", 1), ("standard", 2), ("premium", 3)],
)
def test_a_cost_tier_is_a_ceiling_on_the_cost_of_a_call(tier: str, expected: int):
    """100 + 200 tokens cost 0, 0.0002 and 0.0022 USD at list prices; the lower of a tier and
    `max_cost_usd` counts."""
    chosen = action_set(PRICED, None, Needs(), Constraints(cost_tier=tier))
    assert chosen.index.tolist() == list(range(expected))
    if tier == "standard":
        assert chosen.excluded == (("dear", "list cost 0.0022 USD > 0.001 USD"),)
    both = action_set(PRICED, None, Needs(), Constraints(cost_tier=tier, max_cost_usd=2e-4))
    assert both.index.tolist() == list(range(min(expected, 2)))


@pytest.mark.parametrize(
    ("tier", "expected"),
    [("short", 0), ("medium", 1), ("long", 2), ("very_long", 3)],
)
def test_a_context_tier_is_a_window_that_holds_it(tier: str, expected: int):
    """Whatever is below 2,000, 32,000, 128,000 or 2,000,000 tokens; none is told of `any`."""
    windows = {"8k": 8_192, "32k": 32_000, "1M": 1_000_000, "any": None}
    catalog = Catalog(tuple(arm(n, context_window_tokens=w) for n, w in windows.items()))
    chosen = action_set(catalog, None, Needs(), Constraints(context_tier=tier))
    assert chosen.index.tolist() == list(range(expected, 4))
    longer = action_set(catalog, None, Needs(prompt_tokens=200_000), Constraints(context_tier=tier))
    assert longer.index.tolist() == list(range(max(expected, 2), 4))


def test_the_list_cost_of_this_call_is_a_hard_fact():
    """100 + 200 tokens of the dear arm list at (200 + 2000) / 1e6 USD."""
    chosen = action_set(PRICED, None, Needs(), Constraints(max_cost_usd=0.002))
    assert chosen.excluded == (("dear", "list cost 0.0022 USD > 0.002 USD"),)
    assert len(action_set(PRICED, None, Needs(), Constraints(max_cost_usd=0.0022)).index) == 3


def test_ceilings_rise_with_their_names():
    """Each name allows all that the one before does."""
    for ceilings in (LATENCY_CEILING_MS, COST_CEILING_USD, CONTEXT_TOKENS):
        values = list(ceilings.values())
        assert values == sorted(values)


UNKNOWN = np.full((3, 3), np.nan)


def left(
    predicted: list[list[float]], expected: Any = UNKNOWN, **constraints: Any
) -> tuple[list[str], dict[str, str]]:
    """Which arms of PRICED are left by limits on predictions, and why the others aren't."""
    given = Constraints(**constraints)
    eligible = action_set(PRICED, None, Needs(), given)
    known, of_catalog = np.array(predicted)[eligible.index], expected[eligible.index]
    chosen = within(eligible, given.limits, known, of_catalog)
    return [PRICED.ids[i] for i in chosen.index], dict(chosen.excluded)


def test_limits_are_of_predictions():
    """An arm that misses one is out, and the reason has both figures; meeting it exactly is in."""
    predicted = [[0.5, 2100.0, 0.0], [0.8, 800.0, 0.001], [0.9, 900.0, 0.002]]
    assert left(predicted, max_latency_ms=800.0) == (
        ["low"],
        {
            "free": "predicted latency 2100 ms > 800 ms",
            "dear": "predicted latency 900 ms > 800 ms",
        },
    )
    assert left(predicted, min_quality=0.8) == (
        ["low", "dear"],
        {"free": "predicted quality 0.5 < 0.8"},
    )
    in_words = "predicted quality 0.5 < 0.6, predicted latency 2100 ms > 2000 ms"
    assert left(predicted, min_quality=0.6, speed="fast")[1] == {"free": in_words}


def test_figures_are_readable():
    """Four digits, and never an exponent."""
    predicted = [[0.5, 12_345.6, 0.0], [0.5, 1.0, 0.0], [0.5, 1.0, 0.0]]
    assert left(predicted, max_latency_ms=800.0)[1] == {
        "free": "predicted latency 12350 ms > 800 ms"
    }
    why = left(predicted, max_cost_usd=0.0021)[1]
    assert why["dear"] == "list cost 0.0022 USD > 0.0021 USD"
    limit = Constraints(max_cost_usd=0.00002).limits[0]
    assert limit.missed("predicted", 0.000123456) == "predicted cost 0.0001235 USD > 0.00002 USD"


def test_a_predicted_cost_counts_beside_the_list_cost():
    """An arm that writes more than was thought costs more than its list says."""
    predicted = [[0.5, 100.0, 0.0], [0.5, 100.0, 0.0015], [0.5, 100.0, 0.0015]]
    arms, why = left(predicted, max_cost_usd=0.001)
    assert arms == ["free"]
    assert why == {
        "low": "predicted cost 0.0015 USD > 0.001 USD",
        "dear": "list cost 0.0022 USD > 0.001 USD",
    }


def test_the_lower_of_speed_and_max_latency_counts():
    """`fast` is a ceiling of 2 s, and no leave to exceed one's own."""
    assert Constraints(speed="fast", max_latency_ms=500.0).limits == (("latency", 500.0, 0.9),)
    assert Constraints(speed="fast", max_latency_ms=5_000.0).limits == (("latency", 2_000.0, 0.9),)
    assert Constraints().limits == ()


def test_what_nobody_predicts_the_catalog_tells_and_else_the_arm_stays_in():
    """A prediction outweighs the catalog; where neither knows, nothing speaks against the arm."""
    predicted = [[np.nan, 500.0, np.nan], [np.nan, np.nan, np.nan], [np.nan] * 3]
    expected = np.array([[np.nan, 9_000.0, 0.0], [np.nan, 5_000.0, 0.0], [np.nan, np.nan, 0.0]])
    arms, why = left(predicted, expected, max_latency_ms=1_000.0)
    assert arms == ["free", "dear"]
    assert why == {"low": "expected latency 5000 ms > 1000 ms"}


def test_nothing_left_by_predictions_says_why_for_each_arm():
    """Those that the action set had left out before as well."""
    with pytest.raises(NoEligibleArm) as caught:
        left([[0.5, 10.0, 0.0]] * 3, min_quality=0.9, cost_tier="standard")
    assert dict(caught.value.excluded) == {
        "free": "predicted quality 0.5 < 0.9",
        "low": "predicted quality 0.5 < 0.9",
        "dear": "list cost 0.0022 USD > 0.001 USD",
    }


@pytest.mark.parametrize(
    "constraints",
    [
        {"max_price": 0.01},
        {"max_cost_usd": -0.01},
        {"max_cost_usd": float("nan")},
        {"max_latency_ms": "800"},
        {"min_quality": 1.1},
        {"speed": "balanced"},
        {"cost_tier": "cheap"},
        {"context_tier": "huge"},
        {"context_tokens": -1},
        {"context_tokens": 1.5},
        {"allow": "large"},
        {"capabilities": ["has space"]},
    ],
    ids=str,
)
def test_unknown_or_ill_formed_constraints_are_refused(constraints: dict[str, Any]):
    """A constraint that isn't built is an error, not a wish that is passed over."""
    with pytest.raises(ValidationError):
        Constraints(**constraints)

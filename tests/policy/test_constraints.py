"""The action set: who may serve a request, and why each other arm is out."""

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from policy.catalog import Catalog
from policy.constraints import ActionSet, Constraints, NoEligibleArm, action_set
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


def test_prompt_and_output_must_fit_the_window():
    """3,997 + 100 tokens are one too many for 4,096; 3,996 + 100 fit."""
    assert "small" in eligible(choose(Needs(prompt_tokens=3996, output_tokens=100)))
    chosen = choose(Needs(prompt_tokens=3997, output_tokens=100))
    assert dict(chosen.excluded)["small"] == "context window 4096 < 4097 tokens needed"


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


@pytest.mark.parametrize(
    "constraints",
    [
        {"max_cost_usd": 0.01},
        {"speed": "fast"},
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

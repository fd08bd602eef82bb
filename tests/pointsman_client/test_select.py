"""`select_model`: one call, and an answer where nothing fits, against the service itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pointsman_client import AsyncClient, Client, Decision, PointsmanError
from pointsman_client.local import Decider
from tests.servers import http_service, settings_for, until

ARM = """
[[arms]]
id = "{id}"
provider = "{provider}"
model = "{id}-model"
context_window_tokens = {window}
usd_per_mtok_in = {usd}
usd_per_mtok_out = {usd}
tokens_per_second = {speed}
priors = {{ code = {quality}, math = {quality} }}
"""
ARMS = (
    {"id": "quick", "provider": "p", "window": 8000, "usd": 0.1, "speed": 1000, "quality": 0.5},
    {"id": "middling", "provider": "q", "window": 64000, "usd": 1.0, "speed": 200, "quality": 0.7},
    {"id": "best", "provider": "q", "window": 1000000, "usd": 10.0, "speed": 39, "quality": 0.9},
)


@pytest.fixture
def http(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    config = "".join(ARM.format(**arm) for arm in ARMS)
    with http_service(settings_for(redis_url, tmp_path, config)) as client:
        yield client


@pytest.fixture
def client(http: httpx.Client) -> Iterator[Client]:
    with Client(str(http.base_url)) as client:
        yield client


def arms_of(decision: Decision) -> set[str]:
    return {decision.arm, *(other.arm for other in decision.alternatives)}


def test_five_words_name_a_model(client: Client):
    """400 tokens take 0.4, 2 and 10.3 s by the catalog, and 0.00005, 0.0005, 0.005 USD."""
    decision = client.select_model("code", 100, "balanced", "standard", 0.6, output_tokens=400)
    assert (decision.arm, decision.provider, decision.model) == ("middling", "q", "middling-model")
    assert decision.alternatives == ()
    assert decision.confidence == 1.0
    assert decision.gave_way == ()
    assert client.reward(decision.decision_id, quality=1.0).accepted == ("quality",)


@pytest.mark.parametrize(
    ("words", "arms"),
    [
        ({}, {"quick", "middling"}),  # 10.3 s is more than balanced waits
        ({"speed_requirement": "quality"}, {"quick", "middling", "best"}),
        ({"speed_requirement": "ultra_fast"}, {"quick"}),
        ({"speed_requirement": "quality", "quality_threshold": 0.8}, {"best"}),
        ({"cost_constraint": "budget"}, {"quick"}),
        ({"cost_constraint": 0.0001}, {"quick"}),
        ({"cost_constraint": "premium", "context_size": "medium"}, {"middling"}),
        ({"speed_requirement": "quality", "context_size": 65_000}, {"best"}),
        (
            {"speed_requirement": "quality", "constraints": {"deny": ["best"]}},
            {"quick", "middling"},
        ),
    ],
)
def test_each_word_leaves_the_models_that_keep_it(client: Client, words: Any, arms: set[str]):
    """Names and numbers; other constraints add to them."""
    found = client.select_model("code", **{"context_size": 100, **words}, output_tokens=400)
    assert arms_of(found) == arms
    assert found.gave_way == ()


@pytest.mark.parametrize(
    ("words", "arms", "gave_way"),
    [
        # in a hurry quality gives way first, and others then only if they must
        (("ultra_fast", "budget", 0.8), {"quick"}, ("quality",)),
        (("fast", None, 0.8), {"quick"}, ("quality",)),
        (("ultra_fast", "free", None), {"quick"}, ("cost",)),
        (("ultra_fast", "free", 0.8), {"quick"}, ("quality", "cost")),
        # for quality latency does, then cost
        (("balanced", None, 0.8), {"best"}, ("latency",)),
        (("quality", "standard", 0.8), {"best"}, ("cost",)),
    ],
)
def test_where_nothing_fits_the_answer_says_what_gave_way(
    client: Client, words: tuple[Any, ...], arms: set[str], gave_way: tuple[str, ...]
):
    """The fewest limits, what matters least first; the others hold, and the answer is logged. Or it
    raises, as asked, with the reason for each arm."""
    speed, cost, quality = words
    found = client.select_model("code", 100, speed, cost, quality, output_tokens=400)
    assert arms_of(found) == arms
    assert found.gave_way == gave_way
    assert found.logged
    again = client.decision(found.decision_id)["decision"]
    assert again["gave_way"] == list(gave_way)
    with pytest.raises(PointsmanError, match="No eligible arm") as caught:
        client.select_model("code", 100, speed, cost, quality, output_tokens=400, fallback=False)
    assert caught.value.status == 422
    assert {one["arm"] for one in caught.value.problem["excluded"]} == {"quick", "middling", "best"}


def test_a_context_gives_way_by_one_tier(client: Client):
    """No window holds 2,000,000 tokens; the next smaller tier's 128,000 do, and that is said."""
    found = client.select_model("code", "very_long", "quality")
    assert (found.arm, found.gave_way) == ("best", ("context",))
    with pytest.raises(PointsmanError, match="context window 1000000 < 2000000"):
        client.select_model("code", "very_long", "quality", fallback=False)


def test_the_same_id_gets_the_same_answer(client: Client):
    """What gave way is part of it; a different request under this id is a conflict."""
    words: dict[str, Any] = {"decision_id": "one", "output_tokens": 400}
    first, second = (client.select_model("code", 100, "fast", None, 0.8, **words) for _ in range(2))
    assert first == second
    assert first.gave_way == ("quality",)
    with pytest.raises(PointsmanError, match="409"):
        client.select_model("code", 100, "fast", None, 0.7, **words)


def test_an_unknown_word_is_told(client: Client):
    """By the client or by the service, in one line that names it."""
    with pytest.raises(PointsmanError, match="speed_requirement is one of ultra_fast, fast"):
        client.select_model("code", 100, "warp")
    with pytest.raises(PointsmanError, match=r"constraints\.cost_tier"):
        client.select_model("code", 100, "fast", "cheapo")
    with pytest.raises(PointsmanError, match=r"constraints\.relax"):
        client.route("x", constraints={"relax": ["quality", "quality"]})


def test_asyncio_has_it_too(http: httpx.Client):
    """The same answer."""

    async def ask() -> Decision:
        async with AsyncClient(str(http.base_url)) as client:
            return await client.select_model(
                "code", 100, "balanced", "standard", 0.6, output_tokens=400
            )

    assert asyncio.run(ask()).arm == "middling"


def test_limits_give_way_in_a_batch_and_in_the_callers_process(http: httpx.Client, client: Client):
    """`relax` is a constraint like others; what was decided elsewhere is logged with it."""
    limits = {"min_quality": 0.8, "speed": "fast", "relax": ["quality", "latency"]}
    request: Any = {"task_type": "code", "output_tokens": 400, "constraints": limits}
    kept, refused = client.route_batch([request, {**request, "constraints": {"min_quality": 0.95}}])
    assert isinstance(kept, Decision)
    assert kept.gave_way == ("quality",)
    assert isinstance(refused, PointsmanError)
    with Decider(str(http.base_url), send_s=0.02) as decider:
        decision = decider.route(**request)
        assert decision.gave_way == ("quality",)
        until(lambda: decision.logged, "it is acknowledged")
    assert client.decision(decision.decision_id)["decision"]["gave_way"] == ["quality"]

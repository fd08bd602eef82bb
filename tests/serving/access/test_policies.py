"""A key of named policies does nothing with others, and isn't told whether there are any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pointsman_client.wire import route_body
from serving.access.scopes import SCOPES
from serving.app import create_app
from serving.settings import Settings
from tests.servers import CONFIG, http_service, settings_for
from tests.serving.access.making import TWO, bearing, make_key

QUERY = {"query": {"text": "hello"}}
REASONS = {"by": "me", "reason": "because"}
DOCUMENT = create_app(Settings(redis_url="redis://unused")).openapi()["paths"]


def cases(policy: str, decision_id: str = "0") -> dict[str, list[Any]]:
    """A request for each path that acts for a policy, by path as the document has it."""
    outcome = {"policy": policy, "decision_id": decision_id, "quality": 1.0}
    made = {"policy": policy, "decision_id": decision_id, "state": "s", "version": "1"}
    made |= {"snapshot": 0, "catalog": "c", "encoder": "e", "made_at_ms": 0, "arm": "small"}
    made |= {"propensity": 1.0, "arms": ["small"], "pmf": [1.0], "predicted": [[0.5, 1.0, 1.0]]}
    made |= {"weights": [1.0, 0.0, 0.0], "x": "AAAAAA==", "prompt_tokens": 1, "output_tokens": 1}
    return {
        "/route": ["POST", "/route", {"policy": policy, **QUERY}],
        "/route/batch": ["POST", "/route/batch", {"requests": [{"policy": policy, **QUERY}]}],
        "/decisions": ["POST", "/decisions", {"decisions": [made]}],
        "/reward": ["POST", "/reward", outcome],
        "/reward/batch": ["POST", "/reward/batch", {"rewards": [outcome]}],
        "/correction": ["POST", "/correction", outcome | REASONS],
        "/correction/batch": ["POST", "/correction/batch", {"corrections": [outcome | REASONS]}],
        "/decisions/{decision_id}": ["GET", f"/decisions/{decision_id}?policy={policy}"],
        "/policies/{name}": ["GET", f"/policies/{policy}"],
        "/policies/{name}/frontier": ["GET", f"/policies/{policy}/frontier"],
        "/policies/{name}/state": ["GET", f"/policies/{policy}/state"],
    }


def asked(http: httpx.Client, method: str, url: str, body: Any = None) -> tuple[int, Any]:
    """Status and body; those of a batch's only result in their place."""
    answer = http.request(method, url, json=body)
    content = answer.json()
    if isinstance(content, dict) and "results" in content:
        (content,) = content["results"]
        return content.get("status", 200), content
    return answer.status_code, content


@pytest.fixture(scope="module")
def mine(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client with a key for `mine` of a service that also has `other` and `default`, and a
    decision of `other`, made with a key for all."""
    config = CONFIG + TWO.replace("[policies.mine]\n", '[policies.mine]\narms = ["small"]\n')
    settings = settings_for(module_url, tmp_path_factory.mktemp("policies"), config)
    _, secret = make_key(module_url, SCOPES, ("mine", "nobody"))
    _, everything = make_key(module_url)
    with http_service(settings) as http:
        made = http.post("/route", json={"policy": "other", **QUERY}, headers=bearing(everything))
        http.foreign = made.json()["decision_id"]  # type: ignore[attr-defined]
        http.headers.update(bearing(secret))
        yield http


def test_each_path_that_takes_a_body_or_a_policy_is_tried():
    """What comes later has to say here how it is asked."""
    of_policies = {
        path
        for path, operations in DOCUMENT.items()
        for operation in operations.values()
        if "requestBody" in operation
        or {"name", "policy", "decision_id"} & {p["name"] for p in operation.get("parameters", ())}
    }
    assert of_policies == cases("any").keys()


@pytest.mark.parametrize("path", cases("any"))
def test_a_policy_that_is_there_looks_like_one_that_is_not(mine: httpx.Client, path: str):
    """The same 403 for both, but for the name that was asked for."""
    there = asked(mine, *cases("other", mine.foreign)[path])  # type: ignore[attr-defined]
    absent = asked(mine, *cases("other2", mine.foreign)[path])  # type: ignore[attr-defined]
    assert there[0] == absent[0] == 403
    assert there[1]["type"] == "/problems/missing-scope"
    assert there[1]["policy"] == "other"
    assert str(there[1]).replace("other", "other2") == str(absent[1])


@pytest.mark.parametrize("path", [path for path in cases("any") if "decision" not in path])
def test_ones_own_policy_is_answered(mine: httpx.Client, path: str):
    """No 403; what is wrong otherwise is said."""
    assert asked(mine, *cases("mine")[path])[0] in (200, 404)


def test_a_policy_that_is_gone_names_no_others(mine: httpx.Client):
    """A key may be for one that isn't there (any more)."""
    status, problem = asked(mine, *cases("nobody")["/route"])
    assert (status, problem["type"]) == (404, "/problems/unknown-policy")
    assert "other" not in str(problem)
    assert "default" not in str(problem)


@pytest.mark.parametrize("path", ["/reward", "/correction", "/decisions/{decision_id}"])
def test_another_policys_decision_is_unknown(mine: httpx.Client, path: str):
    """Its id says nothing, and nothing becomes of it."""
    foreign = mine.foreign  # type: ignore[attr-defined]
    there, absent = (asked(mine, *cases("mine", one)[path]) for one in (foreign, "0" * 32))
    assert there[0] == absent[0] == 404
    assert str(there[1]).replace(foreign, "0" * 32) == str(absent[1])


def test_ids_are_128_random_bits(mine: httpx.Client):
    """Whoever makes them: the service or its client."""
    ask = {"requests": [{"policy": "mine", **QUERY}] * 50}
    made = [one["decision_id"] for one in mine.post("/route/batch", json=ask).json()["results"]]
    made += [route_body({"text": "x"})["decision_id"] for _ in range(50)]
    assert len({int(one, 16) for one in made}) == 100
    assert {len(one) for one in made} == {32}
    for bit in range(128):  # each is set in some and not in others: (1/2)^99 by chance
        assert len({int(one, 16) >> bit & 1 for one in made}) == 2


def test_a_batch_is_checked_item_by_item(mine: httpx.Client):
    """What may be done is done; what may not is a problem in its place."""
    items = [{"policy": name, **QUERY} for name in ("mine", "other", "mine", "other2")]
    answer = mine.post("/route/batch", json={"requests": items, "budget_usd": 1.0}).json()
    assert [one.get("status", 200) for one in answer["results"]] == [200, 403, 200, 403]
    ids = [answer["results"][i]["decision_id"] for i in (0, 2)]
    rewards = [{"policy": "mine", "decision_id": i, "quality": 1.0} for i in ids]
    rewards.insert(1, {"policy": "other", "decision_id": mine.foreign, "quality": 1.0})  # type: ignore[attr-defined]
    answer = mine.post("/reward/batch", json={"rewards": rewards}).json()
    assert [one.get("status", 200) for one in answer["results"]] == [200, 403, 200]


def test_the_default_policy_is_a_policy(mine: httpx.Client):
    """Naming none is naming it."""
    assert asked(mine, "POST", "/route", QUERY)[0] == 403
    assert asked(mine, "GET", f"/decisions/{'0' * 32}")[0] == 403


def test_lists_show_what_the_key_may_see(mine: httpx.Client):
    """Policies, and the arms that these may choose from."""
    assert [one["policy"] for one in mine.get("/policies").json()["policies"]] == ["mine"]
    assert [one["arm"] for one in mine.get("/arms").json()["arms"]] == ["small"]
    page = mine.get("/").text
    assert "<td>mine" in page
    assert "other" not in page


def test_figures_are_of_all_policies(mine: httpx.Client):
    """/metrics names each of them, so a key for some doesn't do."""
    assert asked(mine, "GET", "/metrics")[0] == 403

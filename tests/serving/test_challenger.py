"""A challenger in shadow: it is compared, is given a share, and takes over."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from tests.servers import (
    learn_all,
    override,
    until,
)
from tests.serving.challenging import (
    CALLER,
    FIXED,
    UNIFORM,
    config,
    drive,
    logged,
    outcome,
    serving,
    share_of_best,
    shown,
)


def test_a_challenger_learns_in_shadow_and_serves_warm_once_promoted(
    redis_url: str, tmp_path: Path
):
    """What it has learned from the champion's outcomes serves at once, without a restart; the
    champion before goes on as the challenger."""
    with serving(redis_url, tmp_path, config(UNIFORM)) as http:
        drive(http, range(200))
        learn_all(redis_url)
        before = shown(http, 200)
        assert (before["version"], before["share"], before["events"]) == ("2", 0.0, 200)
        assert override(redis_url, "2") == "1"
        until(lambda: http.get("/policies/default").json()["champion"] == "2", "it serves", 2.0)
        made = drive(http, range(200, 300))
        assert all(m["version"] == "2" and m["snapshot"] == before["snapshot"] for m in made)
        assert share_of_best(made) > 0.9
        after = http.get("/policies/default").json()
        assert (after["challenger"]["version"], after["challenger"]["model"]) == ("1", "uniform")
        assert after["shares"] == {"2": 1.0, "1": 0.0}
        learn_all(redis_url)
        assert shown(http, 100)["agreement"]["probability"] == pytest.approx(0.5)


@pytest.mark.parametrize("model", ["linear", "vw", "nearest"])
def test_any_model_that_learns_can_be_an_apprentice(redis_url: str, tmp_path: Path, model: str):
    """Beside a router that explores, it learns from every outcome and is judged."""
    if model == "vw":
        pytest.importorskip("vowpal_wabbit_next")
    with serving(redis_url, tmp_path, config(UNIFORM, f'model = "{model}"\n')) as http:
        drive(http, range(60))
        assert learn_all(redis_url) == 60
        challenger = shown(http, 60)
        assert (challenger["model"], challenger["events"]) == (model, 60)
        assert challenger["estimates"]["reward"]["why"] is None


def test_what_would_have_been_earned_beside_a_router_that_explores(
    redis_url: str, tmp_path: Path, raw: redis.Redis
):
    """The estimate is that of the logged pmfs over all outcomes, within four standard errors."""
    n = 400
    with serving(redis_url, tmp_path, config(UNIFORM)) as http:
        for start in range(0, n, 100):
            drive(http, range(start, start + 100))
            learn_all(redis_url)
        challenger = shown(http, n)
    assert challenger["covered"] == pytest.approx(1.0)
    decisions = logged(raw)
    truth = {"quality": 0.0, "cost_usd": 0.0}
    for i, decision in enumerate(decisions):
        for arm, p in zip(decision.arms, decision.challenger_pmf, strict=True):
            for name, value in outcome(i, arm).items():
                truth[name] += p * value / n
    truth["reward"] = 0.8 * truth["quality"] + 0.2 * (1 - truth["cost_usd"] / 0.01)
    for name, expected in truth.items():
        found = challenger["estimates"][name]
        assert found["why"] is None
        assert 0 < found["challenger"]["se"] < 0.1
        assert abs(found["challenger"]["value"] - expected) < 4 * found["challenger"]["se"]
    reward = challenger["estimates"]["reward"]
    earned = np.mean(
        [
            0.8 * o["quality"] + 0.2 * (1 - o["cost_usd"] / 0.01)
            for o in (outcome(i, d.arm) for i, d in enumerate(decisions))
        ]
    )
    assert reward["champion"]["value"] == pytest.approx(earned)
    assert reward["difference"]["value"] > 4 * reward["difference"]["se"] > 0
    acted = [d.challenger_pmf[d.arms.index(d.arm)] for d in decisions]
    assert challenger["agreement"]["probability"] == pytest.approx(np.mean(acted))


def test_beside_a_router_that_never_explores_it_cannot_be_known(redis_url: str, tmp_path: Path):
    """No number for the challenger, but a reason, and the share that is covered."""
    with serving(redis_url, tmp_path, config(FIXED)) as http:
        drive(http, range(60))
        learn_all(redis_url)
        challenger = shown(http, 60)
    assert challenger["covered"] < 0.9
    for name in ("reward", "quality", "cost_usd"):
        found = challenger["estimates"][name]
        assert found["challenger"]["value"] is found["difference"]["value"] is None
        assert "never tried" in found["why"]
    assert challenger["estimates"]["cost_usd"]["champion"]["value"] == pytest.approx(0.004)
    assert challenger["agreement"]["probability"] == pytest.approx(challenger["covered"])


def test_a_share_of_the_draw(redis_url: str, tmp_path: Path, raw: redis.Redis):
    """The logged pmf is the exact mixture, and arms come up with it; four standard errors."""
    text = config(FIXED, 'model = "uniform"\nshare = 0.1\n')
    with serving(redis_url, tmp_path, text) as http:
        body = {"hints": {"task_type": "chat"}}
        for _ in range(6):
            http.post("/route/batch", json={"requests": [body] * 250})
        assert http.get("/policies/default").json()["shares"] == {"1": 0.9, "2": 0.1}
    decisions = logged(raw)
    assert len(decisions) == 1500
    for decision in decisions:
        assert (decision.challenger, decision.share) == ("2", 0.1)
        assert decision.arms == ("small", "large")
        assert decision.challenger_pmf.tolist() == [0.5, 0.5]
        assert decision.pmf.tolist() == pytest.approx([0.05, 0.95], abs=1e-15)
        assert decision.propensity == decision.pmf[decision.arms.index(decision.arm)]
    small = sum(d.arm == "small" for d in decisions)
    assert abs(small - 1500 * 0.05) < 4 * math.sqrt(1500 * 0.05 * 0.95)


def test_the_callers_router_acts(redis_url: str, tmp_path: Path, raw: redis.Redis):
    """Its choice is the decision; without a pmf it counts as deterministic."""
    with serving(redis_url, tmp_path, config(CALLER)) as http:
        (made,) = drive(http, range(1), chosen={"arm": "large"})
        assert (made["arm"], made["propensity"], made["confidence"]) == ("large", 1.0, None)
        pmf = {"small": 0.25, "large": 0.75}
        (made,) = drive(http, range(1, 2), chosen={"arm": "small", "pmf": pmf})
        assert (made["arm"], made["propensity"]) == ("small", 0.25)
        assert made["alternatives"][0]["propensity"] == 0.75
        learn_all(redis_url)
        assert shown(http, 2)["events"] == 2
    assert [d.pmf.tolist() for d in logged(raw)] == [[0.0, 1.0], [0.25, 0.75]]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, "say with `chosen`"),
        ({"arm": "huge"}, "'huge' is not eligible: not in the catalog"),
        ({"arm": "embedder"}, "'embedder' is not eligible: lacks chat"),
        ({"arm": "small", "pmf": {"small": 0.5}}, "sum to 1"),
        ({"arm": "small", "pmf": {"large": 1.0}}, "gives no probability to the chosen arm"),
        ({"arm": "small", "pmf": {"small": 0.5, "embedder": 0.5}}, "'embedder', which is not"),
        ({"arm": "small", "pmf": {"small": 1.5, "large": -0.5}}, "less than or equal to 1"),
        ({"arm": "small", "pmf": {}}, "at least 1 item"),
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_is_refused(
    redis_url: str, tmp_path: Path, raw: redis.Redis, chosen: Any, expected: str
):
    """A 422 says what is wrong, and nothing is logged."""
    with serving(redis_url, tmp_path, config(CALLER)) as http:
        answer = http.post("/route", json={"hints": {"task_type": "chat"}, "chosen": chosen})
    assert answer.status_code == 422
    assert expected in answer.json()["detail"]
    assert raw.xlen("pm:{default}:decisions") == 0


def test_a_choice_changes_nothing_where_a_policy_acts(http: httpx.Client):
    """A caller may go on telling its choice after the take-over."""
    body = {"hints": {"task_type": "chat"}}
    plain = http.post("/route", json={**body, "decision_id": "a"}).json()
    told = http.post("/route", json={**body, "decision_id": "b", "chosen": {"arm": "huge"}}).json()
    assert arms_of(plain) == arms_of(told)


def arms_of(answer: dict[str, Any]) -> dict[str, float]:
    pmf = {a["arm"]: a["propensity"] for a in answer["alternatives"]}
    return pmf | {answer["arm"]: answer["propensity"]}


@pytest.mark.parametrize("explores", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_apprentice_of_the_callers_router(redis_url: str, tmp_path: Path, explores: bool):
    """It learns from the router's outcomes and takes over when told to; what it would have earned
    is known where the router explores and says how."""
    rng = np.random.default_rng(5)
    with serving(redis_url, tmp_path, config(CALLER)) as http:
        for i in range(160):
            if explores:
                arm = ("small", "large")[int(rng.random() < 0.7)]
                chosen = {"arm": arm, "pmf": {"small": 0.3, "large": 0.7}}
            else:
                chosen = {"arm": ("small", "large")[(i // 2) % 2]}
            drive(http, range(i, i + 1), chosen=chosen)
        learn_all(redis_url)
        challenger = shown(http, 160)
        reward = challenger["estimates"]["reward"]
        assert (reward["challenger"]["value"] is not None) == explores
        assert (reward["why"] is None) == explores
        override(redis_url, "2")
        until(lambda: http.get("/policies/default").json()["champion"] == "2", "it serves", 2.0)
        made = drive(http, range(160, 220))
        assert share_of_best(made) > 0.85
        assert http.get("/policies/default").json()["challenger"]["model"] == "caller"


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_an_apprentice_of_the_rules(redis_url: str, tmp_path: Path, floor: float):
    """Rules act and the apprentice learns; with a floor they explore, so that it can be judged."""
    text = config(f'model = "rules"\nfloor = {floor}')
    with serving(redis_url, tmp_path, text) as http:
        made = drive(http, range(60))
        learn_all(redis_url)
        challenger = shown(http, 60)
    assert {m["version"] for m in made} == {"1"}
    assert challenger["events"] == 60
    assert (challenger["estimates"]["reward"]["why"] is None) == (floor > 0)


def test_after_the_take_over_the_callers_router_is_what_is_compared(
    redis_url: str, tmp_path: Path, raw: redis.Redis
):
    """As the challenger it is logged wherever its choice is told, and only there."""
    with serving(redis_url, tmp_path, config(CALLER)) as http:
        override(redis_url, "2")
        until(lambda: http.get("/policies/default").json()["champion"] == "2", "it serves", 2.0)
        drive(http, range(1), chosen={"arm": "large"})
        drive(http, range(1, 2))
        learn_all(redis_url)
        assert shown(http, 1)["decisions"] == 1
    told, untold = logged(raw)
    assert (told.challenger, told.challenger_pmf.tolist()) == ("1", [0.0, 1.0])
    assert untold.challenger is None


def test_another_executed_arm_is_left_out_and_counted(redis_url: str, tmp_path: Path):
    """The arm that ran was not the one drawn: its outcome says nothing of either version."""
    with serving(redis_url, tmp_path, config(UNIFORM)) as http:
        drive(http, range(3))
        made = http.post("/route", json={"hints": {"task_type": "chat"}}).json()
        ran = {"small": "large", "large": "small"}[made["arm"]]
        body = {"decision_id": made["decision_id"], "executed_arm": ran}
        for part in ({"quality": 0.0}, {"cost_usd": 0.001}):
            assert http.post("/reward", json={**body, **part}).status_code == 200
        withdrawn = http.post("/route", json={"hints": {"task_type": "chat"}}).json()
        http.post("/reward", json={"decision_id": withdrawn["decision_id"], "executed": False})
        learn_all(redis_url)
        challenger = shown(http, 3)
        assert (challenger["decisions"], challenger["other_arm"]) == (3, 1)
        assert challenger["events"] == 4  # the model learns of the arm that ran

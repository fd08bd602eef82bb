"""A challenger in shadow: it learns, is compared, is given a share, and takes over."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from features.encoder import Encoder
from policy.config.toml import parse
from policy.records import from_json
from policy.values.snapshot import unpack
from serving.learning.follower import register
from serving.learning.learner import Learner
from serving.settings import Settings
from serving.store.learning import LearnerStore
from serving.store.operations import OperatorStore
from serving.store.traffic import Store
from tests.servers import (
    CONFIG,
    assert_same_state,
    http_service,
    learn_all,
    override,
    settings_for,
    until,
)

ARMS = CONFIG[: CONFIG.index("[policies.default]")]
OBJECTIVE = "objective = { quality = 0.8, cost = 0.2, cost_ref_usd = 0.01 }\n"
QUALITY = {("code", "small"): 0.9, ("code", "large"): 0.3, ("chat", "small"): 0.3}
COST_USD = {"small": 0.001, "large": 0.004}


def config(policy: str, challenger: str | None = 'model = "linear"\n') -> str:
    """The tests' arms, a policy, and its challenger."""
    text = f"{ARMS}\n[policies.default]\n{policy}\n{OBJECTIVE}"
    return text if challenger is None else f"{text}\n[policies.default.challenger]\n{challenger}"


UNIFORM = 'model = "uniform"\n'
FIXED = 'model = "fixed"\narm = "large"\nfloor = 0.0\n'
CALLER = 'model = "caller"\n'


@contextmanager
def serving(redis_url: str, folder: Path, text: str) -> Iterator[httpx.Client]:
    with http_service(settings_for(redis_url, folder, text)) as client:
        yield client


@pytest.fixture
def store(redis_url: str) -> Iterator[LearnerStore]:
    with closing(LearnerStore(redis_url, "default")) as opened:
        yield opened


def quality(task: str, arm: str) -> float:
    return QUALITY.get((task, arm), 0.8)


def task_of(i: int) -> str:
    return ("code", "chat")[i % 2]


def outcome(i: int, arm: str) -> dict[str, float]:
    return {"quality": quality(task_of(i), arm), "cost_usd": COST_USD[arm]}


def drive(http: httpx.Client, rounds: range, **more: Any) -> list[dict[str, Any]]:
    """Route and report; the answers."""
    made = []
    for i in rounds:
        body = {"decision_id": f"d{i}", "hints": {"task_type": task_of(i)}, **more}
        answer = http.post("/route", json=body)
        assert answer.status_code == 200, answer.text
        made.append(answer.json())
        report = {"decision_id": f"d{i}", **outcome(i, made[-1]["arm"])}
        assert http.post("/reward", json=report).status_code == 200
    return made


def share_of_best(made: list[dict[str, Any]]) -> float:
    """How often the better arm of each task was chosen, from an even round on."""
    better = {"code": "small", "chat": "large"}
    return sum(m["arm"] == better[task_of(i)] for i, m in enumerate(made)) / len(made)


def shown(http: httpx.Client, decisions: int) -> dict[str, Any]:
    """The challenger as /policies/default shows it once these many decisions count."""

    def there() -> bool:
        challenger = http.get("/policies/default").json()["challenger"]
        return challenger is not None and challenger["decisions"] >= decisions

    until(there, f"{decisions} decisions are compared")
    found: dict[str, Any] = http.get("/policies/default").json()["challenger"]
    return found


def logged(raw: redis.Redis) -> list[Any]:
    return [
        from_json(entry[b"record"], entry[b"x"], entry.get(b"challenger_x"))
        for _, entry in raw.xrange("pm:{default}:decisions")
    ]


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


@pytest.mark.parametrize("explores", [False, True])
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


def learner(store: LearnerStore) -> Learner:
    return Learner(store, "default", publish_interval_s=0.01, checkpoint_interval_s=0.05)


def test_a_killed_learner_repeats_nothing_for_either(
    redis_url: str, tmp_path: Path, store: LearnerStore, raw: redis.Redis
):
    """Champion and challenger each go on from their own checkpoint, sums and scores alike."""
    with serving(redis_url, tmp_path, config("", "scale = 0.5")) as http:
        drive(http, range(10))
        assert learn_all(redis_url) == 10
        drive(http, range(10, 20))
        crashed = learner(store)
        crashed._token = store.acquire()
        crashed._follow_roles()
        assert crashed._read(block_ms=None) == {"1": 10, "2": 10}
        crashed._write(crashed._folds["2"], save=True, publish=False)  # the challenger's alone
        store.release(crashed._token)  # and dies here
        assert learn_all(redis_url) == 10
    once = {version: store.checkpoint(version) for version in ("1", "2")}
    for version in once:
        raw.delete(f"pm:{{default}}:checkpoint:{version}")
    assert learn_all(redis_url) == 20
    for version, checkpoint in once.items():
        assert_same_state(checkpoint, store.checkpoint(version))


def test_a_broken_challenger_keeps_nobody_from_learning(
    redis_url: str, tmp_path: Path, store: LearnerStore, raw: redis.Redis
):
    """Its checkpoint is damaged: it stands still, and the champion goes on."""
    with serving(redis_url, tmp_path, config("", "scale = 0.5")) as http:
        drive(http, range(5))
        assert learn_all(redis_url) == 5
        blob = bytearray(store.checkpoint("2") or b"")
        blob[-1] ^= 1
        raw.set("pm:{default}:checkpoint:2", bytes(blob))
        drive(http, range(5, 10))
        assert learn_all(redis_url) == 5
    assert store.checkpoint("2") == bytes(blob)


def test_a_challenger_that_comes_late_catches_up(
    redis_url: str, tmp_path: Path, store: LearnerStore
):
    """It starts from the beginning of the stream, and doesn't hold the champion up."""
    settings = settings_for(redis_url, tmp_path, config("", None))
    with http_service(settings) as http:
        drive(http, range(30))
        assert learn_all(redis_url) == 30
        assert http.get("/policies/default").json()["challenger"] is None
        settings.config.write_text(config("", "scale = 0.5"))
        until(lambda: http.get("/policies/default").json()["challenger"], "it is there")
        drive(http, range(30, 35))
        late = learner(store)
        late._token = store.acquire()
        late._follow_roles()
        assert late._read(block_ms=None) == {"1": 5, "2": 35}
        store.release(late._token)
        assert learn_all(redis_url) == 35
        assert shown(http, 5)["events"] == 35
    first, second = (unpack(store.checkpoint(version) or b"")[0] for version in ("1", "2"))
    assert (first.position, first.events) == (second.position, second.events)


def test_who_catches_up_never_overtakes(
    redis_url: str, tmp_path: Path, store: LearnerStore, monkeypatch: pytest.MonkeyPatch
):
    """The champion's next events come first in each turn; they join where the other catches up."""
    settings = settings_for(redis_url, tmp_path, config("", None))
    with http_service(settings) as http:
        drive(http, range(10))
        learn_all(redis_url)
        settings.config.write_text(config("", "scale = 0.5"))
        until(lambda: http.get("/policies/default").json()["challenger"], "it is there")
        drive(http, range(10, 13))
        monkeypatch.setattr("serving.learner.BATCH", 4)
        late = learner(store)
        late._token = store.acquire()
        late._follow_roles()
        turns = [late._read(block_ms=None) for _ in range(6)]
        store.release(late._token)
    assert turns == [{"1": 3, "2": 4}, {"2": 4}, {"2": 4}, {"2": 1}, {}, {}]
    assert late._folds["1"].fold.position == late._folds["2"].fold.position


def test_a_gap_in_the_stream_holds_nobody_up(
    redis_url: str, tmp_path: Path, store: LearnerStore, raw: redis.Redis
):
    """Where old events were trimmed, a late challenger starts with those that are still there."""
    settings = settings_for(redis_url, tmp_path, config("", None))
    with http_service(settings) as http:
        drive(http, range(10))
        learn_all(redis_url)
        raw.xtrim("pm:{default}:outcomes", maxlen=0)
        settings.config.write_text(config("", "scale = 0.5"))
        until(lambda: http.get("/policies/default").json()["challenger"], "it is there")
        late = learner(store)
        late._token = store.acquire()
        late._follow_roles()
        assert late._read(block_ms=None) == {}
        assert late._folds["1"].fold.position == late._folds["2"].fold.position
        drive(http, range(10, 12))
        assert late._read(block_ms=None) == {"1": 2, "2": 2}
        store.release(late._token)


def test_a_running_learner_teaches_both(redis_url: str, tmp_path: Path, store: LearnerStore):
    """Reward in, two snapshots out, and a change of roles while it runs."""
    stop = threading.Event()
    with serving(redis_url, tmp_path, config(UNIFORM)) as http:
        thread = threading.Thread(target=learner(store).run, args=(stop,))
        thread.start()
        try:
            drive(http, range(5))
            assert shown(http, 5)["events"] == 5
            override(redis_url, "2")
            until(lambda: http.get("/policies/default").json()["champion"] == "2", "it serves")
            drive(http, range(5, 8))
            until(lambda: http.get("/policies/default").json()["events"] == 8, "it learns on")
        finally:
            stop.set()
            thread.join(5.0)


def test_a_changed_policy_is_the_challenger_until_it_is_promoted(redis_url: str, tmp_path: Path):
    """Without a challenger's table, the file's version learns in shadow at share 0."""
    settings = settings_for(redis_url, tmp_path, config("", None))
    with http_service(settings) as http:
        drive(http, range(10))
        settings.config.write_text(config("scale = 0.6", None))
        until(lambda: http.get("/policies/default").json()["challenger"], "it is there")
        learn_all(redis_url)
        until(lambda: http.get("/policies/default").json()["challenger"]["events"] == 10, "learned")
        assert http.get("/policies/default").json()["shares"] == {"1": 1.0, "2": 0.0}


def restarted(settings: Settings, text: str) -> tuple[str, dict[str, float]]:
    """Champion and shares of a service that starts with this file."""
    settings.config.write_text(text)
    with http_service(settings) as http:
        found = http.get("/policies/default").json()
        return found["champion"], found["shares"]


def test_a_share_acts_when_it_is_said_and_not_again(redis_url: str, tmp_path: Path):
    """A restart never gives traffic to a version that the operator has taken it from."""
    text = config(UNIFORM, 'model = "linear"\nshare = 0.2\n')
    settings = settings_for(redis_url, tmp_path, text)
    assert restarted(settings, text) == ("1", {"1": 0.8, "2": 0.2})
    override(redis_url, "2")
    assert restarted(settings, text) == ("2", {"2": 1.0, "1": 0.0})
    override(redis_url, "1")
    assert restarted(settings, text) == ("1", {"1": 1.0, "2": 0.0})
    assert restarted(settings, text.replace("0.2\n", "0.3\n")) == ("1", {"1": 0.7, "2": 0.3})
    assert restarted(settings, config(UNIFORM, None)) == ("1", {"1": 1.0, "2": 0.0})


def test_a_replaced_champion_keeps_its_share(redis_url: str, tmp_path: Path):
    """Through restarts, and when the file comes to say what serves; until the file gives a share to
    another."""
    text = config(UNIFORM, 'model = "linear"\nshare = 0.2\n')
    settings = settings_for(redis_url, tmp_path, text)
    restarted(settings, text)
    override(redis_url, "2", keep_share=0.05)
    kept = ("2", {"2": 0.95, "1": 0.05})
    assert restarted(settings, text) == kept
    assert restarted(settings, config('model = "linear"\n', None)) == kept
    other = config('model = "linear"\n', "scale = 0.5\nshare = 0.1\n")
    assert restarted(settings, other) == ("2", {"2": 0.9, "3": 0.1})


def test_what_a_rollback_took_stays_taken(redis_url: str, tmp_path: Path):
    """Through restarts and other changes of the file; a new share in it acts."""
    text = config(UNIFORM, 'model = "linear"\nshare = 0.2\n')
    settings = settings_for(redis_url, tmp_path, text)
    restarted(settings, text)
    override(redis_url, "2", keep_share=0.05)
    with closing(OperatorStore(redis_url, "default")) as operator:
        operator.rollback("me", "it errs", 0)
    taken = ("1", {"1": 1.0, "2": 0.0})
    assert restarted(settings, text) == taken
    changed = text.replace(UNIFORM, UNIFORM + "floor = 0.02\n")
    assert restarted(settings, changed) == taken
    more = changed.replace("0.2\n", "0.3\n")
    champion, shares = restarted(settings, more)
    assert (champion, shares["1"]) == ("1", 0.7)


def test_a_challenger_that_the_operator_names_stays(redis_url: str, tmp_path: Path):
    """Until the file says something new."""
    text = config("", "scale = 0.5\nshare = 0.2\n")
    settings = settings_for(redis_url, tmp_path, text)
    restarted(settings, text)
    restarted(settings, config("", "scale = 0.6\nshare = 0.2\n"))
    with closing(OperatorStore(redis_url, "default")) as operator:
        assert operator.challenge("2", 0.1, "me", 0) == "3"
    last = config("", "scale = 0.6\nshare = 0.2\n")
    assert restarted(settings, last) == ("1", {"1": 0.9, "2": 0.1})
    assert restarted(settings, last.replace("0.2\n", "0.3\n")) == ("1", {"1": 0.7, "3": 0.3})


def test_a_challenger_sees_the_context_of_its_own_encoder(
    redis_url: str, tmp_path: Path, store: LearnerStore, raw: redis.Redis
):
    """What it encodes travels with the decision and its outcome, and is what it learns from."""
    text = config("", "scale = 0.5")
    own = Encoder.default(d=48)

    async def register_both() -> None:
        """As the service will, but that the challenger gets an encoder of its own."""
        with_own = parse(text, "test")
        serving_store = Store(redis_url)
        await register(serving_store, "default", with_own.policies["default"], 0)
        challenger = with_own.challengers["default"]
        fingerprint = challenger.fingerprint(Encoder.default().fingerprint)
        written = challenger.model_dump_json().encode()
        await serving_store.register("default", fingerprint, written, own.to_bytes(), 0)
        await serving_store.close()

    asyncio.run(register_both())
    with serving(redis_url, tmp_path, text) as http:
        made = drive(http, range(12))
        again = http.post("/route", json={"decision_id": "d0", "hints": {"task_type": "code"}})
        assert again.json() == made[0]
        assert learn_all(redis_url) == 12
        assert shown(http, 12)["events"] == 12
    for decision in logged(raw):
        assert decision.challenger_encoder == own.fingerprint
        assert (len(decision.x), len(decision.challenger_x)) == (64, 48)
    header, _ = unpack(store.checkpoint("2") or b"")
    assert (header.encoder, header.events) == (own.fingerprint, 12)

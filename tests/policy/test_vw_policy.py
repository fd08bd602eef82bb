"""A policy with model "vw": its configuration, and the loop over HTTP."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import redis

from policy.config.problems import ConfigError
from policy.config.schema import Config, PolicyConfig
from policy.config.toml import parse, to_toml
from serving.store.learning import LearnerStore
from tests.servers import CONFIG, fold_again, http_service, learn_all, settings_for, until

pytest.importorskip("vowpal_wabbit_next", reason="no build of vowpal-wabbit-next here")

from policy.values.vw.regressors import CB_TYPES


def configured(more: str) -> PolicyConfig:
    return parse(CONFIG + f'model = "vw"\n{more}', "t.toml").policies["default"]


def test_square_cb_explores_unless_something_else_is_asked_for():
    """VW has no posterior, so thompson can't be its default."""
    assert configured("").exploration == "square_cb"
    assert configured("gamma = 7.0").gamma == 7.0
    assert configured('exploration = "softmax"').exploration == "softmax"
    assert configured("").gamma == 5_000.0


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ('exploration = "thompson"', "'thompson' needs a posterior, which model 'vw' has not"),
        ("scale = 0.5", "scale is for 'thompson'"),
        ("forgetting = 0.999", "forgetting does nothing with model 'vw', it is for 'linear'"),
        ('cb_type = "dm"', "cb_type: must be one of 'mtr', 'dr', 'ips'"),
    ],
)
def test_what_vw_cannot_do_is_refused_when_the_configuration_is_loaded(more: str, what: str):
    with pytest.raises(ConfigError, match="default") as caught:
        configured(more)
    assert what in str(caught.value)


def test_cb_type_is_for_vw_alone():
    with pytest.raises(ConfigError, match="cb_type does nothing with model 'linear'"):
        parse(CONFIG + 'cb_type = "dr"\n', "t.toml")


def test_a_configuration_comes_back_from_its_text():
    policy = configured('cb_type = "dr"\nexploration = "epsilon_greedy"\nepsilon = 0.2')
    others = {"other": configured(""), "low": configured("gamma = 100.0")}
    config = Config(parse(CONFIG, "t.toml").arms, {"default": policy, **others})
    assert parse(to_toml(config), "t.toml") == config


def test_cb_type_makes_a_version():
    prints = [configured(f'cb_type = "{cb_type}"').fingerprint("e") for cb_type in CB_TYPES]
    assert len({*prints, PolicyConfig().fingerprint("e")}) == 4


def test_a_vw_policy_decides_learns_and_serves_its_snapshot(
    redis_url: str, raw: redis.Redis, tmp_path: Path
):
    """The loop with another model: better by rewards, checkpoint equal to an undisturbed fold."""
    config = CONFIG + 'model = "vw"\ngamma = 1000.0\n'
    number = count()
    with http_service(settings_for(redis_url, tmp_path, config)) as http:

        def best(rounds: int) -> float:
            hits = 0
            for i in range(rounds):
                task = ("code", "chat")[i % 2]
                body = {"decision_id": f"vw-{next(number)}", "hints": {"task_type": task}}
                made = http.post("/route", json=body).json()
                assert made["confidence"] is None
                hit = made["arm"] == {"code": "small", "chat": "large"}[task]
                told = {"decision_id": made["decision_id"], "quality": 0.9 if hit else 0.2}
                assert http.post("/reward", json=told).status_code == 200
                hits += hit
            return hits / rounds

        def learn() -> None:
            learn_all(redis_url)
            newest = int(raw.hget("pm:{default}:snapshot:1", "number"))
            until(
                lambda: http.get("/policies/default").json()["snapshot"] == newest,
                "the snapshot serves",
            )

        for _ in range(6):
            best(30)
            learn()
        assert best(50) > 0.8
        learn()
        predicted = http.post("/route", json={"hints": {"task_type": "code"}}).json()["predicted"]
        assert predicted["quality"] > 0.5
        assert predicted["latency_ms"] is None
    with closing(LearnerStore(redis_url, "default")) as store:
        assert store.checkpoint("1") == fold_again(store)

"""What follows from a verdict: promotion, rollback, reports, roles in MLflow, versions."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from offline_eval.registry import Registry
from policy.config.schema import PolicyConfig
from serving.store.operations import OperatorStore
from tests.pointsman.places import (
    LARGE,
    TEXT,
    Place,
    archived,
    decided,
    served,
    write,
)
from tests.servers import http_service, learn_all, override, settings_for, until
from tests.serving.challenging import UNIFORM, config, drive, shown


@pytest.fixture
def place(redis_url: str, tmp_path: Path, mlflow_uri: str) -> Place:
    return served(redis_url, tmp_path)


def test_a_better_challenger_passes_and_is_promoted(place: Place):
    """The verdict is told with its reasons and recorded; then the promotion is one command, and the
    champion before keeps its share."""
    write(place, decided(place, 400, LARGE))
    done = place.run("gate", "default")
    assert done.exit_code == 0, done.output
    assert "version 2 against champion 1, in its shadow, on 400 rows\nverdict: pass" in done.stdout
    assert "the challenger is better: +0." in done.stdout
    assert "ok             recency: the newest row is 0.0 days old" in done.stdout
    assert done.stdout.endswith("next: pointsman promote default 2\n")
    done = place.run("promote", "default")
    assert done.exit_code == 0, done.output
    assert "version 2 is champion (before: 1)" in done.stdout
    assert "version 1 goes on as its challenger, with 5% of the draw" in done.stdout
    with closing(OperatorStore(place.redis_url, "default")) as store:
        assert [entry["kind"] for entry in store.audit()][-2:] == ["gate", "promoted"]


def test_mlflow_shows_the_verdict_and_the_roles(place: Place, mlflow_uri: str):
    """The version with its report, and aliases that follow promotions and rollbacks."""
    place = replace(place, tells_mlflow=True)
    write(place, decided(place, 400, LARGE))
    place.gated()
    registry = Registry(mlflow_uri)
    one, two = registry.versions("default")
    assert (two.version, two.verdict, two.champion) == ("2", "pass", "1")
    with closing(OperatorStore(place.redis_url, "default")) as store:
        assert store.versions()[1].gate.run == two.run
    assert (one.aliases, two.aliases) == (("champion",), ("challenger",))
    place.run("promote", "default")
    one, two = registry.versions("default")
    assert (one.aliases, two.aliases) == (("challenger", "previous"), ("champion",))
    place.run("rollback", "default")
    one, two = registry.versions("default")
    assert (one.aliases, two.aliases) == (("champion",), ("challenger",))


def test_without_mlflow_the_gate_still_judges(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A warning says that MLflow doesn't know."""
    place = replace(place, tells_mlflow=True)
    write(place, decided(place, 400, LARGE))
    broken = place.folder / "no-database"
    broken.write_text("something else")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{broken}")
    assert place.gated()["verdict"] == "pass"
    assert place.run("promote", "default").exit_code == 0
    assert "the verdict is recorded without it" in caplog.text
    assert "its aliases are not those of the roles" in caplog.text


def test_the_report_tells_what_both_versions_would_earn(place: Place):
    """As one HTML page with its plots, and the same in MLflow."""
    place = replace(place, tells_mlflow=True)
    write(place, decided(place, 400, LARGE))
    page = place.folder / "gate.html"
    assert place.run("gate", "default", "--report", str(page)).exit_code == 0
    shown = page.read_text("utf-8")
    assert shown.count("data:image/png;base64,") == 6
    assert "champion 1" in shown
    (logged,) = (v for v in Registry(place_uri()).versions("default") if v.version == "2")
    client = MlflowClient(place_uri())
    metrics = client.get_run(logged.run).data.metrics
    assert metrics["dr/reward_low"] < metrics["dr/reward"] < metrics["dr/reward_high"]
    assert metrics["champion/snips/quality"] == pytest.approx(0.55, abs=0.1)
    (folder,) = client.list_artifacts(logged.run, "gate")
    files = {Path(file.path).name for file in client.list_artifacts(logged.run, folder.path)}
    assert {"gate.md", "gate.html", "evidence.png", "reward-by-task.png"} <= files


def place_uri() -> str:
    return os.environ["MLFLOW_TRACKING_URI"]


def test_a_rollback_is_one_command_and_ends_the_pass(place: Place):
    """What was champion needs a new pass of the gate."""
    write(place, decided(place, 400, LARGE))
    place.gated()
    assert place.run("promote", "default", "2").exit_code == 0
    done = place.run("rollback", "default", "--reason", "it errs")
    assert done.exit_code == 0, done.output
    assert "version 1 is champion again (before: 2)" in done.stdout
    done = place.run("promote", "default", "2")
    assert (done.exit_code, "has not been judged" in str(done.exception)) == (1, True)
    done = place.run("rollback", "default")
    assert (done.exit_code, "no version to go back to" in str(done.exception)) == (1, True)


def test_what_was_taken_back_is_judged_on_what_comes_after(place: Place):
    """The rows that it had passed on count no more, and one alpha is still all it has."""
    write(place, decided(place, 400, LARGE))
    place.gated()
    place.run("promote", "default", "2")
    place.run("rollback", "default")
    done = place.run("gate", "default", "2")
    assert (done.exit_code, "or was rolled back" in str(done.exception)) == (1, True)
    write(place, decided(place, 3, LARGE, start=400, age_ms=-5_000))
    told = place.gated("2")
    assert (told["verdict"], told["rows"]) == ("undecided", 3)
    assert told["figures"]["alpha"] == pytest.approx(0.2 / 2 * 0.05)


def test_a_rollback_needs_no_configuration_file(place: Place):
    """It must work when something is wrong with the file."""
    override(place.redis_url, "2")
    (place.folder / "pointsman.toml").write_text("broken")
    assert json.loads(place.run("rollback", "default", "--json").stdout)["champion"] == "1"


def test_an_old_log_promotes_nothing(place: Place):
    """Neither passes the gate, nor does an old pass promote."""
    write(place, decided(place, 400, LARGE, age_ms=3_600_000))
    assert place.gated()["verdict"] == "pass"
    place.serve(TEXT.replace(UNIFORM, f"{UNIFORM}gate = {{ max_age_s = 60 }}\n"))
    done = place.run("promote", "default")
    assert (done.exit_code, "days old, more than" in str(done.exception)) == (1, True)
    assert "the newest row is" in place.gated()["reasons"][0]


def test_an_override_needs_a_reason(place: Place):
    """It is recorded with who, why and when."""
    done = place.run("promote", "default", "2", "--override")
    assert (done.exit_code, "--override needs --reason" in done.output) == (2, True)
    assert place.run("promote", "default", "2", "--override", "--reason", "why not").exit_code == 0
    told = json.loads(place.run("versions", "--json").stdout)["policies"][0]["versions"][1]
    assert (told["role"], told["promoted"]["kind"]) == ("champion", "override")
    assert (told["promoted"]["why"], bool(told["promoted"]["who"])) == ("why not", True)


def test_a_pass_against_another_champion_counts_for_nothing(place: Place):
    """The champion may have changed since."""
    write(place, decided(place, 400, LARGE))
    place.gated()
    third = place.register(PolicyConfig(scale=0.7))
    override(place.redis_url, third)
    done = place.run("promote", "default", "2")
    assert done.exit_code == 1
    assert "judged against version 1, but version 3 is champion" in str(done.exception)


def test_versions_are_listed_for_a_person(place: Place):
    """Their roles, what the gate said, and how they became champion."""
    write(place, decided(place, 400, LARGE))
    place.gated()
    place.run("promote", "default", "--reason", "it is better")
    first, head, one, two = place.run("versions").stdout.splitlines()
    assert first == "policy default"
    assert head.split()[:5] == ["version", "role", "model", "made", "gate"]
    assert one.split()[:3] == ["1", "challenger", "uniform"]
    assert one.endswith("initial")
    assert two.split()[:3] == ["2", "champion", "linear"]
    assert "pass against 1, " in two
    assert two.endswith(": it is better")


def test_from_traffic_to_promotion_and_on(redis_url: str, tmp_path: Path, mlflow_uri: str):
    """What a service has decided, learned and archived passes its challenger; then the champion
    before, which keeps a share, is judged on what the new one decides."""
    text = config(f"{UNIFORM}reward_window_s = 1\n", 'model = "linear"\nshare = 0.1\n')
    place = Place(redis_url, tmp_path, "")
    with http_service(settings_for(redis_url, tmp_path, text)) as http:
        for start in range(0, 300, 50):
            drive(http, range(start, start + 50))
            learn_all(redis_url)
            shown(http, start + 50)
        archived(place)
        told = place.gated()
        assert (told["verdict"], told["rows"]) == ("pass", 300), told["reasons"]
        assert {check["name"] for check in told["checks"]} >= {"task type code", "task type chat"}
        assert place.run("promote", "default").exit_code == 0
        until(lambda: http.get("/policies/default").json()["champion"] == "2", "it serves", 2.0)
        assert http.get("/policies/default").json()["shares"] == {"2": 0.95, "1": 0.05}
        drive(http, range(300, 350))
        archived(place)
        told = place.gated()
    assert (told["version"], told["champion"], told["rows"]) == ("1", "2", 50)
    assert told["verdict"] != "pass"


def test_an_mlflow_that_cannot_be_used_stops_no_verdict(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """It is recorded in Redis, and a warning says what MLflow wasn't told."""
    place = replace(place, tells_mlflow=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    write(place, decided(place, 400, LARGE))
    assert place.gated()["verdict"] == "pass"
    assert place.run("promote", "default").exit_code == 0

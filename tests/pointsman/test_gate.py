"""`pointsman gate`, and what follows from a verdict: promotion, rollback, the list of versions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from features.encoder import Encoder
from offline_eval.gate.verdict import Settings as GateSettings
from offline_eval.log.writing import write_log
from offline_eval.registry import Registry
from pointsman.archiver import IN_FLIGHT_MS, archive_burst
from pointsman.cli import cli
from policy.config.schema import Config, GateConfig, PolicyConfig
from policy.config.toml import parse
from policy.objective import Weights
from policy.records import LoggedDecision, Outcome
from policy.values import models
from policy.values.snapshot import Header, pack
from serving.store.learning import LearnerStore
from serving.store.operations import OperatorStore
from tests.offline_eval.rows import row
from tests.servers import NEW_ARM, http_service, learn_all, override, settings_for, until
from tests.serving.test_challenger import UNIFORM, config, drive, shown

ENCODER = Encoder.default()
TEXT = config(UNIFORM, 'model = "linear"\n')
LARGE = {"small": 0.3, "large": 0.8}  # quality, where the challenger prefers what is better
SMALL = {"small": 0.8, "large": 0.3}


@dataclass(frozen=True)
class Place:
    """A service that has run, with version 1 as champion and 2 as its challenger; its log."""

    redis_url: str
    folder: Path
    catalog: str
    tells_mlflow: bool = False  # what takes the most of the gate's time

    @property
    def log(self) -> str:
        return str(self.folder / "log")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "POINTSMAN_REDIS_URL": self.redis_url,
            "POINTSMAN_CONFIG": str(self.folder / "pointsman.toml"),
            "POINTSMAN_LOG": self.log,
            "POINTSMAN_DATA": str(self.folder),
        }

    def run(self, *arguments: str) -> Result:
        if arguments[0] == "gate" and not self.tells_mlflow:
            arguments = (*arguments, "--no-mlflow")
        return CliRunner(env=self.environment).invoke(cli, arguments)

    def gated(self, *arguments: str) -> Any:
        done = self.run("gate", "default", *arguments, "--json")
        assert done.exit_code in (0, 3, 4), done.output
        return json.loads(done.stdout)

    def serve(self, text: str) -> Config:
        """Let a service start and stop with this file."""
        with http_service(settings_for(self.redis_url, self.folder, text)):
            return parse(text, "test")

    def register(
        self, config: PolicyConfig, encoder: Encoder = ENCODER, made_at_ms: int = 0
    ) -> str:
        with closing(LearnerStore(self.redis_url, "default")) as store:
            written = config.model_dump_json().encode()
            return store.register(
                config.fingerprint(encoder.fingerprint), written, encoder.to_bytes(), made_at_ms
            )


@pytest.fixture
def place(redis_url: str, tmp_path: Path, mlflow_uri: str) -> Place:
    with http_service(settings_for(redis_url, tmp_path, TEXT)):
        pass
    return Place(redis_url, tmp_path, parse(TEXT, "test").arms.revision)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def decided(
    place: Place,
    n: int,
    quality: Mapping[str, float],
    *,
    start: int = 0,
    age_ms: int = 0,
    pmf: tuple[float, float] = (0.5, 0.5),
    **changes: Any,
) -> list[LoggedDecision]:
    """n rounds a second apart, the last `age_ms` ago: the champion draws from `pmf`, and version 2
    in its shadow would take "large" nine times of ten."""
    rng = np.random.default_rng(start)
    newest = now_ms() - age_ms
    x = np.zeros(ENCODER.d, dtype=np.float32)
    x[0] = 1.0
    given = {
        "version": "1",
        "catalog": place.catalog,
        "encoder": ENCODER.fingerprint,
        "arms": ("small", "large"),
        "pmf": np.array(pmf),
        "predicted": np.tile([0.5, 500.0, 0.001], (2, 1)),
        "weights": Weights(0.8, 0.0, 0.2),
        "challenger": "2",
        "challenger_pmf": np.array([0.1, 0.9]),
        "x": x,
    }
    rows = []
    for i in range(start, start + n):
        drawn = int(rng.random() >= pmf[0])
        arm = ("small", "large")[drawn]
        good = float(rng.random() < quality[arm])
        outcome = Outcome(quality=good, latency_ms=500.0, cost_usd=0.001, closed=True)
        own = {
            "arm": arm,
            "propensity": pmf[drawn],
            "made_at_ms": newest - 1_000 * (start + n - 1 - i),
        }
        rows.append(row(f"d{i}", outcome, **{**given, **own, **changes}))
    return rows


def write(place: Place, rows: list[LoggedDecision]) -> None:
    assert write_log(rows, place.log) == len(rows)


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


@pytest.mark.parametrize(
    ("quality", "n", "verdict", "code"), [(SMALL, 400, "fail", 3), (LARGE, 10, "undecided", 4)]
)
def test_other_verdicts_have_exit_codes_of_their_own(
    place: Place, quality: dict[str, float], n: int, verdict: str, code: int
):
    """3 is fail, 4 undecided, for the shell as well; neither lets a version be promoted."""
    write(place, decided(place, n, quality))
    done = subprocess.run(
        [sys.executable, "-m", "pointsman", "gate", "default", "2"],
        env={**os.environ, **place.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, f"verdict: {verdict}" in done.stdout) == (code, True), done.stderr
    refused = place.run("promote", "default", "2")
    assert refused.exit_code == 1
    assert f"the gate's verdict on version 2 is {verdict!r}" in str(refused.exception)


def test_undecided_says_what_would_help(place: Place):
    """How many more rounds, and which share of the draw would shorten that."""
    write(place, decided(place, 45, {"small": 0.2, "large": 1.0}, pmf=(0.95, 0.05)))
    done = place.run("gate", "default")
    assert done.exit_code == 4, done.output
    assert "more rounds, or" in done.stdout
    assert "if the challenger were given 10% of the draw" in done.stdout
    assert done.stdout.endswith("to give it a share: pointsman challenge default 2 --share 0.1\n")


def test_json_is_one_object_without_infinities(place: Place):
    """What isn't finite is null."""
    write(place, decided(place, 5, LARGE))
    told = place.gated()
    assert (told["version"], told["champion"], told["rows"]) == ("2", "1", 5)
    assert {check["name"] for check in told["checks"]} >= {
        "encoder",
        "catalog",
        "task type unknown",
    }
    assert "Infinity" not in json.dumps(told)


def test_only_rows_since_arms_or_prices_changed_count(place: Place):
    """Each window is another look with the rest of one alpha, and the log must be of the arms and
    prices that are in force."""
    write(place, decided(place, 30, SMALL, age_ms=100_000))
    assert place.gated()["figures"]["alpha"] == pytest.approx(0.8 * 0.05)
    assert place.gated()["figures"]["alpha"] == pytest.approx(0.8 * 0.05)
    changed = place.serve(TEXT + NEW_ARM).arms.revision
    stale = place.gated()
    assert stale["verdict"] == "fail"
    assert "the catalog differs" in stale["reasons"][0]
    write(place, decided(place, 20, SMALL, start=30, catalog=changed))
    told = place.gated()
    assert told["rows"] == 20
    assert told["figures"]["alpha"] == pytest.approx(0.2 / 2 * 0.05)


def test_margins_and_alpha_come_from_the_configuration(place: Place):
    """They act at once and make no version; a command may only be stricter."""
    write(place, decided(place, 30, LARGE))
    place.serve(
        TEXT.replace(UNIFORM, f"{UNIFORM}gate = {{ alpha = 0.01, quality_margin = 0.3 }}\n")
    )
    told = place.gated()
    assert told["figures"]["alpha"] == pytest.approx(0.8 * 0.01)
    quality = next(check for check in told["checks"] if check["name"] == "quality")
    assert quality["figures"]["margin"] == 0.3
    done = place.run("gate", "default", "--alpha", "0.02")
    assert (done.exit_code, "can only be made stricter" in str(done.exception)) == (1, True)
    with redis.Redis.from_url(place.redis_url) as raw:
        assert raw.hlen("pm:{default}:versions") == 2


def test_the_gates_settings_go_by_its_own_names_and_defaults():
    """What the starter file shows is what the gate has."""
    shown = (
        (Path(__file__).parents[2] / "pointsman.toml")
        .read_text()
        .split("# [policies.default.gate]")[1]
        .split("\n\n")[0]
    )
    given = {
        name: float(value)
        for name, value in re.findall(r"^# (\w+) = ([\d.]+)", shown, re.MULTILINE)
    }
    assert given.keys() == GateConfig.model_fields.keys()
    ours = GateConfig(**{name: int(v) if name == "max_age_s" else v for name, v in given.items()})
    assert GateSettings(**ours.settings()) == GateSettings()


def test_an_old_log_promotes_nothing(place: Place):
    """Neither passes the gate, nor does an old pass promote."""
    write(place, decided(place, 400, LARGE, age_ms=3_600_000))
    assert place.gated()["verdict"] == "pass"
    place.serve(TEXT.replace(UNIFORM, f"{UNIFORM}gate = {{ max_age_s = 60 }}\n"))
    done = place.run("promote", "default")
    assert (done.exit_code, "days old, more than" in str(done.exception)) == (1, True)
    assert "the newest row is" in place.gated()["reasons"][0]


def test_a_version_that_never_ran_is_judged_by_its_snapshot(place: Place):
    """A policy that has learned nothing, on all rows of the champion."""
    write(place, decided(place, 400, LARGE))
    fixed = place.register(PolicyConfig(model="fixed", arm="large"))
    done = place.run("gate", "default", fixed)
    assert done.exit_code == 0, done.output
    assert "by its snapshot, which didn't run, on 400 rows" in done.stdout


def test_a_fitted_version_is_judged_on_rows_made_after_it(place: Place):
    """What it may have been trained on says nothing of it."""
    fitted = PolicyConfig(scale=0.7)
    rows = decided(place, 50, LARGE)
    version = place.register(fitted, made_at_ms=rows[29].decision.made_at_ms)
    model = models.new_model(fitted, ENCODER)
    assert model is not None
    header = Header("linear", version, ENCODER.fingerprint, "0-0", events=10)
    with closing(LearnerStore(place.redis_url, "default")) as store:
        view = pack(header, model.view().to_bytes())
        store.start(version, pack(header, model.to_bytes()), view)
    write(place, rows)
    assert place.gated(version)["rows"] == 20
    write(place, [])
    later = place.register(PolicyConfig(scale=0.8), made_at_ms=now_ms())
    with closing(LearnerStore(place.redis_url, "default")) as store:
        store.start(later, b"", pack(header, model.view().to_bytes()))
    done = place.run("gate", "default", later)
    assert (done.exit_code, "was decided after" in str(done.exception)) == (1, True)


@pytest.mark.parametrize(
    ("config", "encoder", "says"),
    [
        (PolicyConfig(scale=0.7), Encoder.default(d=48), "the policy's encoder is"),
        (PolicyConfig(model="rules"), ENCODER, "decides from more than a context"),
    ],
)
def test_what_the_log_cannot_tell_must_run_in_shadow(
    place: Place, config: PolicyConfig, encoder: Encoder, says: str
):
    """The error says so, and how; then it is judged by what it logged."""
    write(place, decided(place, 400, LARGE))
    version = place.register(config, encoder)
    done = place.run("gate", "default", version)
    assert done.exit_code == 1
    assert says in str(done.exception)
    assert f"`pointsman challenge default {version}`" in str(done.exception)
    assert place.run("challenge", "default", version, "--share", "0.1").exit_code == 0
    done = place.run("gate", "default")
    assert (done.exit_code, "ran in the shadow of none" in str(done.exception)) == (1, True)
    own = {} if encoder is ENCODER else {"challenger_encoder": encoder.fingerprint}
    write(place, decided(place, 400, LARGE, start=400, challenger=version, **own))
    told = place.gated()
    assert (told["version"], told["rows"], told["in_shadow"]) == (version, 400, True)
    assert told["verdict"] == "pass"


def test_a_challengers_other_encoder_is_noticed(place: Place):
    """The version that ran must be the one that is registered."""
    write(place, decided(place, 50, LARGE, challenger_encoder="another"))
    told = place.gated()
    assert told["verdict"] == "fail"
    assert "the encoder differs: another in the log" in told["reasons"][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gate", "nobody"), "there is no policy 'nobody' (known: default)"),
        (("promote", "nobody"), "there is no policy 'nobody' (known: default)"),
        (("rollback", "nobody"), "no policy 'nobody' is registered"),
        (("versions", "nobody"), "no policy 'nobody' is registered"),
        (("challenge", "nobody", "2"), "policy 'nobody' has no version '2'"),
        (("gate", "default", "9"), "policy 'default' has no version '9'"),
        (("promote", "default", "9"), "policy 'default' has no version '9'"),
        (("challenge", "default", "9"), "policy 'default' has no version '9'"),
        (("gate", "default", "1"), "version 1 is the champion"),
        (("promote", "default", "1"), "version 1 is the champion"),
        (("challenge", "default", "1"), "version 1 is the champion"),
        (("gate", "default", "2"), "there is no log at"),
        (("promote", "default", "2"), "version 2 has not been judged by the gate"),
        (("rollback", "default"), "no version to go back to from version 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_one_line(place: Place, arguments: tuple[str, ...], says: str):
    """And exit code 1; the command line prints no traceback for these."""
    done = place.run(*arguments)
    assert done.exit_code == 1
    told = f"{done.output}{done.exception}"
    assert says in told
    assert "\n" not in str(done.exception)


def test_an_override_needs_a_reason(place: Place):
    """It is recorded with who, why and when."""
    done = place.run("promote", "default", "2", "--override")
    assert (done.exit_code, "--override needs --reason" in done.output) == (2, True)
    assert place.run("promote", "default", "2", "--override", "--reason", "why not").exit_code == 0
    told = json.loads(place.run("versions", "--json").stdout)["policies"][0]["versions"][1]
    assert (told["role"], told["promoted"]["kind"]) == ("champion", "override")
    assert (told["promoted"]["why"], bool(told["promoted"]["who"])) == ("why not", True)


def test_a_log_without_the_policy_or_its_champion_is_told(place: Place):
    """Nothing to judge is an error, not a verdict."""
    write(place, decided(place, 5, LARGE, policy="other"))
    done = place.run("gate", "default")
    assert (done.exit_code, "has no row of policy 'default'" in str(done.exception)) == (1, True)
    write(place, decided(place, 5, LARGE, start=5, version="7"))
    done = place.run("gate", "default")
    assert done.exit_code == 1
    assert "version 1 is champion, but the 5 rows" in str(done.exception)
    assert "were decided by version 7" in str(done.exception)
    assert place.run("versions", "default").stdout.count("pass") == 0


def test_a_pass_against_another_champion_counts_for_nothing(place: Place):
    """The champion may have changed since."""
    write(place, decided(place, 400, LARGE))
    place.gated()
    third = place.register(PolicyConfig(scale=0.7))
    override(place.redis_url, third)
    done = place.run("promote", "default", "2")
    assert done.exit_code == 1
    assert "judged against version 1, but version 3 is champion" in str(done.exception)


def test_rows_of_other_versions_are_left_out(place: Place):
    """Also of those whose contexts another encoder made."""
    write(place, decided(place, 30, SMALL, age_ms=50_000, version="7", encoder="another"))
    write(place, decided(place, 20, LARGE, start=30, age_ms=20_000, challenger="5"))
    write(place, decided(place, 10, LARGE, start=50))
    assert place.gated()["rows"] == 10


def test_a_bad_log_is_refused_with_its_rows(place: Place):
    """What is wrong, and at which rows."""
    write(place, decided(place, 5, LARGE))
    write(place, decided(place, 1, LARGE, start=5, propensity=np.nan))
    done = place.run("gate", "default")
    assert done.exit_code == 1
    assert "propensities must be given: row 5 (decision d5) (of the 6 rows" in str(done.exception)
    with closing(OperatorStore(place.redis_url, "default")) as store:
        assert not store.audit(["gate"])


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


def archived(place: Place) -> None:
    """Archive all that was decided, once its reward window has passed."""
    time.sleep(1.1 + IN_FLIGHT_MS / 1_000)
    archive_burst(place.redis_url, place.log, {"default": 1_000})


def test_the_log_of_another_service_proves_nothing(place: Place):
    """Its versions have the same numbers, and were others."""
    with http_service(settings_for(place.redis_url, place.folder, TEXT)) as http:
        drive(http, range(20))
    archive_burst(place.redis_url, place.log, {"default": 0})
    assert "another service" not in str(place.run("gate", "default").exception)
    position = Path(place.log) / "policy=default" / "_position.json"
    position.write_text(re.sub('"origin": "[0-9a-f]+"', '"origin": "c0ffee"', position.read_text()))
    done = place.run("gate", "default")
    assert (done.exit_code, "belongs to another service" in str(done.exception)) == (1, True)


def test_an_mlflow_that_cannot_be_used_stops_no_verdict(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """It is recorded in Redis, and a warning says what MLflow wasn't told."""
    place = replace(place, tells_mlflow=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    write(place, decided(place, 400, LARGE))
    assert place.gated()["verdict"] == "pass"
    assert place.run("promote", "default").exit_code == 0

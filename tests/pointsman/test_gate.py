"""`pointsman gate`: whom it judges, on which rows, and what it says."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import redis

from features.encoder import Encoder
from offline_eval.gate.verdict import Settings as GateSettings
from pointsman.archiver import Window, archive_burst
from policy.config.gate import GateConfig
from policy.config.schema import PolicyConfig
from policy.stored import opened, sealed
from policy.values import models
from policy.values.snapshot import Header, State
from serving.store.learning import LearnerStore
from serving.store.operations import OperatorStore
from tests.pointsman.places import (
    ENCODER,
    LARGE,
    SMALL,
    TEXT,
    Place,
    decided,
    now_ms,
    served,
    write,
)
from tests.servers import NEW_ARM, http_service, main_of, settings_for
from tests.serving.challenging import UNIFORM, drive


@pytest.fixture
def place(redis_url: str, tmp_path: Path, mlflow_uri: str) -> Place:
    return served(redis_url, tmp_path)


@pytest.mark.parametrize(
    ("quality", "n", "verdict", "code"), [(SMALL, 400, "fail", 3), (LARGE, 10, "undecided", 4)]
)
def test_other_verdicts_have_exit_codes_of_their_own(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quality: dict[str, float],
    n: int,
    verdict: str,
    code: int,
):
    """3 is fail, 4 undecided, for the shell as well; neither lets a version be promoted."""
    write(place, decided(place, n, quality))
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    assert main_of("gate", "default", "2") == code
    assert f"verdict: {verdict}" in capsys.readouterr().out
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
        view = State(header, model.view().to_parts())
        store.start(version, State(header, model.to_parts()), view)
    write(place, rows)
    assert place.gated(version)["rows"] == 20
    write(place, [])
    later = place.register(PolicyConfig(scale=0.8), made_at_ms=now_ms())
    with closing(LearnerStore(place.redis_url, "default")) as store:
        store.start(later, None, view)
    done = place.run("gate", "default", later)
    assert (done.exit_code, "was decided after" in str(done.exception)) == (1, True)


@pytest.mark.parametrize(
    ("config", "encoder", "says"),
    [
        (PolicyConfig(scale=0.7), Encoder.default(d=56), "the policy's encoder is"),
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


def test_the_log_of_another_service_proves_nothing(place: Place):
    """Its versions have the same numbers, and were others."""
    with http_service(settings_for(place.redis_url, place.folder, TEXT)) as http:
        drive(http, range(20))
    archive_burst(place.redis_url, place.log, {"default": Window(0)})
    assert "another service" not in str(place.run("gate", "default").exception)
    position = Path(place.log) / "policy=default" / "_position.json"
    at = opened("position", position.read_bytes())
    position.write_bytes(sealed("position", {**at, "origin": "c0ffee"}))
    done = place.run("gate", "default")
    assert (done.exit_code, "belongs to another service" in str(done.exception)) == (1, True)

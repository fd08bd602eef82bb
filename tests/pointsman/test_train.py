"""`pointsman train`: a version that starts from what is known, beside a running service."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from offline_eval.log.reading import fingerprint, read_log
from offline_eval.log.writing import write_log
from offline_eval.registry import Registry
from pointsman.archiver import Window, archive_burst
from pointsman.commands import promote
from pointsman.commands.train import command
from pointsman.trying import outcomes as folders
from pointsman.trying.outcomes import OutcomeSet
from policy.arms.catalog import Catalog
from policy.config.toml import parse
from policy.records import LoggedDecision, Outcome
from policy.values.snapshot import unpack
from serving.store.keys import Roles
from serving.store.learning import LearnerStore
from tests.features.test_encoder import ENCODER, SUBJECTS
from tests.offline_eval.rows import row
from tests.servers import CONFIG, drive, learn_all, until

TASKS = {"cooking": ("small", "large"), "law": ("large", "small")}  # the better arm first


def battery(folder: Path, n: int = 120) -> Path:
    """n queries that `small` and `large` have answered, each well on its own subject."""
    rng = np.random.default_rng(0)
    names = [str(name) for name in rng.choice(list(TASKS), size=n)]
    texts = [" ".join(rng.choice(SUBJECTS[name].split(), size=8)) for name in names]
    arms = parse(CONFIG, "test").arms
    both = ("small", "large")
    quality = [[0.95 if TASKS[name][0] == arm else 0.2 for arm in both] for name in names]
    outcomes = OutcomeSet(
        name="battery",
        query_ids=tuple(map(str, range(n))),
        texts=tuple(texts),
        categories=tuple(names),
        catalog=Catalog((arms.arm("small"), arms.arm("large"))),
        quality=np.array(quality),
        cost_usd=np.full((n, 2), 1e-5),
        latency_ms=np.full((n, 2), 500.0),
    )
    folders.save(outcomes, folder)
    return folder


@pytest.fixture
def environment(
    http: httpx.Client, redis_url: str, mlflow_uri: str, tmp_path: Path
) -> dict[str, str]:
    """A service runs on this store, from the tests' configuration; MLflow is the test's own."""
    path = tmp_path / "pointsman.toml"
    if not path.exists():
        path.write_text(CONFIG)
    return {
        "POINTSMAN_REDIS_URL": redis_url,
        "POINTSMAN_CONFIG": str(path),
        "MLFLOW_TRACKING_URI": mlflow_uri,
    }


def run(environment: dict[str, str], *arguments: str) -> str:
    commands = {"train": command, "promote": promote.command}
    done = CliRunner(env=environment).invoke(commands[arguments[0]], arguments[1:])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_trained_version_is_right_from_its_first_decision(
    http: httpx.Client, environment: dict[str, str], tmp_path: Path
):
    """Registered, promoted and serving, without a restart and before any reward."""
    told = json.loads(run(environment, "train", str(battery(tmp_path / "set")), "--json"))
    assert told | {"policy": "default", "version": "2", "events": 240} == told
    run(environment, "promote", "default", "2", "--override", "--reason", "fitted on a battery")
    until(lambda: http.get("/policies/default").json()["champion"] == "2", "version 2 serves")
    for text, name in (("garlic onion butter pan oven", "cooking"), ("judge verdict jury", "law")):
        for hints in ({"task_type": name}, {}):  # the text alone tells it as well
            made = http.post("/route", json={"query": {"text": text}, "hints": hints}).json()
            best, other = TASKS[name]
            offered = {made["arm"]: made["propensity"]}
            offered |= {a["arm"]: a["propensity"] for a in made["alternatives"]}
            assert offered[best] > 0.9 > offered[other]


def test_training_twice_is_the_same_version(environment: dict[str, str], tmp_path: Path):
    """Equal outcomes make an equal start."""
    folder = str(battery(tmp_path / "set"))
    first, again = (json.loads(run(environment, "train", folder, "--json")) for _ in range(2))
    assert first == again


def test_a_trained_version_is_logged_in_mlflow(
    environment: dict[str, str], mlflow_uri: str, redis_url: str, tmp_path: Path
):
    """With all that it consists of; what was registered is what was logged."""
    path = str(tmp_path / "log")
    write_log([logged(i, ENCODER.fingerprint) for i in range(60)], path)
    told = json.loads(run(environment, "train", path, "--json"))
    (listed,) = Registry(mlflow_uri).versions("default")
    assert (listed.version, listed.run) == ("2", told["run"])
    found = Registry(mlflow_uri).load("default", "2")
    with closing(LearnerStore(redis_url, "default")) as store:
        assert (found.config, found.encoder) == store.version("2")
    assert found.catalog == parse(CONFIG, "test").arms.to_stored()
    assert found.log == fingerprint(read_log(path), path)
    assert found.snapshot is not None
    assert unpack(found.snapshot).header.events == 60


def test_a_version_that_cant_be_logged_is_registered_all_the_same(
    environment: dict[str, str], tmp_path: Path
):
    """The error says so, and training again logs it."""
    (tmp_path / "text").write_text("no database")
    elsewhere = {**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/text"}
    folder = str(battery(tmp_path / "set"))
    done = CliRunner(env=elsewhere).invoke(command, [folder])
    assert done.exit_code == 1
    assert "version 2 is registered, but not logged in MLflow" in str(done.exception)
    assert json.loads(run(environment, "train", folder, "--json"))["version"] == "2"


def test_an_old_log_is_a_start_too(environment: dict[str, str], tmp_path: Path):
    """Decisions with outcomes, as `import-log` writes them; another encoder's are refused."""
    for encoder, path in ((ENCODER.fingerprint, "log"), ("another", "other")):
        rows = [logged(i, encoder) for i in range(60)]
        write_log(rows, str(tmp_path / path))
    told = json.loads(run(environment, "train", str(tmp_path / "log"), "--json"))
    assert told | {"policy": "default", "version": "2", "events": 60} == told
    done = CliRunner(env=environment).invoke(command, [str(tmp_path / "other")])
    assert done.exit_code == 1
    assert "come from encoder another" in done.output


def logged(i: int, encoder: str) -> LoggedDecision:
    """A decision between the two arms of the battery, and its quality."""
    arm = ("small", "large")[i % 2]
    x = np.zeros(ENCODER.d, dtype=np.float32)
    x[0] = 1.0
    return row(
        f"d{i}",
        Outcome(quality=1.0 if arm == "small" else 0.0),
        encoder=encoder,
        arm=arm,
        arms=("large", "small"),
        pmf=np.array([0.5, 0.5]),
        predicted=np.full((2, 3), np.nan),
        propensity=0.5,
        x=x,
    )


def test_a_services_own_log_is_learned_as_live(
    http: httpx.Client, environment: dict[str, str], redis_url: str, tmp_path: Path
):
    """By default: as the champion learned it, up to where it is archived; the live learner goes on
    from there, and no outcome is lost or counted twice."""
    environment["POINTSMAN_DATA"] = str(tmp_path)
    windows = {"default": Window(3_600_000)}
    drive(http, 30)
    archive_burst(redis_url, str(tmp_path / "log"), windows)
    drive(http, 5)
    told = json.loads(run(environment, "train", "--json"))
    assert (told["policy"], told["version"], told["events"]) == ("default", "2", 30)
    run(environment, "promote", "default", "2", "--override", "--reason", "as good")
    learn_all(redis_url)
    archive_burst(redis_url, str(tmp_path / "log"), windows)
    drive(http, 5)
    learn_all(redis_url)
    with closing(LearnerStore(redis_url, "default")) as store:
        assert store.roles() == Roles("2", "1", 0.05)
        heads = [unpack(store.checkpoint(version) or b"").header for version in ("1", "2")]
    assert [head.events for head in heads] == [40, 40]
    assert heads[0].position == heads[1].position


def test_a_prefix_of_the_log_can_be_learned(
    http: httpx.Client, environment: dict[str, str], redis_url: str, tmp_path: Path
):
    """What came later is left to judge the version by."""
    drive(http, 7)
    time.sleep(0.02)  # what is in the same millisecond comes later, too
    drive(http, 1)
    middle_ms = time.time_ns() // 1_000_000 + 5
    time.sleep(0.02)
    drive(http, 4)
    path = str(tmp_path / "log")
    archive_burst(redis_url, path, {"default": Window(3_600_000)})
    iso = datetime.fromtimestamp(middle_ms / 1_000, UTC).isoformat()
    for until_when in (str(middle_ms), iso):
        told = json.loads(run(environment, "train", path, "--until", until_when, "--json"))
        assert (told["version"], told["events"]) == ("2", 8)
    told = json.loads(run(environment, "train", path, "--first", "0.6", "--json"))
    assert told["events"] == 7  # of 12 decisions, those before the eighth
    for arguments, code in ((["--until", "1000000000"], 1), (["--until", "soon"], 2)):
        done = CliRunner(env=environment).invoke(command, [path, *arguments])
        assert done.exit_code == code


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--policy", "none"], "no policy 'none'"), ([], "there is no log")],
)
def test_what_cant_be_fitted_is_one_line(
    environment: dict[str, str], tmp_path: Path, arguments: list[str], says: str
):
    """And exit code 1."""
    (tmp_path / "empty").mkdir()
    done = CliRunner(env=environment).invoke(command, [str(tmp_path / "empty"), *arguments])
    assert done.exit_code == 1
    assert says in str(done.output) + str(done.exception)

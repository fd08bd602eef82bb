"""What is logged is found again, once, and another try mends what a crash has left."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from features.encoder import Encoder
from offline_eval import registry
from offline_eval.estimating.intervals import Interval
from offline_eval.gate.judging import Case, judge
from offline_eval.log.reading import fingerprint
from offline_eval.registry import Estimated, Evaluation, Registry, VersionRecord
from policy.config.schema import PolicyConfig
from policy.config.versions import write_config
from policy.values.snapshot import Header, State
from tests.offline_eval.simulated import SCALES, logged
from tests.policy.linear_model import plain

NOW_MS = 1_800_000_000_000
CONFIG = write_config(PolicyConfig())
ENCODER = Encoder.default(d_text=0)
SNAPSHOT = State(Header("linear", "3", ENCODER.fingerprint, "0-0", 0), {}).pack()


def record(**changes: object) -> VersionRecord:
    given = VersionRecord(
        policy="default",
        version="3",
        config=CONFIG,
        encoder=ENCODER.to_bytes(),
        catalog=plain(["a"]).to_stored(),
        snapshot=SNAPSHOT,
        log=fingerprint(logged(20), "data/log"),
        params={"at_most": "500"},
        metrics={"events": 20.0},
    )
    return replace(given, **changes)


def evaluation(**changes: object) -> Evaluation:
    given = Evaluation(
        at_ms=NOW_MS,
        champion="1",
        verdict="undecided",
        summary="**Undecided**",
        metrics={"difference": 0.1, "difference_low": -0.1, "difference_high": 0.3},
        log=fingerprint(logged(30), "data/log"),
        files={"gate.md": b"# Gate", "plots/value.png": b"PNG"},
    )
    return replace(given, **changes)


@pytest.fixture
def store(mlflow_uri: str) -> Registry:
    return Registry(mlflow_uri)


@pytest.fixture
def client(mlflow_uri: str) -> MlflowClient:
    """To look at what is really there."""
    return MlflowClient(mlflow_uri, mlflow_uri)


def runs(client: MlflowClient) -> list[object]:
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments))


def test_a_version_is_found_again_as_it_was_logged(store: Registry):
    """By its number."""
    store.log_version(record())
    assert store.load("default", "3") == record()


def test_what_is_optional_may_be_missing(store: Registry):
    """A version of a configuration alone has neither snapshot nor log."""
    bare = record(snapshot=None, log=None, params={}, metrics={})
    store.log_version(bare)
    assert store.load("default", "3") == bare


def test_a_version_is_one_run_and_one_model_version(store: Registry, client: MlflowClient):
    """However often it is logged."""
    assert store.log_version(record()) == store.log_version(record())
    assert len(runs(client)) == 1
    (found,) = client.search_model_versions("name = 'default'")
    assert found.tags["pointsman_version"] == "3"
    assert found.source.endswith("/artifacts/version")
    assert [v.version for v in store.versions("default")] == ["3"]


def test_mlflows_page_shows_what_made_it(store: Registry, client: MlflowClient):
    """The configuration as parameters, the log as a dataset, a name a person can read."""
    run = client.get_run(store.log_version(record()))
    assert client.get_experiment(run.info.experiment_id).name == "pointsman/default"
    assert run.info.run_name == "version 3"
    assert run.info.status == "FINISHED"
    assert run.data.params["model"] == "linear"
    assert run.data.params["objective.scale"] == "linear"
    assert run.data.metrics == {"events": 20.0}
    (dataset,) = [given.dataset for given in run.inputs.dataset_inputs]
    assert dataset.digest == record().log.digest
    assert json.loads(dataset.profile)["rows"] == 20


def test_the_same_number_of_another_configuration_is_another_version(store: Registry):
    """As after Redis was emptied: the newest has the number."""
    store.log_version(record())
    other = Encoder.default(d_text=1).to_bytes()
    store.log_version(record(encoder=other))
    assert [v.version for v in store.versions("default")] == ["3", "3"]
    assert store.load("default", "3").encoder == other


@pytest.mark.parametrize(
    "name", ["config.json", "encoder.bin", "catalog.json", "snapshot.bin", "log.json"]
)
def test_a_file_that_was_changed_is_refused(store: Registry, client: MlflowClient, name: str):
    """Whoever may write to the store's folder: in one line that names the file."""
    run = client.get_run(store.log_version(record()))
    file = Path(run.info.artifact_uri.removeprefix("file://"), "version", name)
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(bytes(changed))
    with pytest.raises(ValueError, match=f"^{name} of version 3 of policy 'default' in MLflow: "):
        store.load("default", "3")


STEPS = ("create_run", "log_artifacts", "log_batch", "create_model_version")


@pytest.fixture(scope="module")
def crashed(new_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store for each step, after which a process died for real. Each is a fork of
    one process, which loads MLflow once."""
    folder = tmp_path_factory.mktemp("crashed")
    for step in STEPS:
        (folder / step).mkdir()
        shutil.copy(new_mlflow, folder / step)
    code = (
        "import os, mlflow\n"
        "from tests.offline_eval.test_registry import record\n"
        "from offline_eval.registry import Registry\n"
        f"for step in {STEPS!r}:\n"
        "    if not (child := os.fork()):\n"
        "        break\n"
        "    assert os.waitpid(child, 0)[1] == 9 << 8\n"
        "else:\n"
        "    os._exit(0)\n"
        "real = getattr(mlflow.MlflowClient, step)\n"
        "def dies(*args, **more):\n"
        "    real(*args, **more)\n"
        "    os._exit(9)\n"
        "setattr(mlflow.MlflowClient, step, dies)\n"
        f"store = Registry(f'sqlite:///{folder}/{{step}}/mlflow.db')\n"
        "store.log_version(record(params={'at_most': '1'}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return folder


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_in_the_middle_breaks_nothing(crashed: Path, step: str):
    """The next try makes one whole version of what is there."""
    uri = f"sqlite:///{crashed}/{step}/mlflow.db"
    store = Registry(uri)
    store.log_version(record())
    assert len(store.versions("default")) == 1
    assert len(runs(MlflowClient(uri, uri))) == 1
    found = store.load("default", "3")
    assert replace(found, params=record().params) == record()


def test_an_evaluation_adds_to_its_versions_run(store: Registry, client: MlflowClient):
    """Figures, files, the range that was judged, and the verdict wherever versions are listed."""
    run = store.log_version(record())
    assert store.log_evaluation("default", "3", evaluation()) == run
    there = client.get_run(run)
    assert there.data.metrics["difference_low"] == -0.1
    assert there.data.tags["verdict"] == "undecided"
    assert there.data.tags["mlflow.note.content"] == "**Undecided**"
    assert len(there.inputs.dataset_inputs) == 2
    (folder,) = client.list_artifacts(run, "gate")
    assert folder.path == "gate/2027-01-15T080000.000Z"
    files = {f.path for f in client.list_artifacts(run, folder.path)}
    assert files == {f"{folder.path}/gate.md", f"{folder.path}/plots"}
    (listed,) = store.versions("default")
    assert (listed.verdict, listed.champion, listed.run) == ("undecided", "1", run)


def test_the_newest_evaluation_is_what_is_shown(store: Registry, client: MlflowClient):
    """And those before it are a line; the same one twice is one point."""
    run = store.log_version(record())
    for at_ms, value in ((NOW_MS, 0.1), (NOW_MS, 0.1), (NOW_MS + 60_000, 0.2)):
        store.log_evaluation("default", "3", evaluation(at_ms=at_ms, metrics={"difference": value}))
    assert client.get_run(run).data.metrics["difference"] == 0.2
    history = client.get_metric_history(run, "difference")
    assert [point.value for point in history] == [0.1, 0.2]
    assert history[1].step - history[0].step == 60
    store.log_evaluation("default", "3", evaluation(at_ms=NOW_MS + 90_000, verdict="pass"))
    assert store.versions("default")[0].verdict == "pass"


def test_an_evaluation_without_a_gate_gives_no_verdict(store: Registry, client: MlflowClient):
    """What `evaluate` finds is no reason to promote."""
    run = store.log_version(record())
    store.log_evaluation("default", "3", evaluation(verdict=None))
    assert "verdict" not in client.get_run(run).data.tags
    assert [f.path for f in client.list_artifacts(run)] == ["evaluation", "version"]


def test_figures_that_are_no_numbers_are_left_out(store: Registry, client: MlflowClient):
    """MLflow would show infinity as 1.8e308; and it refuses signs that task types may have."""
    run = store.log_version(record(metrics={}))
    figures = {"low": float("-inf"), "nan": float("nan"), "task type C++//../é/harm": 0.5}
    store.log_evaluation("default", "3", evaluation(metrics=figures))
    assert client.get_run(run).data.metrics == {"task type C__/é/harm": 0.5}


def test_aliases_say_who_has_which_role(store: Registry):
    """A version that was never logged takes its alias from the one before."""
    for version in ("1", "2", "3"):
        store.log_version(record(version=version))
    store.alias("default", champion="1", challenger="2", previous=None)
    assert store.load("default", "champion").version == "1"
    store.alias("default", champion="3", challenger="1", previous="1")
    roles = {v.version: v.aliases for v in store.versions("default")}
    assert roles == {"1": ("challenger", "previous"), "2": (), "3": ("champion",)}
    store.alias("default", champion="9", challenger=None, previous="1")
    assert [v.aliases for v in store.versions("default")] == [("previous",), (), ()]
    with pytest.raises(LookupError, match="no version 'champion'"):
        store.load("default", "champion")


def test_aliases_of_an_unknown_policy_are_no_error(store: Registry):
    """A promotion may come before anything was logged."""
    store.alias("default", champion="1", challenger=None, previous=None)
    assert store.versions("default") == []


@pytest.mark.parametrize("policy", ["a/b", "a:b", " ", "it's", "ümlaut", "100%", "x" * 200, "*"])
def test_a_policy_may_have_any_name(store: Registry, policy: str):
    """Names come from foreign logs as well, MLflow refuses some."""
    for version in ("1", "2"):
        store.log_version(record(policy=policy, version=version))
    store.log_evaluation(policy, "2", evaluation())
    store.alias(policy, champion="2", challenger="1", previous=None)
    assert store.load(policy, "champion") == record(
        policy=policy,
        version="2",
        metrics={**record().metrics, **evaluation().metrics},
    )


def test_policies_are_kept_apart(store: Registry):
    """Each has its own model and its own versions."""
    store.log_version(record())
    store.log_version(record(policy="other", version="1"))
    assert [v.version for v in store.versions("other")] == ["1"]
    with pytest.raises(LookupError, match="policy 'other' has no version '3'"):
        store.log_evaluation("other", "3", evaluation())


def test_a_file_stays_in_its_folder(store: Registry):
    """A name that leads elsewhere is refused."""
    store.log_version(record())
    for name in ("../secret", "/etc/passwd", ""):
        with pytest.raises(ValueError, match="within its folder"):
            store.log_evaluation("default", "3", evaluation(files={name: b""}))


def test_metrics_of_a_verdict_have_their_intervals():
    """Named so that MLflow's page groups them by check."""
    data = logged(400)
    verdict = judge(Case(data, "1", "2", SCALES), int(data.made_at_ms[-1]))
    estimates = [
        Estimated("2", "quality", "dr", Interval(0.7, 0.6, 0.8)),
        Estimated("1", "quality", "dr", Interval(0.5, 0.4, 0.6)),
    ]
    found = registry.gate_metrics(verdict, "2", estimates)
    assert found["difference_low"] < found["difference"] < found["difference_high"]
    assert {"overlap/effective_rows", "overlap/max_weight", "overlap/unsupported"} <= found.keys()
    assert {"propensities/log_e", "arrival/missing", "quality/harm"} <= found.keys()
    assert (found["dr/quality_low"], found["dr/quality"]) == (0.6, 0.7)
    assert found["champion/dr/quality_high"] == 0.6


def test_the_store_is_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """MLflow's own variable comes first."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert registry.default_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    assert registry.default_uri(tmp_path) == "http://mlflow.example"


def test_a_store_that_cant_be_used_is_one_line(tmp_path: Path):
    """At once, and without the password that its address may hold."""
    (tmp_path / "text").write_text("no database, just text")
    with pytest.raises(RuntimeError, match="no SQLite database"):
        Registry(f"sqlite:///{tmp_path}/text")
    with pytest.raises(RuntimeError, match=r"Not a directory|File exists"):
        Registry(f"sqlite:///{tmp_path}/text/mlflow.db")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and nobody listens
        far = Registry(f"http://me:secret@127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(RuntimeError) as refused:
            far.log_version(record())
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def loaded(uri: str, call: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, to which MLflow is new; it prints what telemetry was told."""
    code = (
        "import logging, os, sys; logging.basicConfig(level=logging.INFO)\n"
        "from offline_eval.registry import Registry\n"
        "assert 'mlflow' not in sys.modules\n"
        f"Registry({uri!r}){call}\n"
        "print(os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])\n"
    )
    unset = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_a_new_store_makes_no_noise(tmp_path: Path):
    """No lines about tables, no warnings."""
    done = loaded(f"sqlite:///{tmp_path}/new/m.db", ".versions('default')")
    assert done.stderr == ""


@pytest.mark.slow
def test_telemetry_is_off_unless_the_user_has_set_it(mlflow_uri: str):
    """MLflow reads it when it is loaded, which is when a store is opened."""
    assert loaded(mlflow_uri, "").stdout.split() == ["true", "true"]
    assert loaded(mlflow_uri, "", DO_NOT_TRACK="0").stdout.split() == ["true", "0"]

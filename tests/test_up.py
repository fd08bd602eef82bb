"""`pointsman up` as an operator meets it: real processes, kill -9, the same data folder again."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from pointsman.commands import promote, rollback
from tests.servers import CONFIG, alive, main_of, offspring, ready, running_up, until

QUERY = {"query": {"text": "hello"}}


@dataclass
class Place:
    """A running service and the variables with which commands find it."""

    http: httpx.Client
    environment: dict[str, str]

    def learns(self, timeout_s: float) -> None:
        """A decision and its reward are learned from in time."""
        before = self.events()
        made = self.http.post("/route", json=QUERY).json()
        self.http.post("/reward", json={"decision_id": made["decision_id"], "quality": 1.0})
        until(lambda: self.events() == before + 1, "it is learned", timeout_s)

    def events(self) -> int:
        return int(self.http.get("/policies/default").json()["events"])

    def decisions(self) -> float:
        """How many there were, of all processes."""
        total = 'pointsman_decisions_total{arm="'
        rows = self.http.get("/metrics").text.splitlines()
        return sum(float(row.split()[-1]) for row in rows if row.startswith(total))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One service, of two processes, with a challenger."""
    folder = tmp_path_factory.mktemp("up")
    text = CONFIG + '[policies.default.challenger]\nmodel = "uniform"\n'
    with running_up(folder, text, POINTSMAN_WORKERS="2") as (_, http):
        yield Place(
            http,
            {
                "POINTSMAN_DATA": str(folder / "data"),
                "POINTSMAN_CONFIG": str(folder / "pointsman.toml"),
            },
        )


def test_up_routes_and_learns_within_two_seconds(place: Place):
    """One command: route, reward, and the policy has learned."""
    place.learns(2.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_after_kill_9_of_everything_all_of_it_is_there(tmp_path: Path):
    """The same data folder again: decisions, outcomes and what was learned."""
    with running_up(tmp_path, CONFIG, POINTSMAN_FSYNC="always") as (process, http):
        ids = [http.post("/route", json=QUERY).json()["decision_id"] for _ in range(20)]
        for decision_id in ids:
            http.post("/reward", json={"decision_id": decision_id, "quality": 0.5})
        pids = [process.pid, *offspring(process.pid)]
        assert len(pids) == 6  # up, the embedded server, learner, archiver, watch, one serving one
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, pids)), "all are gone")
    with running_up(tmp_path, CONFIG) as (_, http):
        for decision_id in ids:
            assert http.get(f"/decisions/{decision_id}").json()["outcome"]["quality"] == 0.5
        until(lambda: http.get("/policies/default").json()["events"] == 20, "all 20 are learned")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_that_dies_is_started_again_and_none_outlives_a_stop(tmp_path: Path):
    """The service outlives any of its processes, and none of them outlives it."""
    with running_up(tmp_path, CONFIG) as (process, http):
        for pid in offspring(process.pid):
            os.kill(pid, signal.SIGKILL)
            until(lambda: ready(http), "it is ready again", 30.0)
        Place(http, {}).learns(10.0)
        pids = offspring(process.pid)
    assert process.returncode == 0
    until(lambda: not any(map(alive, pids)), "all children are gone")


def test_several_workers_share_one_port_and_one_log(place: Place):
    """Decisions of any process are found through any other."""
    before = place.decisions()
    for _ in range(20):
        with httpx.Client(base_url=place.http.base_url) as client:  # a connection of its own
            made = client.post("/route", json=QUERY).json()
            found = client.get(f"/decisions/{made['decision_id']}")
            assert found.status_code == 200
    assert place.decisions() == before + 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_any_worker_counts_for_all_and_a_death_lowers_no_counter(place: Place):
    """Counters are sums, over those that have ended too; gauges are of the living."""
    for _ in range(20):
        with httpx.Client(base_url=place.http.base_url) as client:  # met by either worker
            client.post("/route", json=QUERY)
    before = place.decisions()
    (figures,) = (Path(place.environment["POINTSMAN_DATA"]) / "metrics").iterdir()
    pids = {int(path.stem.split("_")[-1]) for path in figures.glob("gauge_livesum_*.db")}
    assert len(pids) == 2
    os.kill(min(pids), signal.SIGKILL)
    gone = figures / f"gauge_livesum_{min(pids)}.db"
    until(lambda: not gone.exists(), "what it had under way is forgotten")
    for _ in range(6):
        with httpx.Client(base_url=place.http.base_url) as client:
            assert Place(client, {}).decisions() == before


def test_every_process_says_what_it_says_in_json_lines(place: Place):
    """And what it concerns; nothing else is written there."""
    path = Path(place.environment["POINTSMAN_DATA"]).parent / "up.log"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    fields = {"time", "level", "process", "pid", "logger", "message"}
    assert all(fields <= line.keys() for line in lines)
    assert {"up", "serving", "learner"} <= {line["process"] for line in lines}
    learner = next(line for line in lines if line["process"] == "learner")
    assert learner["policy"] == "default"
    assert learner["message"].startswith("policy default: learning version")


def test_a_service_that_is_well_fires_no_alert(place: Place):
    """By what its /metrics shows, before and after traffic; a busy machine may be slow."""
    pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    from tests.serving.observing import promql  # noqa: PLC0415

    def scrape() -> promql.Scrape:
        return promql.Scrape.of(time.time(), place.http.get("/metrics").text)

    scrapes = [scrape()]
    place.learns(10.0)
    scrapes.append(scrape())
    assert promql.firing(scrapes, time.time()) <= {"PointsmanSlow"}


class Callers:
    """Threads that route all the time, each over connections of its own; what they were told."""

    def __init__(self, url: str, threads: int) -> None:
        self.answers: list[tuple[float, float, int, str]] = []  # asked, answered, status, version
        self._url = url
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20.0)

    def _call(self) -> None:
        while not self._ended.is_set():
            with httpx.Client(base_url=self._url, timeout=10.0) as http:  # met by either worker
                for _ in range(10):
                    asked = time.monotonic()
                    answer = http.post("/route", json=QUERY)
                    version = answer.json().get("version", answer.text)
                    self.answers.append((asked, time.monotonic(), answer.status_code, version))

    def settled_s(self, since: float, until: float, version: str) -> float:
        """How long after `since` an answer of another version was still given, up to `until`."""
        late = [at for _, at, _, told in self.answers if since < at < until and told != version]
        return max(late, default=since) - since


@pytest.mark.usefixtures("mlflow_uri")  # loads MLflow, which would take its time from the callers
def test_promotion_and_rollback_switch_within_two_seconds_without_a_failed_request(place: Place):
    """While several threads route through two processes: each answer names one version, and all
    are of the new one at the latest two seconds after."""
    override = ["default", "2", "--override", "--reason", "tests say so"]
    switches = []
    with Callers(str(place.http.base_url), 4) as callers:
        for command, arguments in ((promote.command, override), (rollback.command, ["default"])):
            time.sleep(1.0)
            switches.append(time.monotonic())
            done = CliRunner(env=place.environment).invoke(command, arguments)
            assert done.exit_code == 0, done.output
            time.sleep(2.5)
    assert {status for *_, status, _ in callers.answers} == {200}
    assert {version for *_, version in callers.answers} == {"1", "2"}
    promoted, rolled_back = switches
    assert callers.settled_s(promoted, rolled_back, "2") < 2.0
    assert callers.settled_s(rolled_back, math.inf, "1") < 2.0


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["up", "--config", "nowhere.toml"], {}, "nowhere.toml: can't be read"),
        (["up", "--port", "70000"], {}, "POINTSMAN_PORT"),
        (["up", "--config", "unknown-key.toml"], {}, "colour: unknown key"),
        (["serve"], {}, "POINTSMAN_REDIS_URL"),
        (["up", "--port", "0"], {"POINTSMAN_REDIS_URL": "foo"}, "POINTSMAN_REDIS_URL"),
        (["up", "--port", "0"], {"POINTSMAN_REDIS_URL": "redis://127.0.0.1:1"}, "no Redis answers"),
        (["up"], {"POINTSMAN_WORKERS": "many"}, "POINTSMAN_WORKERS"),
    ],
)
def test_a_wrong_setting_is_one_line_and_a_non_zero_exit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    expected: str,
):
    """No traceback reaches an operator."""
    (tmp_path / "pointsman.toml").write_text(CONFIG)
    (tmp_path / "unknown-key.toml").write_text(CONFIG + "colour = 'red'\n")
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main_of(*arguments) in (1, 2)
    assert expected in capsys.readouterr().err


def test_the_module_is_the_command(tmp_path: Path):
    """`python -m pointsman` ends as the command does."""
    done = subprocess.run(
        [sys.executable, "-m", "pointsman", "up", "--config", "nowhere.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere.toml: can't be read" in done.stderr
    assert done.stderr.count("\n") == 1

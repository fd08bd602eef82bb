"""`pointsman doctor` on a running service, on none, and on files and folders that are wrong."""

from __future__ import annotations

import datetime
import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from pointsman.commands.doctor import command
from pointsman.doctor import configuration, disk
from serving.settings import Settings
from serving.store.archiving import ArchiverStore
from serving.store.learning import LearnerStore
from tests.servers import CONFIG, drive, http_service, settings_for

TODAY = datetime.date(2026, 1, 31)


def findings(folder: Path, *arguments: str, **variables: str) -> tuple[int, list[dict[str, str]]]:
    environment = {
        "POINTSMAN_DATA": str(folder / "data"),
        "POINTSMAN_CONFIG": str(folder / "pointsman.toml"),
        "POINTSMAN_REDIS_URL": "",
        **variables,
    }
    done = CliRunner(env=environment).invoke(command, ["--json", *arguments])
    return done.exit_code, json.loads(done.stdout)["findings"]


def test_a_service_that_runs_has_no_fault(settings: Settings, tmp_path: Path):
    """Exit code 0; warnings alone are no failure."""
    url = settings.redis_url or ""
    with (
        http_service(settings) as http,
        closing(LearnerStore(url, "default")) as learner,
        closing(ArchiverStore(url, "default")) as archiver,
    ):
        drive(http, 3)
        learner.acquire()
        archiver.acquire()
        place = {"POINTSMAN_REDIS_URL": url, "POINTSMAN_LOG": str(tmp_path / "log")}
        code, found = findings(tmp_path, POINTSMAN_PROT="80", POINTSMAN_API_KEY="pm_x", **place)
    assert code == 0, found
    assert [f["check"] for f in found if f["level"] == "ok"] == [
        "configuration",
        "disk",
        "redis",
        "persistence",
        "memory",
        "clock",
        "keys",
        "stored",
        "learner",
        "archiver",
        "mlflow",
    ]
    warned = {f["check"]: f["what"] for f in found if f["level"] == "warning"}
    assert warned["environment"] == "POINTSMAN_PROT is set and is no setting"
    assert "over 90 days ago: small, large, embedder" in warned["prices"]


def test_where_no_service_runs_there_is_a_fault(tmp_path: Path):
    """Exit code 1, and a line for a person that says what to do."""
    (tmp_path / "pointsman.toml").write_text(CONFIG)
    code, found = findings(tmp_path)
    assert code == 1
    (fault,) = (f for f in found if f["level"] == "fault")
    assert "no service runs on" in fault["what"]
    environment = {
        "POINTSMAN_DATA": str(tmp_path / "data"),
        "POINTSMAN_CONFIG": str(tmp_path / "pointsman.toml"),
    }
    text = CliRunner(env=environment).invoke(command).output
    assert "FAULT   redis: no service runs on" in text
    assert "-> start `pointsman up`" in text


def test_each_fault_of_a_configuration_is_one_finding(tmp_path: Path):
    """And all else is looked at nevertheless."""
    (tmp_path / "pointsman.toml").write_text(CONFIG + "colour = 'red'\nfloor = 2\n")
    code, found = findings(tmp_path)
    faults = [f["what"] for f in found if f["check"] == "configuration"]
    assert code == 1
    assert len(faults) == 2
    assert any("colour: unknown key" in fault for fault in faults)
    assert "disk" in {f["check"] for f in found}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("prices_checked = 2026-01-01\n", "nobody has said when prices were checked: small"),
        ('prices_source = "made up for tests"\n', "nobody has said where prices are from: small"),
    ],
)
def test_prices_without_date_or_source_are_named(tmp_path: Path, line: str, says: str):
    """By arm; a service runs with them all the same."""
    text = CONFIG.replace(line, "", 1)
    config, _ = configuration.read(settings_for("unused", tmp_path, text))
    assert config is not None
    (finding,) = configuration.prices(config.arms.arms, TODAY)
    assert (finding.level, finding.what) == ("warning", says)


def test_prices_of_this_quarter_are_fine(tmp_path: Path):
    """And those of an earlier one are old."""
    config, _ = configuration.read(settings_for("unused", tmp_path))
    assert config is not None
    assert configuration.prices(config.arms.arms, TODAY)[0].level == "ok"
    later = configuration.prices(config.arms.arms, TODAY + datetime.timedelta(days=90))
    assert [f.level for f in later] == ["warning"]


def test_a_disk_that_fills_is_told(tmp_path: Path):
    """Before nothing can be acknowledged any more; a folder that isn't there yet is where its
    parent is."""
    where = {"data": tmp_path / "not" / "yet"}
    assert [f.level for f in disk.checked(where, 0, 0)] == ["ok"]
    assert [f.level for f in disk.checked(where, 2**62, 0)] == ["warning"]
    assert [f.level for f in disk.checked(where, 2**62, 2**62)] == ["fault"]


def test_a_store_that_others_may_read_is_told(tmp_path: Path):
    """As it is where somebody has made the folder before the server did."""
    (tmp_path / "valkey").mkdir(0o700)
    assert [f.level for f in disk.checked({"data": tmp_path}, 0, 0)] == ["ok"]
    (tmp_path / "valkey").chmod(0o755)
    (finding,) = disk.checked({"data": tmp_path}, 0, 0)
    assert (finding.level, finding.do) == ("warning", f"chmod 700 {tmp_path}/valkey")


def test_only_what_lies_on_this_host_is_looked_for(tmp_path: Path):
    """A log in a bucket and a server of MLflow's have their own disks."""
    chosen = settings_for("unused", tmp_path, log="s3://bucket/log")
    assert set(disk.places(chosen, "http://mlflow:5000")) == {"data"}
    assert set(disk.places(chosen, f"sqlite:///{tmp_path}/m/mlflow.db")) == {"data", "MLflow"}

"""`pointsman backup` and `restore` of a whole service under load."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from offline_eval.log import archive
from pointsman.cli import cli
from serving.processes.embedded import FOLDER, Embedded
from serving.store.learning import LearnerStore
from tests.servers import CONFIG, assert_same_state, drive, fold_again, running_up, until


def pointsman(folder: Path, *arguments: str) -> dict[str, object]:
    environment = {
        "POINTSMAN_DATA": str(folder / "data"),
        "POINTSMAN_CONFIG": str(folder / "pointsman.toml"),
        "MLFLOW_TRACKING_URI": "",
    }
    done = CliRunner(env=environment).invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.mark.slow
def test_a_service_under_load_is_put_away_and_goes_on(tmp_path: Path):
    """What was acknowledged before is in the backup; restored, each decision comes to the log once,
    and what was learned is the fold of that log."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    quick = {"POINTSMAN_ARCHIVE_INTERVAL_S": "0.2", "POINTSMAN_PUBLISH_INTERVAL_S": "0.05"}
    with running_up(one, CONFIG, **quick) as (_, http):
        acknowledged = drive(http, 200)
        ended = threading.Event()

        def call() -> None:
            while not ended.is_set():
                drive(http, 5)

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        try:
            made = pointsman(one, "backup", str(tmp_path / "backup"), "--with-log")
        finally:
            ended.set()
            for caller in callers:
                caller.join()
    assert int(str(made["keys"])) > 200
    pointsman(other, "restore", str(tmp_path / "backup"))
    with running_up(other, (other / "pointsman.toml").read_text(), **quick) as (_, http):
        assert all(
            http.get(f"/decisions/{one}").json()["outcome"]["quality"] is not None
            for one in acknowledged
        )
        acknowledged += drive(http, 50)
        events = http.get("/policies/default").json()["events"]
        until(lambda: http.get("/policies/default").json()["events"] > events, "it learns", 30.0)
    log = str(other / "data" / "log")
    rows = [row["decision_id"] for table in archive.tables(log) for row in table.to_pylist()]
    assert len(rows) == len(set(rows))
    assert set(acknowledged) <= set(rows)
    server = Embedded(other / "data" / FOLDER, fsync="everysec", max_memory_mb=256)
    server.start()
    try:
        with closing(LearnerStore(server.url, "default")) as store:
            assert_same_state(
                store.checkpoint("1"), fold_again(store, archive.events(log, "default"))
            )
    finally:
        server.stop()

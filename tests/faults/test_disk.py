"""A full disk, as a limit on the size of files (nobody needs to be root): what can't be written is
said, and written once there is room."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offline_eval.log import archive
from offline_eval.registry import Registry
from tests.faults import places
from tests.faults.conftest import Recovered
from tests.faults.places import PATIENT, behind_proxy, disk_full
from tests.faults.test_several import said
from tests.pointsman.places import LARGE, decided, served, write
from tests.servers import until

pytestmark = pytest.mark.faults


def test_the_log_can_not_be_written(tmp_path: Path, recovered: Recovered):
    """Callers notice nothing; the streams keep what isn't archived."""
    with behind_proxy(tmp_path, **PATIENT) as place:
        with place.traffic() as traffic:
            traffic.reach(200)
            archiver = places.found("archiver", place.process.pid)
            recovery = place.recovery(traffic)
            # Room for some more lines of its messages, but for no file of rows.
            with disk_full(archiver, (tmp_path / "up.log").stat().st_size + 2_000):
                until(lambda: said(tmp_path, "the log can't be written"), "it says so")
                at = archive.position(place.log, "default")
                traffic.reach(traffic.ledger.acknowledged + 300)
                assert archive.position(place.log, "default") == at
            recovery.restart()
            recovered(recovery.took())
            assert places.found("archiver", place.process.pid) == archiver
        place.verify(traffic)
    assert traffic.ledger.answers.keys() == {200}


def test_the_append_only_file_can_not_be_written(tmp_path: Path, recovered: Recovered):
    """Redis takes no more writes, and callers are refused; all that was acknowledged is there after
    a kill -9."""
    with behind_proxy(tmp_path) as place:
        server = place.server
        with place.traffic() as traffic:
            traffic.reach(200)
            recovery = place.recovery(traffic)
            files = (tmp_path / "valkey").rglob("*.aof")
            with disk_full(server.process.pid, max(file.stat().st_size for file in files) + 10_000):
                until(lambda: traffic.ledger.answers[503] > 20, "callers are refused")
                time.sleep(2.0)
            recovery.restart()
            recovered(recovery.took())
            traffic.reach(traffic.ledger.acknowledged + 100)
            time.sleep(1.5)  # fsync is once a second
            server.kill()
            server.start()
            traffic.reach(traffic.ledger.acknowledged + 100)
        place.verify(traffic)
    assert traffic.ledger.answers.keys() == {200, 503}


def test_mlflow_can_not_be_written(redis_url: str, tmp_path: Path, mlflow_uri: str):
    """The gate judges and its verdict is recorded, a promotion acts; each says in one line that
    MLflow doesn't know. The next one tells it all, once there is room."""
    place = served(redis_url, tmp_path)
    write(place, decided(place, 400, LARGE))

    def run(*arguments: str, room: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pointsman", *arguments],
            env={**os.environ, **place.environment},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    def told(*arguments: str) -> str:
        return run(*arguments, room=0).stderr

    def aliases() -> list[tuple[str, ...]]:
        return [version.aliases for version in Registry(mlflow_uri).versions("default")]

    why = f"MLflow at {mlflow_uri}: (sqlite3.OperationalError) disk I/O error"
    assert told("gate", "default").endswith(f"{why}; the verdict is recorded without it\n")
    assert aliases() == []
    run("gate", "default", room=resource.RLIM_INFINITY)
    assert aliases() == [("champion",), ("challenger",)]
    assert told("promote", "default") == f"{why}; its aliases are not those of the roles\n"
    run("rollback", "default", room=resource.RLIM_INFINITY)
    assert aliases() == [("champion",), ("challenger",)]

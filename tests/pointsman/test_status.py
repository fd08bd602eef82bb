"""`pointsman status`, against a real service."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from pointsman.commands.status import command
from tests.servers import http_service, learn_all, settings_for, until
from tests.serving.challenging import CALLER, FIXED, UNIFORM, config, drive, shown


def told(http: httpx.Client, *arguments: str) -> str:
    done = CliRunner().invoke(command, [*arguments, "--url", str(http.base_url)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_it_tells_what_would_have_been_earned(redis_url: str, tmp_path: Path):
    """Beside a router that explores: figures with their errors, and how it takes over."""
    with http_service(settings_for(redis_url, tmp_path, config(UNIFORM))) as http:
        drive(http, range(60))
        learn_all(redis_url)
        reward = shown(http, 60)["estimates"]["reward"]
        text = told(http, "default")
        assert json.loads(told(http, "--json"))["policies"][0]["champion"] == "1"
    assert "champion is version 1 (uniform)" in text
    assert "challenger is version 2 (linear), in shadow, no share of the draw" in text
    assert f"reward: would have been {reward['challenger']['value']:.4f} ±" in text
    assert f"was {reward['champion']['value']:.4f}; difference" in text
    assert "pointsman gate default 2\n    pointsman promote default 2\n" in text
    assert "latency" not in text  # nobody reported one, and the objective doesn't weigh it


def test_it_tells_why_it_cannot_be_known(redis_url: str, tmp_path: Path):
    """Beside a router that never explores: no number, but the reason."""
    with http_service(settings_for(redis_url, tmp_path, config(FIXED))) as http:
        drive(http, range(30))
        learn_all(redis_url)
        shown(http, 30)
        text = told(http)
    assert "reward: would have been unknown, was 0." in text
    assert "unknown, because the acting router never tried the arms" in text
    assert "difference" not in text


def test_without_outcomes_it_tells_the_roles(redis_url: str, tmp_path: Path):
    """A service that has just started shows who learns from whom."""
    with http_service(settings_for(redis_url, tmp_path, config(CALLER))) as http:
        text = told(http)
    assert "champion is version 1 (caller)" in text
    assert "compared over 0 decisions with an outcome" in text
    assert "agrees" not in text


@pytest.mark.parametrize("arguments", [["nobody"], ["--url", "http://127.0.0.1:9"]], ids=str)
def test_a_policy_or_service_that_is_not_there_is_told(http: httpx.Client, arguments: list[str]):
    """One line, and exit code 1."""
    given = arguments if "--url" in arguments else [*arguments, "--url", str(http.base_url)]
    done = CliRunner().invoke(command, given)
    assert done.exit_code == 1
    assert "Error: " in done.output


def test_a_service_without_a_challenger_shows_its_champion(http: httpx.Client):
    """One line is all there is."""
    until(lambda: http.get("/policies").status_code == 200, "it answers")
    assert told(http).count("\n") == 1

"""`pointsman learn` and `archive` for some policies alone, so that several processes share them."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pointsman.commands import archive, learn
from tests.servers import CONFIG, http_service, settings_for


@pytest.mark.parametrize("command", [learn.command, archive.command])
def test_what_is_named_alone_is_done(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: click.Command
):
    """Others are left to whoever does them; a policy that there isn't is an error."""
    settings = settings_for(redis_url, tmp_path, f"{CONFIG}\n[policies.b]\n[policies.c]\n")
    with http_service(settings) as http:
        for name in ("default", "b", "c"):
            asked = {"policy": name, "query": {"text": "question"}}
            made = http.post("/route", json=asked).raise_for_status().json()
            told = {"policy": name, "decision_id": made["decision_id"], "quality": 1.0}
            http.post("/reward", json=told).raise_for_status()
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    some = ["--burst", "--json", "--policy", "b", "--policy", "c"]
    done = CliRunner().invoke(command, some, catch_exceptions=False)
    assert json.loads(done.stdout).keys() == {"b", "c"}
    refused = CliRunner().invoke(command, ["--burst", "--policy", "d"])
    assert refused.exit_code == 2
    assert "no policy 'd' (known: b, c, default)" in refused.output

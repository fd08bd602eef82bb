"""A service to try things on: real, alone, and gone afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from pointsman import demo, trial
from policy.config import Config

CONFIG = Config(demo.make(1).catalog, {"default": demo.POLICY})


def test_a_service_that_does_not_start_says_why(tmp_path: Path):
    """Its last words, in one line."""
    with pytest.raises(RuntimeError, match=r"the service ended: .*can't be read"):
        trial.Service(tmp_path / "nowhere.toml", tmp_path).start()


def test_a_trial_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """It answers until it is stopped, also where the user has settings of their own; then neither
    its address nor its folder is there."""
    monkeypatch.setenv("POINTSMAN_REDIS_URL", "redis://127.0.0.1:1")
    service = trial.start(CONFIG)
    assert service.client.route("Sort a list.").arm in CONFIG.arms
    service.stop()
    assert not service.folder.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.url}/healthz")
    service.stop()


def test_a_trial_keeps_what_it_stored_in_a_folder_of_the_users(tmp_path: Path):
    """Started again, it goes on from there."""
    config = tmp_path / "pointsman.toml"
    config.write_text(trial.to_toml(CONFIG))
    with trial.Service(config, tmp_path) as service:
        made = service.client.route("Sort a list.")
    with trial.Service(config, tmp_path) as service:
        assert service.client.decision(made.decision_id)["decision"]["arm"] == made.arm


def test_commands_run_beside_it():
    """With its configuration and its store; a command that fails raises what it says."""
    with trial.TemporaryService(CONFIG) as service:
        told = json.loads(service.command("status", "--url", service.url, "--json"))
        assert told["policies"][0]["policy"] == "default"
        with pytest.raises(RuntimeError, match="nobody"):
            service.command("promote", "nobody", "7", "--override", "--reason", "to see it fail")

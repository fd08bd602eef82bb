"""A service to try things on: real, alone, and gone afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from offline_eval.log.reading import read_log
from pointsman.trying import demo, trial
from policy.config.schema import Config

CONFIG = Config(demo.make(1).catalog, {"default": demo.POLICY})


def test_a_service_that_does_not_start_says_why(tmp_path: Path):
    """Its last words, in one line."""
    with pytest.raises(RuntimeError, match=r"the service ended: .*can't be read"):
        trial.Service(tmp_path / "nowhere.toml", tmp_path).start()


@pytest.mark.slow
def test_a_trial_is_alone_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    """It answers and its commands find it, also where the user has settings of their own; what it
    has acknowledged can be waited for in its log. Then neither its address nor its folder is there.
    """
    monkeypatch.setenv("POINTSMAN_REDIS_URL", "redis://127.0.0.1:1")
    service = trial.start(CONFIG)
    made = service.client.route("Sort a list.")
    assert read_log(service.archived()).decision_ids == (made.decision_id,)
    service.await_champion("1")
    assert json.loads(service.command("versions", "--json"))["policies"][0]["policy"] == "default"
    with pytest.raises(RuntimeError, match="no policy 'nobody' is registered"):
        service.command("rollback", "nobody")
    service.stop()
    assert not service.folder.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.url}/healthz")
    service.stop()

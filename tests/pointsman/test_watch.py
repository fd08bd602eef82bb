"""`pointsman watch`: a champion that is worse than the one it replaced doesn't stay unnoticed."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pointsman.commands import status
from pointsman.promotion import watch
from policy.config.toml import parse
from serving.store.operations import OperatorStore
from tests.pointsman.places import LARGE, SMALL, TEXT, Place, decided, served, write
from tests.servers import http_service, override, settings_for, until


@pytest.fixture
def place(redis_url: str, tmp_path: Path, mlflow_uri: str) -> Place:
    return served(redis_url, tmp_path)


def after_promotion(
    place: Place, quality: Mapping[str, float], n: int = 400, auto_rollback: bool = False
) -> dict[str, Any]:
    """Version 2 is champion and takes "small" half of the time; version 1, which it replaced, would
    take "large" nine times of ten."""
    told = f"[policies.default]\nauto_rollback = {str(auto_rollback).lower()}"
    (place.folder / "pointsman.toml").write_text(TEXT.replace("[policies.default]", told))
    override(place.redis_url, "2", keep_share=0.05)
    write(place, decided(place, n, quality, version="2", challenger="1"))
    done = place.run("watch", "--burst", "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)["default"]
    return found


def test_a_worse_champion_is_said_to_be_worse_and_stays(place: Place):
    """The operator decides; until then the service says so wherever it is asked."""
    found = after_promotion(place, LARGE)
    assert (found["state"], found["rolled_back"]) == ("worse", False)
    assert (found["champion"], found["previous"]) == ("2", "1")
    settings = settings_for(place.redis_url, place.folder, TEXT)
    with http_service(settings) as http:
        body = http.get("/policies/default").json()
    assert (body["champion"], body["alarm"]["previous"]) == ("2", "1")
    assert "the challenger is better" in body["alarm"]["reasons"][0]
    assert "worse than version 1, which it replaced" in status.text(body)
    with closing(OperatorStore(place.redis_url, "default")) as store:
        assert [entry["version"] for entry in store.audit(("alarm",))] == ["2"]


def test_it_rolls_back_by_itself_where_it_may(place: Place):
    """Recorded with who and why; then there is nothing more to watch, and no alarm."""
    settings = settings_for(place.redis_url, place.folder, TEXT)
    with http_service(settings) as http:
        found = after_promotion(place, LARGE, auto_rollback=True)
        assert (found["state"], found["rolled_back"]) == ("worse", True)
        until(lambda: http.get("/policies/default").json()["champion"] == "1", "1 serves", 2.0)
        assert http.get("/policies/default").json()["alarm"] is None
    with closing(OperatorStore(place.redis_url, "default")) as store:
        last = store.audit(("rollback",))[-1]
        assert (last["version"], last["before"], last["who"]) == ("1", "2", watch.WHO)
        assert "version 2 is shown to be worse than version 1" in last["why"]
    again = json.loads(place.run("watch", "--burst", "--json").stdout)["default"]
    assert again["state"] == "nothing to watch"


@pytest.mark.parametrize(("quality", "n"), [(SMALL, 400), (LARGE, 8), (LARGE, 0)])
def test_a_champion_stays_until_it_is_shown_to_be_worse(
    place: Place, quality: Mapping[str, float], n: int
):
    """Better, unsure, or nothing in the log yet: no alarm and no rollback."""
    found = after_promotion(place, quality, n, auto_rollback=True)
    assert (found["state"], found["rolled_back"]) == ("not shown", False)
    with closing(OperatorStore(place.redis_url, "default")) as store:
        assert store.state()["champion"] == "2"
        assert not store.audit(("alarm", "rollback"))


def test_its_windows_share_one_alpha_and_an_alarm_is_raised_once(place: Place):
    """However often it looks; a change of prices would begin another window, not another alpha."""
    after_promotion(place, LARGE)
    place.run("watch", "--burst")
    with closing(OperatorStore(place.redis_url, "default")) as store:
        assert len(store.files("1").windows) == 1
        assert len(store.audit(("alarm",))) == 1


def test_without_a_promotion_there_is_nothing_to_watch(place: Place):
    """The first champion replaced nobody."""
    done = place.run("watch", "--burst")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("default: nothing to watch: ")


def test_an_operator_who_was_faster_stands(place: Place):
    """A rollback is of the champion that was found to be worse, and of no other."""
    override(place.redis_url, "2", keep_share=0.05)
    with closing(OperatorStore(place.redis_url, "default")) as store:
        assert not watch._roll_back(store, "1", "it was another", 0)
        assert store.state()["champion"] == "2"
        assert watch._roll_back(store, "2", "it is this one", 0)
        assert store.state()["champion"] == "1"


def test_a_finding_is_logged_once(place: Place, caplog: pytest.LogCaptureFixture):
    """However often it looks, and it goes on looking while Redis can't be reached."""
    after_promotion(place, LARGE)
    policies = parse(TEXT, "test").policies
    looks = threading.Semaphore(3)

    def wait(seconds: float) -> bool:
        return not looks.acquire(blocking=False)

    uri = f"sqlite:///{place.folder}/unused.db"
    watch.run(place.redis_url, lambda: policies, place.log, uri, wait, 0.0)
    said = [r.getMessage() for r in caplog.records if r.name == "pointsman.promotion.watch"]
    assert len(said) == 1
    assert "go back with `pointsman rollback default`" in said[0]
    looks.release()
    watch.run("redis://127.0.0.1:1/0", lambda: policies, place.log, uri, wait, 0.0)
    assert "trying again" in caplog.text

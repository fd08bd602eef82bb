"""Which version is the challenger, and its share: through files, restarts and operators."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from serving.settings import Settings
from serving.store.operations import OperatorStore
from tests.servers import (
    http_service,
    learn_all,
    override,
    settings_for,
    until,
)
from tests.serving.challenging import (
    UNIFORM,
    config,
    drive,
)


def test_a_changed_policy_is_the_challenger_until_it_is_promoted(redis_url: str, tmp_path: Path):
    """Without a challenger's table, the file's version learns in shadow at share 0."""
    settings = settings_for(redis_url, tmp_path, config("", None))
    with http_service(settings) as http:
        drive(http, range(10))
        settings.config.write_text(config("scale = 0.6", None))
        until(lambda: http.get("/policies/default").json()["challenger"], "it is there")
        learn_all(redis_url)
        until(lambda: http.get("/policies/default").json()["challenger"]["events"] == 10, "learned")
        assert http.get("/policies/default").json()["shares"] == {"1": 1.0, "2": 0.0}


def restarted(settings: Settings, text: str) -> tuple[str, dict[str, float]]:
    """Champion and shares of a service that starts with this file."""
    settings.config.write_text(text)
    with http_service(settings) as http:
        found = http.get("/policies/default").json()
        return found["champion"], found["shares"]


def test_a_share_acts_when_it_is_said_and_not_again(redis_url: str, tmp_path: Path):
    """A restart never gives traffic to a version that the operator has taken it from."""
    text = config(UNIFORM, 'model = "linear"\nshare = 0.2\n')
    settings = settings_for(redis_url, tmp_path, text)
    assert restarted(settings, text) == ("1", {"1": 0.8, "2": 0.2})
    override(redis_url, "2")
    assert restarted(settings, text) == ("2", {"2": 1.0, "1": 0.0})
    override(redis_url, "1")
    assert restarted(settings, text) == ("1", {"1": 1.0, "2": 0.0})
    assert restarted(settings, text.replace("0.2\n", "0.3\n")) == ("1", {"1": 0.7, "2": 0.3})
    assert restarted(settings, config(UNIFORM, None)) == ("1", {"1": 1.0, "2": 0.0})


def test_a_replaced_champion_keeps_its_share(redis_url: str, tmp_path: Path):
    """Through restarts, and when the file comes to say what serves; until the file gives a share to
    another."""
    text = config(UNIFORM, 'model = "linear"\nshare = 0.2\n')
    settings = settings_for(redis_url, tmp_path, text)
    restarted(settings, text)
    override(redis_url, "2", keep_share=0.05)
    kept = ("2", {"2": 0.95, "1": 0.05})
    assert restarted(settings, text) == kept
    assert restarted(settings, config('model = "linear"\n', None)) == kept
    other = config('model = "linear"\n', "scale = 0.5\nshare = 0.1\n")
    assert restarted(settings, other) == ("2", {"2": 0.9, "3": 0.1})


def test_what_a_rollback_took_stays_taken(redis_url: str, tmp_path: Path):
    """Through restarts and other changes of the file; a new share in it acts."""
    text = config(UNIFORM, 'model = "linear"\nshare = 0.2\n')
    settings = settings_for(redis_url, tmp_path, text)
    restarted(settings, text)
    override(redis_url, "2", keep_share=0.05)
    with closing(OperatorStore(redis_url, "default")) as operator:
        operator.rollback("me", "it errs", 0)
    taken = ("1", {"1": 1.0, "2": 0.0})
    assert restarted(settings, text) == taken
    changed = text.replace(UNIFORM, UNIFORM + "floor = 0.02\n")
    assert restarted(settings, changed) == taken
    more = changed.replace("0.2\n", "0.3\n")
    champion, shares = restarted(settings, more)
    assert (champion, shares["1"]) == ("1", 0.7)


def test_a_challenger_that_the_operator_names_stays(redis_url: str, tmp_path: Path):
    """Until the file says something new."""
    text = config("", "scale = 0.5\nshare = 0.2\n")
    settings = settings_for(redis_url, tmp_path, text)
    restarted(settings, text)
    restarted(settings, config("", "scale = 0.6\nshare = 0.2\n"))
    with closing(OperatorStore(redis_url, "default")) as operator:
        assert operator.challenge("2", 0.1, "me", 0) == "3"
    last = config("", "scale = 0.6\nshare = 0.2\n")
    assert restarted(settings, last) == ("1", {"1": 0.9, "2": 0.1})
    assert restarted(settings, last.replace("0.2\n", "0.3\n")) == ("1", {"1": 0.7, "3": 0.3})

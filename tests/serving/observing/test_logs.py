"""What processes say: one line per event, which a machine can read."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis

from serving.observing.logs import REMEMBERED, JsonLines, Repeats, TextLines, about
from serving.settings import Settings
from serving.store.keys import Keys
from tests.servers import http_service

CANARY = "a question that nobody may read"


class Said:
    """What is logged from now on, as lines on stderr would be."""

    def __init__(self) -> None:
        self.text = StringIO()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.getvalue().splitlines()]


@pytest.fixture
def said() -> Iterator[Said]:
    said = Said()
    handler = logging.StreamHandler(said.text)
    handler.setFormatter(JsonLines("serving"))
    handler.addFilter(lambda record: not record.name.startswith("http"))  # the tests' own client
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield said
    root.removeHandler(handler)
    root.setLevel(level)


def test_an_event_is_one_line_whatever_it_says():
    """Line breaks, quotes, control characters and broken Unicode included."""
    message = 'first\nsecond "quoted" \x1b[31m \ud800'
    record = {"msg": message, "name": "here", "levelname": "WARNING"}
    text = JsonLines("serving").format(logging.makeLogRecord(record))
    assert text.isascii()
    assert text.isprintable()
    line = json.loads(text)
    assert line["message"] == message
    assert (line["level"], line["process"], line["logger"]) == ("warning", "serving", "here")
    assert datetime.fromisoformat(line["time"]).utcoffset() is not None


def test_an_exception_is_a_field(said: Said):
    """With its traceback."""
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.exception("can't")
    (line,) = said.lines()
    assert line["message"] == "can't"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("RuntimeError: broken")


def test_lines_tell_what_they_concern(said: Said):
    """Within a block, more within an inner one, and nothing of it in another thread."""
    with about(policy="default"):
        with about(decision_id="d1"):
            logging.info("both")
        logging.info("one")
        thread = threading.Thread(target=logging.info, args=("none",))
        thread.start()
        thread.join()
    both, one, none = said.lines()
    assert (both["policy"], both["decision_id"]) == ("default", "d1")
    assert (one["policy"], "decision_id" in one) == ("default", False)
    assert "policy" not in none


def test_text_names_policy_and_decision_where_the_message_does_not():
    """Before a traceback, which follows; nothing is added where nothing is known."""

    def shown(message: str, **more: object) -> str:
        text = TextLines().format(
            logging.makeLogRecord({"msg": message, "levelname": "INFO", **more})
        )
        return text.split(" ", 3)[3]  # date, time, level

    assert shown("can't") == "can't"
    with about(policy="default", arm="small"):
        assert shown("can't") == "can't (policy default)"
        assert shown("policy default: learning") == "policy default: learning"
        with about(decision_id="d1"):
            failed = shown("can't", exc_info=(OSError, OSError("broken"), None))
    assert failed == "can't (policy default, decision d1)\nOSError: broken"


def test_text_is_one_line_whatever_is_in_it():
    """What a caller sends can't make a line of its own, nor colour a terminal."""
    record = {"msg": "GET /decisions/a\n2026 CRITICAL forged\x1b[31m\u2028é", "levelname": "INFO"}
    with about(decision_id="d\r1"):
        text = TextLines().format(logging.makeLogRecord(record))
    assert text.endswith("a\\n2026 CRITICAL forged\\x1b[31m\\u2028é (decision d\\r1)")
    assert len(text.splitlines()) == 1


def test_what_a_line_concerns_never_hides_what_it_says(said: Said):
    """The fields of every line come last."""
    with about(message="another", level="none"):
        logging.info("this")
    assert (said.lines()[0]["message"], said.lines()[0]["level"]) == ("this", "info")


def test_what_fails_over_and_over_says_so_once_a_minute():
    """And how often it was; another decision or another error is another event."""
    repeats = Repeats(60.0)
    at = 1_000.0

    def passes(message: str, after_s: float = 0.0, level: int = logging.WARNING) -> bool:
        record = logging.makeLogRecord({"msg": message, "name": "here", "levelno": level})
        record.created = at + after_s
        return bool(repeats.filter(record))

    assert passes("Redis is away")
    assert not any(passes("Redis is away", after_s) for after_s in (0.5, 1.0, 59.0))
    assert passes("the log can't be written")
    with about(decision_id="another"):
        assert passes("Redis is away", 1.5)
    assert passes("a line per request", level=logging.INFO)
    assert passes("a line per request", level=logging.INFO)
    later = logging.makeLogRecord({"msg": "Redis is away", "name": "here", "levelno": 30})
    later.created = at + 61.0
    assert repeats.filter(later)
    assert json.loads(JsonLines("serving").format(later))["repeated"] == 3


def test_what_fails_without_end_is_not_remembered_without_end():
    """However many events there are."""
    repeats = Repeats()
    for i in range(2_000):
        repeats.filter(logging.makeLogRecord({"msg": f"failure {i}", "levelno": logging.ERROR}))
    assert len(repeats._said) <= REMEMBERED


def test_a_failure_names_the_decision_and_no_text(settings: Settings, raw: redis.Redis, said: Said):
    """A 500 is one line: which policy and decision, with the traceback."""
    raw.set(Keys("default").decision("d1"), "not what belongs here")
    with http_service(settings) as http:
        answer = http.post("/route", json={"decision_id": "d1", "query": {"text": CANARY}})
    assert answer.status_code == 500
    (line,) = [line for line in said.lines() if line["level"] == "error"]
    assert (line["policy"], line["decision_id"]) == ("default", "d1")
    assert "WRONGTYPE" in line["exception"]
    assert CANARY not in said.text.getvalue()


def test_a_failure_of_any_path_names_it(settings: Settings, raw: redis.Redis, said: Said):
    """On one line, with its traceback, as the busy paths do."""
    raw.set(Keys("default").decision("d1"), "not what belongs here")
    with http_service(settings) as http:
        answer = http.get("/decisions/d1", params={"token": CANARY})
    assert answer.status_code == 500
    assert answer.json()["title"] == "Internal error"
    (line,) = [line for line in said.lines() if line["level"] == "error"]
    assert line["message"] == "can't answer GET /decisions/d1"
    assert "WRONGTYPE" in line["exception"]
    assert CANARY not in said.text.getvalue()


def test_no_line_per_request_unless_asked_for(settings: Settings, said: Said):
    """What is answered is counted, not said."""
    with http_service(settings) as http:
        http.post("/route", json={"query": {"text": CANARY}})
    assert "/route" not in said.text.getvalue()


def test_the_access_log_has_a_line_per_request(settings: Settings, said: Said):
    """Path, status, time and what it concerned; never its query string or body."""
    with http_service(settings.model_copy(update={"access_log": True})) as http:
        made = http.post("/route", json={"query": {"text": CANARY}}).json()
        http.get("/nowhere", params={"token": CANARY})
    route, nowhere = (line for line in said.lines() if "status" in line)
    assert (route["method"], route["path"], route["status"]) == ("POST", "/route", 200)
    assert (route["policy"], route["decision_id"]) == ("default", made["decision_id"])
    assert route["took_ms"] > 0
    assert (nowhere["path"], nowhere["status"]) == ("/nowhere", 404)
    assert CANARY not in said.text.getvalue()


def test_wrong_settings_are_a_line_like_all_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Kubernetes sets POINTSMAN_PORT where a Service has that name."""
    monkeypatch.setenv("POINTSMAN_PORT", "tcp://1.2.3.4:80")
    monkeypatch.setenv("POINTSMAN_LOG_FORMAT", "json")
    command = [sys.executable, "-m", "pointsman", "up"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = map(json.loads, done.stderr.splitlines())
    assert line["level"] == "critical"
    assert "POINTSMAN_PORT: Input should be a valid integer" in line["message"]

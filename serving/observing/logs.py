"""What a process says while it runs: a line per event on stderr, as JSON or for a person's eyes.

A line tells what it concerns by what `about` and `concerns` have said before, so that whoever says
something needn't repeat it. Standard library only: every process begins with this.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any

TEXT = "%(asctime)s %(levelname)s %(message)s"
NAMED = {"policy": "policy", "decision_id": "decision"}  # in text; JSON has all there is
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # moves a cursor, or ends a line
REMEMBERED = 256  # events that may be repeated
NOTHING: Mapping[str, object] = MappingProxyType({})

_CONCERNED: ContextVar[Mapping[str, object]] = ContextVar("concerned", default=NOTHING)


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Lines from within concern this: `policy`, `decision_id` ..."""
    token = _CONCERNED.set({**_CONCERNED.get(), **fields})
    try:
        yield
    finally:
        _CONCERNED.reset(token)


def concerns(**fields: object) -> None:
    """The same, for what is left of this request, which is a task of its own."""
    _CONCERNED.set({**_CONCERNED.get(), **fields})


def concerned() -> Mapping[str, Any]:
    """All of that."""
    return _CONCERNED.get()


class Repeats(logging.Filter):
    """Lets what was said before pass once in `every_s`, with how often it was `repeated` since:
    whatever fails over and over says so, and doesn't fill a disk. Another decision, or another
    error, is another event."""

    def __init__(self, every_s: float = 60.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._said: dict[tuple[object, ...], tuple[float, int]] = {}  # when last, and since then

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        error = repr(record.exc_info[1]) if record.exc_info else ""
        decision_id = _CONCERNED.get().get("decision_id")
        event = record.name, record.getMessage(), error, decision_id
        last, repeated = self._said.get(event, (-math.inf, 0))
        if record.created - last < self._every_s:
            self._said[event] = last, repeated + 1
            return False
        if len(self._said) >= REMEMBERED:
            self._said.clear()
        self._said[event] = record.created, 0
        record.repeated = repeated
        return True


class JsonLines(logging.Formatter):
    """A record as one line: an object with `time` (ISO 8601, UTC), `level`, `process` (what it is
    for), `pid`, `logger`, `message`, what it concerns, and an `exception` with its traceback."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line = {
            **_CONCERNED.get(),
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if repeated := getattr(record, "repeated", 0):
            line["repeated"] = repeated
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """For a person: the time, the level, the message, and which policy and decision it concerns
    where the message doesn't say. All on one line, whatever is in it; a traceback follows."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        known = _CONCERNED.get()
        named = [f"{word} {known[name]}" for name, word in NAMED.items() if name in known]
        more = [words for words in named if words not in record.message]
        line = super().formatMessage(record) + (f" ({', '.join(more)})" if more else "")
        return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


def begin(process: str, form: str | None) -> None:
    """Have this process say what it has to say, warnings and its last words among it.

    `form` is `json` or `text`; None is text on a terminal, else JSON.
    """
    if form is None:
        form = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler()
    handler.addFilter(Repeats())
    handler.setFormatter(JsonLines(process) if form == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    sys.excepthook = _uncaught


def are_json() -> bool:
    """Whether this process has begun to say what it has to say as JSON."""
    return any(isinstance(h.formatter, JsonLines) for h in logging.getLogger().handlers)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("pointsman").critical(
        "the process ends: %s", error, exc_info=(kind, error, trace)
    )

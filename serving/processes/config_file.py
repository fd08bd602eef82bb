"""The configuration file: read, and read again when it has changed. Knows no store."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from policy.config.problems import ConfigError
from policy.config.schema import Config
from policy.config.toml import parse

log = logging.getLogger(__name__)


def utc_day() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


class ConfigFile:
    """A file of arms and policies that an operator may edit at any time. Arms have the prices of
    the day, which `today` tells."""

    def __init__(self, path: Path, today: Callable[[], datetime.date] = utc_day) -> None:
        self._path, self._today = path, today
        self._day = today()
        self._seen_ns = 0
        self._last: Config | None = None

    def read(self) -> Config:
        """Parse the file as it is now.

        Raises
        ------
        ConfigError
            If it can't be read, or says something wrong.
        """
        self._day = self._today()
        try:
            self._seen_ns = self._path.stat().st_mtime_ns
            text = self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8"
            if isinstance(error, FileNotFoundError):
                reason = f"{reason}; `pointsman init` writes one to start from"
            raise ConfigError([f"{self._path}: can't be read: {reason}"]) from error
        config = parse(text, str(self._path))
        self._last = replace(config, arms=config.arms.at(self._day))
        return self._last

    def latest(self) -> Config:
        """The file as it is now, or as it last was while what it says now is wrong."""
        if self._last is None:
            return self.read()
        if self.changed():
            try:
                return self.read()
            except ConfigError as error:
                log.error("configuration not reloaded, the old one stays in force: %s", error)
        return self._last

    def changed(self) -> bool:
        """Whether the file differs from the one last read, or the day has, with its prices; a file
        that is gone hasn't changed."""
        try:
            return self._path.stat().st_mtime_ns != self._seen_ns or self._today() != self._day
        except OSError:
            return False

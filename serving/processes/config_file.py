"""The configuration file: read, and read again when it has changed. Knows no store."""

from __future__ import annotations

import datetime
import logging
import os
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
    the day, which `today` tells.

    What was right is written to `kept`, where that is given: whoever starts while the file is wrong
    goes on with it.
    """

    def __init__(
        self,
        path: Path,
        today: Callable[[], datetime.date] = utc_day,
        *,
        kept: Path | None = None,
    ) -> None:
        self._path, self._today, self._kept = path, today, kept
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
        config = self._parsed(text, self._path)
        if self._kept is not None:
            keep(self._kept, text)
        return config

    def latest(self) -> Config:
        """The file as it is now, or as it last was while what it says now is wrong.

        Raises
        ------
        ConfigError
            If it is wrong, and nobody has kept what was right before.
        """
        if self._last is None:
            return self._first()
        if self.changed():
            try:
                return self.read()
            except ConfigError as error:
                log.error("configuration not reloaded, the old one stays in force: %s", error)
        return self._last

    def _first(self) -> Config:
        try:
            return self.read()
        except ConfigError as error:
            if self._kept is None or not self._kept.exists():
                raise
            log.error("%s; the one before, kept in %s, stays in force", error, self._kept)
            return self._parsed(self._kept.read_text("utf-8"), self._kept)

    def _parsed(self, text: str, path: Path) -> Config:
        config = parse(text, str(path))
        self._last = replace(config, arms=config.arms.at(self._day))
        return self._last

    def changed(self) -> bool:
        """Whether the file differs from the one last read, or the day has, with its prices; a file
        that is gone hasn't changed."""
        try:
            return self._path.stat().st_mtime_ns != self._seen_ns or self._today() != self._day
        except OSError:
            return False


def keep(path: Path, text: str) -> None:
    """Write a file whole, over the one before; where that can't be done, there is a warning."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_text(text, "utf-8")
        hidden.replace(path)
    except OSError as error:
        log.warning("the configuration in force can't be kept: %s", error)

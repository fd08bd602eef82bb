"""The configuration file: read, and read again when it has changed. Knows no store."""

from __future__ import annotations

import logging
from pathlib import Path

from policy.config.problems import ConfigError
from policy.config.schema import Config
from policy.config.toml import parse

log = logging.getLogger(__name__)


class ConfigFile:
    """A file of arms and policies that an operator may edit at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen_ns = 0
        self._last: Config | None = None

    def read(self) -> Config:
        """Parse the file as it is now.

        Raises
        ------
        ConfigError
            If it can't be read, or says something wrong.
        """
        try:
            self._seen_ns = self._path.stat().st_mtime_ns
            text = self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8"
            if isinstance(error, FileNotFoundError):
                reason = f"{reason}; `pointsman init` writes one to start from"
            raise ConfigError([f"{self._path}: can't be read: {reason}"]) from error
        self._last = parse(text, str(self._path))
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
        """Whether the file differs from the one last read; one that is gone hasn't changed."""
        try:
            return self._path.stat().st_mtime_ns != self._seen_ns
        except OSError:
            return False

"""Where a price list comes from: a package, a file or a URL."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pointsman.pricing import genai, litellm, models_dev
from pointsman.pricing.entries import Entry
from policy.arms.arm import Arm

PACKAGE = "genai-prices"
URLS = {"litellm": litellm.URL, "models.dev": models_dev.URL}
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class PriceList:
    """What a list says of each PROVIDER/MODEL: its arm, or why there is none."""

    source: str
    dated: datetime.date
    entries: Mapping[str, Arm | str]

    @property
    def arms(self) -> list[Arm]:
        return [arm for arm in self.entries.values() if isinstance(arm, Arm)]

    def matching(self, patterns: Iterable[str]) -> PriceList:
        """The entries of names that match any of these, as file names do (`groq/*`); all without.

        ValueError for a pattern that no name matches.
        """
        kept: dict[str, Arm | str] = {}
        for pattern in patterns:
            found = {n: entry for n, entry in self.entries.items() if fnmatchcase(n, pattern)}
            if not found:
                providers = sorted({name.split("/")[0] for name in self.entries})
                raise ValueError(
                    f"nothing in {self.source} matches {pattern!r}; its providers are "
                    + ", ".join(providers)
                )
            kept |= found
        return PriceList(self.source, self.dated, kept) if kept else self


def read(source: str, on: datetime.date, dated: datetime.date | None = None) -> PriceList:
    """The prices of the day `on`, from `genai-prices` (the package), `litellm` or `models.dev`
    (from the web), a URL or a file.

    `dated` says how old the list is; else the day of its last change as far as it can be told: a
    file's or an address's own, and of the package the last from which a price holds.

    Raises
    ------
    ValueError
        If it is no list that is known.
    RuntimeError, OSError
        If there is none.
    """
    if source == PACKAGE:
        providers, version = genai.installed()
        name, age = f"{PACKAGE} {version}", genai.last_change(providers, on)
        found = genai.read(providers, on, name)
    else:
        name = URLS.get(source, source)
        text, age = _fetched(name) if "://" in name else _of_file(Path(name))
        found = _of_json(_parsed(text, name), on, name)
    dated = dated or min(age, on)
    entries: dict[str, Arm | str] = {}
    ids: set[str] = set()
    for key, one in _sound(found, name):
        if not isinstance(one, Arm):
            entries.setdefault(key, one)
        elif one.id not in ids:  # some lists have a model twice
            ids.add(one.id)
            entries[key] = one.model_copy(update={"prices_checked": dated})
    return PriceList(name, dated, entries)


def _of_json(content: Any, on: datetime.date, name: str) -> Iterator[Entry]:
    if litellm.is_one(content):
        return litellm.read(content, on)
    if models_dev.is_one(content):
        return models_dev.read(content)
    raise ValueError(f"{name}: is neither LiteLLM's list of prices nor that of models.dev")


def _sound(entries: Iterator[Entry], name: str) -> Iterator[Entry]:
    """The entries; ValueError where a list isn't written as such lists are."""
    try:
        yield from entries
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name}: an entry isn't as such a list has it: {what}") from error


def _of_file(path: Path) -> tuple[bytes, datetime.date]:
    changed = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return path.read_bytes(), changed.date()


def _fetched(url: str) -> tuple[bytes, datetime.date]:
    import httpx  # noqa: PLC0415 - late: most commands fetch nothing

    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, follow_redirects=True).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{url}: {error or type(error).__name__}") from error
    changed = answer.headers.get("last-modified")
    at = parsedate_to_datetime(changed) if changed else datetime.datetime.now(datetime.UTC)
    return answer.content, at.date()


def _parsed(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}: is no JSON: {error}") from None

"""A configuration's text with the arms and prices of a list: all else, comments too, stays."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policy.arms.arm import Arm
from policy.config.problems import ConfigError, lines
from policy.config.toml import arm_to_toml, parse, toml_value

OWN = ("usd_per_mtok_cached_in", "usd_per_mtok_cache_write", "usd_per_request")
"""Prices that stay as an operator has put them where a list doesn't say them."""
COSTS = ("usd_per_mtok_in", "usd_per_mtok_out", *OWN, "price_tiers", "price_changes")
PRICES = (*COSTS, "prices_checked", "prices_source")


class Listed:
    """A list's arms, to be found by provider and model, or else by id."""

    def __init__(self, arms: Iterable[Arm]) -> None:
        self._by_model = {(arm.provider, arm.model): arm for arm in arms}
        self._by_id = {arm.id: arm for arm in self._by_model.values()}
        self.providers = {provider for provider, _ in self._by_model}

    def of(self, arm: Arm) -> Arm | None:
        return self._by_model.get((arm.provider, arm.model)) or self._by_id.get(arm.id)


def news(arm: Arm, listed: Arm) -> dict[str, Any]:
    """What a list says otherwise of an arm's prices, by field; nothing where the arm's were checked
    later than the list."""
    if arm.prices_checked and listed.prices_checked and arm.prices_checked > listed.prices_checked:
        return {}
    found = {key: getattr(listed, key) for key in PRICES}
    return {
        key: price
        for key, price in found.items()
        if price != getattr(arm, key) and not (key in OWN and price == _default(key))
    }


@dataclass(frozen=True)
class Edited:
    """A text, and how many of its arms are new, cost something else now, and cost the same."""

    text: str
    new: int
    changed: int
    unchanged: int


def edited(text: str, source: str, arms: Sequence[Arm], *, add: bool = True) -> Edited:
    """`text` with these arms: of those that it has the prices change, the others are added if told.

    Raises
    ------
    ConfigError
        If the text, which is called `source`, is no configuration.
    ValueError
        If a price can't be replaced where it stands, such as a value over several lines.
    """
    there = parse(text, source).arms.arms if text.strip() else ()
    listed = Listed(arms)
    matches = {i: found for i, arm in enumerate(there) if (found := listed.of(arm))}
    changes = {i: changed for i, found in matches.items() if (changed := news(there[i], found))}
    known = {found.id for found in matches.values()}
    new = [arm for arm in arms if arm.id not in known] if add else []
    old = _replaced(text.removeprefix("\ufeff"), changes).rstrip("\n")
    result = "\n".join([*([old + "\n"] if old else []), *map(arm_to_toml, new)])
    wanted = [arm.model_copy(update=changes.get(i, {})) for i, arm in enumerate(there)]
    if _arms_of(result, source) != [*wanted, *new]:
        raise ValueError(
            f"{source}: a price that changes doesn't stand on a line of its own: change it by hand"
        )
    priced = sum(1 for fields in changes.values() if fields.keys() & set(COSTS))
    return Edited(result, len(new), priced, len(matches) - priced)


def _arms_of(text: str, source: str) -> list[Arm]:
    try:
        return list(parse(text, source).arms.arms)
    except ConfigError:
        return []


def _replaced(text: str, changes: Mapping[int, Mapping[str, Any]]) -> str:
    """The text with other prices of some arms, by their positions."""
    at = lines(text)
    rows = text.split("\n")
    added: dict[int, list[str]] = {}
    for i, fields in changes.items():
        for key, price in fields.items():
            line = "" if price == _default(key) else f"{key} = {toml_value(_plain(price))}"
            row = at.get(("arms", i, key), 0) - 1
            if row >= 0:
                rows[row] = _with_comment(line, rows[row])
            elif line:
                added.setdefault(at.get(("arms", i, "usd_per_mtok_out"), 1) - 1, []).append(line)
    return "\n".join("\n".join([row, *added.get(n, [])]) for n, row in enumerate(rows))


def _with_comment(line: str, old: str) -> str:
    """A line in the place of an old one, whose comment stays where it stood."""
    for at in (n for n, character in enumerate(old) if character == "#"):
        try:
            tomllib.loads(old[:at])
        except tomllib.TOMLDecodeError:
            continue  # within a string
        return f"{line.ljust(at - 1)} {old[at:]}"
    return line


def _plain(price: Any) -> Any:
    """A field's value as a TOML value."""
    if not isinstance(price, tuple):
        return price
    return [one.model_dump(exclude_defaults=True) for one in price]


def _default(key: str) -> Any:
    return Arm.model_fields[key].default

"""Which column of a table says what: from options, a small TOML, or the columns' own names."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

MANY = ("labels", "propensity")  # what may be several columns
ANY_ARM = "*"  # in a column's name, stands for an arm's id


class ColumnError(ValueError):
    """What a table's columns don't say."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns. `propensity` is one of the chosen arm's, one with a `*` in place of the
    arm's id (p_*), or a mapping of arms to columns."""

    arm: str = "arm"
    decision_id: str | None = None
    time: str | None = None
    reward: str | None = None
    quality: str | None = None
    latency_ms: str | None = None
    cost_usd: str | None = None
    error: str | None = None
    text: str | None = None
    task_type: str | None = None
    labels: tuple[str, ...] = ()
    propensity: str | Mapping[str, str] | None = None

    def named(self) -> list[str]:
        """Every column that is named, but for those that a `*` stands for."""
        found: list[str] = []
        for role in ROLES:
            value = getattr(self, role)
            if isinstance(value, Mapping):
                found += value.values()
            elif isinstance(value, tuple):
                found += value
            elif value is not None and not (role == "propensity" and ANY_ARM in value):
                found.append(value)
        return found

    def of_arms(self, names: Sequence[str]) -> Mapping[str, str]:
        """The column of each arm's propensity, among a table's; none where there is one for all."""
        if isinstance(self.propensity, Mapping):
            return self.propensity
        if self.propensity is None or ANY_ARM not in self.propensity:
            return {}
        head, _, tail = self.propensity.partition(ANY_ARM)
        return {
            name[len(head) : len(name) - len(tail)]: name
            for name in names
            if name.startswith(head) and name.endswith(tail) and len(name) > len(head + tail)
        }


ROLES = tuple(field.name for field in fields(Columns))


def parse(text: str, source: str) -> dict[str, Any]:
    """What a TOML says, as `chosen` takes it; ValueError names the key that is wrong."""
    try:
        given = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source}: {error}") from error
    for key, value in given.items():
        _expect_role(key, source)
        several = isinstance(value, list) and key == "labels"
        of_arms = isinstance(value, dict) and key == "propensity"
        inner = value.values() if of_arms else value if several else [value]
        if not all(isinstance(one, str) and one for one in inner):
            raise ValueError(f"{source}: {key}: expected {_expected(key)}, got {value!r}")
        given[key] = tuple(value) if several else (value,) if key == "labels" else value
    return given


def options(pairs: Iterable[str]) -> dict[str, Any]:
    """Of ROLE=COLUMN each, as `chosen` takes them; labels repeat, or are parted by commas."""
    given: dict[str, Any] = {}
    for pair in pairs:
        role, _, column = pair.partition("=")
        if not column:
            raise ValueError(f"--column: expected ROLE=COLUMN, got {pair!r}")
        role = "labels" if role == "label" else role
        _expect_role(role, "--column")
        if role == "labels":
            given[role] = (*given.get(role, ()), *filter(None, column.split(",")))
        elif role in given:
            raise ValueError(f"--column: {role} is given twice")
        else:
            given[role] = column
    return given


def chosen(given: Mapping[str, Any], names: Sequence[str]) -> Columns:
    """What is given, and for what isn't, the column of a table that is called so.

    Raises
    ------
    ColumnError
        If a column isn't there, or nothing says which arm was chosen or what came of it.
    """
    usual = {role: role for role in ROLES if role in names and role not in MANY}
    if "propensity" in names:
        usual["propensity"] = "propensity"
    if "reward" in given or "quality" in given:  # one of them says it
        usual = {role: name for role, name in usual.items() if role not in ("reward", "quality")}
    columns = Columns(**(usual | dict(given)))
    there = f"found {', '.join(names)}"
    lacking = [name for name in columns.named() if name not in names]
    if lacking:
        raise ColumnError(f"there is no column {', '.join(map(repr, lacking))}; {there}")
    pattern = columns.propensity if isinstance(columns.propensity, str) else ""
    if ANY_ARM in pattern and not columns.of_arms(names):
        raise ColumnError(f"no column is called like {pattern!r}; {there}")
    if columns.reward is not None and columns.quality is not None:
        raise ColumnError("reward and quality say the same: name one column for both")
    outcome = (columns.reward, columns.quality, columns.latency_ms, columns.cost_usd)
    if all(column is None for column in outcome):
        raise ColumnError(
            f"no column says what came of a choice: name one as reward, quality, latency_ms or"
            f" cost_usd; {there}"
        )
    return columns


def _expect_role(role: str, source: str) -> None:
    if role not in ROLES:
        near = difflib.get_close_matches(role, ROLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(ROLES)})"
        raise ValueError(f"{source}: unknown key {role!r}{hint}")


def _expected(role: str) -> str:
    if role == "labels":
        return "a list of columns' names"
    return "a column's name" + (" or a table of one for each arm" if role == "propensity" else "")

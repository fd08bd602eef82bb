"""What is wrong with a configuration, in words: file, line, key, value and what was expected.

Knows TOML's text and the schema's keys, and nothing of what they mean.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from policy.arms.arm import PriceChange, PriceTier
from policy.arms.endpoints import Endpoint
from policy.choosing.pacing import Budget
from policy.config.gate import GateConfig
from policy.config.plans import PlansConfig
from policy.config.schema import ObjectiveConfig, RulesConfig
from policy.config.sessions import SessionsConfig

Path = tuple[str | int, ...]


class ConfigError(ValueError):
    """What is wrong with a configuration: one line per fault, naming file, line, key and value."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Problems:
    """Reads a TOML text into `data`, collects what is wrong with it and says where each stands.

    ConfigError where it isn't TOML at all. A byte order mark is no part of the text.
    """

    def __init__(self, text: str, source: str) -> None:
        text = text.removeprefix("\ufeff")
        self.source = source
        self.data = _loaded(text, source)
        self._lines = lines(text)
        self._found: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """ConfigError, in the order of the lines, where there is any."""
        if self:
            raise ConfigError(list(dict.fromkeys(line for _, line in sorted(self._found))))

    def add(self, path: Path, what: str) -> None:
        known = (self._lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._lines)
        line = next(known, 1)
        self._found.append((line, f"{self.source}:{line}: {self._where(path)}: {what}"))

    def unknown_keys(self, known: Sequence[str]) -> None:
        """Of the whole text."""
        for key in self.data.keys() - set(known):
            self.add((key,), "unknown key" + did_you_mean(key, known))

    def add_all(self, path: Path, model: type[BaseModel], error: ValidationError) -> None:
        found = [
            (tuple(step for step in details["loc"] if step != "[key]"), details)
            for details in error.errors()
        ]
        misspelt = {
            (*inner[:-1], _closest(str(inner[-1]), _known_keys(model, inner)))
            for inner, details in found
            if details["type"] == "extra_forbidden"
        }
        for inner, details in found:
            # A list of one wrong item is no empty list, though nothing of it is left.
            emptied = details["type"] == "too_short" and any(
                len(other) > len(inner) and other[: len(inner)] == inner for other, _ in found
            )
            if not emptied and not (details["type"] == "missing" and inner in misspelt):
                self.add(path + inner, _what(details, _known_keys(model, inner)))

    def _where(self, path: Path) -> str:
        where = ""
        for depth, step in enumerate(path):
            if isinstance(step, str):
                where += f".{step if _BARE.fullmatch(step) else json.dumps(step)}"
            else:
                where += f"[{step + 1}]" + (self._arm_id(step) if path[:depth] == ("arms",) else "")
        return where.removeprefix(".")

    def _arm_id(self, position: int) -> str:
        arm = self.data["arms"][position]
        arm_id = arm.get("id") if isinstance(arm, dict) else None
        is_id = isinstance(arm_id, str) and re.fullmatch(r"[A-Za-z0-9._:/-]{1,128}", arm_id)
        return f" ({arm_id})" if is_id else ""


def _loaded(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = re.search(r"(.*) \(at line (\d+), column (\d+)\)", str(error))
        what, line = (found[1], int(found[2])) if found else (str(error), text.count("\n") + 1)
        raise ConfigError([f"{source}:{line}: not valid TOML: {what}"]) from None


def _what(error: ErrorDetails, known: Iterable[str]) -> str:
    """One pydantic error in our words, with the value it is about."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "unknown key" + did_you_mean(str(error["loc"][-1]), known)
    if kind == "value_error":
        return str(context["error"])
    if kind in _LIMITS:
        sign, name = _LIMITS[kind]
        expected = f"must be {sign} {context[name]:.15g}"
    elif kind == "literal_error":
        expected = f"must be one of {context['expected'].replace(' or ', ', ')}"
    elif kind == "string_pattern_mismatch":
        expected = f"must match {context['pattern']}"
    else:
        expected = _EXPECTED.get(kind, error["msg"])
    shown = json.dumps(error["input"], default=str, ensure_ascii=False)
    return f"{expected}, got {shown if len(shown) <= 80 else shown[:77] + '...'}"


_LIMITS = {
    "greater_than_equal": (">=", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("<=", "le"),
    "less_than": ("<", "lt"),
}
_EXPECTED = {
    "float_type": "must be a number",
    "finite_number": "must be finite",
    "int_type": "must be a whole number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
    "date_type": "must be a date such as 2026-01-31, without quotes",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


_NESTED: Mapping[str, type[BaseModel]] = {
    "objective": ObjectiveConfig,
    "rules": RulesConfig,
    "gate": GateConfig,
    "plans": PlansConfig,
    "sessions": SessionsConfig,
    "budget": Budget,
    "price_tiers": PriceTier,
    "price_changes": PriceChange,
    "endpoints": Endpoint,
}


def _known_keys(model: type[BaseModel], inner: Path) -> Iterable[str]:
    nested = _NESTED.get(str(inner[0]), model) if len(inner) > 1 else model
    return nested.model_fields


def _closest(key: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, known, n=1)), None)


def did_you_mean(key: str, known: Iterable[str], otherwise: str | None = None) -> str:
    if close := _closest(key, known):
        return f", did you mean {close!r}?"
    return f", known are {', '.join(known)}" if otherwise is None else otherwise


_BARE = re.compile(r"[\w-]+", re.ASCII)
_HEADER = re.compile(r"\s*\[(\[?)([^\[\]]+)\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w.-]|"[^"]*"|'[^']*')+)\s*=""")
_STEP = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def lines(text: str) -> dict[Path, int]:
    """On which line each table and key stands, by a scan: enough to point at, no second parser."""
    found: dict[Path, int] = {}
    table: Path = ()
    arm = -1
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.match(line):
            steps = _steps(header[2])
            if steps[:1] == ("arms",):
                arm += bool(header[1]) and len(steps) == 1
                table = ("arms", arm, *steps[1:])
            else:
                table = steps
            for n in range(1, len(table) + 1):
                found.setdefault(table[:n], number)
        elif key := _KEY.match(line):
            steps = _steps(key[1])
            for n in range(1, len(steps) + 1):
                found.setdefault((*table, *steps[:n]), number)
    return found


def _steps(dotted: str) -> tuple[str, ...]:
    return tuple(step.strip("\"'") for step in _STEP.findall(dotted))

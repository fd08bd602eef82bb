"""TOML text -> configuration, and back. Opens no file; each fault is one line."""

from __future__ import annotations

import datetime
import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from policy.arms.catalog import Arm, Catalog
from policy.config.schema import (
    CAPS,
    KEYS_OF,
    MAX_SHARE,
    NO_POSTERIOR,
    OF_THE_POLICY,
    PARAMETER_OF,
    Config,
    GateConfig,
    ObjectiveConfig,
    PolicyConfig,
    RulesConfig,
)
from policy.objective import COMPONENTS

Weight = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Seconds = Annotated[int, Field(strict=True, gt=0, le=10**9)]


MAX_VARIANTS = 200


class ConfigError(ValueError):
    """What is wrong with a configuration: one line per fault, naming file, line, key and value."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


def parse(text: str, source: str) -> Config:
    """Read a configuration; ConfigError names every fault. `source` is what to call the text."""
    data = _loaded(text, source)
    faults = _Faults(source, _lines(text), data)
    for key in data.keys() - {"arms", "policies"}:
        faults.add((key,), "unknown key" + _did_you_mean(key, ("arms", "policies")))
    arms = _arms(data.get("arms"), faults)
    policies = _policies(data.get("policies"), faults)
    challengers, shares = _challengers(data.get("policies"), policies, faults)
    _cross_check(arms, policies, challengers, data, faults)
    if faults.found:
        raise ConfigError([line for _, line in sorted(faults.found)])
    return Config(Catalog(tuple(arms.values())), policies, challengers, shares)


def variants(
    text: str, source: str, policy: PolicyConfig, arms: Catalog
) -> dict[str, PolicyConfig]:
    """Many configurations of one policy, by name, to be compared on a log.

    `[candidates.NAME]` tables hold the keys of `[policies.NAME]`, and `[grid]` a list of values for
    each of some keys, of which every combination is a candidate (a key that another one makes
    meaningless is left out of it). What isn't said is as `policy` has it. ConfigError names every
    fault.
    """
    data = _loaded(text, source)
    faults = _Faults(source, _lines(text), data)
    for key in data.keys() - {"candidates", "grid"}:
        faults.add((key,), "unknown key" + _did_you_mean(key, ("candidates", "grid")))
    found: dict[str, PolicyConfig] = {}
    for path, name, table in _tables_of_variants(data, policy, faults):
        try:
            found[name] = PolicyConfig.model_validate(_merged(policy, table))
        except ValidationError as error:
            faults.add_all(path, PolicyConfig, error)
            continue
        _arms_exist(path, found[name], found[name].arms or (), arms.ids, faults)
    if not (found or faults.found):
        faults.add((), "there must be at least one [candidates.NAME] table, or a [grid]")
    if faults.found:
        raise ConfigError(list(dict.fromkeys(line for _, line in sorted(faults.found))))
    return found


def to_toml(config: Config) -> str:
    """A text that `parse` reads back as the same configuration; defaults are left out."""
    blocks = [
        "[[arms]]\n" + _pairs(arm.model_dump(exclude_defaults=True)) for arm in config.arms.arms
    ]
    for name, policy in config.policies.items():
        settings = policy.model_dump(exclude_defaults=True)
        settings["objective"] = policy.objective.model_dump()
        blocks.append(f"[policies.{name}]\n" + _pairs(settings))
        if name in config.challengers:
            settings = _overrides(policy, config.challengers[name])
            settings |= {"share": config.shares[name]} if name in config.shares else {}
            blocks.append(f"[policies.{name}.challenger]\n" + _pairs(settings))
    return "\n".join(blocks)


Path = tuple[str | int, ...]


class _Faults:
    """Collects faults and says of each where it stands."""

    def __init__(self, source: str, lines: Mapping[Path, int], data: Mapping[str, Any]) -> None:
        self.source = source
        self.lines = lines
        self.data = data
        self.found: list[tuple[int, str]] = []

    def add(self, path: Path, what: str) -> None:
        known = (self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines)
        line = next(known, 1)
        self.found.append((line, f"{self.source}:{line}: {self._where(path)}: {what}"))

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
            if not (details["type"] == "missing" and inner in misspelt):
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


def _arms(tables: Any, faults: _Faults) -> dict[str, Arm]:
    if tables is None or tables == []:
        faults.add(("arms",), "there must be at least one [[arms]] table")
        return {}
    if not isinstance(tables, list):
        faults.add(("arms",), "must be an array of tables: write [[arms]] above each arm")
        return {}
    arms: dict[str, Arm] = {}
    position: dict[str, int] = {}
    for i, table in enumerate(tables):
        try:
            arm = Arm.model_validate(table)
        except ValidationError as error:
            faults.add_all(("arms", i), Arm, error)
            continue
        if arm.id in arms:
            faults.add(
                ("arms", i, "id"), f"must be unique, arms[{position[arm.id] + 1}] has it too"
            )
        arms[arm.id] = arm
        position[arm.id] = i
    return arms


def _policies(tables: Any, faults: _Faults) -> dict[str, PolicyConfig]:
    if not isinstance(tables, dict) or not tables:
        faults.add(("policies",), "there must be at least one [policies.NAME] table")
        return {}
    policies: dict[str, PolicyConfig] = {}
    for name, table in tables.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            faults.add(
                ("policies", name), "a policy's name is 1 to 64 letters, digits, _ and - only"
            )
            continue
        own = table
        if isinstance(table, dict):
            own = {key: value for key, value in table.items() if key != "challenger"}
        try:
            policies[name] = PolicyConfig.model_validate(own)
        except ValidationError as error:
            faults.add_all(("policies", name), PolicyConfig, error)
    return policies


class _Share(BaseModel):
    share: Annotated[float, Field(strict=True, ge=0, le=MAX_SHARE)] = 0.0


def _challengers(
    tables: Any, policies: Mapping[str, PolicyConfig], faults: _Faults
) -> tuple[dict[str, PolicyConfig], dict[str, float]]:
    """The challengers of sound policies, and the shares that they are given."""
    challengers: dict[str, PolicyConfig] = {}
    shares: dict[str, float] = {}
    for name, policy in policies.items():
        if "challenger" not in tables[name]:
            continue
        path, table = ("policies", name, "challenger"), tables[name]["challenger"]
        if not isinstance(table, dict):
            faults.add(path, f"must be a table: write [policies.{name}.challenger]")
            continue
        if "challenger" in table:
            faults.add((*path, "challenger"), "a challenger has none of its own")
        for key in table.keys() & set(OF_THE_POLICY):
            faults.add((*path, key), f"is the whole policy's: set it in [policies.{name}]")
        try:
            share = _Share.model_validate(table).share
        except ValidationError as error:
            faults.add_all(path, _Share, error)
            continue
        own = table.keys() - {"share", "challenger", *OF_THE_POLICY}
        overrides = {key: value for key, value in table.items() if key in own}
        try:
            challenger = PolicyConfig.model_validate({**_inherited(policy, overrides), **overrides})
        except ValidationError as error:
            faults.add_all(path, PolicyConfig, error)
            continue
        if share and "caller" in (policy.model, challenger.model):
            faults.add((*path, "share"), "must be 0: the draw of a caller's router can't be shared")
        if challenger.fingerprint("") == policy.fingerprint(""):
            faults.add(path, "is the same as its policy: give it a setting that differs")
        challengers[name] = challenger
        if share:
            shares[name] = share
    return challengers, shares


def _inherited(policy: PolicyConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a challenger with these overrides takes over from its policy.

    Another model takes over what is the whole policy's, another exploration rule all but the old
    rule's parameter; what remains unsaid is the default.
    """
    if overrides.get("model", policy.model) != policy.model:
        names = set(OF_THE_POLICY) - set(CAPS)
    else:
        names = set(PolicyConfig.model_fields)
        if overrides.get("exploration", policy.exploration) != policy.exploration:
            names.discard(PARAMETER_OF.get(policy.exploration, ""))
    return {name: getattr(policy, name) for name in names}


def _tables_of_variants(
    data: Mapping[str, Any], policy: PolicyConfig, faults: _Faults
) -> list[tuple[Path, str, dict[str, Any]]]:
    """Where each candidate stands, its name and its settings."""
    found: list[tuple[Path, str, dict[str, Any]]] = []
    candidates, grid = data.get("candidates", {}), data.get("grid", {})
    if not isinstance(candidates, dict):
        faults.add(("candidates",), "must be tables: write [candidates.NAME]")
        candidates = {}
    for name, table in candidates.items():
        if isinstance(table, dict):
            found.append((("candidates", name), name, table))
        else:
            faults.add(("candidates", name), f"must be a table: write [candidates.{name}]")
    if not isinstance(grid, dict):
        faults.add(("grid",), "must be a table: write [grid]")
        grid = {}
    sound = True
    for key, values in grid.items():
        if not (isinstance(values, list) and values):
            faults.add(("grid", key), "must be a list of values")
            sound = False
    if sound and math.prod(map(len, grid.values())) > MAX_VARIANTS:
        faults.add(("grid",), f"must not make more than {MAX_VARIANTS} candidates")
    elif sound and grid:
        for values in product(*grid.values()):
            settings = _meaningful(dict(zip(grid, values, strict=True)), policy)
            found.append((("grid",), _named(settings), settings))
    return found


def _meaningful(settings: dict[str, Any], policy: PolicyConfig) -> dict[str, Any]:
    """Without the keys that these settings' model or exploration rule doesn't read."""
    model = settings.get("model", policy.model)
    usual = policy.exploration
    if model != policy.model:
        usual = NO_POSTERIOR.get(model, {}).get("exploration", "thompson")
    exploration = settings.get("exploration", usual)
    of_models = {name for names in KEYS_OF.values() for name in names}
    unread = of_models - set(KEYS_OF.get(model, ()))
    unread |= {name for rule, name in PARAMETER_OF.items() if rule != exploration}
    return {key: value for key, value in settings.items() if key not in unread}


def _named(settings: Mapping[str, Any]) -> str:
    """`scale=0.2 model=linear`"""
    shown = {k: v if isinstance(v, str) else _value(v) for k, v in settings.items()}
    return " ".join(f"{key}={value}" for key, value in shown.items()) or "as it is"


def _merged(policy: PolicyConfig, table: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate's settings over its policy's; of the objective, too, it may say only a part.
    One weight given makes the others 0, as in a policy's own table."""
    overrides = dict(table)
    said = table.get("objective")
    if isinstance(said, dict):
        kept = policy.objective.model_dump()
        if said.keys() & set(COMPONENTS):
            kept = {key: value for key, value in kept.items() if key not in COMPONENTS}
        overrides["objective"] = kept | said
    return {**_inherited(policy, overrides), **overrides}


def _overrides(policy: PolicyConfig, challenger: PolicyConfig) -> dict[str, Any]:
    """The settings that make this challenger of its policy."""
    said: dict[str, Any] = {"model": challenger.model}
    if challenger.exploration != policy.exploration:
        said["exploration"] = challenger.exploration
    unsaid = PolicyConfig.model_construct(**_inherited(policy, said)).model_dump()
    settings = challenger.model_dump(exclude=set(OF_THE_POLICY))
    return said | {name: value for name, value in settings.items() if value != unsaid[name]}


def _cross_check(
    arms: Mapping[str, Arm],
    policies: Mapping[str, PolicyConfig],
    challengers: Mapping[str, PolicyConfig],
    data: Mapping[str, Any],
    faults: _Faults,
) -> None:
    """The arms that policies name must exist; one that is itself faulty counts as there."""
    tables = data["arms"] if isinstance(data.get("arms"), list) else []
    given = {str(t.get("id")) for t in tables if isinstance(t, dict)} | arms.keys()
    paths: list[tuple[Path, PolicyConfig]] = [
        *((("policies", name), policy) for name, policy in policies.items()),
        *((("policies", name, "challenger"), policy) for name, policy in challengers.items()),
    ]
    for path, policy in paths:
        inherited = policies[str(path[1])].arms if len(path) > 2 else None
        arms_of = () if policy.arms == inherited else policy.arms or ()
        _arms_exist(path, policy, arms_of, given, faults)


def _arms_exist(
    path: Path,
    policy: PolicyConfig,
    arms_of: Iterable[str],
    given: Iterable[str],
    faults: _Faults,
) -> None:
    for key, named in (("arm", (policy.arm,)), ("arms", arms_of)):
        for arm in named:
            if arm is not None and arm not in given:
                suggestion = _did_you_mean(arm, given, otherwise="")
                faults.add((*path, key), f"there is no arm {arm!r}{suggestion}")


def _what(error: ErrorDetails, known: Iterable[str]) -> str:
    """One pydantic error in our words, with the value it is about."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "unknown key" + _did_you_mean(str(error["loc"][-1]), known)
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
}


def _known_keys(model: type[BaseModel], inner: Path) -> Iterable[str]:
    nested = (
        _NESTED.get(str(inner[0]), model) if model is PolicyConfig and len(inner) > 1 else model
    )
    return nested.model_fields


def _closest(key: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, known, n=1)), None)


def _did_you_mean(key: str, known: Iterable[str], otherwise: str | None = None) -> str:
    if close := _closest(key, known):
        return f", did you mean {close!r}?"
    return f", known are {', '.join(known)}" if otherwise is None else otherwise


_BARE = re.compile(r"[\w-]+", re.ASCII)
_HEADER = re.compile(r"\s*\[(\[?)([^\[\]]+)\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w.-]|"[^"]*"|'[^']*')+)\s*=""")
_STEP = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def _lines(text: str) -> dict[Path, int]:
    """On which line each table and key stands, by a scan: enough to point at, no second parser."""
    lines: dict[Path, int] = {}
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
                lines.setdefault(table[:n], number)
        elif key := _KEY.match(line):
            steps = _steps(key[1])
            for n in range(1, len(steps) + 1):
                lines.setdefault((*table, *steps[:n]), number)
    return lines


def _steps(dotted: str) -> tuple[str, ...]:
    return tuple(step.strip("\"'") for step in _STEP.findall(dotted))


def _pairs(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return repr(value)

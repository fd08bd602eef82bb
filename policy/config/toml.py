"""TOML text -> configuration, and back. Opens no file; each fault is one line."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.arms.endpoints import Limits
from policy.config.problems import Path, Problems, did_you_mean
from policy.config.schema import (
    MAX_SHARE,
    OF_THE_POLICY,
    RULES,
    Config,
    PolicyConfig,
    inherited,
    usual,
)

A_CALL = (100, 100)  # tokens in and out, of a call that a budget must pay at least


def parse(text: str, source: str) -> Config:
    """Read a configuration; ConfigError names every fault. `source` is what to call the text.

    Arms alone suffice: then there is one policy, `default`, with the defaults.
    """
    problems = Problems(text, source)
    problems.unknown_keys(("arms", "policies", "providers"))
    arms = _arms(problems.data.get("arms"), problems)
    providers = _providers(problems.data.get("providers", {}), problems)
    tables = problems.data.get("policies", {})
    tables = {"default": {}} if tables == {} else tables
    policies = _policies(tables, problems)
    challengers, shares = _challengers(tables, policies, problems)
    _cross_check(arms, policies, challengers, problems)
    problems.check()
    return Config(Catalog(tuple(arms.values())), policies, challengers, shares, providers)


def to_toml(config: Config) -> str:
    """A text that `parse` reads back as the same configuration; defaults are left out."""
    blocks = [arm_to_toml(arm) for arm in config.arms.arms]
    for name, limits in config.providers.items():
        table = _pairs(limits.model_dump(exclude_none=True))
        blocks.append(f"[providers.{toml_value(name)}]\n{table}")
    for name, policy in config.policies.items():
        said = {"model": policy.model}
        settings = said | _unlike(policy, said) | {"objective": policy.objective.model_dump()}
        blocks.append(f"[policies.{name}]\n" + _pairs(settings))
        if name in config.challengers:
            settings = _overrides(policy, config.challengers[name])
            settings |= {"share": config.shares[name]} if name in config.shares else {}
            blocks.append(f"[policies.{name}.challenger]\n" + _pairs(settings))
    return "\n".join(blocks)


def arm_to_toml(arm: Arm) -> str:
    """The table of one arm; defaults are left out."""
    return "[[arms]]\n" + _pairs(arm.model_dump(exclude_defaults=True))


def _arms(tables: Any, problems: Problems) -> dict[str, Arm]:
    if tables is None or tables == []:
        problems.add(("arms",), "there must be at least one [[arms]] table")
        return {}
    if not isinstance(tables, list):
        problems.add(("arms",), "must be an array of tables: write [[arms]] above each arm")
        return {}
    arms: dict[str, Arm] = {}
    position: dict[str, int] = {}
    for i, table in enumerate(tables):
        try:
            arm = Arm.model_validate(table)
        except ValidationError as error:
            problems.add_all(("arms", i), Arm, error)
            continue
        if arm.id in arms:
            problems.add(
                ("arms", i, "id"), f"must be unique, arms[{position[arm.id] + 1}] has it too"
            )
        arms[arm.id] = arm
        position[arm.id] = i
    return arms


def _providers(tables: Any, problems: Problems) -> dict[str, Limits]:
    if not isinstance(tables, dict):
        problems.add(("providers",), "must be tables: write [providers.NAME] above each provider")
        return {}
    arms = problems.data.get("arms")
    arms = arms if isinstance(arms, list) else []
    named = {str(arm.get("provider")) for arm in arms if isinstance(arm, dict)}
    providers: dict[str, Limits] = {}
    for name, table in tables.items():
        if name not in named:
            suggestion = did_you_mean(name, named, otherwise="")
            problems.add(("providers", name), f"no arm is of provider {name!r}{suggestion}")
        try:
            providers[name] = Limits.model_validate(table)
        except ValidationError as error:
            problems.add_all(("providers", name), Limits, error)
    return providers


def _policies(tables: Any, problems: Problems) -> dict[str, PolicyConfig]:
    if not isinstance(tables, dict):
        problems.add(("policies",), "must be tables: write [policies.NAME] above each policy")
        return {}
    policies: dict[str, PolicyConfig] = {}
    for name, table in tables.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            problems.add(
                ("policies", name), "a policy's name is 1 to 64 letters, digits, _ and - only"
            )
            continue
        own = table
        if isinstance(table, dict):
            own = {key: value for key, value in table.items() if key != "challenger"}
        try:
            policies[name] = PolicyConfig.model_validate(own)
        except ValidationError as error:
            problems.add_all(("policies", name), PolicyConfig, error)
    return policies


class _Share(BaseModel):
    share: Annotated[float, Field(strict=True, ge=0, le=MAX_SHARE)] = 0.0


def _challengers(
    tables: Any, policies: Mapping[str, PolicyConfig], problems: Problems
) -> tuple[dict[str, PolicyConfig], dict[str, float]]:
    """The challengers of sound policies, and the shares that they are given."""
    challengers: dict[str, PolicyConfig] = {}
    shares: dict[str, float] = {}
    for name, policy in policies.items():
        if "challenger" not in tables[name]:
            continue
        path, table = ("policies", name, "challenger"), tables[name]["challenger"]
        if not isinstance(table, dict):
            problems.add(path, f"must be a table: write [policies.{name}.challenger]")
            continue
        if "challenger" in table:
            problems.add((*path, "challenger"), "a challenger has none of its own")
        misplaced = table.keys() & {"challenger", *OF_THE_POLICY}
        for key in misplaced - {"challenger"}:
            problems.add((*path, key), f"is the whole policy's: set it in [policies.{name}]")
        try:
            share = _Share.model_validate(table).share
        except ValidationError as error:
            problems.add_all(path, _Share, error)
            continue
        own = table.keys() - {"share"} - misplaced
        overrides = {key: value for key, value in table.items() if key in own}
        try:
            challenger = PolicyConfig.model_validate({**inherited(policy, overrides), **overrides})
        except ValidationError as error:
            problems.add_all(path, PolicyConfig, error)
            continue
        if share and "caller" in (policy.model, challenger.model):
            what = "must be 0: the draw of a caller's router can't be shared"
            problems.add((*path, "share"), what)
        if not misplaced and challenger.fingerprint("") == policy.fingerprint(""):
            problems.add(path, "is the same as its policy: give it a setting that differs")
        challengers[name] = challenger
        if share:
            shares[name] = share
    return challengers, shares


def _cross_check(
    arms: Mapping[str, Arm],
    policies: Mapping[str, PolicyConfig],
    challengers: Mapping[str, PolicyConfig],
    problems: Problems,
) -> None:
    """The arms that policies name must exist; one that is itself faulty counts as there."""
    tables = problems.data.get("arms")
    tables = tables if isinstance(tables, list) else []
    given = {str(t.get("id")) for t in tables if isinstance(t, dict)} | arms.keys()
    paths: list[tuple[Path, PolicyConfig]] = [
        *((("policies", name), policy) for name, policy in policies.items()),
        *((("policies", name, "challenger"), policy) for name, policy in challengers.items()),
    ]
    for name, policy in policies.items():
        _budget_pays(name, policy, arms, problems)
    for path, policy in paths:
        inherited = policies[str(path[1])].arms if len(path) > 2 else None
        arms_of = () if policy.arms == inherited else policy.arms or ()
        arms_exist(path, policy, arms_of, given, problems)


def _budget_pays(
    name: str, policy: PolicyConfig, arms: Mapping[str, Arm], problems: Problems
) -> None:
    """A budget that doesn't pay one call of the cheapest arm can't be meant."""
    some = [arm for arm in arms.values() if policy.arms is None or arm.id in policy.arms]
    if policy.budget is None or not some:
        return
    cheapest = min(some, key=lambda arm: arm.cost_usd(*A_CALL))
    if (least := cheapest.cost_usd(*A_CALL)) > policy.budget.usd:
        tokens = f"{A_CALL[0]} tokens in and {A_CALL[1]} out"
        what = f"pays no call: the cheapest arm, {cheapest.id!r}, costs {least:g} USD for {tokens}"
        problems.add(("policies", name, "budget", "usd"), f"{policy.budget.usd:g} {what}")


def arms_exist(
    path: Path,
    policy: PolicyConfig,
    arms_of: Iterable[str],
    given: Iterable[str],
    problems: Problems,
) -> None:
    for key, named in (
        ("arm", (policy.arm,)),
        ("incumbent", () if policy.incumbent == RULES else (policy.incumbent,)),
        ("arms", arms_of),
    ):
        for arm in named:
            if arm is not None and arm not in given:
                suggestion = did_you_mean(arm, given, otherwise="")
                problems.add((*path, key), f"there is no arm {arm!r}{suggestion}")


def _overrides(policy: PolicyConfig, challenger: PolicyConfig) -> dict[str, Any]:
    """The settings that make this challenger of its policy."""
    said: dict[str, Any] = {"model": challenger.model}
    if challenger.exploration != policy.exploration:
        said["exploration"] = challenger.exploration
    unlike = _unlike(challenger, inherited(policy, said) | said)
    return said | {name: value for name, value in unlike.items() if name not in OF_THE_POLICY}


def _unlike(policy: PolicyConfig, said: Mapping[str, Any]) -> dict[str, Any]:
    """What of a policy doesn't follow from these settings."""
    follows = PolicyConfig.model_construct(**usual(said)).model_dump()
    unlike = {n: value for n, value in policy.model_dump().items() if value != follows[n]}
    short = policy.model_dump(include=set(unlike), exclude_defaults=True)
    return unlike | short


def _pairs(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in table.items())


def toml_value(value: Any) -> str:
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return repr(value)

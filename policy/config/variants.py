"""Many configurations of one policy, from a TOML text, to be compared on a log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

from pydantic import ValidationError

from policy.arms.catalog import Catalog
from policy.config.problems import Path, Problems
from policy.config.schema import KEYS_OF, NO_POSTERIOR, PARAMETER_OF, PolicyConfig, inherited
from policy.config.toml import arms_exist, toml_value
from policy.objective import COMPONENTS

MAX_VARIANTS = 200


def variants(
    text: str, source: str, policy: PolicyConfig, arms: Catalog
) -> dict[str, PolicyConfig]:
    """Many configurations of one policy, by name, to be compared on a log.

    `[candidates.NAME]` tables hold the keys of `[policies.NAME]`, and `[grid]` a list of values for
    each of some keys, of which every combination is a candidate (a key that another one makes
    meaningless is left out of it). What isn't said is as `policy` has it. ConfigError names every
    fault.
    """
    problems = Problems(text, source)
    problems.unknown_keys(("candidates", "grid"))
    found: dict[str, PolicyConfig] = {}
    for path, name, table in _tables_of_variants(policy, problems):
        try:
            found[name] = PolicyConfig.model_validate(_merged(policy, table))
        except ValidationError as error:
            problems.add_all(path, PolicyConfig, error)
            continue
        arms_exist(path, found[name], found[name].arms or (), arms.ids, problems)
    if not (found or problems):
        problems.add((), "there must be at least one [candidates.NAME] table, or a [grid]")
    problems.check()
    return found


def _tables_of_variants(
    policy: PolicyConfig, problems: Problems
) -> list[tuple[Path, str, dict[str, Any]]]:
    """Where each candidate stands, its name and its settings."""
    found: list[tuple[Path, str, dict[str, Any]]] = []
    candidates, grid = (problems.data.get(key, {}) for key in ("candidates", "grid"))
    if not isinstance(candidates, dict):
        problems.add(("candidates",), "must be tables: write [candidates.NAME]")
        candidates = {}
    for name, table in candidates.items():
        if isinstance(table, dict):
            found.append((("candidates", name), name, table))
        else:
            problems.add(("candidates", name), f"must be a table: write [candidates.{name}]")
    if not isinstance(grid, dict):
        problems.add(("grid",), "must be a table: write [grid]")
        grid = {}
    sound = True
    for key, values in grid.items():
        if not (isinstance(values, list) and values):
            problems.add(("grid", key), "must be a list of values")
            sound = False
    if sound and math.prod(map(len, grid.values())) > MAX_VARIANTS:
        problems.add(("grid",), f"must not make more than {MAX_VARIANTS} candidates")
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
    shown = {k: v if isinstance(v, str) else toml_value(v) for k, v in settings.items()}
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
    return {**inherited(policy, overrides), **overrides}

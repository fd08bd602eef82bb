"""What a key may be good for, and which scope each path needs: the one place that says so.

A path that isn't listed here doesn't exist, whatever the application routes: see `scope_of`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, get_args

Scope = Literal["route", "reward", "correct", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

OF_PATHS: Mapping[str, Scope | None] = {
    "/route": "route",
    "/route/batch": "route",
    "/decisions": "route",  # those who decide for themselves log here
    "/policies/{name}/state": "route",  # what they decide with
    "/reward": "reward",
    "/reward/batch": "reward",
    "/correction": "correct",
    "/correction/batch": "correct",
    "/": "read",
    "/arms": "read",
    "/decisions/{decision_id}": "read",
    "/docs": "read",
    "/docs/{name}": "read",
    "/metrics": "read",
    "/openapi.json": "read",
    "/policies": "read",
    "/policies/{name}": "read",
    "/policies/{name}/frontier": "read",
    "/keys": "admin",
    "/healthz": None,
    "/readyz": None,
}

_PATTERNS: list[tuple[re.Pattern[str], Scope | None]] = [
    (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), scope)
    for path, scope in OF_PATHS.items()
    if "{" in path
]


class NoSuchPath(LookupError):
    """No path of this name is served."""


def scope_of(path: str) -> Scope | None:
    """The scope that a path needs, None where anybody may ask.

    Raises
    ------
    NoSuchPath
        If the table doesn't list it.

    >>> scope_of("/policies/default"), scope_of("/healthz")
    ('read', None)
    """
    try:
        return OF_PATHS[path]
    except KeyError:
        for pattern, scope in _PATTERNS:
            if pattern.fullmatch(path):
                return scope
    raise NoSuchPath(f"there is no {path[:200]}: /docs names the paths")

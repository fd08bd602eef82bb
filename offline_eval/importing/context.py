"""What another service knew of a request, as the context that our encoder makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import orjson

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query
from policy.records import Context

MAX_LABELS = 32  # what hints may have


def encode(
    encoder: Encoder, text: str | None, labels: Mapping[str, str], task_type: str | None = None
) -> Context:
    """The context of a query with this text and these hints."""
    query = Query(text=text) if text else None
    hints = Hints(labels=dict(labels), task_type=task_type)
    return encoder.encode(query, hints, profile(query, hints))


def labels(context: Mapping[str, Any]) -> dict[str, str]:
    """Features as hint labels: dotted path -> value, the first 32 in their order.

    As in VW, what begins with `_` is no feature, nor is null, and a list of objects is transparent.

    >>> labels({"User": [{"weather": "Sunny", "age": 30}], "_synthetic": False, "vip": True})
    {'User.weather': 'Sunny', 'User.age': '30', 'vip': 'true'}
    """
    found: dict[str, str] = {}
    for path, value in _scalars(context, ()):
        if len(found) == MAX_LABELS:
            break
        found.setdefault(".".join(path), value)
    return found


def _scalars(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not key.startswith("_"):
                yield from _scalars(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            named = isinstance(inner, Mapping)
            yield from _scalars(inner, path if named else (*path, str(i)))
    elif value is not None:
        yield path, plain(value)


def plain(value: Any) -> str:
    """As text: what is none, as JSON has it."""
    if isinstance(value, bool | float | None):
        return orjson.dumps(value).decode()
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return value.isoformat() if isinstance(value, date) else str(value)

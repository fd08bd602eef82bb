"""What a caller hands over, as JSON. Callers have numpy numbers, sets and SDK objects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Set
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from pydantic import BaseModel

from pointsman_client.errors import NotSent, PointsmanError


def encode(body: Mapping[str, Any]) -> bytes:
    """The body as JSON; half of a surrogate pair, which no encoding has, becomes a "?".

    Raises
    ------
    NotSent
        Where a value is none that JSON has: NaN, infinity, bytes, any other object.
    """
    try:
        text = json.dumps(_plain(body, ""), ensure_ascii=False, separators=(",", ":"))
    except PointsmanError:
        raise
    except Exception as error:  # without an end, a number of 5,000 digits, a key that is a tuple
        raise NotSent(None, "Not sent", f"{type(error).__name__} {error}") from error
    return text.encode("utf-8", "replace")


@runtime_checkable
class _Array(Protocol):
    def tolist(self) -> Any: ...


# The first that fits. An integer is a real number, too.
CONVERSIONS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Integral, int),
    ((Real, Decimal), float),
    (UUID, str),
    (BaseModel, lambda message: message.model_dump(exclude_none=True)),  # as an SDK gives it
    (Mapping, dict),
    ((tuple, Set), list),
    (_Array, lambda array: array.tolist()),  # numpy's booleans are arrays here
)


def _plain(value: Any, at: str) -> Any:
    """The value in the types that `json` knows; `at` is the way to it."""
    if isinstance(value, dict):
        return {_plain(k, at): _plain(v, f"{at}.{k}" if at else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{at}.{i}") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise NotSent(None, "Not sent", f"{at}: expected a finite number, got {value}")
    if value is None or isinstance(value, (str, int, float)):
        return value
    for kind, convert in CONVERSIONS:
        if isinstance(value, kind):
            return _plain(convert(value), at)
    raise NotSent(None, "Not sent", f"{at}: expected what JSON has, got {type(value).__name__}")

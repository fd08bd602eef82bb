"""What callers hold in their hands goes out as JSON."""

from __future__ import annotations

import json
from collections import OrderedDict
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from pydantic import BaseModel

from pointsman_client import PointsmanError
from pointsman_client.encoding import encode


class Message(BaseModel):
    role: str
    content: str
    refusal: Any = None


class Task(str, Enum):
    CODE = "code"


class Count(IntEnum):
    TWO = 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.25), 0.25),
        (np.float32(0.25), 0.25),
        (np.float16(0.25), 0.25),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.array(0.5), 0.5),
        (np.array([1, 2], np.int32), [1, 2]),
        (np.str_("code"), "code"),
        (Decimal("0.002"), 0.002),
        (Fraction(1, 4), 0.25),
        (10**30, 10**30),
        (Task.CODE, "code"),
        (Count.TWO, 2),
        (("a", "b"), ["a", "b"]),
        ({"tools"}, ["tools"]),
        ({"small": 1}.keys(), ["small"]),
        (MappingProxyType({"small": np.float32(0.5)}), {"small": 0.5}),
        (OrderedDict(small=None), {"small": None}),
        ({np.int64(1): 1}, {"1": 1}),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([Message(role="user", content="hi")], [{"role": "user", "content": "hi"}]),
        ("naïve 数 😀", "naïve 数 😀"),
        ("half \ud83d of one", "half ? of one"),
    ],
    ids=repr,
)
def test_what_has_a_meaning_in_json_is_sent_as_that(value: Any, expected: Any):
    """numpy's numbers are numbers, a set is a list, text is UTF-8."""
    assert json.loads(encode({"value": value})) == {"value": expected}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "value: expected a finite number, got nan"),
        (np.float32("nan"), "value: expected a finite number, got nan"),
        (np.array([0.5, np.inf]), "value.1: expected a finite number, got inf"),
        (Decimal("NaN"), "value: expected a finite number, got nan"),
        ({"small": -np.inf}, "value.small: expected a finite number, got -inf"),
        (1j, "value: expected what JSON has, got complex"),
        (b"text", "value: expected what JSON has, got bytes"),
        ([{"at": np.datetime64("2026-01-01")}], "value.0.at: expected what JSON has, got date"),
        pytest.param(
            iter(["text"]), "value: expected what JSON has, got list_iterator", id="iterator"
        ),
        ({("a", "b"): 1}, "TypeError"),
        (10**5_000, "ValueError"),
        (Fraction(10**400), "OverflowError"),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, int) else "long",
)
def test_what_has_none_is_an_error_that_says_where(value: Any, message: str):
    """Nothing is guessed, and nothing but a PointsmanError leaves."""
    with pytest.raises(PointsmanError, match=f"Not sent: {message}"):
        encode({"value": value})


def test_a_value_within_itself_has_no_end():
    """Nor has JSON a way to write it."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PointsmanError, match="Not sent: RecursionError"):
        encode({"value": endless})

"""Where an arm is called, and how much of it may be used. Pure data, and the choice among several.

Who counts what is under way, and who knows what is out, hands both in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from zlib import crc32

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Url = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Count = Annotated[int, Field(strict=True, gt=0, le=10**12)]


class Limits(BaseModel):
    """How much of an endpoint, an arm or a provider may be used; None is no limit.

    A minute is any 60 s, a day is a UTC day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_concurrency: Count | None = None
    """Requests that are under way at once."""
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    """Of prompt and answer together."""
    requests_per_day: Count | None = None
    tokens_per_day: Count | None = None
    credits_usd: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    """All that may ever be spent: raise it when credit is bought."""

    @property
    def limited(self) -> bool:
        return any(getattr(self, name) is not None for name in Limits.model_fields)


class Endpoint(Limits):
    """One instance that serves an arm: its URL or name."""

    url: Url
    weight: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    """How much it takes beside the others: an instance of weight 2 twice as much."""
    api_key_env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = (
        None
    )
    """The environment variable that holds its key, where it has one of its own."""


def spread(decision_id: str) -> float:
    """A number in [0, 1) that chooses among equals, of its own: the arm's draw has another one."""
    return crc32(decision_id.encode()) / 2**32


def least_outstanding(weights: Sequence[float], outstanding: Sequence[float], u: float) -> int:
    """The position with the fewest requests under way by weight; u in [0, 1) chooses among equals,
    by weight.

    >>> least_outstanding([1.0, 1.0, 2.0], [1, 1, 1], u=0.9)
    2
    >>> [least_outstanding([1.0, 3.0], [0, 0], u) for u in (0.0, 0.24, 0.26, 0.99)]
    [0, 0, 1, 1]
    """
    load = [n / weight for n, weight in zip(outstanding, weights, strict=True)]
    least = min(load)
    tied = [i for i, one in enumerate(load) if one == least]
    left = u * sum(weights[i] for i in tied)
    for i in tied:
        left -= weights[i]
        if left < 0.0:
            return i
    return tied[-1]

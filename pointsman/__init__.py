"""The public face of Pointsman: route a query to a model arm, and report how it went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pointsman_client

if TYPE_CHECKING:
    from pointsman_client import (
        AsyncClient,
        Call,
        Client,
        Correction,
        Decision,
        PointsmanError,
        Receipt,
    )

__all__ = [
    "AsyncClient",
    "Call",
    "Client",
    "Correction",
    "Decision",
    "PointsmanError",
    "Receipt",
]


def __getattr__(name: str) -> Any:
    """What `pointsman_client` has, when asked for: commands and serving start without httpx."""
    if name in __all__:
        return getattr(pointsman_client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

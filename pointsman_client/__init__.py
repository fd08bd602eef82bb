"""Clients of the Pointsman service. Light: httpx and pydantic; it knows no policy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pointsman_client.answers import Alternative, Correction, Decision, Predicted, Receipt
from pointsman_client.errors import Forbidden, PointsmanError, RateLimited, Unauthorized

if TYPE_CHECKING:
    from pointsman_client.async_client import AsyncClient
    from pointsman_client.call import Call
    from pointsman_client.client import Client

__all__ = [
    "Alternative",
    "AsyncClient",
    "Call",
    "Client",
    "Correction",
    "Decision",
    "Forbidden",
    "PointsmanError",
    "Predicted",
    "RateLimited",
    "Receipt",
    "Unauthorized",
]


def __getattr__(name: str) -> Any:
    """Load httpx with the first client: the service, which shares the answers, doesn't need it."""
    homes = {"AsyncClient": "async_client", "Call": "call", "Client": "client"}
    if name in homes:
        return getattr(import_module(f"{__name__}.{homes[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

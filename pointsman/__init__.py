"""The public face of Pointsman: route a query to a model arm, and report how it went."""

from pointsman.client import (
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
